//! The contracts in the EVM, and transactions in anybody's name.

use alloy::{
    consensus::{TxEip1559, TypedTransaction},
    primitives::{Address, B256, Bytes, Log, TxKind, U256, keccak256},
    rpc::types::{TransactionInput, TransactionRequest},
    sol_types::SolCall,
};
use assay_bindings::{DeployConfig, Deployment, RandomBeacon, creations, decode_revert};
use assay_evm::{CallAt, CallError, Chain, ChainConfig, impersonate};
use assay_protocol::ProtocolEvent;

const START_S: u64 = 1_800_000_000;
const TX_GAS: u64 = 20_000_000;

/// An account with this name.
pub fn account(name: &str) -> Address {
    Address::from_word(keccak256(name))
}

/// Moves on whatever anyone may move on.
pub fn keeper() -> Address {
    account("keeper")
}

pub struct Network {
    pub chain: Chain,
    pub at: Deployment,
    /// Unix seconds of the next block.
    pub now_s: u64,
    /// What the contracts told since this was emptied.
    pub log: Vec<ProtocolEvent>,
    /// Holds the whole supply.
    pub deployer: Address,
}

impl Network {
    /// The contracts as a development network has them.
    pub fn deploy() -> Self {
        let deployer = account("deployer");
        let mut chain =
            Chain::new(ChainConfig { genesis_timestamp: START_S, ..ChainConfig::default() });
        // A contract of `Deployer`'s kind counts what it creates from 1.
        chain.set_nonce(deployer, 1);
        let at = Deployment::predict(chain.chain_id(), deployer);
        let mut network = Self { chain, at, now_s: START_S, log: Vec::new(), deployer };
        let codes = creations(&network.at, deployer, &DeployConfig::development()).unwrap();
        for (code, (name, _)) in codes.into_iter().zip(network.at.clone().named()) {
            assert!(network.execute(deployer, TxKind::Create, code), "{name} was not created");
        }
        network
    }

    /// A transaction in a block of its own; none if it reverts.
    fn execute(&mut self, from: Address, to: TxKind, input: Bytes) -> bool {
        let tx = TxEip1559 {
            chain_id: self.chain.chain_id(),
            nonce: self.chain.nonce(&from),
            gas_limit: TX_GAS,
            max_fee_per_gas: 1_000_000_000_000,
            max_priority_fee_per_gas: 0,
            to,
            value: U256::ZERO,
            access_list: Default::default(),
            input,
        };
        let rich = U256::from(10).pow(U256::from(24));
        self.chain.set_balance(from, rich);
        let mut block = self.chain.begin_block(self.now_s).unwrap();
        let receipt = block.execute(impersonate(TypedTransaction::Eip1559(tx), from)).unwrap();
        if !receipt.is_success() {
            return false;
        }
        let ours = |log: &Log| ProtocolEvent::decode(&self.at, log.address, &log.data).unwrap();
        self.log.extend(receipt.logs().iter().filter_map(ours));
        let sealed = block.seal();
        self.chain.push(sealed).unwrap();
        true
    }

    /// A call that must succeed.
    pub fn send<C: SolCall>(&mut self, from: Address, to: Address, call: &C) {
        if let Err(reason) = self.try_send(from, to, call) {
            panic!("{} was refused: {reason}", C::SIGNATURE);
        }
    }

    /// A call, or the error that it is refused with.
    pub fn try_send<C: SolCall>(
        &mut self,
        from: Address,
        to: Address,
        call: &C,
    ) -> Result<(), String> {
        let input: Bytes = call.abi_encode().into();
        if self.execute(from, to.into(), input.clone()) {
            return Ok(());
        }
        let request = TransactionRequest {
            from: Some(from),
            to: Some(to.into()),
            gas: Some(TX_GAS),
            input: TransactionInput::new(input),
            ..TransactionRequest::default()
        };
        match self.chain.call(&request, CallAt::Pending(self.now_s), None) {
            Err(CallError::Revert(data)) => {
                Err(decode_revert(&data).unwrap_or_else(|| format!("{data}")))
            }
            other => panic!("{} reverted, and as a call gives {other:?}", C::SIGNATURE),
        }
    }

    pub fn view<C: SolCall>(&self, to: Address, call: &C) -> C::Return {
        let request = TransactionRequest {
            to: Some(to.into()),
            input: TransactionInput::new(call.abi_encode().into()),
            ..TransactionRequest::default()
        };
        let output = self.chain.call(&request, CallAt::Pending(self.now_s), None).unwrap();
        C::abi_decode_returns(&output).unwrap()
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now_s += seconds;
    }

    /// To the first second after `until_s`.
    pub fn pass(&mut self, until_s: u64) {
        self.now_s = self.now_s.max(until_s + 1);
    }

    /// The value of a beacon's round, once it is on chain.
    pub fn reveal(&mut self, round: u64) -> B256 {
        while self.chain.head().number() < round {
            let sealed = self.chain.begin_block(self.now_s).unwrap().seal();
            self.chain.push(sealed).unwrap();
        }
        let call = RandomBeacon::valueOfCall { round };
        let known = self.view(self.at.beacon, &call);
        if !known.is_zero() {
            return known;
        }
        let reveal = RandomBeacon::revealCall { round, proof: Bytes::new() };
        self.send(keeper(), self.at.beacon, &reveal);
        self.view(self.at.beacon, &call)
    }
}
