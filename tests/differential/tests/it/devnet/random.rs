//! Random transactions and calls.
//!
//! `ASSAY_DIFFERENTIAL_TRANSACTIONS=5000 cargo test -p assay-differential devnet::random` for more than
//! the default, `ASSAY_DIFFERENTIAL_SEED` for others.

use std::collections::{BTreeMap, BTreeSet};

use alloy::consensus::TrieAccount;
use alloy::eips::eip2718::Encodable2718;
use alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy::eips::eip7702::Authorization;
use alloy::network::{EthereumWallet, NetworkTransactionBuilder, TransactionBuilder};
use alloy::primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy::rpc::types::{AccessList, AccessListItem, TransactionRequest};
use alloy::signers::SignerSync;
use alloy_trie::root::{state_root_unhashed, storage_root_unhashed};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::differences::{self, agree};
use super::errors;
use super::pair::{ACCOUNTS, Pair, SIGNERS, START_S, signer};
use super::programs::{SLOTS, Writer};

/// Transactions of a run that says nothing else.
const TRANSACTIONS: u64 = 300;
/// Any other number gives other transactions.
const SEED: u64 = 3;
/// Transactions of one block at most.
const MAX_PER_BLOCK: u8 = 5;
/// Blocks from one comparison of the whole state to the next.
const BLOCKS_PER_ROOT: u64 = 16;
/// Contracts that programs and transactions know at most: the newest.
const MAX_CONTRACTS: usize = 24;
/// Precompiled contracts of Prague.
const PRECOMPILES: u64 = 0x11;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

struct Run {
    pair: Pair,
    random: ChaCha8Rng,
    nonces: Vec<u64>,
    contracts: Vec<Address>,
    number: u64,
    /// Hashes of the blocks before the head of the embedded chain, and the root of its state.
    hashes: Vec<U256>,
    root: B256,
    /// Everyone who may have changed since the state was compared.
    touched: BTreeSet<Address>,
    seen: BTreeSet<&'static str>,
    counts: Counts,
}

/// What the transactions of a run came to: a run in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Counts {
    transactions: u64,
    succeeded: u64,
    created: u64,
    logs: usize,
    slots: usize,
    roots: u64,
    calls_answered: u64,
    calls_refused: u64,
}

impl Run {
    async fn start() -> Self {
        Self {
            pair: Pair::start().await,
            random: ChaCha8Rng::seed_from_u64(from_env("ASSAY_DIFFERENTIAL_SEED", SEED)),
            nonces: vec![0; SIGNERS.into()],
            contracts: Vec::new(),
            number: 0,
            hashes: Vec::new(),
            root: B256::ZERO,
            touched: BTreeSet::new(),
            seen: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Whom programs and transactions can name.
    fn known(&self) -> Vec<Address> {
        let numbered = (1..=PRECOMPILES).chain([0x1234]);
        let numbered = numbered.map(|n| Address::from_word(B256::from(U256::from(n))));
        let signers = (0..SIGNERS).map(|index| signer(index).address());
        // Contracts most of all.
        let contracts = self.contracts.iter().copied().cycle().take(3 * self.contracts.len());
        numbered.chain(signers).chain(contracts).collect()
    }

    fn input(&mut self) -> Bytes {
        let words = self.random.random_range(0..4);
        let mut input = Vec::new();
        for _ in 0..words {
            let word = U256::from_be_bytes(self.random.random::<[u8; 32]>());
            let word: U256 = word >> *[0, 128, 250, 256].choose(&mut self.random).unwrap();
            input.extend(word.to_be_bytes::<32>());
        }
        input.truncate(input.len() - self.random.random_range(0..=input.len().min(31)));
        input.into()
    }

    /// A transaction that is valid, whatever it then does; and who sends it.
    fn transaction(&mut self, base_fee: u128, tip: u128) -> (u8, TransactionRequest) {
        let sender = self.random.random_range(0..SIGNERS);
        let known = self.known();
        let to = *known.choose(&mut self.random).unwrap();
        let contract = self.contracts.choose(&mut self.random).copied().unwrap_or(to);
        let (kind, input) = match self.random.random_range(0..10) {
            0..=2 => {
                let init = Writer::new(&mut self.random, &known).init();
                (TxKind::Create, init.into())
            }
            3..=8 => (TxKind::Call(contract), self.input()),
            _ => (TxKind::Call(to), Bytes::new()),
        };
        let most = *[60_000, 300_000, 2_000_000].choose(&mut self.random).unwrap();
        // Enough for the bytes, at the price that EIP-7623 sets for them, and then anything.
        let floor = 21_000 + 32_000 + 40 * input.len() as u64 + 200 * (input.len() as u64 / 32 + 1);
        let request = TransactionRequest::default()
            .with_kind(kind)
            .with_input(input)
            .with_nonce(self.nonces[usize::from(sender)])
            .with_chain_id(31337)
            .with_value(U256::from(self.random.random_range(0..3_u8)))
            .with_gas_limit(floor + self.random.random_range(0..most));
        (sender, self.of_some_type(request, base_fee, tip))
    }

    /// Makes it a legacy, an EIP-2930, an EIP-1559 or an EIP-7702 transaction that tips so much.
    fn of_some_type(
        &mut self,
        request: TransactionRequest,
        base_fee: u128,
        tip: u128,
    ) -> TransactionRequest {
        let dynamic = request
            .clone()
            .with_max_fee_per_gas(2 * base_fee + tip)
            .with_max_priority_fee_per_gas(tip);
        match self.random.random_range(0..6) {
            0 => request.with_gas_price(base_fee + tip),
            1 => {
                let address = *self.known().choose(&mut self.random).unwrap();
                let storage_keys = vec![B256::with_last_byte(1), B256::with_last_byte(2)];
                let list = AccessList(vec![AccessListItem { address, storage_keys }]);
                let gas = request.gas.unwrap_or_default() + 10_000;
                let request = if self.random.random() {
                    request.with_gas_price(base_fee + tip)
                } else {
                    dynamic
                };
                request.with_gas_limit(gas).with_access_list(list)
            }
            2 if request.to.is_some_and(|to| to.is_call()) => {
                let gas = dynamic.gas.unwrap_or_default() + 60_000;
                let mut dynamic = dynamic.with_gas_limit(gas);
                dynamic.authorization_list = Some(self.authorizations());
                dynamic
            }
            _ => dynamic,
        }
    }

    /// Accounts that send nothing borrow that of contracts; some of these are not valid.
    fn authorizations(&mut self) -> Vec<alloy::eips::eip7702::SignedAuthorization> {
        let delegate = |run: &mut Self| {
            let index = run.random.random_range(SIGNERS..ACCOUNTS);
            let address = run.known().choose(&mut run.random).copied().unwrap();
            let authorization = Authorization {
                chain_id: U256::from(*[0, 31337, 1].choose(&mut run.random).unwrap()),
                address,
                nonce: run.random.random_range(0..3),
            };
            let signature = signer(index).sign_hash_sync(&authorization.signature_hash()).unwrap();
            authorization.into_signed(signature)
        };
        (0..self.random.random_range(1..3)).map(|_| delegate(self)).collect()
    }

    /// Sends some transactions, mines them, and compares all that there is to see.
    async fn block(&mut self, most: u64) {
        let history =
            self.pair.same("eth_feeHistory", json!(["0x4", "latest", [10.0, 50.0, 90.0]])).await;
        let fees = history["baseFeePerGas"].as_array().unwrap();
        let base_fee: u128 =
            serde_json::from_value::<U256>(fees.last().unwrap().clone()).unwrap().to();
        let tip = self.random.random_range(0..3_000_000_000_u128);
        let count = u64::from(self.random.random_range(1..=MAX_PER_BLOCK)).min(most);
        for _ in 0..count {
            let (sender, request) = self.transaction(base_fee, tip);
            let wallet = EthereumWallet::from(signer(sender));
            let raw = request.clone().build(&wallet).await.unwrap().encoded_2718();
            let sent = self.pair.same("eth_sendRawTransaction", json!([Bytes::from(raw.clone())]));
            assert_eq!(sent.await, json!(keccak256(&raw)));
            let nonce = &mut self.nonces[usize::from(sender)];
            if request.to.is_some_and(|to| to.is_create()) {
                self.contracts.push(signer(sender).address().create(*nonce));
            }
            *nonce += 1;
            self.touched.extend(request.to.and_then(|to| to.to().copied()));
            self.touched.insert(signer(sender).address());
        }
        self.number += 1;
        self.pair.mine(START_S + 7 * self.number).await;
        self.compare_block(count).await;
        self.compare_accounts().await;
        if self.number.is_multiple_of(BLOCKS_PER_ROOT) {
            self.compare_state().await;
        }
        let known = self.contracts.len().saturating_sub(MAX_CONTRACTS);
        self.contracts.drain(..known);
        for _ in 0..2 {
            self.call(base_fee).await;
        }
    }

    async fn compare_block(&mut self, count: u64) {
        let id = U256::from(self.number);
        let (mut devnet, mut anvil) =
            self.pair.read("eth_getBlockByNumber", json!([id, true])).await;
        let txs = [&mut devnet, &mut anvil].map(|block| block["transactions"].take());
        agree(&devnet, &anvil, differences::BLOCK, &mut self.seen);
        self.root = serde_json::from_value(devnet["stateRoot"].clone()).unwrap();
        self.hashes.push(serde_json::from_value(devnet["parentHash"].clone()).unwrap());
        let [devnet_txs, anvil_txs] = txs.map(|txs| txs.as_array().unwrap().clone());
        assert_eq!((devnet_txs.len(), anvil_txs.len()), (count as usize, count as usize));
        for (devnet, anvil) in devnet_txs.iter().zip(&anvil_txs) {
            agree(devnet, anvil, differences::TRANSACTION, &mut self.seen);
        }
        let (devnet, anvil) = self.pair.read("eth_getBlockReceipts", json!([id])).await;
        let (devnet, anvil) = (devnet.as_array().unwrap(), anvil.as_array().unwrap());
        assert_eq!((devnet.len(), anvil.len()), (count as usize, count as usize));
        for (devnet, anvil) in devnet.iter().zip(anvil) {
            let (mut devnet, mut anvil) = (devnet.clone(), anvil.clone());
            let logs = [&mut devnet, &mut anvil].map(|receipt| receipt["logs"].take());
            agree(&devnet, &anvil, differences::RECEIPT, &mut self.seen);
            let succeeded = devnet["status"] == json!("0x1");
            self.counts.transactions += 1;
            self.counts.succeeded += u64::from(succeeded);
            self.counts.created += u64::from(succeeded && !devnet["contractAddress"].is_null());
            let [devnet_logs, anvil_logs] = logs.map(|logs| logs.as_array().unwrap().clone());
            self.compare_logs(&devnet_logs, &anvil_logs);
        }
        let filter = json!([{"fromBlock": id, "toBlock": id}]);
        let (devnet, anvil) = self.pair.read("eth_getLogs", filter).await;
        self.compare_logs(devnet.as_array().unwrap(), anvil.as_array().unwrap());
    }

    fn compare_logs(&mut self, devnet: &[Value], anvil: &[Value]) {
        assert_eq!(devnet.len(), anvil.len());
        for (devnet, anvil) in devnet.iter().zip(anvil) {
            agree(devnet, anvil, differences::LOG, &mut self.seen);
            self.touched.insert(serde_json::from_value(devnet["address"].clone()).unwrap());
            self.counts.logs += 1;
        }
    }

    /// Compares the accounts that may have changed.
    async fn compare_accounts(&mut self) {
        let mut accounts = std::mem::take(&mut self.touched);
        accounts.extend(&self.contracts);
        accounts.extend((0..ACCOUNTS).map(|index| signer(index).address()));
        for account in accounts {
            self.pair.same("eth_getCode", json!([account, "latest"])).await;
            let keys: Vec<B256> = (0..SLOTS).map(B256::with_last_byte).collect();
            let (devnet, anvil) =
                self.pair.read("eth_getProof", json!([account, keys, "latest"])).await;
            for field in ["balance", "nonce", "codeHash"] {
                assert_eq!(devnet[field], anvil[field], "{field} of {account}");
            }
            for index in 0..usize::from(SLOTS) {
                let value = |proof: &Value| proof["storageProof"][index]["value"].clone();
                assert_eq!(value(&devnet), value(&anvil), "slot {index} of {account}");
                self.counts.slots += usize::from(value(&devnet) != json!("0x0"));
            }
        }
    }

    /// Compares the whole state: the root that an independent builder computes from all accounts and
    /// slots of anvil is that in the block of the embedded chain.
    async fn compare_state(&mut self) {
        let anvil = self.pair.dump().await;
        let slots = (0_u64..).map(|slot| B256::from(U256::from(slot)));
        let history: BTreeMap<B256, U256> = slots.zip(self.hashes.clone()).collect();
        let accounts = anvil.into_iter().filter_map(|(address, account)| {
            let storage =
                if address == HISTORY_STORAGE_ADDRESS { history.clone() } else { account.storage };
            let slots = storage.into_iter().filter(|(_, value)| !value.is_zero());
            let account = TrieAccount {
                nonce: account.nonce,
                balance: account.balance,
                storage_root: storage_root_unhashed(slots),
                code_hash: keccak256(account.code),
            };
            (account != TrieAccount::default()).then_some((address, account))
        });
        let root = state_root_unhashed(accounts);
        assert_eq!(self.root, root, "the state after block {}", self.number);
        self.counts.roots += 1;
    }

    /// A call, and an estimate of the same.
    async fn call(&mut self, base_fee: u128) {
        let from = signer(self.random.random_range(0..SIGNERS)).address();
        let to = self.contracts.choose(&mut self.random).copied().unwrap_or(from);
        let mut request = TransactionRequest::default()
            .with_from(from)
            .with_to(to)
            .with_input(self.input())
            .with_value(U256::from(self.random.random_range(0..2_u8)))
            .with_max_fee_per_gas(2 * base_fee)
            .with_max_priority_fee_per_gas(1);
        if self.random.random() {
            request = request.with_gas_limit(self.random.random_range(25_000..500_000));
        }
        match self.pair.both("eth_call", json!([request, "latest"])).await {
            (Ok(devnet), Ok(anvil)) => {
                assert_eq!(devnet, anvil, "{request:?}");
                self.counts.calls_answered += 1;
            }
            (Err(devnet), Err(anvil)) => {
                errors::agree(&devnet, &anvil);
                self.counts.calls_refused += 1;
            }
            (devnet, anvil) => panic!("{request:?}: {devnet:?} and {anvil:?}"),
        }
    }
}

#[tokio::test]
async fn random_transactions_come_to_the_same_on_both() {
    let mut run = Run::start().await;
    let wanted = from_env("ASSAY_DIFFERENTIAL_TRANSACTIONS", TRANSACTIONS);
    while run.counts.transactions < wanted {
        run.block(wanted - run.counts.transactions).await;
    }
    run.compare_state().await;
    let counts = &run.counts;
    assert!(counts.succeeded * 4 > wanted && counts.succeeded * 20 < wanted * 19, "{counts:?}");
    assert!(counts.created * 10 > wanted && counts.logs > 0 && counts.slots > 0, "{counts:?}");
    assert!(counts.calls_answered > 0 && counts.calls_refused > 0, "{counts:?}");
    let listed =
        [differences::BLOCK, differences::TRANSACTION, differences::RECEIPT, differences::LOG];
    for (field, reason) in listed.into_iter().flatten() {
        assert!(run.seen.contains(field), "{field} is no longer different: {reason}");
    }
}
