//! Random calls, most of them sensible: arguments come from the model's state.

mod clients;
mod keepers;
mod miners;
mod operators;
mod others;
pub mod proofs;
mod requests;

use alloy::primitives::{Address, B256, keccak256};
use assay_protocol::{Call, State};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{people::People, world::World};

/// A call and who makes it.
pub type Step = (Address, Call);

/// Makes random calls for the next block.
pub struct Gen<'a> {
    pub world: &'a World,
    pub rng: &'a mut ChaCha8Rng,
    /// Unix seconds of the next block.
    pub time_s: u64,
    /// Whether calls may be wrong on purpose.
    pub wild: bool,
}

/// Out of a hundred places where a wild call could be wrong, those where it is.
const SLIPS: u32 = 7;
/// Of places in calls that are tried seldom.
const BLUNDERS: u32 = 40;

/// A kind of call: how often it is tried, and what makes one; nothing if the state has nothing to make it of.
pub struct Kind {
    pub name: &'static str,
    pub weight: u32,
    pub make: fn(&mut Gen<'_>) -> Option<Step>,
}

const fn kind(name: &'static str, weight: u32, make: fn(&mut Gen<'_>) -> Option<Step>) -> Kind {
    Kind { name, weight, make }
}

pub const KINDS: &[Kind] = &[
    kind("open a session", 5, clients::open),
    kind("open with a permit", 1, clients::open_with_permit),
    kind("top up", 2, clients::top_up),
    kind("add a lane", 2, clients::add_lane),
    kind("reclaim a lane", 1, clients::reclaim_lane),
    kind("finish a reclaim", 6, clients::finish_reclaim),
    kind("close", 1, clients::close),
    kind("withdraw", 3, clients::withdraw),
    kind("submit", 16, requests::submit),
    kind("submit signed", 8, requests::submit_signed),
    kind("submit and commit", 9, requests::submit_and_commit),
    kind("submit and precommit", 7, requests::submit_and_precommit),
    kind("cancel", 2, requests::cancel),
    kind("claim", 12, miners::claim),
    kind("precommit", 22, miners::precommit),
    kind("commit", 26, miners::commit),
    kind("decline", 4, miners::decline),
    kind("register a node", 2, operators::register),
    kind("change an operator", 1, operators::set_operator),
    kind("change a payout", 1, operators::set_payout),
    kind("drain a node", 1, operators::drain),
    kind("resume", 2, operators::resume),
    kind("exit", 4, operators::exit),
    kind("release a stake", 5, operators::release_stake),
    kind("reveal", 30, keepers::reveal),
    kind("activate", 34, keepers::activate),
    kind("rotate", 5, keepers::rotate),
    kind("expire", 3, keepers::expire),
    kind("finish", 8, keepers::finish),
    kind("advance", 14, keepers::advance),
    kind("settle", 12, keepers::settle),
    kind("deliver", 9, keepers::deliver),
    kind("report equivocation", 1, keepers::report_equivocation),
    kind("propose terms", 1, others::propose),
    kind("withdraw a proposal", 1, others::withdraw_proposal),
    kind("propose a governor", 1, others::propose_governor),
    kind("accept governing", 1, others::accept_governor),
    kind("register a model", 1, others::register_model),
    kind("deprecate a model", 1, others::deprecate),
];

/// Of sequences whose sessions are proven: mostly what moves answers and their audits.
pub const PROVEN: &[Kind] = &[
    kind("submit and commit", 16, requests::submit_and_commit),
    kind("submit and precommit", 3, requests::submit_and_precommit),
    kind("submit", 3, requests::submit),
    kind("precommit", 6, miners::precommit),
    kind("commit", 10, miners::commit),
    kind("claim", 3, miners::claim),
    kind("settle", 24, keepers::settle),
    kind("reveal", 60, keepers::reveal),
    kind("advance", 2, keepers::advance),
    kind("deliver", 1, keepers::deliver),
    kind("open a session", 1, clients::open),
    kind("activate", 4, keepers::activate),
    kind("rotate", 1, keepers::rotate),
    kind("top up", 1, clients::top_up),
    kind("close", 1, clients::close),
    kind("finish", 1, keepers::finish),
    kind("withdraw", 1, clients::withdraw),
    kind("register a node", 2, operators::register),
    kind("change a payout", 1, operators::set_payout),
    kind("drain a node", 1, operators::drain),
    kind("exit", 1, operators::exit),
    kind("report equivocation", 1, keepers::report_equivocation),
    kind("calibrate", 2, proofs::calibrate),
    kind("attest", 3, proofs::attest),
    kind("close an epoch", 16, proofs::close_epoch),
    kind("commit an audit", 60, proofs::commit_audit),
    kind("demand data", 20, proofs::demand_data),
    kind("publish data", 90, proofs::publish_data),
    kind("open a proof", 60, proofs::open_proof),
    kind("reveal findings", 70, proofs::reveal_findings),
    kind("convene", 60, proofs::convene),
    kind("commit to a panel", 120, proofs::commit_panel),
    kind("testify", 150, proofs::testify),
    kind("judge", 72, proofs::judge),
    kind("appeal", 90, proofs::appeal),
    kind("reconvene", 90, proofs::reconvene),
    kind("advance an audit", 30, proofs::advance_audit),
    kind("advance a panel", 24, proofs::advance_panel),
    kind("collect", 12, proofs::collect),
];

/// Of sequences that follow a few answers to the end of their disputes.
pub const DISPUTED: &[Kind] = &[
    kind("open a session", 2, clients::open),
    kind("activate", 12, keepers::activate),
    kind("submit and commit", 6, requests::submit_and_commit),
    kind("settle", 8, keepers::settle),
    kind("reveal", 60, keepers::reveal),
    kind("close an epoch", 16, proofs::close_epoch),
    kind("commit an audit", 60, proofs::commit_audit),
    kind("open a proof", 60, proofs::open_proof),
    kind("reveal findings", 70, proofs::reveal_findings),
    kind("convene", 60, proofs::convene),
    kind("commit to a panel", 120, proofs::commit_panel),
    kind("testify", 150, proofs::testify),
    kind("judge", 72, proofs::judge),
    kind("advance an audit", 30, proofs::advance_audit),
    kind("advance a panel", 24, proofs::advance_panel),
];

/// Calls that must fail.
pub const INTRUSION: Kind = kind("intrude", 0, others::intrude);

impl Gen<'_> {
    pub fn state(&self) -> &State {
        &self.world.state
    }

    pub fn people(&self) -> &People {
        &self.world.people
    }

    /// With a chance of `percent`.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    /// Whether to make a mistake here.
    pub fn slip(&mut self) -> bool {
        self.wild && self.chance(SLIPS)
    }

    /// The same of a call that is tried seldom.
    pub fn blunder(&mut self) -> bool {
        self.wild && self.chance(BLUNDERS)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end.max(1))
    }

    pub fn among(&mut self, min: u64, max: u64) -> u64 {
        self.rng.random_range(min..=max.max(min))
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.choose(self.rng).cloned()
    }

    /// One of the accounts that could do it, or sometimes anybody.
    pub fn caller(&mut self, of: &[Address]) -> Address {
        if !self.slip()
            && let Some(account) = self.one(of)
            && !account.is_zero()
        {
            return account;
        }
        let all = self.people().all();
        self.one(&all).unwrap()
    }

    pub fn anybody(&mut self) -> Address {
        let keepers = self.people().keepers;
        self.caller(&keepers)
    }

    pub fn word(&mut self) -> B256 {
        B256::from(self.rng.random::<[u8; 32]>())
    }

    /// A session that fits, or sometimes any, also one that does not exist.
    pub fn session(
        &mut self,
        fits: impl Fn(&assay_protocol::state::Session) -> bool,
    ) -> Option<u64> {
        if self.slip() {
            let count = self.state().sessions.len() as u64;
            return Some(self.among(1, count + 1));
        }
        let sessions = self.state().sessions.iter();
        let ids: Vec<u64> = sessions.filter(|(_, found)| fits(found)).map(|(id, _)| *id).collect();
        self.one(&ids)
    }

    /// A node that fits, or sometimes any, also one that does not exist.
    pub fn node(
        &mut self,
        fits: impl Fn(u32, &assay_protocol::state::Node) -> bool,
    ) -> Option<u32> {
        if self.slip() {
            let count = self.state().nodes.len() as u64;
            return Some(self.among(1, count + 1) as u32);
        }
        let nodes = self.state().nodes.iter();
        let ids: Vec<u32> =
            nodes.filter(|(id, found)| fits(**id, found)).map(|(id, _)| *id).collect();
        self.one(&ids)
    }

    /// A task that fits.
    pub fn task(
        &mut self,
        fits: impl Fn(&assay_protocol::TaskRecord) -> bool,
    ) -> Option<(B256, assay_protocol::TaskRecord)> {
        let tasks = self.state().tasks.iter();
        let fitting: Vec<B256> =
            tasks.filter(|(_, entry)| fits(&entry.record)).map(|(id, _)| *id).collect();
        let id = self.one(&fitting)?;
        Some((id, self.state().tasks[&id].record.clone()))
    }

    /// The owner of a session, zero if there is none.
    pub fn owner_of(&self, session: u64) -> Vec<Address> {
        self.state().sessions.get(&session).map(|found| found.owner).into_iter().collect()
    }
}

/// A word that follows from others, so that an answer is the same whenever it is opened.
pub fn derived(task: B256, node: u32, what: &str) -> B256 {
    keccak256([task.as_slice(), &node.to_be_bytes(), what.as_bytes()].concat())
}
