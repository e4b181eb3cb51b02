//! After an answer: settled, paid, conserved, and the digest on chain is the CID of the pinned result.
//! The same on the embedded chain and on anvil.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use alloy::{
    primitives::{Address, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::{Filter, Log},
    sol_types::SolEvent,
};
use assay_bindings::{CorToken, NodePool, Session, SessionPayment, SessionQueue};
use assay_harness::{Anvil, Network, NetworkOptions};
use assay_store::{ContentStore, KuboStore, cid_of};
use assay_types::{ResultBlock, StreamHash, TaskId};

use crate::{SETTLED_WITHIN, chat, proof::proof, question, settled};

const ROUTER_SESSION: u64 = 1;
/// What the model's audits get of a fee on development chains, hundredths of a percent: the share of every proven answer, and
/// the pay of an audit that was certain, as a new node's is.
const AUDITS_BPS: u128 = 200 + 2500;
/// `TaskState.Settled` of `ISessionQueue`.
const SETTLED: u8 = 5;
const COR_ASSET: u8 = 0;
/// Prices are for so many tokens.
const PRICE_UNIT: u128 = 1_000_000;

/// The contracts of a network, and what they say.
pub struct View {
    provider: DynProvider,
    queue: Address,
    sessions: Address,
    payment: Address,
    nodes: Address,
    token: Address,
}

impl View {
    pub async fn of(network: &Network) -> Self {
        let address = |name: &str| -> Address {
            network.described(&format!("/deployment/{name}")).unwrap().parse().unwrap()
        };
        let rpc = network.described("/rpc_url").unwrap();
        Self {
            provider: ProviderBuilder::new().connect(rpc).await.unwrap().erased(),
            queue: address("queue"),
            sessions: address("sessions"),
            payment: address("payment"),
            nodes: address("nodes"),
            token: address("token"),
        }
    }

    /// All lanes of a session.
    pub async fn session_money(&self, session: u64) -> u128 {
        let payment = SessionPayment::new(self.payment, &self.provider);
        let sessions = Session::new(self.sessions, &self.provider);
        let lanes = sessions.laneCount(session).call().await.unwrap().to::<u32>();
        let mut sum = 0;
        for lane in 0..lanes {
            let funds = payment.fundsOf(session, lane).call().await.unwrap();
            sum += funds.free.to::<u128>() + funds.held.to::<u128>();
        }
        sum
    }

    async fn claimable(&self, account: Address) -> U256 {
        let payment = SessionPayment::new(self.payment, &self.provider);
        payment.balanceOf(account, COR_ASSET).call().await.unwrap()
    }

    /// Accounts that were ever owed something.
    async fn creditors(&self) -> BTreeSet<Address> {
        let filter = Filter::new().from_block(0).address(self.payment);
        let logs = self.provider.get_logs(&filter).await.unwrap();
        let creditor = |log: &Log| {
            let log = &log.inner;
            let credited = SessionPayment::Credited::decode_log(log).map(|event| event.account);
            let tip = SessionPayment::TipPaid::decode_log(log).map(|event| event.keeper);
            let rest = SessionPayment::SessionReturned::decode_log(log).map(|event| event.owner);
            let stake = SessionPayment::StakeReleased::decode_log(log).map(|event| event.owner);
            let slash = SessionPayment::Slashed::decode_log(log).map(|event| event.reporter);
            credited.or(tip).or(rest).or(stake).or(slash).ok()
        };
        logs.iter().filter_map(creditor).collect()
    }

    /// Every account that ever had money, from the events, summed up against the token's own balance.
    pub async fn assert_conserved(&self) {
        let payment = SessionPayment::new(self.payment, &self.provider);
        let balance =
            CorToken::new(self.token, &self.provider).balanceOf(self.payment).call().await.unwrap();
        assert_eq!(payment.totalAccounts(COR_ASSET).call().await.unwrap(), balance);

        let mut sum = U256::ZERO;
        let sessions =
            Session::new(self.sessions, &self.provider).sessionCount().call().await.unwrap();
        for session in 1..=sessions {
            sum += U256::from(self.session_money(session).await);
        }
        let nodes = NodePool::new(self.nodes, &self.provider).nodeCount().call().await.unwrap();
        for node in 1..=nodes {
            sum += payment.stakeOf(node).call().await.unwrap();
        }
        for account in self.creditors().await {
            sum += self.claimable(account).await;
        }
        assert_eq!(sum, balance, "the accounts do not add up to the token balance");
    }

    async fn commit(&self, task: TaskId) -> SessionQueue::TaskCommitted {
        let filter = Filter::new()
            .from_block(0)
            .address(self.queue)
            .event_signature(SessionQueue::TaskCommitted::SIGNATURE_HASH)
            .topic1(task.0);
        let logs = self.provider.get_logs(&filter).await.unwrap();
        assert_eq!(logs.len(), 1, "committed {} times", logs.len());
        logs[0].log_decode::<SessionQueue::TaskCommitted>().unwrap().inner.data
    }

    /// The split of the fee, from the settlement's own event.
    async fn settlement(&self, task: TaskId) -> SessionQueue::TaskSettled {
        let filter = Filter::new()
            .from_block(0)
            .address(self.queue)
            .event_signature(SessionQueue::TaskSettled::SIGNATURE_HASH)
            .topic1(task.0);
        let begun = Instant::now();
        loop {
            let logs = self.provider.get_logs(&filter).await.unwrap();
            if let [log] = logs.as_slice() {
                return log.log_decode::<SessionQueue::TaskSettled>().unwrap().inner.data;
            }
            assert!(logs.is_empty(), "settled {} times", logs.len());
            assert!(begun.elapsed() < SETTLED_WITHIN, "no settlement of {task}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn one_task_is_paid(network: Network) {
    let view = View::of(&network).await;
    let money_before = view.session_money(ROUTER_SESSION).await;
    let (status, task, answer) = chat(&network, question(&network, "What is a miner?")).await;
    assert_eq!(status, 200, "{answer}\n{}", network.log());
    let task_id = task.unwrap();
    let record = settled(&network, &task_id).await;
    let task: TaskId = task_id.parse().unwrap();

    let settlement = view.settlement(task).await;
    let onchain =
        SessionQueue::new(view.queue, &view.provider).statusOf(task.0).call().await.unwrap();
    assert_eq!(onchain.state, SETTLED);

    // The fee is exactly what the tokens cost, and all of it came out of the client's session.
    let session =
        Session::new(view.sessions, &view.provider).sessionOf(ROUTER_SESSION).call().await.unwrap();
    let tokens = |name: &str| answer["usage"][name].as_u64().unwrap() as u128;
    let price = tokens("prompt_tokens") * session.priceIn.to::<u128>()
        + tokens("completion_tokens") * session.priceOut.to::<u128>();
    let fee = price.div_ceil(PRICE_UNIT);
    assert_eq!(settlement.fee.to::<u128>(), fee);
    let parts = settlement.minerShare
        + settlement.routerShare
        + settlement.royalty
        + settlement.tip
        + settlement.burnt;
    let audits = fee * AUDITS_BPS / 10_000;
    assert_eq!(parts.to::<u128>() + audits, fee, "the shares are not the fee: {settlement:?}");
    assert_eq!(money_before - view.session_money(ROUTER_SESSION).await, fee);

    // The miner can claim its share, and the tip if it settled itself.
    let node =
        NodePool::new(view.nodes, &view.provider).nodeOf(settlement.nodeId).call().await.unwrap();
    let claimable = view.claimable(node.payout).await;
    let share = U256::from(settlement.minerShare);
    assert!(!settlement.minerShare.is_zero());
    assert!(
        claimable == share || claimable == share + U256::from(settlement.tip),
        "claimable {claimable}, share {share}, tip {}",
        settlement.tip
    );
    // Nothing moves any more once the validator is paid.
    let begun = Instant::now();
    while proof(&network, &task_id).await["paid_to_validators"].is_null() {
        assert!(begun.elapsed() < SETTLED_WITHIN, "the audit of {task_id} is not paid");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    view.assert_conserved().await;

    // The digest on chain is the CID of the pinned result, and the result is what the client got.
    let store = KuboStore::new(network.described("/ipfs_url").unwrap()).unwrap();
    let commit = view.commit(task).await;
    assert!(store.is_pinned(commit.outputDigest).await.unwrap());
    let bytes = store.get(commit.outputDigest).await.unwrap();
    let block = ResultBlock::decode(&bytes).unwrap();
    assert_eq!(block.text, answer["choices"][0]["message"]["content"].as_str().unwrap());
    assert_eq!(block.ids.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(block.stream_hash, StreamHash::of(task, &block.ids));
    let cid = cid_of(commit.outputDigest).to_string();
    assert!(record.to_string().contains(&cid), "the record does not name {cid}: {record:#}");
    let gateway = format!("{}/ipfs/{cid}", network.described("/ipfs_url").unwrap());
    assert_eq!(reqwest::get(gateway).await.unwrap().bytes().await.unwrap(), bytes);

    network.interrupt().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_settled_and_paid_on_the_embedded_chain() {
    one_task_is_paid(Network::start(Default::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_settled_and_paid_on_anvil() {
    let anvil = Anvil::start().await.unwrap();
    let flags = vec!["--rpc-url".to_owned(), anvil.url().to_owned()];
    one_task_is_paid(Network::start(NetworkOptions { flags }).await.unwrap()).await;
}
