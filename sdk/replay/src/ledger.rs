//! The protocol's own history: what each call had to do, what the events told, and what is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use alloy::consensus::Header;
use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolCall;
use assay_bindings::SessionQueue::{SessionQueueCalls, Task, statusOfCall};
use assay_bindings::{CorToken, Deployment, ProofOfInference, SessionPayment};
use assay_evm::{Entry, Executed, Replay, SignedTx, TxReceiptRecord};
use assay_protocol::beacon::Beacon;
use assay_protocol::level::LevelClock;
use assay_protocol::state::{AuditState, TaskEntry};
use assay_protocol::{
    At, Call, Failure, Gap, Network, Outside, ProtocolEvent, State, TaskRecord, TaskState, enact,
};

use crate::audit::Observer;
use crate::compare::named;
use crate::facts::{Facts, difference, signed};
use crate::probe::{About, Probe, Touched, owed, probes};
use crate::relay::Relay;
use crate::report::{Divergence, Report, Rule};

/// So often, in blocks, what is over is forgotten.
const SWEEP_BLOCKS: u64 = 64;

/// Names of things whose storage is known to be wrong are remembered up to this many: each is told once.
const MAX_KNOWN_WRONG: usize = 10_000;

/// The protocol's state, twice: as the events told it, and as the rules make it. They are the same until something
/// diverges; then the second begins anew from the first.
#[derive(Clone)]
pub(crate) struct Ledger {
    told: State,
    model: State,
    /// Of drand, if rounds are its.
    relay: Option<Arc<Relay>>,
    /// Whether all contracts stand, and what their constructors fixed is known.
    pub(crate) ready: bool,
    /// Whether the events still fit together.
    pub(crate) broken: bool,
    known_wrong: BTreeSet<String>,
    /// Block of the last event that an earlier audit told of.
    retold_to: u64,
}

/// A block that was executed.
pub(crate) struct Done<'a> {
    pub(crate) header: &'a Header,
    pub(crate) transactions: &'a [SignedTx],
    pub(crate) executed: &'a Executed,
    /// After the block.
    pub(crate) replay: &'a Replay,
}

/// What the protocol asks of the chain.
struct Around<'a> {
    replay: &'a Replay,
    relay: Option<&'a Relay>,
    delivered: bool,
}

impl Outside for Around<'_> {
    /// A contract that is asked decides for itself, and was executed again; an account without code cannot.
    fn accepts(&self, account: Address, _: B256, _: &[u8]) -> bool {
        !self.replay.code(&account).is_empty()
    }

    fn takes_answer(&self, _: Address, _: u32) -> bool {
        self.delivered
    }

    fn block_hash(&self, number: u64) -> B256 {
        self.replay.hashes().get(&number).copied().unwrap_or_default()
    }

    fn is_signature(&self, round: u64, point: &[u8]) -> bool {
        self.relay.is_some_and(|relay| relay.is_signature(round, point))
    }
}

/// A call that is looked at.
struct Place<'a> {
    done: &'a Done<'a>,
    transaction: B256,
    entry: &'a Entry,
}

impl Ledger {
    pub(crate) fn new(deployment: Deployment) -> Self {
        let clock = LevelClock { period_s: 1, epoch_s: 1 };
        let state = State::new(Network {
            deployment,
            proposal_delay_s: 0,
            draw_window_s: 0,
            longest_audit_s: 0,
            max_royalty_bps: 0,
            assets: 0,
            clock,
            proof: ProofOfInference::ProofConfig::default(),
            beacon: Beacon::Blockhash,
        });
        Self {
            told: state.clone(),
            model: state,
            relay: None,
            ready: false,
            broken: false,
            known_wrong: BTreeSet::new(),
            retold_to: 0,
        }
    }

    pub(crate) const fn state(&self) -> &State {
        &self.told
    }

    /// What constructors fixed, once all contracts stand.
    pub(crate) fn learn(&mut self, network: Network, relay: Option<Relay>) {
        self.relay = relay.map(Arc::new);
        self.told.network = network.clone();
        self.model.network = network;
        self.ready = true;
    }

    /// Takes in an event of a block that was checked by an earlier audit.
    pub(crate) fn retell(
        &mut self,
        (block, time_s): (u64, u64),
        event: &ProtocolEvent,
    ) -> Result<(), Gap> {
        self.sweep_before(block);
        self.retold_to = block;
        self.told.fold(time_s, event)
    }

    /// After the last of these events, and the block with that number.
    pub(crate) fn told_all(&mut self, number: u64, known_wrong: Vec<String>) {
        self.sweep_before(number + 1);
        self.model = self.told.clone();
        self.known_wrong = known_wrong.into_iter().collect();
    }

    /// Names of things whose storage is known to be wrong.
    pub(crate) fn known_wrong(&self) -> Vec<String> {
        self.known_wrong.iter().cloned().collect()
    }

    /// Takes in a block. Its calls are checked, and its storage, if `checks`.
    pub(crate) fn block(
        &mut self,
        done: &Done<'_>,
        checks: bool,
        (report, observer): (&mut Report, &mut dyn Observer),
    ) {
        let mut causes = Vec::new();
        let rows = done.transactions.iter().zip(&done.executed.receipts);
        for ((tx, receipt), entries) in rows.zip(&done.executed.entries) {
            if self.broken {
                return;
            }
            let mut touched = Touched::default();
            for (index, entry) in entries.iter().enumerate() {
                let inner = entries.get(index + 1..).unwrap_or_default();
                let own = |log: &usize| !inner.iter().any(|other| other.logs.contains(log));
                let own: Vec<usize> = entry.logs.clone().filter(own).collect();
                let place = Place { done, transaction: *tx.tx_hash(), entry };
                let events = self.events(&place, receipt, &own, report);
                let judged = checks && self.ready && !entry.is_creation;
                let agrees = judged && self.judge(&place, &events, report);
                self.take(&place, &events, (report, observer, &mut touched));
                if judged && !agrees {
                    // What the events say stands in storage: the rules go on from there.
                    self.model = self.told.clone();
                } else if !judged {
                    // What does not fit was reported when the events were taken in.
                    events.iter().for_each(|event| {
                        let _ = self.model.fold(done.header.timestamp, event);
                    });
                }
            }
            self.uncaused(done, (tx, receipt, entries), report);
            if !touched.is_empty() {
                causes.push((*tx.tx_hash(), touched));
            }
        }
        if checks && self.ready && !self.broken && !causes.is_empty() {
            self.storage((done.header, done.replay), &causes, report);
            if causes.iter().any(|(_, touched)| touched.money) {
                self.funds(done, report);
            }
        }
        if done.header.number.is_multiple_of(SWEEP_BLOCKS) {
            self.sweep();
        }
    }

    /// Folds what a call told.
    fn take(
        &mut self,
        place: &Place<'_>,
        events: &[ProtocolEvent],
        (report, observer, touched): (&mut Report, &mut dyn Observer, &mut Touched),
    ) {
        for event in events {
            if self.broken {
                return;
            }
            observer.event(place.done.header, place.transaction, &self.told, event);
            self.fold(place, event, report);
            touched.add(event, &self.told);
            count_event(event, report);
            report.checked.events += 1;
        }
    }

    /// Events that were emitted while nobody was in a contract of the protocol.
    fn uncaused(
        &self,
        done: &Done<'_>,
        (tx, receipt, entries): (&SignedTx, &TxReceiptRecord, &[Entry]),
        report: &mut Report,
    ) {
        let deployment = &self.told.network.deployment;
        for (index, log) in receipt.logs().iter().enumerate() {
            let caused = entries.iter().any(|entry| entry.logs.contains(&index));
            let Some(facts) = Facts::of_log(deployment, log).filter(|_| !caused) else { continue };
            let what = "an event of a contract that nobody called";
            let values = ("no event".to_owned(), format!("{log:?}"));
            let divergence = Divergence::new(Rule::Cause, what, values);
            let divergence = about(named(divergence, deployment, log.address), &facts);
            report.diverges(divergence.in_block(done.header.number).in_transaction(*tx.tx_hash()));
        }
    }

    fn events(
        &self,
        place: &Place<'_>,
        receipt: &TxReceiptRecord,
        own: &[usize],
        report: &mut Report,
    ) -> Vec<ProtocolEvent> {
        let deployment = &self.told.network.deployment;
        let mut events = Vec::new();
        for log in own.iter().filter_map(|index| receipt.logs().get(*index)) {
            match ProtocolEvent::decode(deployment, log.address, &log.data) {
                Ok(event) => events.extend(event),
                Err(error) => {
                    let values = ("an event of this version", format!("{error}: {log:?}"));
                    let what = "an event of another version of the contracts";
                    let divergence = Divergence::new(Rule::Code, what, values);
                    let divergence = named(divergence, deployment, log.address);
                    report.diverges(
                        divergence
                            .in_block(place.done.header.number)
                            .in_transaction(place.transaction),
                    );
                }
            }
        }
        events
    }

    /// Whether a call did what the rules say that it does; reports it if not.
    fn judge(&mut self, place: &Place<'_>, events: &[ProtocolEvent], report: &mut Report) -> bool {
        report.checked.calls += 1;
        let foretold = self.foretell(place, events);
        let agrees = foretold.as_ref().is_ok_and(|foretold| foretold == events);
        if !agrees {
            report.diverges(self.parting(place, events, foretold));
        }
        agrees
    }

    fn foretell(
        &mut self,
        place: &Place<'_>,
        events: &[ProtocolEvent],
    ) -> Result<Vec<ProtocolEvent>, String> {
        let done = place.done;
        let deployment = self.told.network.deployment.clone();
        let call = Call::decode(&deployment, place.entry.contract, &place.entry.input)
            .map_err(|error| format!("it is no function of the contract ({error})"))?
            .ok_or_else(|| "it is no contract of the protocol".to_owned())?;
        let delivered = events
            .iter()
            .any(|event| matches!(event, ProtocolEvent::AnswerDelivered(event) if event.success));
        let recalled = self.recall(done, &call);
        let around = Around { replay: done.replay, relay: self.relay.as_deref(), delivered };
        let at = At {
            caller: place.entry.caller,
            time_s: done.header.timestamp,
            block: done.header.number,
            outside: &around,
        };
        let outcome = enact(&mut self.model, &at, &call);
        if let Some(id) = recalled {
            self.model.tasks.remove(&id);
        }
        outcome.map_err(|failure| match failure {
            Failure::Refused(refusal) => format!("the rules refuse it: {refusal}"),
            Failure::Gap(gap) => gap.to_string(),
        })
    }

    /// A task that is over and was forgotten, but about which a lie is proven now: that it once was is all that the
    /// rules ask, and the queue's storage knows it.
    fn recall(&mut self, done: &Done<'_>, call: &Call) -> Option<B256> {
        let Call::Queue(SessionQueueCalls::reportEquivocation(report)) = call else { return None };
        let id = report.taskId;
        if self.model.tasks.contains_key(&id) {
            return None;
        }
        let input = statusOfCall { taskId: id }.abi_encode().into();
        let queue = self.told.network.deployment.queue;
        let answer = done.replay.call(done.header, queue, input).ok()?;
        let status = statusOfCall::abi_decode_returns(&answer).ok()?;
        let state = TaskState::try_from(status.state).ok().filter(|s| *s != TaskState::None)?;
        let record = TaskRecord { task: Task::default(), state, until_s: status.until.to::<u64>() };
        self.model.tasks.insert(id, TaskEntry { record, delivered: true });
        Some(id)
    }

    /// Where what a call did and what it had to do part.
    fn parting(
        &self,
        place: &Place<'_>,
        events: &[ProtocolEvent],
        foretold: Result<Vec<ProtocolEvent>, String>,
    ) -> Divergence {
        let deployment = &self.told.network.deployment;
        let refused = foretold.is_err();
        let (foretold, reason) = match foretold {
            Ok(foretold) => (foretold, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let first = (0..events.len().max(foretold.len()))
            .find(|index| events.get(*index) != foretold.get(*index))
            .unwrap_or_default();
        let (found, expected) = (events.get(first), foretold.get(first));
        let text = |event: Option<&ProtocolEvent>| {
            event.map_or_else(|| "nothing more".to_owned(), |event| format!("{event:?}"))
        };
        let what = match (&reason, expected.or(found)) {
            (Some(_), _) => "a call that the rules refuse".to_owned(),
            (None, Some(event)) if expected.is_none() => {
                format!("{} without a reason", event.name())
            }
            (None, Some(event)) if found.is_none() => format!("{} is missing", event.name()),
            (None, Some(event)) => format!("{} with other values", event.name()),
            (None, None) => "a call".to_owned(),
        };
        let rule = if refused { Rule::Refusal } else { Rule::Rules };
        let values = (reason.unwrap_or_else(|| text(expected)), text(found));
        let mut divergence = Divergence::new(rule, what, values);
        let facts = |event: Option<&ProtocolEvent>| event.map(Facts::of).unwrap_or_default();
        let (mut due, is) = (facts(expected), facts(found));
        let same_kind = match (expected, found) {
            (Some(one), Some(other)) => one.name() == other.name(),
            _ => true,
        };
        if same_kind {
            let zeros = |facts: &Facts| Facts {
                amounts: facts.amounts.iter().map(|_| Default::default()).collect(),
                ..Facts::default()
            };
            divergence.amount = match (expected, found) {
                (None, Some(_)) => difference(&zeros(&is), &is),
                (Some(_), None) => difference(&due, &zeros(&due)),
                _ => difference(&due, &is),
            };
        }
        // An event about an account is about the task that the call is about.
        let others = events.iter().chain(&foretold).map(Facts::of);
        for other in [is].into_iter().chain(others) {
            due.task = due.task.or(other.task);
            due.node = due.node.or(other.node);
            due.session = due.session.or(other.session);
        }
        let divergence = named(about(divergence, &due), deployment, place.entry.contract);
        divergence.in_block(place.done.header.number).in_transaction(place.transaction)
    }

    fn fold(&mut self, place: &Place<'_>, event: &ProtocolEvent, report: &mut Report) {
        let header = place.done.header;
        let Err(gap) = self.told.fold(header.timestamp, event) else { return };
        self.broken = true;
        report.complete = false;
        let values = ("an event that follows from those before".to_owned(), gap.to_string());
        let what = format!("{} cannot be; the protocol is not checked after it", event.name());
        let divergence = about(Divergence::new(Rule::Cause, what, values), &Facts::of(event));
        report.diverges(divergence.in_block(header.number).in_transaction(place.transaction));
    }

    /// Everything that is stored, with what the events told.
    pub(crate) fn everything(&mut self, header: &Header, replay: &Replay, report: &mut Report) {
        let touched = Touched::everything(&self.told);
        self.storage((header, replay), &[(B256::ZERO, touched)], report);
    }

    /// Compares storage with what the events told, and with what each transaction may have changed.
    fn storage(
        &mut self,
        (header, replay): (&Header, &Replay),
        causes: &[(B256, Touched)],
        report: &mut Report,
    ) {
        let mut all = Touched::default();
        causes.iter().for_each(|(_, touched)| all.extend(touched));
        for probe in probes(&self.told, &all, header.timestamp) {
            report.checked.stored_values += 1;
            let answer = replay.call(header, probe.contract, probe.input.clone());
            let answer = match answer {
                Ok(answer) if answer == probe.expected => continue,
                Ok(answer) => Ok(answer),
                Err(error) => Err(error.to_string()),
            };
            let Some(mut divergence) = self.wrong(&probe, answer) else { continue };
            let cause = causes.iter().rev().find(|(_, touched)| touched.touches(&probe.about));
            if let Some((transaction, touched)) = cause.filter(|(hash, _)| !hash.is_zero()) {
                divergence.transaction = Some(*transaction);
                if let (None, 1) = (divergence.task, touched.tasks.len()) {
                    divergence.task = touched.tasks.first().copied();
                }
            }
            report.diverges(divergence.in_block(header.number));
        }
    }

    /// A stored value that is wrong; each is told once.
    pub(crate) fn wrong(
        &mut self,
        probe: &Probe,
        answer: Result<Bytes, String>,
    ) -> Option<Divergence> {
        let full = self.known_wrong.len() >= MAX_KNOWN_WRONG;
        if full || !self.known_wrong.insert(probe.what.clone()) {
            return None;
        }
        let amount = |bytes: &[u8]| U256::try_from_be_slice(bytes).filter(|_| probe.is_amount);
        let (found, is) = match answer {
            Ok(answer) => ((probe.show)(&answer), amount(&answer)),
            Err(error) => (format!("no answer: {error}"), None),
        };
        let values = ((probe.show)(&probe.expected), found);
        let mut divergence = Divergence::new(Rule::Storage, probe.what.clone(), values);
        divergence.amount = amount(&probe.expected).zip(is).map(|(due, is)| signed(due, is));
        let About { task, node, session, .. } = probe.about;
        (divergence.task, divergence.node, divergence.session) = (task, node, session);
        Some(named(divergence, &self.told.network.deployment, probe.contract))
    }

    /// What `SessionPayment` owes is what it has: it may have more, which somebody gave away, but never less.
    fn funds(&mut self, done: &Done<'_>, report: &mut Report) {
        report.checked.funds += 1;
        let payment = self.told.network.deployment.payment;
        for asset in 0..self.told.network.assets {
            let due = owed(&self.told, asset);
            let ask = |to: Address, input: Vec<u8>| {
                done.replay.call(done.header, to, Bytes::from(input)).ok()
            };
            let token = ask(payment, SessionPayment::tokenOfCall { asset }.abi_encode())
                .and_then(|answer| SessionPayment::tokenOfCall::abi_decode_returns(&answer).ok());
            let has = token
                .and_then(|token| {
                    ask(token, CorToken::balanceOfCall { account: payment }.abi_encode())
                })
                .and_then(|answer| CorToken::balanceOfCall::abi_decode_returns(&answer).ok());
            let totals = self.told.accounts.totals.get(&asset).copied().unwrap_or(0);
            let enough = has.is_some_and(|has| has >= U256::from(due));
            let what = format!("the money of all accounts in asset {asset}");
            if (enough && totals == due) || !self.known_wrong.insert(what.clone()) {
                continue;
            }
            let found = match has {
                Some(has) => format!("{has} tokens; what came in less what went out is {totals}"),
                None => "a token that does not answer".to_owned(),
            };
            let values = (format!("{due} minor units, the sum of all accounts"), found);
            let divergence = Divergence::new(Rule::Funds, what, values);
            let deployment = &self.told.network.deployment;
            report.diverges(named(divergence, deployment, payment).in_block(done.header.number));
        }
    }

    /// Forgets as often as the audit did that saw these blocks.
    fn sweep_before(&mut self, block: u64) {
        let sweeps = |block: u64| block.saturating_sub(1) / SWEEP_BLOCKS;
        if sweeps(block) != sweeps(self.retold_to) {
            self.sweep();
        }
    }

    /// Forgets tasks that are over: nothing of them changes any more, and what is stored of them was compared.
    fn sweep(&mut self) {
        for state in [&mut self.told, &mut self.model] {
            let sessions = &state.sessions;
            state.tasks.retain(|_, TaskEntry { record, delivered }| {
                let task = &record.task;
                let callback = task.callbackGas != 0 && !*delivered;
                let dequeued = sessions.get(&task.sessionId).map_or(0, |session| session.dequeued);
                match record.state {
                    TaskState::Settled => callback,
                    TaskState::Refunded => callback || task.ticket > dequeued,
                    _ => true,
                }
            });
            let (tasks, answers) = (&state.tasks, &state.proofs.answers);
            let demands = &mut state.proofs.demands;
            demands.retain(|key, _| tasks.contains_key(&key.0) || answers.contains_key(key));
        }
    }
}

fn about(mut divergence: Divergence, facts: &Facts) -> Divergence {
    (divergence.task, divergence.node, divergence.session) =
        (facts.task, facts.node, facts.session);
    divergence
}

fn count_event(event: &ProtocolEvent, report: &mut Report) {
    use ProtocolEvent as E;
    let checked = &mut report.checked;
    match event {
        E::TaskSubmitted(_) => {
            checked.tasks += 1;
            checked.deadlines += 1;
        }
        E::TaskMoved(_) | E::SessionDrawing(_) | E::LaneReclaimed(_) => checked.deadlines += 1,
        E::SessionDraining(_) | E::SessionActivated(_) => checked.deadlines += 1,
        E::TaskCommitted(e) => {
            checked.payments += 1;
            checked.deadlines += u64::from(!e.settleAt.is_zero());
        }
        E::TaskSettled(_) | E::TaskRefunded(_) | E::TipPaid(_) => checked.payments += 1,
        E::DrawPassed(_) => checked.draws += 1,
        // Drawn, or not.
        E::AnswerCleared(_) | E::AnswerUnverified(_) => checked.draws += 1,
        E::AuditMoved(e) if e.state == AuditState::Drawn as u8 => checked.draws += 1,
        E::Appealed(_) => checked.payments += 1,
        E::RoundRevealed(_) => checked.rounds += 1,
        E::Slashed(_) => checked.penalties += 1,
        E::PartChanged(e) if e.what >= 3 => checked.penalties += 1,
        _ => {}
    }
}
