//! Nobody needs an oracle: with none running, an account that has no part in anything moves everything on, with what the
//! events tell everybody.

use std::time::{Duration, Instant};

use alloy::{
    primitives::{Address, B256, Bytes},
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use assay_bindings::{Deployment, RandomBeacon, Session, SessionPayment, SessionQueue};
use assay_harness::run_assay;
use assay_protocol::{TaskRecord, TaskState};

use crate::chaos::worlds::World;

/// Longest wait for anything; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const ACTIVE: u8 = 2;

struct Stranger {
    provider: DynProvider,
    at: Deployment,
    account: Address,
}

impl Stranger {
    /// One of anvil's own accounts: no keystore of the network has it.
    async fn of(world: &World) -> Self {
        let chain = world.chain().await;
        let accounts = chain.provider.get_accounts().await.unwrap();
        let account = *accounts.last().unwrap();
        Self { provider: chain.provider, at: chain.deployment, account }
    }

    /// Calls until it goes through: blocks and deadlines have to come first.
    async fn call(&self, to: Address, call: impl SolCall) {
        let begun = Instant::now();
        let transaction =
            TransactionRequest::default().from(self.account).to(to).input(call.abi_encode().into());
        loop {
            // The provider's own count goes wrong with the first call that is refused.
            let nonce = self.provider.get_transaction_count(self.account).await.unwrap();
            let transaction = transaction.clone().nonce(nonce);
            if let Ok(pending) = self.provider.send_transaction(transaction).await {
                assert!(pending.get_receipt().await.unwrap().status());
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "a call of the stranger never went through");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn reveal(&self, round: u64) {
        let call = RandomBeacon::revealCall { round, proof: Bytes::new() };
        self.call(self.at.beacon, call).await;
    }

    async fn claimable(&self) -> alloy::primitives::U256 {
        let payment = SessionPayment::new(self.at.payment, &self.provider);
        payment.balanceOf(self.account, 0).call().await.unwrap()
    }

    async fn submitted(&self, session: u64) -> (B256, TaskRecord) {
        let queue = SessionQueue::new(self.at.queue, &self.provider);
        let begun = Instant::now();
        loop {
            let events = queue.TaskSubmitted_filter().from_block(0).query().await.unwrap();
            let found = events.iter().find(|(event, _)| event.sessionId == session);
            if let Some((event, _)) = found {
                return (event.taskId, TaskRecord::submitted(event));
            }
            assert!(begun.elapsed() < PATIENCE, "no task of session {session}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_what_no_oracle_does() {
    let mut world = World::apart_on_anvil(false).await;
    let stranger = Stranger::of(&world).await;

    // A session gets its nodes and its seed.
    let open = ["session", "open", "--account", "client", "--deposit", "5", "--json"];
    let nodes = ["--min-nodes", "2", "--max-nodes", "2"];
    let opened = run_assay(&world.data(), &[&open[..], &nodes].concat()).unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    let opened: serde_json::Value = serde_json::from_slice(&opened.stdout).unwrap();
    let session = opened["session"].as_u64().unwrap();
    let sessions = Session::new(stranger.at.sessions, &stranger.provider);
    stranger.reveal(sessions.sessionOf(session).call().await.unwrap().drawRound).await;
    let before = stranger.claimable().await;
    stranger.call(stranger.at.sessions, Session::activateCall { sessionId: session }).await;
    let info = sessions.sessionOf(session).call().await.unwrap();
    assert_eq!(info.state, ACTIVE);
    assert!(stranger.claimable().await > before, "the draw earned no tip");
    stranger.reveal(info.current.seedRound).await;

    // A task whose nodes are gone is refunded, and the stranger earns the tip.
    world.agents.iter_mut().for_each(super::chaos::agents::Agent::kill);
    let data = world.data();
    let id = session.to_string();
    let submit = tokio::task::spawn_blocking(move || {
        let base = ["task", "submit", "--account", "client", "--session", &id];
        run_assay(&data, &[&base[..], &["--deadline-s", "5", "--attempts", "1", "hello"]].concat())
    });
    let (task, record) = stranger.submitted(session).await;
    let before = stranger.claimable().await;
    stranger.call(stranger.at.queue, SessionQueue::advanceCall { task: record.task }).await;
    let queue = SessionQueue::new(stranger.at.queue, &stranger.provider);
    let state = queue.statusOf(task).call().await.unwrap().state;
    assert_eq!(state, TaskState::Refunded as u8);
    assert!(stranger.claimable().await > before, "the refund earned no tip");
    let output = submit.await.unwrap().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("refunded"), "{complaint}");
    world.chain().await.assert_conserved().await;
}
