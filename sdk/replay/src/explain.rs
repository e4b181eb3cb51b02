//! How an amount, a selection or a penalty came about, in plain words and from chain data alone.

mod proofs;

use alloy::consensus::Header;
use alloy::primitives::ruint::UintTryFrom;
use alloy::primitives::{B256, U256, keccak256, utils::format_units};
use alloy::sol_types::SolValue;
use assay_bindings::SessionQueue::{Task, TaskCommitted, TaskSettled, TaskSubmitted};
use assay_protocol::draw::acceptance_bps;
use assay_protocol::level::Series;
use assay_protocol::state::NodeState;
use assay_protocol::{PartEvent, ProtocolEvent, State, TaskState};
use serde::Serialize;

use crate::audit::Observer;
use crate::facts::Facts;

/// Lines of an explanation at most: a node may have served a million tasks, and the newest are what one asks about.
pub const MAX_LINES: usize = 10_000;
/// The asset that stakes are of.
const COR: u8 = 0;
/// Its decimals.
const COR_DECIMALS: u8 = 18;

/// What is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A task, by id.
    Task(B256),
    /// A node, by id.
    Node(u32),
}

/// Something that happened to the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// In which block.
    pub block: u64,
    /// Unix seconds.
    pub time_s: u64,
    /// In which transaction.
    pub transaction: B256,
    /// What happened, and why.
    pub text: String,
}

/// Watches an audit and explains what happens to its subject.
#[derive(Debug)]
pub struct Explainer {
    subject: Subject,
    lines: std::collections::VecDeque<Line>,
    /// Lines that there was no room for.
    pub dropped: u64,
}

impl Explainer {
    /// Explains this.
    pub fn new(subject: Subject) -> Self {
        Self { subject, lines: Default::default(), dropped: 0 }
    }

    /// What happened so far, in order.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = &Line> {
        self.lines.iter()
    }
}

impl Observer for Explainer {
    fn event(&mut self, header: &Header, transaction: B256, before: &State, event: &ProtocolEvent) {
        let facts = Facts::of(event);
        let concerns = match self.subject {
            Subject::Task(task) => facts.task == Some(task),
            Subject::Node(node) => facts.node == Some(node) || proofs::involves(event, node),
        };
        if !concerns {
            return;
        }
        let Some(text) = sentence(before, event) else { return };
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        let (block, time_s) = (header.number, header.timestamp);
        self.lines.push_back(Line { block, time_s, transaction, text });
    }
}

/// An amount of an asset as people write it.
fn money<T>(amount: T, asset: u8) -> String
where
    U256: UintTryFrom<T>,
{
    let amount = U256::from(amount);
    if asset != COR {
        return format!("{amount} minor units of asset {asset}");
    }
    let text = format_units(amount, COR_DECIMALS).unwrap_or_default();
    format!("{} COR", text.trim_end_matches('0').trim_end_matches('.'))
}

fn percent(bps: u64) -> String {
    format!("{} %", bps as f64 / 100.0)
}

/// What an event means, given the state before it; `None` for what needs no words.
fn sentence(before: &State, event: &ProtocolEvent) -> Option<String> {
    use ProtocolEvent as E;
    match event {
        E::TaskSubmitted(e) => submitted(before, e),
        E::TaskPrecommitted(e) => {
            Some(format!("Node {} committed itself to an answer without showing it.", e.nodeId))
        }
        E::TaskCommitted(e) => committed(before, e),
        E::TaskSettled(e) => settled(before, e),
        E::TaskRefunded(e) => {
            let asset = before.sessions.get(&e.sessionId)?.asset;
            Some(format!(
                "The task ended without an answer: {} went back to its lane, {} was the tip of whoever moved it.",
                money(e.refund, asset),
                money(e.tip, asset)
            ))
        }
        E::TaskMoved(e) => {
            let state = TaskState::try_from(e.state).ok()?;
            Some(format!("The task is {state:?} now, until second {}.", e.until))
        }
        E::PartChanged(e) => Some(part(e.nodeId, PartEvent::try_from(e.what).ok()?)),
        E::AnswerDelivered(e) => Some(match e.success {
            true => format!("The contract {} was told the answer.", e.consumer),
            false => format!("The contract {} was told the answer, and failed.", e.consumer),
        }),
        E::Slashed(e) => proofs::slashed(before, e).or_else(|| slashed(before, event)),
        _ => proofs::sentence(before, event).or_else(|| of_node(before, event)),
    }
}

fn submitted(before: &State, e: &TaskSubmitted) -> Option<String> {
    let (task, session) = (&e.task, before.sessions.get(&e.sessionId)?);
    let (price_in, price_out) = (session.price_in, session.price_out);
    let answers = task.parts.len().max(1);
    let fee = assay_protocol::money::fee_up(task.maxPrompt, task.maxOutput, price_in, price_out);
    let mut text = format!(
        "The task was submitted in lane {} of session {} with nonce {}. It holds {}: ",
        task.lane,
        e.sessionId,
        task.nonce,
        money(task.held, session.asset)
    );
    if U256::from(task.held) >= U256::from(fee) {
        text.push_str(&format!(
            "{answers} x the largest fee, {} prompt tokens x {price_in} + {} output tokens x {price_out} minor units \
             for a million, rounded up.",
            task.maxPrompt, task.maxOutput,
        ));
    } else {
        text.push_str("its answer came with it, so that no more than that one's fee is held.");
    }
    text.push(' ');
    text.push_str(&selection(before, task)?);
    text.push_str(&format!(" The answer is due until second {}.", e.until));
    Some(text)
}

/// Why these nodes serve a task.
fn selection(before: &State, task: &Task) -> Option<String> {
    if task.parts.is_empty() {
        return Some(
            "It waits in the session's queue for a node of its reservation to claim it.".to_owned(),
        );
    }
    let session = before.sessions.get(&task.sessionId)?;
    let ring = [&session.current, &session.previous]
        .into_iter()
        .find(|reservation| reservation.seed_round == task.reservation)?;
    let nodes: Vec<u32> = task.parts.iter().map(|part| part.nodeId).collect();
    let Some(seed) = before.rounds.get(&ring.seed_round) else {
        return Some(format!("Node {nodes:?} was named by the request."));
    };
    let input = (*seed, U256::from(task.lane), U256::from(task.nonce)).abi_encode();
    let count = U256::from(ring.nodes.len().max(1));
    let start = U256::from_be_bytes(keccak256(input).0) % count;
    let start: usize = start.saturating_to();
    let first = ring.nodes.get(start)?;
    Some(format!(
        "Node(s) {nodes:?} serve it. The reservation has the nodes {:?}; the value {seed} of round {} with lane and nonce \
         begins at place {start}, node {first}, and goes round from there{}.",
        ring.nodes,
        ring.seed_round,
        if nodes.first() == Some(first) { "" } else { "; the request named the first node itself" },
    ))
}

fn committed(before: &State, e: &TaskCommitted) -> Option<String> {
    let session = before.sessions.get(&e.sessionId)?;
    Some(format!(
        "Node {} answered with {} tokens to a prompt of {}. The fee is {}: ({} x {} + {} x {}) / 1,000,000 minor units, \
         rounded up, at the session's prices. The answer has the digest {}.",
        e.nodeId,
        e.outputTokens,
        e.promptTokens,
        money(e.fee, session.asset),
        e.promptTokens,
        session.price_in,
        e.outputTokens,
        session.price_out,
        e.outputDigest,
    ))
}

fn settled(before: &State, e: &TaskSettled) -> Option<String> {
    let session = before.sessions.get(&e.sessionId)?;
    let terms = before.tunables.session_terms(session.terms_version).ok()?;
    let royalty_bps = before.models.get(&session.model)?.royalty_bps;
    let asset = session.asset;
    let direct = e.routerShare.is_zero() && terms.routerBps != 0;
    let miner_bps = u64::from(terms.minerBps) + if direct { u64::from(terms.routerBps) } else { 0 };
    let payout = before.nodes.get(&e.nodeId)?.payout;
    let divided = [e.minerShare, e.routerShare, e.royalty, e.tip, e.burnt].map(U256::from);
    let levy = U256::from(e.fee).saturating_sub(divided.into_iter().sum());
    let levy = match levy.is_zero() {
        true => String::new(),
        false => {
            format!(" less {} that are put aside for audits of the model", money(levy, asset))
        }
    };
    Some(format!(
        "The fee of {} of node {} was divided: {} ({}{levy}) to the node's account {payout}{}, {} ({}) to the router, {} ({}) to \
         the model's publisher, {} as tip to whoever settled, {} burnt. Shares are rounded down; the tip comes out of what \
         they leave, and what is left after it is burnt.",
        money(e.fee, asset),
        e.nodeId,
        money(e.minerShare, asset),
        percent(miner_bps),
        if direct {
            ", the router's share included, because the owner submitted it himself"
        } else {
            ""
        },
        money(e.routerShare, asset),
        percent(u64::from(terms.routerBps)),
        money(e.royalty, asset),
        percent(u64::from(royalty_bps)),
        money(e.tip, asset),
        money(e.burnt, asset),
    ))
}

fn part(node: u32, what: PartEvent) -> String {
    match what {
        PartEvent::Claimed => format!("Node {node} claimed the task from the queue."),
        PartEvent::TookOver => {
            format!("Node {node} took over: it is the next of the ring that was not asked.")
        }
        PartEvent::Declined => {
            format!("Node {node} handed the task back; that is counted and costs nothing.")
        }
        PartEvent::Silent => {
            format!("Node {node} did not answer in time; that costs its level, not its stake.")
        }
        PartEvent::Unrevealed => {
            format!("Node {node} did not show the answer that it had committed itself to.")
        }
        PartEvent::Disproved => {
            format!("The proof of node {node}'s answer failed: its fee goes back to the client.")
        }
    }
}

fn slashed(before: &State, event: &ProtocolEvent) -> Option<String> {
    let ProtocolEvent::Slashed(e) = event else { return None };
    let node = before.nodes.get(&e.nodeId)?;
    let terms = before.tunables.node_terms(node.terms_version).ok()?;
    Some(format!(
        "Node {} was punished for task {}: its key signed {} answers where it may sign {}. It loses {}, {} of its stake of \
         {}. Of that {} ({}) goes to {}, who proved it; the rest is burnt.",
        e.nodeId,
        e.taskId,
        e.measured,
        e.bound,
        money(e.amount, COR),
        percent(u64::from(terms.slashBps)),
        money(before.accounts.stake(e.nodeId), COR),
        money(e.reward, COR),
        percent(u64::from(terms.reporterBps)),
        e.reporter,
    ))
}

fn of_node(before: &State, event: &ProtocolEvent) -> Option<String> {
    use ProtocolEvent as E;
    match event {
        E::NodeRegistered(e) => Some(format!(
            "Node {} was registered by {}; {} signs for it, {} is paid.",
            e.nodeId, e.owner, e.operator, e.payout
        )),
        E::Offered(e) => Some(format!(
            "It offers {} place(s) for model {}, which count in draws from second {} on.",
            e.capacity, e.model, e.activeFrom
        )),
        E::Staked(e) => Some(format!("{} staked {}.", e.from, money(e.amount, COR))),
        E::StakeReleased(e) => {
            Some(format!("The stake of {} is its owner's again.", money(e.amount, COR)))
        }
        E::NodeStateChanged(e) => Some(format!(
            "It went from {:?} to {:?}.",
            NodeState::from(e.oldState),
            NodeState::from(e.newState)
        )),
        E::NodeReserved(e) => Some(reserved(before, e.nodeId, e.sessionId)),
        E::NodeReleased(e) => Some(format!("Session {} let it go.", e.sessionId)),
        E::OperatorChanged(e) => Some(format!("{} signs for it now.", e.newOperator)),
        E::PayoutChanged(e) => Some(format!("{} is paid for it now.", e.newPayout)),
        E::StatsChanged(e) => {
            let series = Series::of(e.series != Series::Drawn as u8);
            let (was, is) = (before.record(e.nodeId, series).level, e.record.level);
            (was != is).then(|| format!("Its level went from {was} to {is} ({series:?})."))
        }
        _ => None,
    }
}

/// Why a session has a node.
fn reserved(before: &State, node: u32, session: u64) -> String {
    let text = format!("Session {session} reserved it");
    let draw = before.sessions.get(&session).and_then(|found| found.waiting);
    let drawn = before.nodes.get(&node).is_some_and(|node| !node.is_dedicated());
    let Some(waiting) = draw.filter(|_| drawn) else {
        return format!("{text}: the client named it, and it serves that client alone.");
    };
    let level = before.record(node, Series::Drawn);
    let level = level.draw_level(before.network.clock, waiting.as_of_s);
    let seed = before.rounds.get(&waiting.round).copied().unwrap_or_default();
    let places = before.places_of(node).len();
    format!(
        "{text} by draw {} of its model. The value {seed} of beacon round {} picked among the {} places that there were at \
         second {}, of which it has {places}; at level {level} a try that hits one takes it with {}.",
        waiting.ticket,
        waiting.round,
        waiting.slots,
        waiting.as_of_s,
        percent(acceptance_bps(level)),
    )
}
