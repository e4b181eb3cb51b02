//! The operator's node: found, or registered with its stake.

use std::future::IntoFuture;

use alloy::{
    primitives::{Address, U256},
    providers::Provider,
    sol_types::SolCall,
};
use assay_bindings::{CorToken, ModelRegistry, NodePool, Parameters};
use assay_chain::{Chain, Intent, Outbox};
use assay_engine::EngineInfo;
use assay_protocol::state::NodeState;
use assay_types::{ModelId, NodeId, NumericClass};

use crate::{
    MinerError,
    ledger::{LedgerError, read, read_value},
};

/// `NodeState`: 1 is ephemeral, 2 dedicated, 3 draining; one that drains still serves what has reserved it.
const SERVING: [u8; 3] = [1, 2, 3];
const JAILED: u8 = NodeState::Jailed as u8;

/// Who registers what.
pub(crate) struct Registration<'a> {
    pub chain: &'a Chain,
    /// Pays the stake and the gas of the registration.
    pub owner: &'a Outbox,
    pub operator: Address,
    pub info: &'a EngineInfo,
    pub capacity: u8,
}

impl Registration<'_> {
    /// The operator's node; registers it if there is none.
    ///
    /// # Errors
    /// Each names the account that misses something, how much, and what to do.
    pub(crate) async fn ensure(&self) -> Result<NodeId, MinerError> {
        self.check_model().await?;
        self.check_gas("operator", self.operator).await?;
        if let Some(node) = self.find().await? {
            return self.check_node(node).await;
        }
        self.check_gas("owner", self.owner.address()).await?;
        let stake = self.check_stake().await?;
        self.register(stake).await?;
        let node = self.find().await?.ok_or(LedgerError {
            call: "NodePool.nodeByOperator",
            reason: "the node is not there although it was registered".into(),
        })?;
        tracing::info!(%node, operator = %self.operator, capacity = self.capacity, "node registered");
        Ok(node)
    }

    async fn find(&self) -> Result<Option<NodeId>, MinerError> {
        let pool = NodePool::new(self.chain.deployment.nodes, &self.chain.provider);
        let call = "NodePool.nodeByOperator";
        let node =
            read_value(call, pool.nodeByOperator(self.operator).call().into_future()).await?;
        Ok((node != 0).then_some(NodeId(node)))
    }

    async fn check_model(&self) -> Result<(), MinerError> {
        let id = self.info.model_id;
        let models = ModelRegistry::new(self.chain.deployment.models, &self.chain.provider);
        let call = "ModelRegistry.modelOf";
        let model = read(call, models.modelOf(id.0).call().into_future()).await?;
        model.map(|_| ()).ok_or(MinerError::UnknownModel(id))
    }

    async fn check_node(&self, node: NodeId) -> Result<NodeId, MinerError> {
        let pool = NodePool::new(self.chain.deployment.nodes, &self.chain.provider);
        let call = "NodePool.nodeOf";
        let found = read_value(call, pool.nodeOf(node.0).call().into_future()).await?;
        let operator = self.operator;
        let mismatch = |what, registered: String, engine: String| {
            Err(MinerError::NodeMismatch { node, operator, what, registered, engine })
        };
        let call = "NodePool.offersOf";
        let offers = read_value(call, pool.offersOf(node.0).call().into_future()).await?;
        let (served, _): (Vec<u32>, Vec<u8>) = offers.into();
        let mut registered = Vec::new();
        for index in served {
            let models = ModelRegistry::new(self.chain.deployment.models, &self.chain.provider);
            let call = "ModelRegistry.modelAt";
            let model = read_value(call, models.modelAt(index).call().into_future()).await?;
            registered.push(ModelId(model.modelId));
        }
        if !registered.contains(&self.info.model_id) {
            let registered: Vec<_> = registered.iter().map(ToString::to_string).collect();
            return mismatch("model", registered.join(", "), self.info.model_id.to_string());
        }
        if found.numericClass != self.info.numeric_class.0 {
            let registered = NumericClass(found.numericClass).to_string();
            return mismatch("numeric class", registered, self.info.numeric_class.to_string());
        }
        if found.state == JAILED {
            return Err(MinerError::NodeJailed { node, operator });
        }
        if !SERVING.contains(&found.state) {
            return Err(MinerError::NodeLeft { node, operator });
        }
        Ok(node)
    }

    async fn check_gas(&self, role: &'static str, account: Address) -> Result<(), MinerError> {
        let failed = |reason: String| LedgerError { call: "eth_getBalance", reason };
        let balance = self.chain.provider.get_balance(account).into_future().await;
        match balance.map_err(|error| failed(error.to_string()))? {
            U256::ZERO => Err(MinerError::NoGas { role, account }),
            _ => Ok(()),
        }
    }

    /// What the node stakes; the owner has it.
    async fn check_stake(&self) -> Result<U256, MinerError> {
        let parameters = Parameters::new(self.chain.deployment.parameters, &self.chain.provider);
        let call = "Parameters.currentVersion";
        let version = read_value(call, parameters.currentVersion().call().into_future()).await?;
        let call = "Parameters.nodeTermsOf";
        let terms = read_value(call, parameters.nodeTermsOf(version).call().into_future()).await?;
        let slot = U256::from(terms.collateralPerSlot);
        let stake = slot.saturating_mul(U256::from(self.capacity));
        let account = self.owner.address();
        let token = CorToken::new(self.chain.deployment.token, &self.chain.provider);
        let call = "CorToken.balanceOf";
        let balance = read_value(call, token.balanceOf(account).call().into_future()).await?;
        if balance < stake {
            return Err(MinerError::NoStake { account, balance, stake, capacity: self.capacity });
        }
        Ok(stake)
    }

    async fn register(&self, stake: U256) -> Result<(), MinerError> {
        let at = &self.chain.deployment;
        let token = CorToken::new(at.token, &self.chain.provider);
        let call = "CorToken.allowance";
        let owner = self.owner.address();
        let allowance =
            read_value(call, token.allowance(owner, at.payment).call().into_future()).await?;
        if allowance < stake {
            let call = CorToken::approveCall { spender: at.payment, value: stake };
            self.send("approve", at.token, call).await?;
        }
        let registration = NodePool::NodeRegistration {
            operator: self.operator,
            payout: owner,
            dedicatedTo: Address::ZERO,
            numericClass: self.info.numeric_class.0,
            offers: vec![NodePool::Offer {
                modelId: self.info.model_id.0,
                capacity: self.capacity,
            }],
        };
        self.send("register", at.nodes, NodePool::registerCall { registration }).await
    }

    /// The owner's nonce is part of the key: after a refusal that was mended (more COR), the next start
    /// tries anew, and a start that was interrupted gets the first one's result.
    async fn send(
        &self,
        what: &'static str,
        to: Address,
        call: impl SolCall,
    ) -> Result<(), MinerError> {
        let owner = self.owner.address();
        let failed = |reason: String| LedgerError { call: "eth_getTransactionCount", reason };
        let nonce = self.chain.provider.get_transaction_count(owner).into_future().await;
        let nonce = nonce.map_err(|error| failed(error.to_string()))?;
        let key = format!("{what}:{}:{}:{nonce}", self.operator, self.capacity);
        self.owner
            .send(Intent::call(key, to, call.abi_encode()))
            .await
            .map_err(MinerError::Registration)?;
        Ok(())
    }
}
