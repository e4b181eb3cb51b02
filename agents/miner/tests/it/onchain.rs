//! On the embedded chain with the real contracts: registration, a task by transaction, a signed one.

use std::{sync::Arc, time::Duration};

use alloy::primitives::aliases::U96;
use alloy::{
    primitives::U256,
    signers::{SignerSync, local::PrivateKeySigner},
};
use assay_bindings::{COR, ModelRegistry, NodePool, RandomBeacon, SessionPayment, SessionQueue};
use assay_chain::Chain;
use assay_engine::{EchoEngine, EchoOptions, Engine};
use assay_miner::{MinerConfig, MinerDeps, MinerError, MinerHandle, start};
use assay_protocol::{TaskState, money::fee_up};
use assay_store::ContentStore;
use assay_types::{Address, Dispatch, ResultBlock, Signed, TaskRequest};

use crate::{
    net::{Net, PRICE_IN, PRICE_OUT, registration},
    world::until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_registers_serves_both_ways_and_is_paid() {
    let (owner, operator) = (PrivateKeySigner::random(), PrivateKeySigner::random());
    let net = Net::new(&[owner.address(), operator.address()]).await;
    net.give(owner.address(), 200).await;
    let miner = net.start(&owner, &operator).await.unwrap();
    let node = miner.node_id();
    let pool = NodePool::new(net.deployment.nodes, &net.provider);
    let stored = pool.nodeOf(node.0).call().await.unwrap();
    assert_eq!((stored.owner, stored.operator), (owner.address(), operator.address()));
    assert_eq!((stored.payout, stored.dedicatedTo), (owner.address(), Address::ZERO));
    let (_, capacities): (Vec<u32>, Vec<u8>) = pool.offersOf(node.0).call().await.unwrap().into();
    assert_eq!(capacities, [2]);
    let payment = SessionPayment::new(net.deployment.payment, &net.provider);
    assert_eq!(payment.stakeOf(node.0).call().await.unwrap(), U256::from(200 * COR));

    // Its slots count in draws a second after the registration.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let session = net.session(1).await;

    // By transaction, in lane 0: the miner finds it as an event.
    let (request, bytes) = net.request(session, 0, node.0, "by transaction").await;
    let task = request.task_id(net.deployment.queue);
    net.store.put(bytes.into()).await.unwrap();
    let queue = SessionQueue::new(net.deployment.queue, &net.provider);
    net.mined(queue.submit(request.into()).from(net.client.address()).send().await).await;
    net.settled(&miner, 1, task).await;

    // Signed, in lane 1, and submitted by another one: the miner sees the event too.
    let (request, bytes) = net.request(session, 1, node.0, "by signature").await;
    let second = request.task_id(net.deployment.queue);
    let hash = request.signing_hash(31337, net.deployment.queue);
    let signature = net.client.sign_hash_sync(&hash).unwrap().as_bytes().to_vec();
    net.store.put(bytes.into()).await.unwrap();
    let call = queue.submitSigned(request.into(), signature.into());
    net.mined(call.from(net.admin.address()).send().await).await;
    net.settled(&miner, 2, second).await;

    // What the events say, what the miner counts and what the contract owes are the same.
    let filter = queue.TaskCommitted_filter().from_block(0).query().await.unwrap();
    assert_eq!(filter.len(), 2);
    let mut shares = 0;
    for (event, _) in queue.TaskSettled_filter().from_block(0).query().await.unwrap() {
        let parts = event.minerShare + event.routerShare + event.royalty + event.tip + event.burnt;
        assert_eq!(parts, event.fee);
        shares += event.minerShare.to::<u128>();
    }
    assert_eq!(miner.status().earned, shares);
    assert!(shares > 0);
    let credited = payment.balanceOf(owner.address(), 0).call().await.unwrap();
    assert!(credited >= U256::from(shares), "shares, and tips of settlements");
    for (event, _) in filter {
        let bytes = net.store.get(event.outputDigest).await.unwrap();
        let result = ResultBlock::decode(&bytes).unwrap();
        assert!(result.text.starts_with("by "), "{}", result.text);
        assert_eq!(event.outputTokens as usize, result.ids.len());
        let least = fee_up(event.promptTokens, event.outputTokens, PRICE_IN, PRICE_OUT);
        assert!(event.fee >= U96::from(least), "{} below the floor's {least}", event.fee);
    }
    net.check_conservation().await;
    assert_eq!(miner.status().last_error, None);
    miner.stop().await.unwrap();

    // The next life finds its node, and what it earned.
    let miner = net.start(&owner, &operator).await.unwrap();
    assert_eq!(miner.node_id(), node);
    assert_eq!(miner.status().earned, shares);
    assert_eq!(pool.nodeCount().call().await.unwrap(), 1);
    miner.stop().await.unwrap();
    net.devnet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_is_carried_to_the_chain_with_its_answer() {
    use assay_types::{
        Bytes,
        link::{FromRouter, Offer},
    };

    use crate::world::FakeRouter;

    let key = PrivateKeySigner::random();
    let net = Net::new(&[key.address()]).await;
    net.give(key.address(), 200).await;
    let mut router = FakeRouter::start(net.client.clone()).await;
    router.queue = net.deployment.queue;
    let chain = Chain::connect(&net.devnet.http_url(), net.deployment.clone()).await.unwrap();
    let deps = MinerDeps {
        chain,
        owner: key.clone(),
        operator: key.clone(),
        store: net.store.clone(),
        engine: net.engine.clone(),
        model_id: net.engine.info().model_id,
    };
    let config = MinerConfig { router_urls: vec![router.url()], ..net.config(key.address()) };
    let miner = start(config, deps).await.unwrap();
    router.node = miner.node_id();
    let mut link = router.accept(key.address()).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let session = net.session(1).await;
    let (request, bytes) = net.request(session, 1, miner.node_id().0, "carried").await;
    let task = request.task_id(net.deployment.queue);
    let hash = request.signing_hash(31337, net.deployment.queue);
    let signature = net.client.sign_hash_sync(&hash).unwrap();
    let offer = Offer { request, signature, block: Bytes::from(bytes), stream: true };
    link.send(FromRouter::Offer(Box::new(offer))).await;
    assert_eq!(link.task(task).await.text, "carried");
    net.settled(&miner, 1, task).await;
    net.check_conservation().await;
    miner.stop().await.unwrap();
    net.devnet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_is_named() {
    let (owner, operator) = (PrivateKeySigner::random(), PrivateKeySigner::random());
    let other = PrivateKeySigner::random();
    let net = Net::new(&[owner.address(), other.address()]).await;
    let refused = async |owner: &PrivateKeySigner, operator: &PrivateKeySigner| {
        net.start(owner, operator).await.err().unwrap()
    };
    let error = refused(&owner, &operator).await;
    assert!(
        matches!(&error, MinerError::NoGas { role: "operator", account } if *account == operator.address()),
        "{error}"
    );
    let error = refused(&operator, &other).await;
    assert!(matches!(&error, MinerError::NoGas { role: "owner", .. }), "{error}");

    net.give(owner.address(), 50).await;
    let error = refused(&owner, &other).await;
    let text = error.to_string();
    assert!(matches!(error, MinerError::NoStake { .. }), "{text}");
    assert!(text.contains(&owner.address().to_string()), "{text}");
    assert!(text.contains("the missing 150"), "{text}");

    net.give(owner.address(), 150).await;
    net.start(&owner, &other).await.unwrap().stop().await.unwrap();

    // The node is there; another model is not its own, and one that nobody registered is named.
    let options = EchoOptions { model: "other".into(), ..EchoOptions::default() };
    let engine = Arc::new(EchoEngine::new(options).unwrap());
    let model_id = engine.info().model_id;
    let with = async |model_id| {
        let chain = Chain::connect(&net.devnet.ws_url(), net.deployment.clone()).await.unwrap();
        let deps = MinerDeps {
            chain,
            owner: owner.clone(),
            operator: other.clone(),
            store: net.store.clone(),
            engine: engine.clone(),
            model_id,
        };
        start(net.config(other.address()), deps).await.err().unwrap()
    };
    let error = with(net.engine.info().model_id).await;
    assert!(matches!(error, MinerError::WrongEngine { .. }), "{error}");
    let error = with(model_id).await;
    assert!(matches!(error, MinerError::UnknownModel(_)), "{error}");
    let models = ModelRegistry::new(net.deployment.models, &net.provider);
    let call = models.register(registration(model_id));
    net.mined(call.from(net.admin.address()).send().await).await;
    let error = with(model_id).await;
    assert!(matches!(error, MinerError::NodeMismatch { what: "model", .. }), "{error}");
    net.devnet.stop().await;
}

/// Three nodes of three owners, in one session; returns their keys, their miners and the session.
async fn three() -> (Net, Vec<MinerHandle>, u64) {
    let keys: Vec<_> = (0..3).map(|_| PrivateKeySigner::random()).collect();
    let addresses: Vec<_> = keys.iter().map(PrivateKeySigner::address).collect();
    let net = Net::new(&addresses).await;
    let mut miners = Vec::new();
    for key in &keys {
        net.give(key.address(), 200).await;
        miners.push(net.start(key, key).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let session = net.session(3).await;
    (net, miners, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_precommit_open_and_are_paid() {
    let (net, miners, session) = three().await;
    let (request, bytes) = net.request(session, 0, 0, "three times").await;
    let request = TaskRequest { redundancy: 3, ..request };
    let task = request.task_id(net.deployment.queue);
    net.store.put(bytes.into()).await.unwrap();
    let queue = SessionQueue::new(net.deployment.queue, &net.provider);
    net.mined(queue.submit(request.into()).from(net.client.address()).send().await).await;
    for miner in &miners {
        net.settled(miner, 1, task).await;
        let status = miner.status();
        assert_eq!((&status.last_error, status.declined.len()), (&None, 0));
    }
    let precommits = queue.TaskPrecommitted_filter().from_block(0).query().await.unwrap();
    let answers = queue.TaskCommitted_filter().from_block(0).query().await.unwrap();
    assert_eq!((precommits.len(), answers.len()), (3, 3));
    // Outputs stand alone: each has its own block, with its own salt.
    let mut digests: Vec<_> = answers.iter().map(|(event, _)| event.outputDigest).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 3);
    net.check_conservation().await;
    for miner in miners {
        miner.stop().await.unwrap();
    }
    net.devnet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_share_a_queue_and_hand_back_what_they_cannot_serve() {
    let (net, miners, session) = three().await;
    let queue = SessionQueue::new(net.deployment.queue, &net.provider);
    let client = net.client.address();
    let mut tasks = Vec::new();
    for nonce in 0..4 {
        let (request, bytes) = net.request(session, 0, 0, &format!("queued {nonce}")).await;
        let dispatch = Dispatch::Pull as u8;
        let request = TaskRequest { nonce, dispatch, ..request };
        tasks.push(request.task_id(net.deployment.queue));
        net.store.put(bytes.into()).await.unwrap();
        net.mined(queue.submit(request.into()).from(client).send().await).await;
    }
    // Somebody reveals the rounds of the claims, as they come.
    let mut revealed = 0;
    while revealed < tasks.len() {
        let moves = queue.TaskMoved_filter().from_block(0).query().await.unwrap();
        let rounds: Vec<_> = moves.iter().map(|(event, _)| event.task.seedRound).collect();
        for round in rounds.into_iter().skip(revealed) {
            let beacon = RandomBeacon::new(net.deployment.beacon, &net.provider);
            if beacon.valueOf(round).call().await.unwrap().is_zero() {
                net.reveal(round).await;
            }
            revealed += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = || miners.iter().map(|miner| miner.status().settled).sum::<u64>();
    until("all are settled", || settled() == 4).await;
    for task in tasks {
        assert_eq!(net.task_state(task).await, TaskState::Settled as u8);
    }

    // Too long for its own bound: each node hands it on, and the client has its money back at last.
    let (request, bytes) = net.request(session, 0, 0, &"long ".repeat(40)).await;
    let request = TaskRequest { nonce: 10, attempts: 3, ..request };
    let task = request.task_id(net.deployment.queue);
    net.store.put(bytes.into()).await.unwrap();
    net.mined(queue.submit(request.into()).from(client).send().await).await;
    let back = |miner: &MinerHandle| miner.status().handed_back.get("prompt_too_long").copied();
    until("all hand it back", || miners.iter().all(|miner| back(miner) == Some(1))).await;
    assert_eq!(net.task_state(task).await, TaskState::Refunded as u8);
    net.check_conservation().await;
    for miner in miners {
        miner.stop().await.unwrap();
    }
    net.devnet.stop().await;
}
