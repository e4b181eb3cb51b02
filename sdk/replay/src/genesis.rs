//! The state that a chain began with.

use std::collections::BTreeMap;

use alloy::eips::BlockId;
use alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy::primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy::providers::Provider;
use assay_evm::{AccountChange, Basic, State};
use serde::Deserialize;

use crate::error::AuditError;
use crate::source::{Source, rpc};

/// The contract that anvil and the embedded chain have from the start.
const CREATE2_FACTORY: Address = address!("4e59b44847b379578588920ca78fbf26c0b4956c");

/// Largest number of accounts that a chain may begin with: development chains have dozens.
const MAX_ACCOUNTS: usize = 10_000;

/// The state that a chain began with.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// The state after block 0.
    pub state: State,
    /// Whether the chain's headers and proofs have the roots that Ethereum has. anvil's tries keep what was cleared.
    pub has_roots: bool,
}

/// What `debug_dumpBlock` says of an account.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DumpedAccount {
    balance: String,
    nonce: u64,
    code_hash: B256,
    #[serde(default)]
    code: Bytes,
    #[serde(default)]
    storage: BTreeMap<B256, U256>,
    key: B256,
}

#[derive(Debug, Deserialize)]
struct Dump {
    accounts: BTreeMap<String, DumpedAccount>,
}

impl Genesis {
    /// Of the chain behind an RPC; `root` is the state root of its block 0.
    ///
    /// # Errors
    /// [`AuditError::NoGenesis`] if the RPC does not tell, or what it tells has another root.
    pub async fn fetch(source: &Source, chain_id: u64, root: B256) -> Result<Self, AuditError> {
        if source.client_version().await?.to_lowercase().starts_with("anvil") {
            return Self::of_anvil(source).await;
        }
        let refused = |reason: String| AuditError::NoGenesis { chain_id, reason };
        let dump = source.provider().raw_request::<_, Dump>("debug_dumpBlock".into(), ["0x0"]);
        let dump = dump.await.map_err(|error| refused(error.to_string()))?;
        if dump.accounts.len() > MAX_ACCOUNTS {
            return Err(refused(format!("{} accounts", dump.accounts.len())));
        }
        let mut state = State::default();
        for account in dump.accounts.into_values() {
            let balance = account.balance.parse();
            let balance = balance.map_err(|_| refused(format!("balance {}", account.balance)))?;
            if keccak256(&account.code) != account.code_hash {
                return Err(refused("a code that is not that of its hash".to_owned()));
            }
            let basic = Basic { balance, nonce: account.nonce, code_hash: account.code_hash };
            state.apply(AccountChange {
                key: account.key,
                basic: Some(basic),
                code: account.code,
                slots: account.storage.into_iter().collect(),
            });
        }
        if state.root() != root {
            return Err(refused(format!("its root is {}, not {root} of block 0", state.root())));
        }
        Ok(Self { state, has_roots: true })
    }

    /// The same of a chain whose maker may be another one: `None` if it is no development chain, or began with more than
    /// such chains do.
    pub(crate) async fn of_development(
        source: &Source,
        chain_id: u64,
    ) -> Result<Option<Self>, AuditError> {
        let client = source.client_version().await?.to_lowercase();
        if client.starts_with("assay-devnet") {
            let first = source.header(0).await?.ok_or(AuditError::Pruned { block: 0 })?;
            return Self::fetch(source, chain_id, first.0.state_root).await.map(Some);
        }
        if !client.starts_with("anvil") {
            return Ok(None);
        }
        // Its block 0 has the root of an empty state; a proof begins with the root's node.
        let genesis = Self::of_anvil(source).await;
        let proof = source.proof(Address::ZERO, &[], 0).await;
        let (Ok(genesis), Ok(proof)) = (genesis, proof) else { return Ok(None) };
        let is_own = proof.account_proof.first().map(keccak256) == Some(genesis.state.root());
        Ok(is_own.then_some(genesis))
    }

    /// anvil's accounts with money, and the two contracts that it has from the start.
    async fn of_anvil(source: &Source) -> Result<Self, AuditError> {
        let (provider, start) = (source.provider(), BlockId::number(0));
        let mut state = State::default();
        let accounts = rpc("eth_accounts", provider.get_accounts()).await?;
        let contracts = [CREATE2_FACTORY, HISTORY_STORAGE_ADDRESS];
        for address in accounts.into_iter().chain(contracts) {
            let balance = provider.get_balance(address).block_id(start).into_future();
            let nonce = provider.get_transaction_count(address).block_id(start).into_future();
            let code = provider.get_code_at(address).block_id(start).into_future();
            let (balance, nonce, code) = tokio::join!(balance, nonce, code);
            let forgot = |source| AuditError::NoState { block: 0, source };
            let code = code.map_err(forgot)?;
            let code_hash = keccak256(&code);
            let basic = Basic {
                balance: balance.map_err(forgot)?,
                nonce: nonce.map_err(forgot)?,
                code_hash,
            };
            let key = keccak256(address);
            state.apply(AccountChange { key, basic: Some(basic), code, slots: Vec::new() });
        }
        Ok(Self { state, has_roots: false })
    }
}
