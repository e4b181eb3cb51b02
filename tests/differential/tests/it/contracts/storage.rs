//! The model's state against the contracts' storage, through their views.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use assay_bindings::{
    ModelRegistry, NodePool, NodeStats, Parameters, RandomBeacon, Session, SessionPayment,
    SessionQueue,
};
use assay_protocol::{
    ProtocolEvent, State, digest,
    level::Series,
    state::{Lane, Reservation},
};

use super::world::World;

/// What a call may have changed.
#[derive(Default)]
pub struct Touched {
    pub models: BTreeSet<u32>,
    pub nodes: BTreeSet<u32>,
    pub sessions: BTreeSet<u64>,
    pub tasks: BTreeSet<B256>,
    pub accounts: BTreeSet<Address>,
    pub rounds: BTreeSet<u64>,
    pub tunables: bool,
}

impl Touched {
    pub fn everything(state: &State) -> Self {
        Self {
            models: state.models.keys().copied().collect(),
            nodes: state.nodes.keys().copied().collect(),
            sessions: state.sessions.keys().copied().collect(),
            tasks: state.tasks.keys().copied().collect(),
            accounts: state.accounts.balances.keys().map(|(account, _)| *account).collect(),
            rounds: state.rounds.keys().copied().collect(),
            tunables: true,
        }
    }

    pub fn by(events: &[ProtocolEvent], state: &State) -> Self {
        let mut touched = Self::default();
        for event in events {
            touched.add(event, state);
        }
        touched
    }

    fn add(&mut self, event: &ProtocolEvent, state: &State) {
        use ProtocolEvent as E;
        match event {
            E::TermsProposed(_)
            | E::TermsWithdrawn(_)
            | E::GovernorProposed(_)
            | E::GovernorChanged(_) => self.tunables = true,
            E::ModelRegistered(e) => _ = self.models.insert(e.index),
            E::ModelDeprecated(e) => _ = self.models.insert(e.index),
            E::StatsChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::NodeRegistered(e) => _ = self.nodes.insert(e.nodeId),
            E::Offered(e) => _ = self.nodes.insert(e.nodeId),
            E::OperatorChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::PayoutChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::NodeStateChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::DrawEntered(e) => _ = self.models.insert(e.model),
            E::DrawPassed(e) => _ = self.models.insert(e.model),
            E::NodeReserved(e) => _ = self.nodes.insert(e.nodeId),
            E::NodeReleased(e) => _ = self.nodes.insert(e.nodeId),
            E::SessionOpened(e) => _ = self.sessions.insert(e.sessionId),
            E::LaneAdded(e) => _ = self.sessions.insert(e.sessionId),
            E::LaneReclaimed(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionToppedUp(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionDrawing(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionActivated(e) => _ = self.sessions.insert(e.sessionId),
            E::RotationDropped(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionDraining(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionClosed(e) => _ = self.sessions.insert(e.sessionId),
            E::TaskSubmitted(e) => self.task(e.taskId, state),
            E::PartChanged(e) => {
                self.task(e.taskId, state);
                self.nodes.insert(e.nodeId);
            }
            E::TaskPrecommitted(e) => self.task(e.taskId, state),
            E::TaskCommitted(e) => {
                self.task(e.taskId, state);
                self.nodes.insert(e.nodeId);
            }
            E::TaskMoved(e) => self.task(e.taskId, state),
            E::TaskSettled(e) => self.task(e.taskId, state),
            E::TaskRefunded(e) => self.task(e.taskId, state),
            E::AnswerDelivered(e) => self.task(e.taskId, state),
            E::Deposited(e) => _ = self.sessions.insert(e.sessionId),
            E::FundsMoved(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionReturned(e) => _ = self.accounts.insert(e.owner),
            E::TipPaid(e) => _ = self.accounts.insert(e.keeper),
            E::Credited(e) => _ = self.accounts.insert(e.account),
            E::Staked(e) => _ = self.nodes.insert(e.nodeId),
            E::StakeReleased(e) => _ = self.accounts.insert(e.owner),
            E::Slashed(e) => _ = self.nodes.insert(e.nodeId),
            E::Withdrawn(e) => _ = self.accounts.insert(e.account),
            E::Burnt(_) => _ = self.accounts.insert(assay_protocol::state::DEAD),
            E::RoundRevealed(e) => _ = self.rounds.insert(e.round),
        }
    }

    /// A task, and the session whose money it holds.
    fn task(&mut self, id: B256, state: &State) {
        self.tasks.insert(id);
        self.sessions.insert(state.tasks[&id].record.task.sessionId);
    }
}

/// Everything that a call may have changed is in storage what the events say.
pub fn compare(world: &World, touched: &Touched) {
    if touched.tunables {
        tunables(world);
    }
    touched.models.iter().for_each(|index| model(world, *index));
    touched.nodes.iter().for_each(|id| node(world, *id));
    touched.sessions.iter().for_each(|id| session(world, *id));
    touched.tasks.iter().for_each(|id| task(world, *id));
    touched.accounts.iter().for_each(|account| balances(world, *account));
    for round in &touched.rounds {
        let call = RandomBeacon::valueOfCall { round: *round };
        let stored = world.read(world.state.network.deployment.beacon, &call);
        assert_eq!(stored, world.state.rounds[round], "round {round}");
    }
    totals(world);
}

fn tunables(world: &World) {
    let (tunables, at) = (&world.state.tunables, world.state.network.deployment.parameters);
    let version = tunables.version_at(world.now_s());
    assert_eq!(world.read(at, &Parameters::currentVersionCall {}), version);
    assert_eq!(world.read(at, &Parameters::governorCall {}), tunables.governor);
    assert_eq!(world.read(at, &Parameters::successorCall {}), tunables.successor);
    for version in 1..=version {
        let stored = world.read(at, &Parameters::termsOfCall { version });
        assert_eq!(stored, tunables.versions[&version], "version {version}");
    }
}

fn model(world: &World, index: u32) {
    let (state, to) = (&world.state, &world.state.network.deployment);
    let model = &state.models[&index];
    let stored = world.read(to.models, &ModelRegistry::modelAtCall { index });
    let expected = ModelRegistry::Model {
        publisher: model.publisher,
        royaltyBps: model.royalty_bps,
        registeredAt: model.registered_at_s.try_into().unwrap(),
        deprecatedAt: model.deprecated_at_s.try_into().unwrap(),
        index,
        version: model.version,
        modelId: model.id,
        predecessor: model.predecessor,
        manifestDigest: model.manifest_digest,
    };
    assert_eq!(stored, expected);
    for (asset, (price_in, price_out)) in &model.floors {
        let call = ModelRegistry::floorsOfCall { index, asset: *asset };
        let stored = world.read(to.models, &call);
        assert_eq!(stored.priceIn.to::<u128>(), *price_in);
        assert_eq!(stored.priceOut.to::<u128>(), *price_out);
    }
    let pool = state.pools.get(&(index, false)).cloned().unwrap_or_default();
    let stored = world.read(to.nodes, &NodePool::poolOfCall { model: index });
    assert_eq!(
        (stored.slots, stored.taken, stored.used),
        (pool.slots(), pool.taken(), pool.used()),
        "pool of model {index}"
    );
    let stored = world.read(to.nodes, &NodePool::ticketsOfCall { model: index });
    assert_eq!(stored.next.to::<u64>(), pool.tickets_given + 1);
    assert_eq!(stored.head.to::<u64>(), pool.tickets_passed + 1);
}

fn node(world: &World, id: u32) {
    let (state, to) = (&world.state, &world.state.network.deployment);
    let node = &state.nodes[&id];
    let expected = NodePool::Node {
        owner: node.owner,
        state: node.state as u8,
        exitAt: node.exit_at_s.try_into().unwrap(),
        termsVersion: node.terms_version,
        operator: node.operator,
        operatorSince: node.operator_since_s.try_into().unwrap(),
        previousOperator: node.previous_operator,
        payout: node.payout,
        dedicatedTo: node.dedicated_to,
        numericClass: node.class,
    };
    assert_eq!(world.read(to.nodes, &NodePool::nodeOfCall { nodeId: id }), expected, "node {id}");
    let by_operator = NodePool::nodeByOperatorCall { operator: node.operator };
    let user = state.node_by_operator(node.operator).unwrap_or(0);
    assert_eq!(world.read(to.nodes, &by_operator), user);

    let places = state.places_of(id);
    let reserved = places.iter().filter(|(_, _, place)| place.session != 0).count();
    let stored = world.read(to.nodes, &NodePool::reservationsOfCall { nodeId: id });
    assert_eq!(stored.to::<usize>(), reserved, "reservations of node {id}");
    let offers = world.read(to.nodes, &NodePool::offersOfCall { nodeId: id });
    let models: Vec<u32> = places.iter().map(|(model, _, _)| *model).collect();
    let runs: Vec<(u32, u8)> =
        models.chunk_by(|one, other| one == other).map(|run| (run[0], run.len() as u8)).collect();
    let stored: Vec<(u32, u8)> = offers._0.into_iter().zip(offers._1).collect();
    assert_eq!(stored, runs, "offers of node {id}");
    for (model, _) in &runs {
        eligibility(world, id, *model);
    }

    for series in [Series::Drawn, Series::Dedicated] {
        let record = state.record(id, series);
        let call = NodeStats::recordOfCall { nodeId: id, series: series as u8 };
        assert_eq!(world.read(to.stats, &call), record.into(), "record of node {id}");
        let call = NodeStats::levelOfCall { nodeId: id, series: series as u8 };
        assert_eq!(
            world.read(to.stats, &call),
            record.level_at(state.network.clock, world.now_s())
        );
    }
    let stake = world.read(to.payment, &SessionPayment::stakeOfCall(id));
    assert_eq!(stake.to::<u128>(), state.accounts.stake(id), "stake of node {id}");
    let claims = state.claims.get(&id).copied().unwrap_or(0);
    assert_eq!(world.read(to.queue, &SessionQueue::claimsOfCall { nodeId: id }), claims);
}

/// What a draw that is entered now could find of a node.
fn eligibility(world: &World, id: u32, model: u32) {
    let (state, as_of_s) = (&world.state, world.now_s());
    let call = NodePool::eligibilityOfCall { nodeId: id, model, asOf: as_of_s.try_into().unwrap() };
    let stored = world.read(state.network.deployment.nodes, &call);
    let node = &state.nodes[&id];
    let drawn = !node.is_dedicated() && node.state != assay_protocol::state::NodeState::Jailed;
    let places = state.places_of(id).into_iter().filter(|place| place.0 == model);
    let places: Vec<_> = places.map(|(_, _, place)| place).collect();
    let active = places.iter().filter(|place| drawn && place.is_active(as_of_s)).count();
    let open = places.iter().filter(|place| drawn && place.is_open(as_of_s)).count();
    assert_eq!(
        (stored.places as usize, stored.active as usize, stored.free as usize),
        (places.len(), active, open),
        "places of node {id}"
    );
    let level = state.record(id, Series::Drawn).draw_level(state.network.clock, as_of_s);
    let acceptance = assay_protocol::draw::acceptance_bps(level);
    assert_eq!(u64::from(stored.acceptanceBps), acceptance, "level of node {id} in draws");
}

fn reservation(reservation: &Reservation) -> Session::Reservation {
    Session::Reservation {
        seedRound: reservation.seed_round,
        nodes: reservation.nodes.clone(),
        dedicated: reservation.dedicated,
        until: reservation.until_s.try_into().unwrap(),
    }
}

fn session(world: &World, id: u64) {
    let (state, to) = (&world.state, &world.state.network.deployment);
    let session = &state.sessions[&id];
    let (round, ticket, until_s) = session
        .waiting
        .map_or((0, 0, 0), |waiting| (waiting.round, waiting.ticket, waiting.until_s));
    let expected = Session::SessionInfo {
        owner: session.owner,
        state: session.state as u8,
        termsVersion: session.terms_version,
        asset: session.asset,
        minNodes: session.min_nodes,
        maxNodes: session.max_nodes,
        openedAt: session.opened_at_s.try_into().unwrap(),
        endsAt: session.ends_at_s.try_into().unwrap(),
        model: session.model,
        priceIn: session.price_in.try_into().unwrap(),
        priceOut: session.price_out.try_into().unwrap(),
        drawRound: round,
        drawTicket: ticket.try_into().unwrap(),
        drawUntil: until_s.try_into().unwrap(),
        rotatesAt: session.rotates_at_s.try_into().unwrap(),
        reservations: session.reservations,
        current: reservation(&session.current),
        previous: reservation(&session.previous),
    };
    let stored = world.read(to.sessions, &Session::sessionOfCall { sessionId: id });
    assert_eq!(stored, expected, "session {id}");
    for (lane, found) in (0_u32..).zip(&session.lanes) {
        self::lane(world, (id, lane), found);
    }
    let count = world.read(to.sessions, &Session::laneCountCall { sessionId: id });
    assert_eq!(count.to::<usize>(), session.lanes.len());
    let tickets = world.read(to.queue, &SessionQueue::ticketsOfCall { sessionId: id });
    let expected = (session.queued + 1, session.dequeued + 1);
    assert_eq!((tickets.next, tickets.head), expected, "queue of session {id}");
}

fn lane(world: &World, (id, lane): (u64, u32), expected: &Lane) {
    let to = &world.state.network.deployment;
    let stored = world.read(to.sessions, &Session::laneOfCall { sessionId: id, lane });
    assert_eq!(stored.holder, expected.holder);
    assert_eq!(stored.reclaimAt.to::<u64>(), expected.reclaim_at_s);
    let funds = world.read(to.payment, &SessionPayment::fundsOfCall { sessionId: id, lane });
    let stored = (funds.free.to::<u128>(), funds.held.to::<u128>(), funds.nextNonce);
    let expected = (expected.free, expected.held, expected.next_nonce);
    assert_eq!(stored, expected, "funds of session {id}, lane {lane}");
}

fn task(world: &World, id: B256) {
    let record = &world.state.tasks[&id].record;
    let call = SessionQueue::statusOfCall { taskId: id };
    let stored = world.read(world.state.network.deployment.queue, &call);
    assert_eq!(
        (stored.state, stored.until.to::<u64>(), stored.digest),
        (record.state as u8, record.until_s, digest(&record.task)),
        "task {id}"
    );
}

fn balances(world: &World, account: Address) {
    for asset in 0..world.state.network.assets {
        let call = SessionPayment::balanceOfCall { account, asset };
        let stored = world.read(world.state.network.deployment.payment, &call);
        let expected = world.state.accounts.balance(account, asset);
        assert_eq!(stored.to::<u128>(), expected, "balance of {account}");
    }
}

/// The sums in storage, and that they are sums: of lanes, balances and stakes.
fn totals(world: &World) {
    let state = &world.state;
    for asset in 0..state.network.assets {
        let call = SessionPayment::totalAccountsCall { asset };
        let stored = world.read(state.network.deployment.payment, &call).to::<u128>();
        let lanes = state.sessions.values().filter(|session| session.asset == asset);
        let lanes = lanes.flat_map(|session| &session.lanes).map(|lane| lane.free + lane.held);
        let balances = state.accounts.balances.iter().filter(|((_, of), _)| *of == asset);
        let stakes: u128 = state.accounts.stakes.values().sum();
        let sum = lanes.sum::<u128>() + balances.map(|(_, sum)| sum).sum::<u128>();
        assert_eq!(stored, sum + if asset == 0 { stakes } else { 0 }, "asset {asset}");
    }
}
