//! One sequence of random calls.

use std::{collections::BTreeMap, panic, sync::Arc, time::Duration};

use alloy::primitives::{
    Address, B256, Bytes,
    aliases::{U80, U96},
};
use assay_bindings::{
    ModelRegistry::{
        Floor, ModelRegistration, ModelRegistryCalls, attestCall, calibrateCall,
        registerCall as ModelCall,
    },
    NodePool::{NodePoolCalls, NodeRegistration, Offer, registerCall as NodeCall},
    RandomBeacon::revealCall,
    Session::{LaneTerms, OpenTerms, activateCall, openCall},
};
use assay_protocol::{Call, State, TaskState, beacon::Beacon, state::AuditState};
use rand::{Rng, SeedableRng, distr::weighted::WeightedIndex, prelude::Distribution};
use rand_chacha::ChaCha8Rng;

use super::{
    actions::{DISPUTED, Gen, INTRUSION, KINDS, Kind, PROVEN, Step, proofs::CLASSES},
    people::People,
    records::{CALIBRATION, Cast},
    storage::{Touched, compare},
    world::{Effect, World, floors},
};

/// Calls that are tried until the model takes one, where one is wanted that succeeds.
const TRIES: u32 = 5;
/// Out of a hundred calls, those that need not succeed, and are wrong on purpose.
const WILD: u32 = 14;
/// Out of a thousand steps, those before which no block's hash is known any more.
const FORGETTING: u32 = 1;
const FORGOTTEN_BLOCKS: u64 = 257;

/// What happened in sequences.
#[derive(Default)]
pub struct Tally {
    /// Tries and successes by kind of call.
    pub kinds: BTreeMap<&'static str, (u64, u64)>,
    /// By name.
    pub events: BTreeMap<&'static str, u64>,
    /// By the name of the error.
    pub refusals: BTreeMap<String, u64>,
}

impl Tally {
    fn count(&mut self, kind: &'static str, effect: &Effect) {
        let counts = self.kinds.entry(kind).or_default();
        counts.0 += 1;
        match effect {
            Ok(events) => {
                counts.1 += 1;
                for event in events {
                    *self.events.entry(event.name()).or_default() += 1;
                }
            }
            Err(refusal) => {
                let text = refusal.to_string();
                let name = text.split('(').next().unwrap_or_default();
                *self.refusals.entry(name.to_owned()).or_default() += 1;
            }
        }
    }

    pub fn add(&mut self, other: Self) {
        for (kind, (tried, succeeded)) in other.kinds {
            let counts = self.kinds.entry(kind).or_default();
            (counts.0, counts.1) = (counts.0 + tried, counts.1 + succeeded);
        }
        for (event, times) in other.events {
            *self.events.entry(event).or_default() += times;
        }
        for (refusal, times) in other.refusals {
            *self.refusals.entry(refusal).or_default() += times;
        }
    }

    #[allow(clippy::print_stdout, reason = "shown with --nocapture, for whoever tunes the weights")]
    pub fn report(&self, sequences: u64, took: Duration) {
        let calls: u64 = self.kinds.values().map(|counts| counts.0).sum();
        let rate = calls as f64 / took.as_secs_f64();
        println!("{sequences} sequences, {calls} calls in {took:?}: {rate:.0} a second");
        for (kind, (tried, succeeded)) in &self.kinds {
            let share = 100 * succeeded / (*tried).max(1);
            println!("{kind}: {succeeded} of {tried} succeeded ({share} %)");
        }
        println!("events: {:?}", self.events);
        println!("refusals: {:?}", self.refusals);
    }
}

/// A world with models and nodes, to which every sequence goes back.
pub struct Base {
    world: World,
    state: State,
    snapshot: u64,
    kinds: &'static [Kind],
}

impl Base {
    /// With proven sessions or without.
    pub fn new(people: Arc<People>, proven: bool) -> Self {
        let mut world = World::deploy(people, Beacon::Blockhash);
        for (caller, call) in beginning(&world.people) {
            let time_s = world.now_s() + 1;
            let effect = agree(&mut world, caller, &call, time_s);
            effect.expect("the world cannot begin");
        }
        world.mine(world.now_s() + 10);
        if proven {
            swear_in(&mut world);
            begin_proving(&mut world);
        }
        compare(&world, &Touched::everything(&world.state));
        let snapshot = world.chain.snapshot().unwrap();
        let kinds = if proven { PROVEN } else { KINDS };
        Self { state: world.state.clone(), world, snapshot, kinds }
    }

    /// With proven sessions alone, whose answers go through their disputes.
    pub fn disputed(people: Arc<People>, cast: Cast) -> Self {
        let mut base = Self::new(people, true);
        (base.world.cast, base.kinds) = (cast, DISPUTED);
        base
    }

    /// The world as it is at the beginning.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// The sequence of a seed, from the beginning. Panics where contracts and model differ, and tells the calls up to
    /// there.
    #[allow(clippy::print_stderr, reason = "what led to a failure belongs beside it")]
    pub fn run(&mut self, seed: u64, steps: u64) -> Tally {
        self.world.chain.revert(self.snapshot).unwrap();
        self.snapshot = self.world.chain.snapshot().unwrap();
        self.world.state = self.state.clone();
        self.world.log.borrow_mut().clear();
        let (world, kinds) = (&mut self.world, self.kinds);
        let run = || sequence(world, kinds, seed, steps);
        let result = panic::catch_unwind(panic::AssertUnwindSafe(run));
        result.unwrap_or_else(|cause| {
            eprintln!("seed {seed}, after these calls:\n{}", self.world.log.borrow().join("\n"));
            panic::resume_unwind(cause);
        })
    }
}

fn sequence(world: &mut World, kinds: &[Kind], seed: u64, steps: u64) -> Tally {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let weights = WeightedIndex::new(kinds.iter().map(|kind| kind.weight)).unwrap();
    for _ in 0..steps {
        if rng.random_ratio(FORGETTING, 1000) {
            (0..FORGOTTEN_BLOCKS).for_each(|_| world.mine(world.now_s()));
        }
        let time_s = next_time(world, &mut rng);
        let (name, (caller, call)) = choose(world, &mut rng, (kinds, &weights), time_s);
        let effect = agree(world, caller, &call, time_s);
        tally.count(name, &effect);
    }
    compare(world, &Touched::everything(&world.state));
    tally
}

/// A call that the model takes, or sometimes whatever comes.
fn choose(
    world: &World,
    rng: &mut ChaCha8Rng,
    (kinds, weights): (&[Kind], &WeightedIndex<u32>),
    time_s: u64,
) -> (&'static str, Step) {
    if rng.random_ratio(1, 100) {
        let step = (INTRUSION.make)(&mut Gen { world, rng, time_s, wild: true }).unwrap();
        return (INTRUSION.name, step);
    }
    let wild = rng.random_ratio(WILD, 100);
    loop {
        let kind = &kinds[weights.sample(rng)];
        for _ in 0..TRIES {
            let Some(step) = (kind.make)(&mut Gen { world, rng, time_s, wild }) else { break };
            if wild || world.foresee(step.0, &step.1, time_s).is_ok() {
                return (kind.name, step);
            }
        }
    }
}

/// Mostly soon; sometimes when something ends, at its last second or the next; seldom much later.
fn next_time(world: &World, rng: &mut ChaCha8Rng) -> u64 {
    let now_s = world.now_s();
    // Audits take many calls inside short times.
    let audits = !world.state.proofs.answers.is_empty();
    let stays = if world.cast == Cast::Liars { 98 } else { 88 };
    if audits && rng.random_ratio(stays, 100) {
        return now_s;
    }
    match rng.random_range(0..100) {
        0..55 => now_s,
        55..86 => now_s + rng.random_range(1..3),
        86..98 => {
            let ends = ends(&world.state, now_s);
            let last = ends.len().min(4);
            if last == 0 {
                return now_s + 1;
            }
            ends[rng.random_range(0..last)] + rng.random_range(0..2)
        }
        98 => now_s + rng.random_range(1..500),
        _ => now_s + rng.random_range(1..30_000),
    }
}

/// Times that something waits for, unix seconds, from now on, the first first.
fn ends(state: &State, now_s: u64) -> Vec<u64> {
    let mut ends = Vec::new();
    for session in state.sessions.values() {
        ends.extend([session.ends_at_s, session.rotates_at_s, session.previous.until_s]);
        ends.extend(session.waiting.map(|waiting| waiting.until_s));
        ends.extend(session.lanes.iter().map(|lane| lane.reclaim_at_s));
    }
    let moving = |state| !matches!(state, TaskState::Settled | TaskState::Refunded);
    let tasks = state.tasks.values().filter(|entry| moving(entry.record.state));
    ends.extend(tasks.map(|entry| entry.record.until_s));
    ends.extend(state.nodes.values().map(|node| node.exit_at_s));
    let proof = &state.network.proof;
    let epoch_s = proof.epochLength.to::<u64>();
    ends.extend(state.proofs.answers.values().map(|standing| match standing.state {
        AuditState::Exposed => (standing.exposure.committed_at_s / epoch_s + 1) * epoch_s,
        _ => standing.until_s,
    }));
    let named = state.proofs.rounds.values().map(|(_, named_at_s)| named_at_s);
    ends.extend(named.map(|time_s| time_s + proof.roundTimeout.to::<u64>()));
    ends.push(state.tunables.effective_at_s);
    ends.retain(|time_s| *time_s >= now_s);
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Contracts and model do the same: what the call did.
pub fn agree(world: &mut World, caller: Address, call: &Call, time_s: u64) -> Effect {
    let foreseen = world.foresee(caller, call, time_s);
    let outcome = match &foreseen {
        Ok(events) => format!("{} events", events.len()),
        Err(refusal) => refusal.to_string(),
    };
    let block = world.chain.head().number() + 1;
    let line = format!("{time_s} (block {block}) {caller}: {call:?} -> {outcome}");
    world.log.borrow_mut().push(line);
    let happened = world.carry_out(caller, call, time_s);
    if let (Ok(happened), Ok(foreseen)) = (&happened, &foreseen) {
        for (happened, foreseen) in happened.iter().zip(foreseen) {
            assert_eq!(happened, foreseen, "left the contracts, right the model");
        }
    }
    assert_eq!(happened, foreseen, "left the contracts, right the model");
    if let Ok(events) = &happened {
        for event in events {
            world.state.fold(time_s, event).unwrap();
        }
        compare(world, &Touched::by(events, &world.state));
    }
    happened
}

/// Two models, nodes of several owners for everybody, and some of one client each.
fn beginning(people: &People) -> Vec<Step> {
    let model = |name: u8| B256::repeat_byte(name);
    let register_model = |name: u8| {
        let floors = floors().into_iter().zip(0..);
        let floors = floors.map(|((price_in, price_out), asset)| Floor {
            asset,
            priceIn: price_in,
            priceOut: price_out,
        });
        let registration = ModelRegistration {
            modelId: model(name),
            manifestDigest: B256::repeat_byte(name + 1),
            predecessor: B256::ZERO,
            royaltyBps: 200,
            floors: floors.collect(),
        };
        let call = ModelRegistryCalls::register(ModelCall { registration });
        (people.publishers[0], Call::Models(call))
    };
    let register_node = |number: usize| {
        let dedicated = number >= 10;
        let offer = |name: u8, capacity: u8| Offer { modelId: model(name), capacity };
        let registration = NodeRegistration {
            operator: people.operators[number],
            payout: people.operators[number],
            dedicatedTo: if dedicated { people.clients[number % 5] } else { Address::ZERO },
            numericClass: CLASSES[usize::from(number % 4 == 3)],
            offers: vec![offer(0x11, 1 + number as u8 % 3), offer(0x22, 1)],
        };
        let call = NodePoolCalls::register(NodeCall { registration });
        (people.owners[number % people.owners.len()], Call::Nodes(call))
    };
    let models = [0x11, 0x22].map(register_model).into_iter();
    models.chain((0..14).map(register_node)).collect()
}

/// Nodes of owners who have no other, so that an appeal finds its panel.
fn swear_in(world: &mut World) {
    let model = world.state.models[&1].id;
    for (number, juror) in world.people.jurors.clone().into_iter().enumerate() {
        let registration = NodeRegistration {
            operator: juror,
            payout: juror,
            dedicatedTo: Address::ZERO,
            numericClass: CLASSES[usize::from(number % 4 == 3)],
            offers: vec![Offer { modelId: model, capacity: 2 }],
        };
        let time_s = world.now_s();
        let call = NodeCall { registration };
        agree(world, juror, &call.into(), time_s).expect("a node cannot begin");
    }
    world.mine(world.now_s() + 10);
}

/// The first model calibrated, miners of the first class with validators of both, which three owners have measured; and a
/// session of it with nodes and a seed, and money for all that may come.
fn begin_proving(world: &mut World) {
    let (people, model) = (Arc::clone(&world.people), world.state.models[&1].id);
    let word = CALIBRATION.pack().unwrap();
    let act = |world: &mut World, caller: Address, call: Call| {
        let time_s = world.now_s();
        agree(world, caller, &call, time_s).expect("sessions cannot be proven")
    };
    for validator in CLASSES {
        let (miner_class, validator_class) = (CLASSES[0], validator);
        let call = calibrateCall {
            modelId: model,
            minerClass: miner_class,
            validatorClass: validator_class,
            word,
        };
        act(world, people.publishers[0], call.into());
        for number in 0..3 {
            let call = attestCall {
                modelId: model,
                minerClass: miner_class,
                validatorClass: validator_class,
                word,
                nodeId: number as u32 + 1,
            };
            act(world, people.operators[number], call.into());
        }
    }
    let deposit = U96::from(10_u128.pow(21));
    let terms = OpenTerms {
        modelId: model,
        asset: 0,
        minNodes: 2,
        maxNodes: 4,
        dedicated: Vec::new(),
        maxPriceIn: U80::MAX,
        maxPriceOut: U80::MAX,
        deposit,
        lanes: vec![LaneTerms { holder: people.routers[0], allotment: deposit / U96::from(2) }],
    };
    act(world, people.clients[0], openCall { terms }.into());
    while world.state.sessions[&1].current.nodes.is_empty() {
        let round = world.state.sessions[&1].waiting.expect("a draw").round;
        reveal(world, round);
        act(world, people.keepers[0], activateCall { sessionId: 1 }.into());
    }
    reveal(world, world.state.sessions[&1].current.seed_round);
    // A pair counts for answers that are committed after its second.
    world.mine(world.now_s() + 1);
}

/// Reveals a round that the next block ends.
pub fn reveal(world: &mut World, round: u64) {
    while world.chain.head().number() < round {
        world.mine(world.now_s());
    }
    let (keeper, time_s) = (world.people.keepers[0], world.now_s());
    let call = Call::Beacon(revealCall { round, proof: Bytes::new() });
    agree(world, keeper, &call, time_s).expect("the round is over");
}
