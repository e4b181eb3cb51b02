//! The embedded chain with the real contracts, and a client.

use std::{sync::Arc, time::Duration};

use alloy::{
    network::EthereumWallet,
    primitives::{
        B256, U256,
        aliases::{U80, U96},
    },
    providers::{DynProvider, Provider, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use assay_bindings::{
    COR, CorToken, DeployConfig, Deployment, ModelRegistry, RandomBeacon, Session, SessionPayment,
    SessionQueue, deploy,
};
use assay_chain::Chain;
use assay_devnet::{Devnet, DevnetConfig};
use assay_engine::{EchoEngine, EchoOptions, Engine};
use assay_miner::{MinerConfig, MinerDeps, MinerError, MinerHandle, start};
use assay_protocol::TaskState;
use assay_types::{
    Address, BLOCK_VERSION, ModelId, Prompt, RequestBlock, Sampling, TaskId, TaskRequest,
};

use crate::world::{MemStore, until};

const ETHER: u128 = 1_000_000_000_000_000_000;
/// Minor units for a million tokens.
pub const PRICE_IN: u128 = 10 * COR;
pub const PRICE_OUT: u128 = 20 * COR;

pub struct Net {
    pub devnet: Devnet,
    pub provider: DynProvider,
    pub deployment: Deployment,
    pub admin: PrivateKeySigner,
    pub client: PrivateKeySigner,
    pub engine: Arc<EchoEngine>,
    pub store: Arc<MemStore>,
    pub folder: tempfile::TempDir,
}

pub fn registration(model: ModelId) -> ModelRegistry::ModelRegistration {
    let (price_in, price_out) = (U80::from(PRICE_IN), U80::from(PRICE_OUT));
    ModelRegistry::ModelRegistration {
        modelId: model.0,
        manifestDigest: B256::repeat_byte(1),
        floors: vec![ModelRegistry::Floor { asset: 0, priceIn: price_in, priceOut: price_out }],
        ..Default::default()
    }
}

impl Net {
    /// A chain with the contracts, the model, and a client with COR. `funded` have a hundred ether.
    pub async fn new(funded: &[Address]) -> Self {
        Self::with_keys(funded, &[]).await
    }

    /// The same, whose provider signs for `keys`, too.
    pub async fn with_keys(funded: &[Address], keys: &[PrivateKeySigner]) -> Self {
        Self::with_terms(funded, keys, &DeployConfig::development()).await
    }

    /// The same with other terms of the contracts.
    pub async fn with_terms(
        funded: &[Address],
        keys: &[PrivateKeySigner],
        terms: &DeployConfig,
    ) -> Self {
        let (admin, client) = (PrivateKeySigner::random(), PrivateKeySigner::random());
        let mut accounts = vec![admin.address(), client.address()];
        accounts.extend(funded);
        let config = DevnetConfig {
            accounts: accounts.into_iter().map(|who| (who, U256::from(100 * ETHER))).collect(),
            ..DevnetConfig::default()
        };
        let devnet = Devnet::start(config).await.unwrap();
        let mut wallet = EthereumWallet::from(admin.clone());
        wallet.register_signer(client.clone());
        keys.iter().for_each(|key| wallet.register_signer(key.clone()));
        let url = devnet.http_url().parse().unwrap();
        let provider = ProviderBuilder::new().wallet(wallet).connect_http(url).erased();
        let deployment = deploy(&provider, admin.address(), terms).await.unwrap();
        let engine = Arc::new(EchoEngine::new(EchoOptions::default()).unwrap());
        let net = Self {
            devnet,
            provider,
            deployment,
            admin,
            client,
            engine,
            store: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        };
        let models = ModelRegistry::new(net.deployment.models, &net.provider);
        let call = models.register(registration(net.engine.info().model_id));
        net.mined(call.from(net.admin.address()).send().await).await;
        net.give(net.client.address(), 1000).await;
        net
    }

    pub async fn mined(
        &self,
        sent: alloy::contract::Result<
            alloy::providers::PendingTransactionBuilder<alloy::network::Ethereum>,
        >,
    ) -> alloy::rpc::types::TransactionReceipt {
        let receipt = sent.unwrap().get_receipt().await.unwrap();
        assert!(receipt.status());
        receipt
    }

    /// COR for `who`.
    pub async fn give(&self, who: Address, cor: u128) {
        let token = CorToken::new(self.deployment.token, &self.provider);
        let call = token.transfer(who, U256::from(cor * COR));
        self.mined(call.from(self.admin.address()).send().await).await;
    }

    pub fn config(&self, operator: Address) -> MinerConfig {
        let data = self.folder.path().join(operator.to_string());
        MinerConfig { capacity: 2, data, ..MinerConfig::default() }
    }

    pub async fn start(
        &self,
        owner: &PrivateKeySigner,
        operator: &PrivateKeySigner,
    ) -> Result<MinerHandle, MinerError> {
        self.start_with(owner, operator, (self.engine.clone(), self.store.clone())).await
    }

    /// The same with an engine and a store of its own.
    pub async fn start_with(
        &self,
        owner: &PrivateKeySigner,
        operator: &PrivateKeySigner,
        (engine, store): (Arc<EchoEngine>, Arc<MemStore>),
    ) -> Result<MinerHandle, MinerError> {
        let chain = Chain::connect(&self.devnet.ws_url(), self.deployment.clone()).await.unwrap();
        let deps = MinerDeps {
            chain,
            owner: owner.clone(),
            operator: operator.clone(),
            store,
            engine,
            model_id: self.engine.info().model_id,
        };
        start(self.config(operator.address()), deps).await
    }

    /// A session of the client with so many nodes, active and with its seed; lane 1 is the client's too.
    pub async fn session(&self, nodes: u8) -> u64 {
        let from = self.client.address();
        let token = CorToken::new(self.deployment.token, &self.provider);
        let call = token.approve(self.deployment.payment, U256::MAX);
        self.mined(call.from(from).send().await).await;
        let sessions = Session::new(self.deployment.sessions, &self.provider);
        let terms = Session::OpenTerms {
            modelId: self.engine.info().model_id.0,
            minNodes: nodes,
            maxNodes: nodes,
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: U96::from(100 * COR),
            lanes: vec![Session::LaneTerms { holder: from, allotment: U96::from(50 * COR) }],
            ..Default::default()
        };
        self.mined(sessions.open(terms).from(from).send().await).await;
        let id = sessions.sessionCount().call().await.unwrap();
        let info = sessions.sessionOf(id).call().await.unwrap();
        self.reveal(info.drawRound).await;
        self.mined(sessions.activate(id).from(from).send().await).await;
        let info = sessions.sessionOf(id).call().await.unwrap();
        assert_eq!(info.current.nodes.len(), usize::from(nodes));
        self.reveal(info.current.seedRound).await;
        id
    }

    /// The value of a beacon round, once its block is there.
    pub async fn reveal(&self, round: u64) {
        let beacon = RandomBeacon::new(self.deployment.beacon, &self.provider);
        while self.provider.get_block_number().await.unwrap() <= round {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let call = beacon.reveal(round, alloy::primitives::Bytes::new());
        self.mined(call.from(self.admin.address()).send().await).await;
        assert_ne!(beacon.valueOf(round).call().await.unwrap(), B256::ZERO);
    }

    /// A request of the client for `text`, its block and its price's bound.
    pub async fn request(
        &self,
        session: u64,
        lane: u32,
        node: u32,
        text: &str,
    ) -> (TaskRequest, Vec<u8>) {
        let block = RequestBlock {
            max_output: 100,
            max_prompt: 100,
            prompt: Prompt::Text(text.into()),
            salt: B256::repeat_byte(4),
            sampling: Sampling::default(),
            stop: vec![],
            top_logprobs: None,
            version: BLOCK_VERSION,
        };
        let (bytes, digest) = block.encode().unwrap();
        let head = self.provider.get_block_by_number(Default::default()).await.unwrap().unwrap();
        let sessions = Session::new(self.deployment.sessions, &self.provider);
        let request = TaskRequest {
            sessionId: session,
            lane,
            nonce: 0,
            requestDigest: digest,
            maxPrompt: 100,
            maxOutput: 100,
            feeCap: U96::from(COR),
            deadline: head.header.timestamp + 60,
            nodeId: node,
            seedRound: sessions.sessionOf(session).call().await.unwrap().current.seedRound,
            redundancy: 1,
            attempts: 1,
            ..TaskRequest::default()
        };
        (request, bytes)
    }

    pub async fn task_state(&self, task: TaskId) -> u8 {
        let queue = SessionQueue::new(self.deployment.queue, &self.provider);
        queue.statusOf(task.0).call().await.unwrap().state
    }

    /// Waits until the miner has earned from `count` tasks; returns the answer of `task`.
    pub async fn settled(&self, miner: &MinerHandle, count: u64, task: TaskId) {
        until("the task is settled", || miner.status().settled == count).await;
        assert_eq!(self.task_state(task).await, TaskState::Settled as u8);
    }

    pub async fn check_conservation(&self) {
        let payment = SessionPayment::new(self.deployment.payment, &self.provider);
        let token = CorToken::new(self.deployment.token, &self.provider);
        let held = token.balanceOf(self.deployment.payment).call().await.unwrap();
        assert_eq!(payment.totalAccounts(0).call().await.unwrap(), held);
    }
}
