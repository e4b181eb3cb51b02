//! Where the contracts of one network stand, how they get there, and whether they are what they should be.

use alloy::{
    network::Ethereum,
    primitives::{Address, U256},
    providers::Provider,
    rpc::types::TransactionRequest,
};
use serde::{Deserialize, Serialize};

use crate::{
    CorToken, ModelRegistry, NodePool, RandomBeacon, Session, SessionPayment, SessionQueue,
};

/// Addresses of the contracts of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `CorToken`.
    pub token: Address,
    /// `Parameters`.
    pub parameters: Address,
    /// `ModelRegistry`.
    pub models: Address,
    /// `NodeStats`.
    pub stats: Address,
    /// `NodePool`.
    pub nodes: Address,
    /// `Session`.
    pub sessions: Address,
    /// `SessionQueue`.
    pub queue: Address,
    /// `SessionPayment`.
    pub payment: Address,
    /// `RandomBeacon`.
    pub beacon: Address,
}

/// What the contracts are deployed with. Times in seconds, amounts in minor units of COR (18 decimals), shares in
/// hundredths of a percent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployConfig {
    /// Receives the whole supply; the deployer if absent.
    pub token_holder: Option<Address>,
    /// Supply of COR, below 2^96.
    pub supply: u128,
    /// From a node's registration until its places count in a draw.
    pub activation_delay_s: u64,
    /// From a node's exit until its places may be given again; not less than `reservation_timeout_s`.
    pub slot_reuse_delay_s: u64,
    /// How long the stake of an exiting node stays slashable.
    pub unbonding_period_s: u64,
    /// Stake for each place.
    pub collateral_per_slot: u128,
    /// From a session's opening until its nodes must be drawn.
    pub reservation_timeout_s: u64,
    /// From a session's closing to its end; longer than `max_deadline_s`.
    pub notice_period_s: u64,
    /// Smallest deposit of a session.
    pub min_deposit: u128,
    /// How far a request's deadline may lie ahead.
    pub max_deadline_s: u64,
    /// From a commit to its settlement.
    pub settle_delay_s: u64,
    /// What a keeper earns at most for settling or refunding a task.
    pub tip: u128,
    /// Share of the miner.
    pub miner_bps: u16,
    /// Share of the lane's holder.
    pub router_bps: u16,
    /// Largest share of a model's publisher.
    pub max_royalty_bps: u16,
}

/// One COR in minor units.
pub const COR: u128 = 1_000_000_000_000_000_000;

impl DeployConfig {
    /// Windows of seconds, for chains that one person runs: a task settles within ten seconds.
    pub fn development() -> Self {
        Self {
            token_holder: None,
            supply: 1_000_000_000 * COR,
            activation_delay_s: 1,
            slot_reuse_delay_s: 120,
            unbonding_period_s: 600,
            collateral_per_slot: 100 * COR,
            reservation_timeout_s: 60,
            notice_period_s: 330,
            min_deposit: COR,
            max_deadline_s: 300,
            settle_delay_s: 2,
            tip: COR / 1000,
            miner_bps: 9000,
            router_bps: 500,
            max_royalty_bps: 300,
        }
    }
}

/// Why contracts could not be deployed, or are not those of this software.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// The node refused a call.
    #[error("the chain's RPC refused a call: {0}; check its URL and that it is up")]
    Rpc(#[from] alloy::transports::TransportError),
    /// A contract's getter failed.
    #[error(
        "{contract} at {address} does not answer as it should: {source}; deploy again or correct the address"
    )]
    Call {
        /// Its name.
        contract: &'static str,
        /// Where it should be.
        address: Address,
        /// What went wrong.
        source: Box<alloy::contract::Error>,
    },
    /// A creation was refused.
    #[error(
        "{contract} could not be deployed: {reason}; check the deployer's balance and the configuration"
    )]
    Creation {
        /// Its name.
        contract: &'static str,
        /// Revert reason or the node's words.
        reason: String,
    },
    /// A creation was mined but the contract is elsewhere.
    #[error(
        "{contract} was expected at {expected} but stands at {got:?}: another transaction of the deployer came between; deploy again"
    )]
    WrongAddress {
        /// Its name.
        contract: &'static str,
        /// From the deployer's nonce.
        expected: Address,
        /// From the receipt.
        got: Option<Address>,
    },
    /// The RPC belongs to another chain.
    #[error(
        "the deployment is for chain {expected}, the RPC is on chain {got}: correct the RPC's URL or the deployment"
    )]
    WrongChain {
        /// Of the deployment.
        expected: u64,
        /// Of the RPC.
        got: u64,
    },
    /// Nothing stands at an address.
    #[error(
        "there is no code at {address}, where {contract} should be: the chain may have been started anew; deploy again"
    )]
    NoCode {
        /// Its name.
        contract: &'static str,
        /// Where it should be.
        address: Address,
    },
    /// A contract is wired to other contracts.
    #[error(
        "{getter} is {got}, the deployment says {expected}: addresses of two deployments are mixed up"
    )]
    WrongWiring {
        /// Contract and getter.
        getter: &'static str,
        /// What it answers.
        got: Address,
        /// What the deployment says.
        expected: Address,
    },
    /// A duration does not fit the contracts' 40 bits.
    #[error("{field} is {value} seconds, the contracts take less than 2^40")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Position of each contract among the deployer's seven creations: a constructor calls those before it.
const ORDER: [&str; 9] = [
    "CorToken",
    "RandomBeacon",
    "Parameters",
    "ModelRegistry",
    "NodeStats",
    "SessionPayment",
    "NodePool",
    "Session",
    "SessionQueue",
];

impl Deployment {
    /// Where seven creations of `deployer`, from `nonce` on, will stand.
    pub fn predict(chain_id: u64, deployer: Address, nonce: u64) -> Self {
        let at = |i: u64| deployer.create(nonce.saturating_add(i));
        Self {
            chain_id,
            token: at(0),
            beacon: at(1),
            parameters: at(2),
            models: at(3),
            stats: at(4),
            payment: at(5),
            nodes: at(6),
            sessions: at(7),
            queue: at(8),
        }
    }

    fn named(&self) -> [(&'static str, Address); 9] {
        let addresses = [
            self.token,
            self.beacon,
            self.parameters,
            self.models,
            self.stats,
            self.payment,
            self.nodes,
            self.sessions,
            self.queue,
        ];
        std::array::from_fn(|i| (ORDER[i], addresses[i]))
    }

    /// Checks that the RPC is on the deployment's chain, that code stands at every address, and that the contracts
    /// know one another.
    pub async fn verify<P: Provider<Ethereum>>(&self, provider: &P) -> Result<(), DeploymentError> {
        let got = provider.get_chain_id().await?;
        if got != self.chain_id {
            return Err(DeploymentError::WrongChain { expected: self.chain_id, got });
        }
        for (contract, address) in self.named() {
            if provider.get_code_at(address).await?.is_empty() {
                return Err(DeploymentError::NoCode { contract, address });
            }
        }
        self.verify_wiring(provider).await
    }

    async fn verify_wiring<P: Provider<Ethereum>>(
        &self,
        provider: &P,
    ) -> Result<(), DeploymentError> {
        let payment = SessionPayment::new(self.payment, provider);
        let nodes = NodePool::new(self.nodes, provider);
        let sessions = Session::new(self.sessions, provider);
        let queue = SessionQueue::new(self.queue, provider);
        macro_rules! wired {
            ($contract:ident . $getter:ident == $expected:expr) => {{
                let (address, expected): (Address, Address) = (*$contract.address(), $expected);
                let call = $contract.$getter().call().await;
                let got = call.map_err(|error| DeploymentError::Call {
                    contract: stringify!($contract),
                    address,
                    source: Box::new(error),
                })?;
                if got != expected {
                    let getter = concat!(stringify!($contract), ".", stringify!($getter));
                    return Err(DeploymentError::WrongWiring { getter, got, expected });
                }
            }};
        }
        wired!(payment.session == self.sessions);
        wired!(payment.queue == self.queue);
        wired!(payment.pool == self.nodes);
        wired!(nodes.session == self.sessions);
        wired!(nodes.models == self.models);
        wired!(nodes.payment == self.payment);
        wired!(sessions.models == self.models);
        wired!(sessions.pool == self.nodes);
        wired!(sessions.payment == self.payment);
        wired!(sessions.beacon == self.beacon);
        wired!(queue.session == self.sessions);
        wired!(queue.pool == self.nodes);
        wired!(queue.models == self.models);
        wired!(queue.payment == self.payment);
        Ok(())
    }
}

fn seconds(
    field: &'static str,
    value: u64,
) -> Result<alloy::primitives::aliases::U40, DeploymentError> {
    alloy::primitives::aliases::U40::try_from(value)
        .map_err(|_| DeploymentError::TooLong { field, value })
}

/// PORT: to be written when constructors stand.
pub async fn deploy<P: Provider<Ethereum>>(
    _provider: &P,
    _deployer: Address,
    _config: &DeployConfig,
) -> Result<Deployment, DeploymentError> {
    todo!()
}

/// The contract's own words if the node passed them on, else the node's.
fn reason_of(error: &alloy::transports::TransportError) -> String {
    error
        .as_error_resp()
        .and_then(|response| response.as_revert_data())
        .and_then(|data| crate::decode_revert(&data))
        .unwrap_or_else(|| error.to_string())
}
