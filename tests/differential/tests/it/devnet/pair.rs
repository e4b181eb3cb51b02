//! The embedded chain and anvil, side by side.

use std::collections::BTreeMap;

use alloy::eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy::primitives::{Address, B256, Bytes, U256, address};
use alloy::providers::{DynProvider, Provider, ProviderBuilder};
use alloy::signers::local::PrivateKeySigner;
use assay_devnet::{Clock, Devnet, DevnetConfig, ManualClock};
use assay_harness::Anvil;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};

/// Time of the genesis block of both, in unix seconds.
pub const START_S: u64 = 1_700_000_000;
/// Accounts that send transactions.
pub const SIGNERS: u8 = 6;
/// Accounts that have money at the start: those, and some that only sign authorizations (EIP-7702).
pub const ACCOUNTS: u8 = 9;
/// Base fee of block 1 after a genesis block of 1 gwei, in wei.
const FIRST_BASE_FEE: u64 = 875_000_000;
/// Where both have the factory that tools expect.
const CREATE2_FACTORY: Address = address!("4e59b44847b379578588920ca78fbf26c0b4956c");

/// One of the accounts; from [`ACCOUNTS`] on, one that does not exist.
pub fn signer(index: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(index + 1)).unwrap()
}

pub fn ether(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(18))
}

/// The answer of a method, or its error.
pub type Answer = Result<Value, Refusal>;

/// An error as JSON-RPC has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: i64,
    pub message: String,
    pub data: Value,
}

/// An account as anvil dumps it.
#[derive(Debug, Deserialize)]
pub struct Account {
    pub nonce: u64,
    pub balance: U256,
    pub code: Bytes,
    pub storage: BTreeMap<B256, U256>,
}

/// Both chains, with the same accounts, fees and time. Neither mines unless it is told to.
pub struct Pair {
    _devnet: Devnet,
    _anvil: Anvil,
    providers: [DynProvider; 2],
}

impl Pair {
    pub async fn start() -> Self {
        let accounts: Vec<Address> = (0..ACCOUNTS).map(|index| signer(index).address()).collect();
        let devnet = Devnet::start(DevnetConfig {
            block_time: None,
            mine_on_transaction: false,
            accounts: accounts.iter().map(|account| (*account, ether(1000))).collect(),
            clock: Clock::Manual(ManualClock::new(START_S)),
            ..DevnetConfig::default()
        })
        .await
        .unwrap();
        let anvil = Anvil::start_with(&[
            "--no-mining",
            "--accounts=0",
            "--order=fifo",
            "--gas-limit=30000000",
            "--base-fee=1000000000",
            &format!("--timestamp={START_S}"),
        ])
        .await
        .unwrap();
        let connect = async |url: &str| ProviderBuilder::new().connect(url).await.unwrap().erased();
        let providers = [connect(&devnet.http_url()).await, connect(anvil.url()).await];
        let pair = Self { _devnet: devnet, _anvil: anvil, providers };
        for account in accounts {
            pair.ask(1, "anvil_setBalance", json!([account, ether(1000)])).await.unwrap();
        }
        let fee = json!([U256::from(FIRST_BASE_FEE)]);
        pair.ask(1, "anvil_setNextBlockBaseFeePerGas", fee).await.unwrap();
        for contract in [CREATE2_FACTORY, HISTORY_STORAGE_ADDRESS] {
            pair.ask(1, "anvil_setNonce", json!([contract, "0x1"])).await.unwrap();
        }
        pair
    }

    /// All accounts of anvil.
    pub async fn dump(&self) -> BTreeMap<Address, Account> {
        #[derive(Deserialize)]
        struct Dump {
            accounts: BTreeMap<Address, Account>,
        }
        let packed = self.ask(1, "anvil_dumpState", json!([])).await.unwrap();
        let packed: Bytes = serde_json::from_value(packed).unwrap();
        let dump: Dump = serde_json::from_reader(GzDecoder::new(packed.as_ref())).unwrap();
        dump.accounts
    }

    async fn ask(&self, which: usize, method: &'static str, params: Value) -> Answer {
        let answer = self.providers[which].raw_request::<_, Value>(method.into(), params).await;
        answer.map_err(|error| {
            let payload = error.as_error_resp().unwrap_or_else(|| panic!("{method}: {error}"));
            let data = payload.data.as_ref().map(|data| serde_json::from_str(data.get()).unwrap());
            Refusal {
                code: payload.code,
                message: payload.message.to_string(),
                data: data.unwrap_or_default(),
            }
        })
    }

    /// What the embedded chain answers, and what anvil answers.
    pub async fn both(&self, method: &'static str, params: Value) -> (Answer, Answer) {
        tokio::join!(self.ask(0, method, params.clone()), self.ask(1, method, params))
    }

    /// The answers of a method that must work on both.
    pub async fn read(&self, method: &'static str, params: Value) -> (Value, Value) {
        match self.both(method, params.clone()).await {
            (Ok(devnet), Ok(anvil)) => (devnet, anvil),
            (devnet, anvil) => panic!("{method} {params}: {devnet:?} and {anvil:?}"),
        }
    }

    /// The one answer of a method on which both must agree.
    pub async fn same(&self, method: &'static str, params: Value) -> Value {
        let (devnet, anvil) = self.read(method, params.clone()).await;
        assert_eq!(devnet, anvil, "{method} {params}");
        devnet
    }

    /// What is new for a filter of each.
    pub async fn changes(&self, (devnet, anvil): &(Value, Value)) -> (Value, Value) {
        let changes = |which, id: &Value| self.ask(which, "eth_getFilterChanges", json!([id]));
        (changes(0, devnet).await.unwrap(), changes(1, anvil).await.unwrap())
    }

    /// Mines a block of this time on both.
    pub async fn mine(&self, timestamp: u64) {
        self.read("evm_setNextBlockTimestamp", json!([timestamp])).await;
        self.read("evm_mine", json!([])).await;
    }
}
