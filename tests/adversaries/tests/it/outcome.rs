//! What a trial came to: states, verdicts, slashes, and everybody's money before and after.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use assay_bindings::COR;
use assay_proof::Reasons;
use assay_protocol::{ProtocolEvent, TaskState, state::AuditState};

use crate::answers::Task;

/// Paid to whoever settles or refunds a task.
const TIP: u128 = COR / 1000;
/// Shares of a liar's stake, hundredths of a percent, as a development network has them.
const CLIENTS_BPS: u128 = 2000;
const PROVERS_BPS: u128 = 5000;
/// What a validator that stays silent loses of its stake.
const IDLE_BPS: u128 = 100;
const BPS: u128 = 10_000;

/// Why stake is taken: `Rule` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    Idle = 2,
    Withheld = 3,
    Unopened = 4,
    Fingerprint = 5,
    Sampling = 6,
    Content = 7,
    Contradicted = 8,
}

impl Rule {
    const ALL: [Self; 7] = [
        Self::Idle,
        Self::Withheld,
        Self::Unopened,
        Self::Fingerprint,
        Self::Sampling,
        Self::Content,
        Self::Contradicted,
    ];

    fn of(code: u8) -> Self {
        Self::ALL.into_iter().find(|rule| *rule as u8 == code).expect("a rule of the proof")
    }
}

/// Minor units of COR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purses {
    /// With what its sessions hold.
    pub client: u128,
    pub keeper: u128,
    pub publisher: u128,
    /// What is put aside for audits.
    pub book: u128,
    pub stakes: BTreeMap<u32, u128>,
    pub payouts: BTreeMap<u32, u128>,
    /// What owners have, in the contracts and outside.
    pub owners: BTreeMap<Address, u128>,
    /// What of that is outside.
    pub wallets: u128,
    /// What `SessionPayment` has.
    pub vault: u128,
    pub supply: u128,
}

impl Purses {
    fn sum(&self) -> u128 {
        let nodes: u128 = self.stakes.values().chain(self.payouts.values()).sum();
        let owners: u128 = self.owners.values().sum();
        self.client + self.keeper + self.publisher + self.book + nodes + owners
    }

    /// What there is of all that.
    fn there(&self) -> u128 {
        self.vault + self.wallets
    }

    fn of(&self, node: u32) -> u128 {
        self.stakes[&node] + self.payouts[&node]
    }
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub miner: u32,
    /// As last told; nothing if no validator was drawn.
    pub state: Option<AuditState>,
    pub state_of_task: TaskState,
    /// What the first validator found, if it came to that.
    pub reasons: Option<Reasons>,
    /// Validators in the order in which they were drawn, without the panel.
    pub validators: Vec<u32>,
    pub panel: Vec<u32>,
    /// The second panel, if there was an appeal that it could be drawn for.
    pub appeal: Vec<u32>,
    /// Bond of the appeal, if there was one.
    pub bond: Option<u128>,
    /// Who demanded request and answer.
    pub demander: Option<u32>,
    pub slashes: Vec<(u32, Rule)>,
    /// Owners whose word against the miner counted, and how many it takes.
    pub evidence: Vec<(u64, u64)>,
    pub unverified: bool,
    /// Whether its validators could be paid.
    pub collected: bool,
    pub fee: u128,
    pub before: Purses,
    pub after: Purses,
}

/// How many of them lied, or hid what would prove a lie.
fn lies(slashes: &[(u32, Rule)]) -> u128 {
    slashes.iter().filter(|(_, rule)| *rule != Rule::Idle).count() as u128
}

impl Outcome {
    pub fn of(log: &[ProtocolEvent], task: &Task, before: Purses, after: Purses) -> Self {
        let mut outcome = Self {
            miner: task.scope.node.0,
            state: None,
            state_of_task: TaskState::None,
            reasons: None,
            validators: Vec::new(),
            panel: Vec::new(),
            appeal: Vec::new(),
            bond: None,
            demander: None,
            slashes: Vec::new(),
            evidence: Vec::new(),
            unverified: false,
            collected: false,
            fee: 0,
            before,
            after,
        };
        log.iter().for_each(|event| outcome.take_in(event, task));
        outcome
    }

    fn take_in(&mut self, event: &ProtocolEvent, task: &Task) {
        let id = task.scope.task.0;
        match event {
            ProtocolEvent::TaskCommitted(event) if event.taskId == id => {
                self.fee = event.fee.to();
            }
            ProtocolEvent::AuditMoved(event) if event.taskId == id => {
                let state = AuditState::try_from(event.state).unwrap();
                self.state = Some(state);
                let validator = event.audit.validator;
                if state == AuditState::Drawn && !self.validators.contains(&validator) {
                    self.validators.push(validator);
                }
            }
            ProtocolEvent::PanelMoved(event) if event.taskId == id => {
                let members = event.parties.iter().skip(2).map(|party| party.nodeId).collect();
                if self.bond.is_some() { self.appeal = members } else { self.panel = members }
            }
            ProtocolEvent::Appealed(event) if event.taskId == id => {
                self.bond = Some(event.bond.to());
            }
            ProtocolEvent::DataDemanded(event) if event.taskId == id => {
                self.demander = Some(event.validator);
            }
            ProtocolEvent::Verdict(event) if event.taskId == id && self.reasons.is_none() => {
                self.reasons = Some(Reasons(event.reasons));
            }
            ProtocolEvent::AnswerUnverified(event) if event.taskId == id => self.unverified = true,
            ProtocolEvent::Slashed(event) if event.taskId == id => {
                self.slashes.push((event.nodeId, Rule::of(event.rule)));
                self.evidence.push((event.measured.to(), event.bound.to()));
            }
            _ => {}
        }
    }

    /// `[M1]` Nothing is made, and nothing is lost but what is burnt.
    pub fn check_conservation(&self) {
        for purses in [&self.before, &self.after] {
            assert_eq!(purses.sum(), purses.there(), "the accounts are not what there is");
        }
        let burnt = self.before.supply - self.after.supply;
        assert_eq!(self.before.there() - self.after.there(), burnt, "money went elsewhere");
    }

    /// What the miner's owner has more than before, beside its node.
    pub fn owner_gained(&self, owner: Address) -> i128 {
        self.after.owners[&owner] as i128 - self.before.owners[&owner] as i128
    }

    pub fn gain(&self, node: u32) -> i128 {
        self.after.of(node) as i128 - self.before.of(node) as i128
    }

    /// Nobody but these has less than before.
    fn nobody_else_lost(&self, losers: &[u32]) {
        for node in self.before.stakes.keys().filter(|node| !losers.contains(node)) {
            assert!(self.gain(*node) >= 0, "node {node} lost {}", -self.gain(*node));
        }
    }

    /// These and nobody else were slashed, by the rules beside them.
    fn slashed_are(&self, expected: &[(u32, Rule)]) {
        let sorted = |slashes: &[(u32, Rule)]| {
            let mut slashes = slashes.to_vec();
            slashes.sort_by_key(|(node, _)| *node);
            slashes
        };
        assert_eq!(sorted(&self.slashes), sorted(expected));
    }

    /// A liar has lost all of its stake, one that was idle a little.
    fn stakes_are_taken(&self, slashes: &[(u32, Rule)]) {
        for (node, rule) in slashes {
            let stake = self.before.stakes[node];
            let left = if *rule == Rule::Idle { stake - stake * IDLE_BPS / BPS } else { 0 };
            assert_eq!(self.after.stakes[node], left, "the stake of node {node}");
        }
    }

    fn client_has_its_fee_back(&self, liars: u128) {
        let back = self.after.client + TIP;
        let stake = self.before.stakes[&self.miner];
        let share = liars * stake * CLIENTS_BPS / BPS;
        assert_eq!(back, self.before.client + share, "the client lost more than a tip");
    }

    fn client_paid(&self, liars: u128) {
        let share = liars * self.before.stakes[&self.miner] * CLIENTS_BPS / BPS;
        assert_eq!(self.after.client + self.fee, self.before.client + share);
        let [shares, most] = [self.fee * 8000 / BPS, self.fee];
        let earned = self.after.payouts[&self.miner] - self.before.payouts[&self.miner];
        let paid = earned + self.after.book - self.before.book;
        assert!((shares / 2..=most).contains(&paid), "the miner was not paid");
    }

    // ---------------------------------------------------------------- verdicts

    /// Proven: the miner has lost its stake by this rule, the provers and the client have their shares of it, the client
    /// has the fee back, nobody else lost anything.
    pub fn caught_by(&self, rule: Rule) {
        self.caught_with(rule, &[]);
    }

    /// The same, and these liars beside the miner have lost their stake by the rule beside them.
    pub fn caught_with(&self, rule: Rule, others: &[(u32, Rule)]) {
        assert_eq!(self.state, Some(AuditState::Disproved), "{:?}", self.reasons);
        assert_eq!(self.state_of_task, TaskState::Refunded);
        let expected: Vec<_> = [others, &[(self.miner, rule)]].concat();
        self.slashed_are(&expected);
        let place = self.slashes.iter().position(|(node, _)| *node == self.miner).unwrap();
        let (measured, bound) = self.evidence[place];
        // Owners and how many it takes; or the second in which it was too late, and the last one.
        assert!(if rule == Rule::Unopened {
            measured > bound
        } else {
            measured >= 3 && bound == 3
        });
        let liars: Vec<u32> = expected.iter().map(|(node, _)| *node).collect();
        self.stakes_are_taken(&expected);
        assert!(self.after.payouts[&self.miner] == self.before.payouts[&self.miner]);
        self.client_has_its_fee_back(lies(&expected));
        self.nobody_else_lost(&liars);
        let stake = self.before.stakes[&self.miner];
        let provers: i128 =
            self.before.stakes.keys().filter(|n| !liars.contains(n)).map(|n| self.gain(*n)).sum();
        let share = (stake * PROVERS_BPS / BPS) as i128;
        assert!(provers > share - 8, "the provers got {provers} of {share}");
    }

    /// Found good: paid, and nobody lost anything but these, by the rules beside them.
    pub fn paid_with(&self, liars: &[(u32, Rule)]) {
        assert_eq!(self.state_of_task, TaskState::Settled, "{:?}", self.reasons);
        self.slashed_are(liars);
        self.stakes_are_taken(liars);
        let losers: Vec<u32> = liars.iter().map(|(node, _)| *node).collect();
        self.client_paid(lies(liars));
        self.nobody_else_lost(&losers);
    }

    /// Found good, and paid, and nobody lost anything.
    pub fn passed(&self) {
        assert_eq!(self.state, Some(AuditState::Passed), "{:?}", self.reasons);
        self.paid_with(&[]);
    }

    /// Nobody could tell: the fee is the client's again, and nobody lost stake but these.
    pub fn void_with(&self, liars: &[(u32, Rule)]) {
        assert_eq!(self.state, Some(AuditState::Void), "{:?}", self.reasons);
        assert_eq!(self.state_of_task, TaskState::Refunded);
        self.slashed_are(liars);
        self.stakes_are_taken(liars);
        let losers: Vec<u32> = liars.iter().map(|(node, _)| *node).collect();
        self.client_has_its_fee_back(lies(liars));
        self.nobody_else_lost(&losers);
    }

    pub fn has(&self, reasons: Reasons) -> bool {
        self.reasons.is_some_and(|found| found.contains(reasons))
    }
}
