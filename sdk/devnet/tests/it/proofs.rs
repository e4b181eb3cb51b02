//! `eth_getProof`, checked against the roots in the blocks.

use alloy::eips::BlockId;
use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::providers::Provider;
use alloy::rpc::types::EIP1186AccountProofResponse;
use alloy_trie::proof::verify_proof;
use alloy_trie::{Nibbles, TrieAccount};

use crate::{STORE, World, deploy, message, send, store};

/// Checks a proof against a root, as a client does that trusts nothing else.
pub fn check(root: B256, proof: &EIP1186AccountProofResponse) {
    let account = TrieAccount {
        nonce: proof.nonce,
        balance: proof.balance,
        storage_root: proof.storage_hash,
        code_hash: proof.code_hash,
    };
    let value = (account != TrieAccount::default()).then(|| alloy::rlp::encode(account));
    let key = Nibbles::unpack(keccak256(proof.address));
    verify_proof(root, key, value, &proof.account_proof).unwrap();
    for slot in &proof.storage_proof {
        let key = Nibbles::unpack(keccak256(slot.key.as_b256()));
        let value = (!slot.value.is_zero()).then(|| alloy::rlp::encode(slot.value));
        verify_proof(proof.storage_hash, key, value, &slot.proof).unwrap();
    }
}

#[tokio::test]
async fn every_block_proves_its_accounts_and_slots() {
    let world = World::start().await;
    let provider = world.http();
    let contract = deploy(&provider, &STORE).await;
    for value in [7, 0, 8] {
        send(&provider, store(contract, value)).await;
    }
    let keys = vec![B256::ZERO, B256::with_last_byte(1)];
    for (number, value) in (0..=4).zip([0, 0, 7, 0, 8]) {
        let block = provider.get_block_by_number(number.into()).await.unwrap().unwrap();
        for id in [BlockId::number(number), BlockId::hash(block.header.hash)] {
            for address in [contract, world.address(), Address::repeat_byte(0x99)] {
                let proof = provider.get_proof(address, keys.clone()).block_id(id).await.unwrap();
                check(block.header.state_root, &proof);
                let balance = provider.get_balance(address).block_id(id).await.unwrap();
                assert_eq!((proof.address, proof.balance), (address, balance));
            }
            let proof = provider.get_proof(contract, keys.clone()).block_id(id).await.unwrap();
            assert_eq!(proof.storage_proof[0].value, U256::from(value));
            assert_eq!(proof.storage_proof[0].key.as_b256(), B256::ZERO);
        }
    }
    world.devnet.stop().await;
}

#[tokio::test]
async fn a_sealed_block_keeps_its_state_when_something_is_set_by_hand() {
    let world = World::start().await;
    let provider = world.http();
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    let rich = Address::repeat_byte(0x51);
    let five = U256::from(5);
    let () = provider.raw_request("anvil_setBalance".into(), (rich, five)).await.unwrap();
    let sealed = provider.get_block_by_number(1.into()).await.unwrap().unwrap();
    let proof = provider.get_proof(rich, vec![]).number(1).await.unwrap();
    check(sealed.header.state_root, &proof);
    assert_eq!(proof.balance, U256::ZERO);
    assert_eq!(provider.get_proof(rich, vec![]).await.unwrap().balance, five);
    let () = provider.raw_request("anvil_mine".into(), (1,)).await.unwrap();
    let head = provider.get_block(BlockId::latest()).await.unwrap().unwrap();
    let proof = provider.get_proof(rich, vec![]).await.unwrap();
    check(head.header.state_root, &proof);
    assert_eq!(proof.balance, five);
    world.devnet.stop().await;
}

#[tokio::test]
async fn proofs_are_bounded_and_not_invented() {
    let world = World::start().await;
    let provider = world.http();
    let many = vec![B256::ZERO; 1025];
    let (code, _) = message(provider.get_proof(world.address(), many).await);
    assert_eq!(code, -32602);
    let unknown = provider.get_proof(world.address(), vec![]).number(9).await;
    assert_eq!(message(unknown), (-32000, "header not found".to_owned()));
    let () = provider.raw_request("anvil_mine".into(), (4100,)).await.unwrap();
    let (code, text) = message(provider.get_proof(world.address(), vec![]).number(3).await);
    assert_eq!(code, -32000);
    assert!(text.contains("the oldest block with state is 4"), "{text}");
    world.devnet.stop().await;
}
