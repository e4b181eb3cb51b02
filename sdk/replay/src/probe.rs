//! What the contracts must store, as calls of their views with the answers that the events foretell.

mod proofs;

use std::collections::BTreeSet;

use alloy::{
    primitives::{Address, B256, Bytes, aliases::U40},
    sol_types::SolCall,
};
use assay_bindings::{
    ModelRegistry, NodePool, NodeStats, Parameters, RandomBeacon, Session, SessionPayment,
    SessionQueue,
};
use assay_protocol::{
    ProtocolEvent, State, digest,
    draw::acceptance_bps,
    level::Series,
    state::{DEAD, Lane, NodeState, Reservation},
};

/// A view of a contract, and what it must answer.
#[derive(Debug)]
pub struct Probe {
    /// The contract.
    pub contract: Address,
    /// Calldata.
    pub input: Bytes,
    /// What is asked for, in words.
    pub what: String,
    /// The thing that it is about.
    pub about: About,
    /// The encoded answer.
    pub expected: Bytes,
    /// Makes text of an encoded answer.
    pub show: fn(&[u8]) -> String,
    /// Whether the answer is one amount, in minor units.
    pub is_amount: bool,
}

/// What a stored value belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// A task.
    pub task: Option<B256>,
    /// A node.
    pub node: Option<u32>,
    /// A session.
    pub session: Option<u64>,
    /// An account of `SessionPayment`.
    pub account: Option<Address>,
}

fn show<C: SolCall>(answer: &[u8]) -> String
where
    C::Return: std::fmt::Debug,
{
    C::abi_decode_returns(answer)
        .map_or_else(|_| alloy::hex::encode_prefixed(answer), |decoded| format!("{decoded:?}"))
}

/// What a stretch of events may have changed in storage.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Indices of models.
    pub models: BTreeSet<u32>,
    /// Ids of nodes.
    pub nodes: BTreeSet<u32>,
    /// Ids of sessions.
    pub sessions: BTreeSet<u64>,
    /// Ids of tasks.
    pub tasks: BTreeSet<B256>,
    /// Accounts with a balance in `SessionPayment`.
    pub accounts: BTreeSet<Address>,
    /// Rounds of the beacon.
    pub rounds: BTreeSet<u64>,
    /// Epochs of audits' draws.
    pub epochs: BTreeSet<u64>,
    /// Numeric classes that were paused.
    pub classes: BTreeSet<B256>,
    /// Whether tunables or their governor.
    pub tunables: bool,
    /// Whether money moved.
    pub money: bool,
}

impl Touched {
    /// Everything that the state knows of.
    pub fn everything(state: &State) -> Self {
        Self {
            models: state.models.keys().copied().collect(),
            nodes: state.nodes.keys().copied().collect(),
            sessions: state.sessions.keys().copied().collect(),
            tasks: state.tasks.keys().copied().collect(),
            accounts: state.accounts.balances.keys().map(|(account, _)| *account).collect(),
            rounds: state.rounds.keys().copied().collect(),
            epochs: state.proofs.rounds.keys().copied().collect(),
            classes: state.proofs.paused_until_s.keys().copied().collect(),
            tunables: true,
            money: true,
        }
    }

    /// What these events may have changed, which the state has already taken in.
    pub fn by(events: &[ProtocolEvent], state: &State) -> Self {
        let mut touched = Self::default();
        for event in events {
            touched.add(event, state);
        }
        touched
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        let Self { models, nodes, sessions, tasks, accounts, rounds, .. } = self;
        let ids = models.is_empty() && nodes.is_empty() && sessions.is_empty() && tasks.is_empty();
        let audits = self.epochs.is_empty() && self.classes.is_empty();
        let others = accounts.is_empty() && rounds.is_empty() && audits;
        ids && others && !self.tunables && !self.money
    }

    /// Whether a value that belongs to this may have been changed.
    pub fn touches(&self, about: &About) -> bool {
        let Self { nodes, sessions, tasks, accounts, .. } = self;
        let task = about.task.is_none_or(|task| tasks.contains(&task));
        let node = about.node.is_none_or(|node| nodes.contains(&node));
        let account = about.account.is_none_or(|account| accounts.contains(&account));
        let session = about.session.is_none_or(|session| sessions.contains(&session));
        *about != About::default() && task && node && account && session
    }

    /// Adds what another stretch may have changed.
    pub fn extend(&mut self, other: &Self) {
        self.models.extend(&other.models);
        self.nodes.extend(&other.nodes);
        self.sessions.extend(&other.sessions);
        self.tasks.extend(&other.tasks);
        self.accounts.extend(&other.accounts);
        self.rounds.extend(&other.rounds);
        self.epochs.extend(&other.epochs);
        self.classes.extend(&other.classes);
        self.tunables |= other.tunables;
        self.money |= other.money;
    }

    /// Adds what one event may have changed, which the state has already taken in.
    pub fn add(&mut self, event: &ProtocolEvent, state: &State) {
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
            E::Offered(e) => {
                self.nodes.insert(e.nodeId);
                self.models.insert(e.model);
            }
            E::OperatorChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::PayoutChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::NodeStateChanged(e) => _ = self.nodes.insert(e.nodeId),
            E::DrawEntered(e) => _ = self.models.insert(e.model),
            E::DrawPassed(e) => _ = self.models.insert(e.model),
            E::NodeReserved(e) => {
                self.nodes.insert(e.nodeId);
                self.models.insert(e.model);
            }
            E::NodeReleased(e) => {
                self.nodes.insert(e.nodeId);
                self.models.insert(e.model);
            }
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
            E::RoundRevealed(e) => _ = self.rounds.insert(e.round),
            E::PairCalibrated(e) => _ = self.models.insert(e.index),
            E::PairAttested(e) => _ = self.models.insert(e.index),
            E::AnswerExposed(_)
            | E::AnswerCleared(_)
            | E::AnswerUnverified(_)
            | E::AuditMoved(_)
            | E::PanelMoved(_)
            | E::ProofOpened(_)
            | E::Verdict(_)
            | E::DataDemanded(_)
            | E::DataPublished(_)
            | E::Appealed(_)
            | E::Judged(_)
            | E::RecordChanged(_)
            | E::BookChanged(_)
            | E::EpochClosed(_)
            | E::ClassPaused(_)
            | E::AuditCollected(_) => self.add_proof(event, state),
            E::Deposited(_)
            | E::FundsMoved(_)
            | E::SessionReturned(_)
            | E::TipPaid(_)
            | E::Credited(_)
            | E::Staked(_)
            | E::StakeReleased(_)
            | E::Slashed(_)
            | E::Withdrawn(_)
            | E::Burnt(_) => self.add_money(event),
        }
    }

    fn add_money(&mut self, event: &ProtocolEvent) {
        use ProtocolEvent as E;
        self.money = true;
        match event {
            E::Deposited(e) => _ = self.sessions.insert(e.sessionId),
            E::FundsMoved(e) => _ = self.sessions.insert(e.sessionId),
            E::SessionReturned(e) => {
                self.accounts.insert(e.owner);
                self.sessions.insert(e.sessionId);
            }
            E::TipPaid(e) => {
                self.accounts.insert(e.keeper);
                self.sessions.insert(e.sessionId);
            }
            E::Credited(e) => _ = self.accounts.insert(e.account),
            E::Staked(e) => _ = self.nodes.insert(e.nodeId),
            E::StakeReleased(e) => {
                self.accounts.insert(e.owner);
                self.nodes.insert(e.nodeId);
            }
            E::Slashed(e) => _ = self.nodes.insert(e.nodeId),
            E::Withdrawn(e) => _ = self.accounts.insert(e.account),
            E::Burnt(_) => _ = self.accounts.insert(DEAD),
            _ => {}
        }
    }

    /// A task, and the session whose money it holds.
    fn task(&mut self, id: B256, state: &State) {
        self.tasks.insert(id);
        self.money = true;
        if let Some(entry) = state.tasks.get(&id) {
            self.sessions.insert(entry.record.task.sessionId);
        }
    }
}

/// Probes of everything that was touched; `now_s` is the time of the block (unix seconds) that the views are asked in.
pub fn probes(state: &State, touched: &Touched, now_s: u64) -> Vec<Probe> {
    let mut prober = Prober { state, now_s, about: About::default(), probes: Vec::new() };
    if touched.tunables {
        prober.tunables();
    }
    touched.models.iter().for_each(|index| prober.model(*index));
    touched.nodes.iter().for_each(|id| prober.node(*id));
    touched.sessions.iter().for_each(|id| prober.session(*id));
    touched.tasks.iter().for_each(|id| prober.task(*id));
    touched.accounts.iter().for_each(|account| prober.balances(*account));
    touched.rounds.iter().for_each(|round| prober.round(*round));
    touched.epochs.iter().for_each(|epoch| prober.epoch(*epoch));
    touched.classes.iter().for_each(|class| prober.class(*class));
    if touched.money {
        prober.totals();
    }
    prober.probes
}

/// Everything that `SessionPayment` owes in an asset: lanes, balances and stakes, minor units.
pub fn owed(state: &State, asset: u8) -> u128 {
    let lanes = state.sessions.values().filter(|session| session.asset == asset);
    let lanes = lanes.flat_map(|session| &session.lanes).map(|lane| lane.free + lane.held);
    let balances = state.accounts.balances.iter().filter(|((_, of), _)| *of == asset);
    let stakes: u128 = state.accounts.stakes.values().sum();
    let sum = lanes.sum::<u128>() + balances.map(|(_, sum)| sum).sum::<u128>();
    sum + if asset == 0 { stakes } else { 0 }
}

struct Prober<'a> {
    state: &'a State,
    now_s: u64,
    about: About,
    probes: Vec<Probe>,
}

/// What does not fit its type on chain is wrong in any case, and the largest value shows it.
fn fit<T: TryFrom<u64>>(value: u64, largest: T) -> T {
    T::try_from(value).unwrap_or(largest)
}

fn seconds(value: u64) -> U40 {
    fit(value, U40::MAX)
}

impl Prober<'_> {
    fn ask<C: SolCall>(&mut self, contract: Address, call: &C, expected: &C::Return, what: String)
    where
        C::Return: std::fmt::Debug,
    {
        self.probes.push(Probe {
            contract,
            input: call.abi_encode().into(),
            what,
            about: self.about,
            expected: C::abi_encode_returns(expected).into(),
            show: show::<C>,
            is_amount: false,
        });
    }

    fn ask_amount<C: SolCall>(&mut self, contract: Address, call: &C, amount: u128, what: String)
    where
        C::Return: std::fmt::Debug + TryFrom<u128> + Default,
    {
        self.ask(contract, call, &amount.try_into().unwrap_or_default(), what);
        if let Some(probe) = self.probes.last_mut() {
            probe.is_amount = true;
        }
    }

    fn tunables(&mut self) {
        let state = self.state;
        let (tunables, at) = (&state.tunables, state.network.deployment.parameters);
        self.about = About::default();
        let version = tunables.version_at(self.now_s);
        let call = Parameters::currentVersionCall {};
        self.ask(at, &call, &version, "the version of the tunables that holds".to_owned());
        self.ask(at, &Parameters::governorCall {}, &tunables.governor, "the governor".to_owned());
        let what = "the next governor".to_owned();
        self.ask(at, &Parameters::successorCall {}, &tunables.successor, what);
        for version in 1..=version {
            let Some(terms) = tunables.versions.get(&version) else { continue };
            let what = format!("version {version} of the tunables");
            self.ask(at, &Parameters::termsOfCall { version }, terms, what);
        }
    }

    fn model(&mut self, index: u32) {
        let (state, to) = (self.state, &self.state.network.deployment);
        self.about = About::default();
        let Some(model) = state.models.get(&index) else { return };
        let expected = ModelRegistry::Model {
            publisher: model.publisher,
            royaltyBps: model.royalty_bps,
            registeredAt: seconds(model.registered_at_s),
            deprecatedAt: seconds(model.deprecated_at_s),
            index,
            version: model.version,
            pairs: model.pairs.len().try_into().unwrap_or(u16::MAX),
            contrasts: model.contrasts(),
            modelId: model.id,
            predecessor: model.predecessor,
            manifestDigest: model.manifest_digest,
        };
        let call = ModelRegistry::modelAtCall { index };
        self.ask(to.models, &call, &expected, format!("model {index}"));
        for (asset, (price_in, price_out)) in &model.floors {
            let expected = ModelRegistry::floorsOfReturn {
                priceIn: (*price_in).try_into().unwrap_or_default(),
                priceOut: (*price_out).try_into().unwrap_or_default(),
            };
            let call = ModelRegistry::floorsOfCall { index, asset: *asset };
            let what = format!("the smallest prices of model {index} in asset {asset}");
            self.ask(to.models, &call, &expected, what);
        }
        let pool = state.pools.get(&(index, false)).cloned().unwrap_or_default();
        let expected =
            NodePool::poolOfReturn { slots: pool.slots(), taken: pool.taken(), used: pool.used() };
        let call = NodePool::poolOfCall { model: index };
        self.ask(to.nodes, &call, &expected, format!("the places of model {index}"));
        let expected = NodePool::ticketsOfReturn {
            next: seconds(pool.tickets_given + 1),
            head: seconds(pool.tickets_passed + 1),
        };
        let call = NodePool::ticketsOfCall { model: index };
        self.ask(to.nodes, &call, &expected, format!("the draws of model {index}"));
        self.proofs_of_model(index);
    }

    fn node(&mut self, id: u32) {
        let (state, to) = (self.state, &self.state.network.deployment);
        self.about = About { node: Some(id), ..About::default() };
        let Some(node) = state.nodes.get(&id) else { return };
        let expected = NodePool::Node {
            owner: node.owner,
            state: node.state as u8,
            exitAt: seconds(node.exit_at_s),
            termsVersion: node.terms_version,
            operator: node.operator,
            operatorSince: seconds(node.operator_since_s),
            previousOperator: node.previous_operator,
            payout: node.payout,
            dedicatedTo: node.dedicated_to,
            numericClass: node.class,
        };
        let call = NodePool::nodeOfCall { nodeId: id };
        self.ask(to.nodes, &call, &expected, format!("node {id}"));
        let user = state.node_by_operator(node.operator).unwrap_or(0);
        let call = NodePool::nodeByOperatorCall { operator: node.operator };
        self.ask(to.nodes, &call, &user, format!("the node of operator {}", node.operator));
        self.places(id);
        for series in [Series::Drawn, Series::Dedicated] {
            let record = state.record(id, series);
            let call = NodeStats::recordOfCall { nodeId: id, series: series as u8 };
            let what = format!("the counters of node {id}, {series:?}");
            self.ask(to.stats, &call, &record.into(), what);
            let call = NodeStats::levelOfCall { nodeId: id, series: series as u8 };
            let level = record.level_at(state.network.clock, self.now_s);
            self.ask(to.stats, &call, &level, format!("the level of node {id}, {series:?}"));
        }
        let (stake, call) = (state.accounts.stake(id), SessionPayment::stakeOfCall(id));
        self.ask_amount(to.payment, &call, stake, format!("the stake of node {id}"));
        let claims = state.claims.get(&id).copied().unwrap_or(0);
        let call = SessionQueue::claimsOfCall { nodeId: id };
        self.ask(to.queue, &call, &claims, format!("the open claims of node {id}"));
        self.proofs_of_node(id);
    }

    fn places(&mut self, id: u32) {
        let (state, to) = (self.state, &self.state.network.deployment);
        let places = state.places_of(id);
        let reserved = places.iter().filter(|(_, _, place)| place.session != 0).count();
        let call = NodePool::reservationsOfCall { nodeId: id };
        let expected = reserved.try_into().unwrap_or_default();
        self.ask(to.nodes, &call, &expected, format!("the reservations of node {id}"));
        let models: Vec<u32> = places.iter().map(|(model, _, _)| *model).collect();
        let runs: Vec<(u32, u8)> = models
            .chunk_by(|one, other| one == other)
            .filter_map(|run| Some((*run.first()?, u8::try_from(run.len()).ok()?)))
            .collect();
        let (offered, capacities) = runs.iter().copied().unzip();
        let expected = NodePool::offersOfReturn { _0: offered, _1: capacities };
        let call = NodePool::offersOfCall { nodeId: id };
        self.ask(to.nodes, &call, &expected, format!("the offers of node {id}"));
        for (model, _) in runs {
            self.eligibility(id, model);
        }
    }

    /// What a draw that is entered now could find of a node.
    fn eligibility(&mut self, id: u32, model: u32) {
        let (state, as_of_s) = (self.state, self.now_s);
        let Some(node) = state.nodes.get(&id) else { return };
        let drawn = !node.is_dedicated() && node.state != NodeState::Jailed;
        let places = state.places_of(id).into_iter().filter(|place| place.0 == model);
        let places: Vec<_> = places.map(|(_, _, place)| place).collect();
        let active = places.iter().filter(|place| drawn && place.is_active(as_of_s)).count();
        let open = places.iter().filter(|place| drawn && place.is_open(as_of_s)).count();
        let level = state.record(id, Series::Drawn).draw_level(state.network.clock, as_of_s);
        let expected = NodePool::Eligibility {
            state: node.state as u8,
            activeFrom: seconds(places.first().map_or(0, |place| place.active_from_s)),
            places: places.len().try_into().unwrap_or_default(),
            active: active.try_into().unwrap_or_default(),
            free: open.try_into().unwrap_or_default(),
            acceptanceBps: acceptance_bps(level).try_into().unwrap_or_default(),
        };
        let call = NodePool::eligibilityOfCall { nodeId: id, model, asOf: seconds(as_of_s) };
        let to = state.network.deployment.nodes;
        self.ask(to, &call, &expected, format!("what a draw finds of node {id}"));
    }

    fn session(&mut self, id: u64) {
        let (state, to) = (self.state, &self.state.network.deployment);
        self.about = About { session: Some(id), ..About::default() };
        let Some(session) = state.sessions.get(&id) else { return };
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
            openedAt: seconds(session.opened_at_s),
            endsAt: seconds(session.ends_at_s),
            model: session.model,
            priceIn: session.price_in.try_into().unwrap_or_default(),
            priceOut: session.price_out.try_into().unwrap_or_default(),
            drawRound: round,
            drawTicket: seconds(ticket),
            drawUntil: seconds(until_s),
            rotatesAt: seconds(session.rotates_at_s),
            reservations: session.reservations,
            isProven: session.is_proven,
            current: reservation(&session.current),
            previous: reservation(&session.previous),
        };
        let call = Session::sessionOfCall { sessionId: id };
        self.ask(to.sessions, &call, &expected, format!("session {id}"));
        for (index, found) in (0_u32..).zip(&session.lanes) {
            self.lane((id, index), found);
        }
        let count = session.lanes.len().try_into().unwrap_or_default();
        let call = Session::laneCountCall { sessionId: id };
        self.ask(to.sessions, &call, &count, format!("the number of lanes of session {id}"));
        let expected =
            SessionQueue::ticketsOfReturn { next: session.queued + 1, head: session.dequeued + 1 };
        let call = SessionQueue::ticketsOfCall { sessionId: id };
        self.ask(to.queue, &call, &expected, format!("the queue of session {id}"));
    }

    fn lane(&mut self, (id, lane): (u64, u32), expected: &Lane) {
        let to = &self.state.network.deployment;
        let stored = Session::LaneInfo {
            holder: expected.holder,
            reclaimAt: seconds(expected.reclaim_at_s),
        };
        let call = Session::laneOfCall { sessionId: id, lane };
        self.ask(to.sessions, &call, &stored, format!("lane {lane} of session {id}"));
        let funds = SessionPayment::LaneFunds {
            free: expected.free.try_into().unwrap_or_default(),
            held: expected.held.try_into().unwrap_or_default(),
            nextNonce: expected.next_nonce,
        };
        let call = SessionPayment::fundsOfCall { sessionId: id, lane };
        self.ask(to.payment, &call, &funds, format!("the money of session {id}, lane {lane}"));
    }

    fn task(&mut self, id: B256) {
        let Some(entry) = self.state.tasks.get(&id) else { return };
        let record = &entry.record;
        let session = Some(record.task.sessionId);
        self.about = About { task: Some(id), session, ..About::default() };
        let expected = SessionQueue::statusOfReturn {
            state: record.state as u8,
            until: seconds(record.until_s),
            digest: digest(&record.task),
        };
        let call = SessionQueue::statusOfCall { taskId: id };
        let to = self.state.network.deployment.queue;
        self.ask(to, &call, &expected, format!("task {id}"));
        self.proofs_of_task(id);
    }

    fn balances(&mut self, account: Address) {
        self.about = About { account: Some(account), ..About::default() };
        let to = self.state.network.deployment.payment;
        for asset in 0..self.state.network.assets {
            let balance = self.state.accounts.balance(account, asset);
            let call = SessionPayment::balanceOfCall { account, asset };
            let what = format!("the balance of {account} in asset {asset}");
            self.ask_amount(to, &call, balance, what);
        }
    }

    fn round(&mut self, round: u64) {
        self.about = About::default();
        let Some(value) = self.state.rounds.get(&round) else { return };
        let to = self.state.network.deployment.beacon;
        let call = RandomBeacon::valueOfCall { round };
        self.ask(to, &call, value, format!("the value of round {round}"));
    }

    /// What the contract says that it owes is the sum of what it owes to each.
    fn totals(&mut self) {
        self.about = About::default();
        let to = self.state.network.deployment.payment;
        for asset in 0..self.state.network.assets {
            let call = SessionPayment::totalAccountsCall { asset };
            let what = format!("the sum of all accounts in asset {asset}");
            self.ask_amount(to, &call, owed(self.state, asset), what);
        }
    }
}

fn reservation(reservation: &Reservation) -> Session::Reservation {
    Session::Reservation {
        seedRound: reservation.seed_round,
        nodes: reservation.nodes.clone(),
        dedicated: reservation.dedicated,
        until: seconds(reservation.until_s),
    }
}
