//! Balances, code, storage and their proofs; calls and estimates.

use std::collections::BTreeMap;

use alloy::eips::{BlockId, BlockNumberOrTag};
use alloy::primitives::{Address, B256, Bytes, U64, U256};
use alloy::rpc::types::state::StateOverride;
use alloy::rpc::types::{EIP1186AccountProofResponse, EIP1186StorageProof, TransactionRequest};
use alloy::serde::JsonStorageKey;
use assay_evm::{CallAt, State, StateError, StateView};
use serde::Serialize;

use super::{Answer, Context, Maybe, Module, Must, by_id, heavy, quantity};
use crate::error::{DevnetError, RpcError};
use crate::node::Inner;

/// Slots that one `eth_getProof` covers at most: geth's limit.
const MAX_PROOF_SLOTS: usize = 1024;

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    heavy(module, "eth_getBalance", balance)?;
    heavy(module, "eth_getCode", code)?;
    heavy(module, "eth_getStorageAt", storage)?;
    heavy(module, "eth_getTransactionCount", transaction_count)?;
    heavy(module, "eth_getProof", proof)?;
    heavy(module, "eth_call", call)?;
    heavy(module, "debug_dumpBlock", dump)?;
    heavy(module, "eth_estimateGas", estimate)?;
    Ok(())
}

/// What an id asks for: the state now, or that after a block.
fn at(inner: &Inner, id: BlockId) -> Answer<CallAt> {
    match id {
        BlockId::Number(BlockNumberOrTag::Number(_) | BlockNumberOrTag::Earliest)
        | BlockId::Hash(_) => {
            let block = by_id(&inner.chain, id).ok_or(StateError::UnknownBlock)?;
            Ok(CallAt::Block(block.number()))
        }
        BlockId::Number(_) => Ok(CallAt::Head),
    }
}

/// The state that an id means; without one, that of now.
fn view(inner: &Inner, id: Option<BlockId>) -> Answer<StateView<'_>> {
    match at(inner, id.unwrap_or_default())? {
        CallAt::Block(number) => Ok(inner.chain.state_at(number)?),
        CallAt::Head | CallAt::Pending(_) => Ok(inner.chain.state()),
    }
}

fn balance(
    node: &Context,
    (Must(address), Maybe(id)): (Must<Address>, Maybe<BlockId>),
) -> Answer<U256> {
    Ok(view(&node.read(), id)?.balance(&address))
}

fn code(
    node: &Context,
    (Must(address), Maybe(id)): (Must<Address>, Maybe<BlockId>),
) -> Answer<Bytes> {
    Ok(view(&node.read(), id)?.code(&address))
}

fn storage(
    node: &Context,
    (Must(address), Must(slot), Maybe(id)): (Must<Address>, Must<U256>, Maybe<BlockId>),
) -> Answer<B256> {
    Ok(view(&node.read(), id)?.storage_at(&address, &slot).into())
}

fn proof(
    node: &Context,
    (Must(address), Must(keys), Maybe(id)): (
        Must<Address>,
        Must<Vec<JsonStorageKey>>,
        Maybe<BlockId>,
    ),
) -> Answer<EIP1186AccountProofResponse> {
    if keys.len() > MAX_PROOF_SLOTS {
        return Err(RpcError::params(format!("too many slots: at most {MAX_PROOF_SLOTS}")));
    }
    let slots: Vec<U256> = keys.iter().map(|key| key.as_b256().into()).collect();
    let proof = view(&node.read(), id)?.prove(&address, &slots);
    let storage_proof = keys
        .into_iter()
        .zip(proof.slots)
        .map(|(key, (value, proof))| EIP1186StorageProof { key, value, proof })
        .collect();
    Ok(EIP1186AccountProofResponse {
        address,
        balance: proof.basic.balance,
        code_hash: proof.basic.code_hash,
        nonce: proof.basic.nonce,
        storage_hash: proof.storage_root,
        account_proof: proof.nodes,
        storage_proof,
    })
}

/// Everything that an account has, as geth dumps it; the address is not known, only its hash.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct DumpedAccount {
    balance: String,
    nonce: u64,
    code_hash: B256,
    code: Bytes,
    storage: BTreeMap<B256, U256>,
    key: B256,
}

#[derive(Debug, Clone, Serialize)]
struct Dump {
    root: B256,
    accounts: BTreeMap<String, DumpedAccount>,
}

/// The whole state after the genesis block: what a replay of the chain begins with. Any other state is asked for
/// account by account.
fn dump(node: &Context, (Must(id),): (Must<BlockId>,)) -> Answer<Dump> {
    let inner = node.read();
    let number = by_id(&inner.chain, id).ok_or(StateError::UnknownBlock)?.number();
    if number != 0 {
        return Err(RpcError::params("only the state of block 0 can be dumped".to_owned()));
    }
    let genesis = inner.chain.genesis_state();
    let accounts = genesis.changes_since(&State::default()).into_iter().filter_map(|account| {
        let basic = account.basic?;
        let dumped = DumpedAccount {
            balance: basic.balance.to_string(),
            nonce: basic.nonce,
            code_hash: basic.code_hash,
            code: account.code,
            storage: account.slots.into_iter().collect(),
            key: account.key,
        };
        Some((format!("pre({})", account.key), dumped))
    });
    Ok(Dump { root: genesis.root(), accounts: accounts.collect() })
}

fn transaction_count(
    node: &Context,
    (Must(address), Maybe(id)): (Must<Address>, Maybe<BlockId>),
) -> Answer<U64> {
    let inner = node.read();
    let nonce = view(&inner, id)?.nonce(&address);
    if id == Some(BlockId::Number(BlockNumberOrTag::Pending)) {
        return Ok(quantity(inner.pool.pending_nonce(&address, nonce)));
    }
    Ok(quantity(nonce))
}

/// In which block a call runs: for `pending`, in the one that comes next.
fn place(node: &Context, inner: &Inner, id: BlockId) -> Answer<CallAt> {
    if id == BlockId::Number(BlockNumberOrTag::Pending) {
        return Ok(CallAt::Pending(node.block_time(inner)));
    }
    at(inner, id)
}

fn call(
    node: &Context,
    (Must(request), Maybe(id), Maybe(overrides)): (
        Must<TransactionRequest>,
        Maybe<BlockId>,
        Maybe<StateOverride>,
    ),
) -> Answer<Bytes> {
    let inner = node.read();
    let at = place(node, &inner, id.unwrap_or_default())?;
    Ok(inner.chain.call(&request, at, overrides)?)
}

/// Without a block, the estimate is for the next block: that is where the transaction will run.
fn estimate(
    node: &Context,
    (Must(request), Maybe(id), Maybe(overrides)): (
        Must<TransactionRequest>,
        Maybe<BlockId>,
        Maybe<StateOverride>,
    ),
) -> Answer<U64> {
    let inner = node.read();
    let at = place(node, &inner, id.unwrap_or(BlockId::pending()))?;
    Ok(quantity(inner.chain.estimate_gas(&request, at, overrides)?))
}
