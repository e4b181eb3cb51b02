//! Where the contracts of one network stand, and whether they are what they should be.

use alloy::{network::Ethereum, primitives::Address, providers::Provider};
use serde::{Deserialize, Serialize};

use crate::{
    ModelRegistry, NodePool, NodeStats, ProofOfInference, Session, SessionPayment, SessionQueue,
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
    /// `ProofOfInferencePanel`.
    pub panel: Address,
    /// `ProofOfInferenceJudgement`.
    pub judgement: Address,
    /// `ProofOfInference`.
    pub proof: Address,
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
    /// The chain lacks the contract that makes addresses the same on every chain.
    #[error(
        "there is no deterministic deployer at {address} on this chain: send its well-known deployment transaction first (anvil and the embedded chain have it from the start)"
    )]
    NoFactory {
        /// Where it should be.
        address: Address,
    },
    /// A setting of the deployment is no amount, or too large.
    #[error("{field} is {value:?}: {hint}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may be.
        hint: &'static str,
    },
}

impl Deployment {
    /// Where the contracts that `deployer` (the contract `Deployer`) creates will stand.
    pub fn predict(chain_id: u64, deployer: Address) -> Self {
        let at = |number: u64| deployer.create(number);
        Self {
            chain_id,
            token: at(1),
            beacon: at(2),
            parameters: at(3),
            models: at(4),
            stats: at(5),
            payment: at(6),
            nodes: at(7),
            sessions: at(8),
            queue: at(9),
            panel: at(10),
            judgement: at(11),
            proof: at(12),
        }
    }

    /// Every contract with its name, in the order of their creation: a constructor calls those before it.
    pub fn named(&self) -> [(&'static str, Address); 12] {
        [
            ("CorToken", self.token),
            ("RandomBeacon", self.beacon),
            ("Parameters", self.parameters),
            ("ModelRegistry", self.models),
            ("NodeStats", self.stats),
            ("SessionPayment", self.payment),
            ("NodePool", self.nodes),
            ("Session", self.sessions),
            ("SessionQueue", self.queue),
            ("ProofOfInferencePanel", self.panel),
            ("ProofOfInferenceJudgement", self.judgement),
            ("ProofOfInference", self.proof),
        ]
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
        let stats = NodeStats::new(self.stats, provider);
        let nodes = NodePool::new(self.nodes, provider);
        let sessions = Session::new(self.sessions, provider);
        let queue = SessionQueue::new(self.queue, provider);
        let models = ModelRegistry::new(self.models, provider);
        let proof = ProofOfInference::new(self.proof, provider);
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
        let cor = payment.tokenOf(0).call().await.map_err(|error| DeploymentError::Call {
            contract: "payment",
            address: self.payment,
            source: Box::new(error),
        })?;
        if cor != self.token {
            let getter = "payment.tokenOf(0)";
            return Err(DeploymentError::WrongWiring { getter, got: cor, expected: self.token });
        }
        wired!(payment.session == self.sessions);
        wired!(payment.queue == self.queue);
        wired!(payment.pool == self.nodes);
        wired!(stats.queue == self.queue);
        wired!(nodes.session == self.sessions);
        wired!(nodes.queue == self.queue);
        wired!(nodes.models == self.models);
        wired!(nodes.payment == self.payment);
        wired!(nodes.stats == self.stats);
        wired!(nodes.parameters == self.parameters);
        wired!(sessions.models == self.models);
        wired!(sessions.pool == self.nodes);
        wired!(sessions.payment == self.payment);
        wired!(sessions.beacon == self.beacon);
        wired!(sessions.parameters == self.parameters);
        wired!(queue.session == self.sessions);
        wired!(queue.pool == self.nodes);
        wired!(queue.models == self.models);
        wired!(queue.payment == self.payment);
        wired!(queue.beacon == self.beacon);
        wired!(queue.stats == self.stats);
        wired!(queue.parameters == self.parameters);
        wired!(queue.proof == self.proof);
        wired!(payment.proof == self.proof);
        wired!(nodes.proof == self.proof);
        wired!(models.pool == self.nodes);
        wired!(proof.beacon == self.beacon);
        wired!(proof.models == self.models);
        wired!(proof.payment == self.payment);
        wired!(proof.pool == self.nodes);
        wired!(proof.queue == self.queue);
        Ok(())
    }
}
