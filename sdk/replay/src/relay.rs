//! Whether a round of drand is what drand signed.

use alloy::primitives::{Address, U256};
use alloy::rpc::types::{TransactionInput, TransactionRequest};
use alloy::sol_types::{SolCall, SolConstructor};
use assay_bindings::DrandBeacon::{self, DrandNetwork};
use assay_evm::{CallAt, Chain, ChainConfig};
use assay_protocol::beacon::Drand;

/// Where the beacon stands on the chain made for it.
const BEACON: Address = Address::repeat_byte(0xbe);

/// The beacon of the sources on a chain of its own: what it refuses, the audited chain's must have refused, whatever code
/// that has.
pub(crate) struct Relay {
    chain: Chain,
    drand: Drand,
}

impl Relay {
    /// `None` if it takes no such network.
    pub(crate) fn new(network: DrandNetwork, drand: Drand) -> Option<Self> {
        let genesis_timestamp = drand.genesis_s;
        let mut chain = Chain::new(ChainConfig { genesis_timestamp, ..ChainConfig::default() });
        let arguments =
            DrandBeacon::constructorCall { network_: network, maxDrift_: drand.max_drift_s };
        let creation = [DrandBeacon::BYTECODE.as_ref(), &arguments.abi_encode()].concat();
        let request = TransactionRequest {
            input: TransactionInput::new(creation.into()),
            ..TransactionRequest::default()
        };
        let code = chain.call(&request, CallAt::Pending(genesis_timestamp + 1), None).ok()?;
        chain.set_code(BEACON, code);
        Some(Self { chain, drand })
    }

    /// Whether a point is the network's signature of a round, at the time that the round is published.
    pub(crate) fn is_signature(&self, round: u64, point: &[u8]) -> bool {
        let Some(published_s) = self.drand.ready_at_s(round) else { return false };
        let time_s = published_s.saturating_sub(u128::from(self.drand.max_drift_s));
        let time_s = U256::from(time_s).saturating_to::<u64>().max(self.drand.genesis_s + 1);
        let call = DrandBeacon::revealCall { round, proof: point.to_vec().into() };
        let request = TransactionRequest {
            to: Some(BEACON.into()),
            input: TransactionInput::new(call.abi_encode().into()),
            ..TransactionRequest::default()
        };
        self.chain.call(&request, CallAt::Pending(time_s), None).is_ok()
    }
}
