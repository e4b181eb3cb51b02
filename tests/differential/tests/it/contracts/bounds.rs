//! What random sequences seldom reach: a queue that is full, a node that has claimed as much as it may, and one of whose
//! stake nothing is left to take.

use std::sync::Arc;

use alloy::primitives::{
    B256, Bytes, U256,
    aliases::{U80, U96},
};
use assay_bindings::{
    RandomBeacon::revealCall,
    Session::{OpenTerms, openCall},
    SessionQueue::{Precommit, Task, TaskRequest, claimCall, reportEquivocationCall, submitCall},
};
use assay_protocol::{Call, ProtocolEvent};
use assay_types::{Dispatch, Precommit as SignedPrecommit, Signed};

use super::{
    people::People,
    sequence::{Base, agree},
    world::{Effect, World},
};

/// Lies, each of which costs half of what is left, until that is nothing: a stake is below 2^96 minor units.
const LIES: u64 = 96;
/// Tasks that wait in one queue, and claims of one node that it has not answered, at most.
const QUEUE: u64 = 64;
const CLAIMS: usize = 2;

fn pulled(session: u64, nonce: u64, deadline: u64) -> TaskRequest {
    TaskRequest {
        sessionId: session,
        lane: 0,
        nonce,
        seedRound: 0,
        requestDigest: B256::repeat_byte(1),
        maxPrompt: 100,
        maxOutput: 100,
        feeCap: U96::MAX,
        deadline,
        nodeId: 0,
        redundancy: 1,
        attempts: 1,
        dispatch: Dispatch::Pull as u8,
        callbackGas: 0,
    }
}

/// A session of the first dedicated node: its id.
fn open(world: &mut World, node: u32) -> u64 {
    let (client, model) = (world.state.nodes[&node].dedicated_to, world.state.models[&1].id);
    let terms = OpenTerms {
        modelId: model,
        asset: 0,
        minNodes: 0,
        maxNodes: 0,
        dedicated: vec![node],
        maxPriceIn: U80::MAX,
        maxPriceOut: U80::MAX,
        deposit: U96::from(10_u128.pow(20)),
        lanes: Vec::new(),
    };
    let time_s = world.now_s();
    agree(world, client, &Call::from(openCall { terms }), time_s).expect("the session opens");
    world.state.sessions.len() as u64
}

/// The task that the queue took in.
fn submitted(effect: Effect) -> Task {
    match effect.expect("the task is taken").as_slice() {
        [ProtocolEvent::TaskSubmitted(event)] => event.task.clone(),
        other => panic!("{other:?}"),
    }
}

fn refused(effect: Effect, by: &str) {
    let refusal = effect.expect_err(by).to_string();
    assert!(refusal.starts_with(by), "{refusal}");
}

/// A dedicated node.
fn dedicated(world: &World) -> u32 {
    let node = world.state.nodes.iter().find(|(_, node)| node.is_dedicated());
    *node.expect("there are dedicated nodes").0
}

/// Two commitments of a node to one task.
fn lie(world: &World, task: B256, node: u32) -> reportEquivocationCall {
    let deployment = &world.state.network.deployment;
    let precommit = |byte| {
        let commitment = B256::repeat_byte(byte);
        let signed = SignedPrecommit { taskId: task, nodeId: node, commitment };
        let hash = signed.signing_hash(deployment.chain_id, deployment.queue);
        let signature = world.people.sign(world.state.nodes[&node].operator, hash);
        Precommit { nodeId: node, commitment, signature }
    };
    reportEquivocationCall { taskId: task, one: precommit(1), other: precommit(2) }
}

/// `[E1]` `[E2]` A lie is told by an event, and counts once, when nothing is left of the stake, too.
#[test]
fn contracts_and_model_agree_on_lies_that_cost_nothing() {
    let mut base = Base::new(Arc::new(People::new()), false);
    let world = base.world();
    let node = dedicated(world);
    let client = world.state.nodes[&node].dedicated_to;
    let session = open(world, node);
    let time_s = world.now_s();
    world.mine(time_s);
    let round = world.state.sessions[&session].current.seed_round;
    let reveal = Call::Beacon(revealCall { round, proof: Bytes::new() });
    agree(world, client, &reveal, time_s).expect("the round is over");
    let mut taken = None;
    for nonce in 0..LIES {
        let request =
            TaskRequest { dispatch: Dispatch::Push as u8, ..pulled(session, nonce, time_s + 50) };
        let task = submitted(agree(world, client, &Call::from(submitCall { request }), time_s));
        let id = world.state.network.scope().task_id(&task).0;
        let call = Call::from(lie(world, id, node));
        let events = agree(world, client, &call, time_s).expect("it is a lie");
        refused(agree(world, client, &call, time_s), "SessionQueue_AlreadyPunished");
        taken = events.iter().find_map(|event| match event {
            ProtocolEvent::Slashed(event) => Some(event.amount),
            _ => None,
        });
    }
    assert_eq!(taken, Some(U256::ZERO), "what the last lie cost");
}

/// `[E2]` The model knows both bounds, to the last task and to the last claim.
#[test]
fn contracts_and_model_agree_on_the_bounds_of_a_queue() {
    let mut base = Base::new(Arc::new(People::new()), false);
    let world = base.world();
    let node = dedicated(world);
    let (client, operator) =
        (world.state.nodes[&node].dedicated_to, world.state.nodes[&node].operator);
    let session = open(world, node);
    let time_s = world.now_s();
    let mut submit = |nonce| {
        let request = pulled(session, nonce, time_s + 50);
        agree(base.world(), client, &Call::from(submitCall { request }), time_s)
    };
    let tasks: Vec<Task> = (0..QUEUE).map(|nonce| submitted(submit(nonce))).collect();
    refused(submit(QUEUE), "SessionQueue_QueueFull");

    let mut claim = |task: &Task| {
        let call = claimCall { task: task.clone(), nodeId: node, gone: Vec::new() };
        agree(base.world(), operator, &Call::from(call), time_s)
    };
    for task in &tasks[..CLAIMS] {
        claim(task).expect("the claim is taken");
    }
    refused(claim(&tasks[CLAIMS]), "SessionQueue_TooManyClaims");
}
