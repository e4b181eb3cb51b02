//! Money that no session holds: balances and stakes, and the sums of everything.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, B256, U256, address};
use assay_bindings::ProofOfInference::AuditCollected;
use assay_bindings::SessionPayment::{
    Burnt, Credited, Deposited, FundsMoved, SessionReturned, Slashed, StakeReleased, Staked,
    TipPaid, Withdrawn,
};

use super::{Gap, State, known};
use crate::{num::amount, rule::Rule};

/// Its balance is what was burnt of assets that cannot be destroyed.
pub const DEAD: Address = address!("000000000000000000000000000000000000dEaD");
/// The asset that stakes are of, and that can be destroyed.
pub const COR: u8 = 0;

/// Accounts outside sessions, minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// By account and asset.
    pub balances: BTreeMap<(Address, u8), u128>,
    /// Of COR, by node.
    pub stakes: BTreeMap<u32, u128>,
    /// By asset: lanes, balances and stakes together.
    pub totals: BTreeMap<u8, u128>,
    /// Task and node of each lie that was punished.
    pub punished: BTreeSet<(B256, u32)>,
    /// Of a slash, what `ProofOfInference` is credited next, and passes on in the same call.
    passed_on: U256,
}

/// Takes money out of an account that must have it.
fn take(account: &mut u128, sum: u128, what: &str) -> Result<(), Gap> {
    *account = known(account.checked_sub(sum), "money that is spent of", what)?;
    Ok(())
}

impl Accounts {
    /// What an account may withdraw.
    pub fn balance(&self, account: Address, asset: u8) -> u128 {
        self.balances.get(&(account, asset)).copied().unwrap_or(0)
    }

    /// Stake of a node.
    pub fn stake(&self, node: u32) -> u128 {
        self.stakes.get(&node).copied().unwrap_or(0)
    }

    pub(super) fn credit(&mut self, account: Address, asset: u8, sum: U256) {
        *self.balances.entry((account, asset)).or_default() += amount(sum);
    }

    fn total(&mut self, asset: u8) -> &mut u128 {
        self.totals.entry(asset).or_default()
    }

    pub(super) fn staked(&mut self, event: &Staked) {
        *self.stakes.entry(event.nodeId).or_default() += amount(event.amount);
        *self.total(COR) += amount(event.amount);
    }

    pub(super) fn stake_released(&mut self, event: &StakeReleased) {
        self.stakes.insert(event.nodeId, 0);
        self.credit(event.owner, COR, event.amount);
    }

    pub(super) fn withdrawn(&mut self, event: &Withdrawn) -> Result<(), Gap> {
        let balance = self.balances.entry((event.account, event.asset)).or_default();
        take(balance, amount(event.amount), "a balance")?;
        take(self.total(event.asset), amount(event.amount), "an asset")
    }

    pub(super) fn burnt(&mut self, event: &Burnt) -> Result<(), Gap> {
        if event.asset == COR {
            return take(self.total(COR), amount(event.amount), "COR");
        }
        self.credit(DEAD, event.asset, event.amount);
        Ok(())
    }
}

impl State {
    pub(super) fn slashed(&mut self, event: &Slashed) -> Result<(), Gap> {
        if event.rule == Rule::Equivocation as u8 {
            self.accounts.punished.insert((event.taskId, event.nodeId));
        }
        if event.reporter == self.network.deployment.proof {
            self.accounts.passed_on = event.reward;
        }
        let stake = self.accounts.stakes.entry(event.nodeId).or_default();
        take(stake, amount(event.amount), "a stake")
    }

    /// What is passed on is told by the credits behind this one.
    pub(super) fn credited(&mut self, event: &Credited) {
        let passes = event.account == self.network.deployment.proof && !event.amount.is_zero();
        if passes && event.asset == COR && event.amount == self.accounts.passed_on {
            self.accounts.passed_on = U256::ZERO;
            return;
        }
        self.accounts.credit(event.account, event.asset, event.amount);
    }

    /// What was put aside for an answer's audits is its validators': `Credited` tells who they are.
    pub(super) fn audit_collected(&mut self, event: &AuditCollected) -> Result<(), Gap> {
        let found = self.proofs.answers.remove(&(event.taskId, event.nodeId));
        self.proofs.appeals.remove(&(event.taskId, event.nodeId));
        let audit = known(found.and_then(|found| found.audit), "the audit of task", event.taskId)?;
        let account = (self.network.deployment.proof, audit.asset);
        take(
            self.accounts.balances.entry(account).or_default(),
            amount(event.amount),
            "what is put aside for audits",
        )
    }

    /// An appeal's bond comes in: `Credited` tells whose account has it.
    pub(super) fn bonded(&mut self, bond: u128) {
        *self.accounts.total(COR) += bond;
    }

    /// It goes to others: `Credited` tells who they are.
    pub(super) fn bond_settled(&mut self, bond: u128) -> Result<(), Gap> {
        let account = (self.network.deployment.proof, COR);
        take(self.accounts.balances.entry(account).or_default(), bond, "bonds")
    }

    pub(super) fn deposited(&mut self, event: &Deposited) -> Result<(), Gap> {
        let session = self.session_mut(event.sessionId)?;
        session.lane_mut(event.lane)?.free += amount(event.amount);
        let asset = session.asset;
        *self.accounts.total(asset) += amount(event.amount);
        Ok(())
    }

    pub(super) fn funds_moved(&mut self, event: &FundsMoved) -> Result<(), Gap> {
        let session = self.session_mut(event.sessionId)?;
        take(&mut session.lane_mut(event.from)?.free, amount(event.amount), "a lane")?;
        session.lane_mut(event.to)?.free += amount(event.amount);
        Ok(())
    }

    pub(super) fn session_returned(&mut self, event: &SessionReturned) -> Result<(), Gap> {
        let session = self.session_mut(event.sessionId)?;
        take(&mut session.lane_mut(event.lane)?.free, amount(event.amount), "a lane")?;
        let asset = session.asset;
        self.accounts.credit(event.owner, asset, event.amount);
        Ok(())
    }

    pub(super) fn tip_paid(&mut self, event: &TipPaid) -> Result<(), Gap> {
        let lane = self.session_mut(event.sessionId)?.lane_mut(0)?;
        take(&mut lane.free, amount(event.amount), "a lane")?;
        self.accounts.credit(event.keeper, event.asset, event.amount);
        Ok(())
    }

    /// Pretends that a lane has so much more.
    pub(crate) fn lend(&mut self, session: u64, lane: u32, sum: u128) -> Result<(), Gap> {
        self.session_mut(session)?.lane_mut(lane)?.free += sum;
        Ok(())
    }

    /// Money of a lane that a task holds.
    pub(super) fn hold(&mut self, session: u64, lane: u32, sum: u128) -> Result<(), Gap> {
        let lane = self.session_mut(session)?.lane_mut(lane)?;
        take(&mut lane.free, sum, "a lane")?;
        lane.held += sum;
        Ok(())
    }

    /// Of what a lane holds so much is held no more, and so much of that is spent.
    pub(super) fn unhold(
        &mut self,
        (session, lane): (u64, u32),
        sum: u128,
        spent: u128,
    ) -> Result<(), Gap> {
        let lane = self.session_mut(session)?.lane_mut(lane)?;
        take(&mut lane.held, sum, "what is held")?;
        lane.free += sum;
        take(&mut lane.free, spent, "a lane")
    }
}
