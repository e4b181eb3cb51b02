//! `ProofOfInference`: what a fault costs, who gets it, and what validators are paid.

use assay_bindings::{
    ProofOfInference::{Audit, AuditCollected, ProofOfInference_BookTooSmall},
    SessionPayment::Slashed,
};

use super::Run;
use crate::{
    audit::earners_of,
    money::share_down,
    num::{amount, u256},
    refusal::{Failure, require},
    rule::Rule,
    state::{AuditState, NodeState},
};

/// What whoever moves on an audit gets of what the one at fault loses, hundredths of a percent.
const KEEPER_BPS: u16 = 1000;
/// Stakes are of COR.
pub(super) const COR: u8 = 0;

/// A rule, what was measured, and its bound.
pub(super) type Evidence = (Rule, u64, u64);

impl Run<'_> {
    /// A duty that was not done costs a little.
    pub(super) fn slash_idle(
        &mut self,
        audit: &Audit,
        node: u32,
        until_s: u64,
    ) -> Result<(), Failure> {
        let sum = share_down(self.state.accounts.stake(node), self.state.network.proof.dutyBps);
        let (keeper, reward) = (self.at.caller, share_down(sum, KEEPER_BPS));
        let (rule, measured, bound) = (Rule::Idle, self.at.time_s, until_s);
        self.emit(Slashed {
            nodeId: node,
            taskId: audit.taskId,
            rule: rule as u8,
            measured: u256(measured),
            bound: u256(bound),
            amount: u256(sum),
            reporter: keeper,
            reward: u256(reward),
        })?;
        self.credit(keeper, COR, reward)?;
        self.burn(COR, sum - reward)
    }

    /// A lie, or what would hide one, costs the bond: some of it goes to those who proved it and to the client.
    pub(super) fn slash_liar(
        &mut self,
        audit: &Audit,
        node: u32,
        (rule, measured, bound): Evidence,
        provers: &[u32],
    ) -> Result<(), Failure> {
        let config = &self.state.network.proof;
        let sum = share_down(self.state.accounts.stake(node), config.slashBps);
        let count = provers.len() as u128;
        let to_provers = share_down(sum, config.proverBps).checked_div(count).unwrap_or(0);
        let to_client = share_down(sum, config.clientBps);
        let given = to_provers * count + to_client;
        // One who exited cannot be jailed; nothing is left of it.
        if sum != 0 && self.state.node(node)?.state != NodeState::Jailed {
            self.set_state(node, NodeState::Jailed)?;
        }
        let proof = self.state.network.deployment.proof;
        self.emit(Slashed {
            nodeId: node,
            taskId: audit.taskId,
            rule: rule as u8,
            measured: u256(measured),
            bound: u256(bound),
            amount: u256(sum),
            reporter: proof,
            reward: u256(given),
        })?;
        self.credit(proof, COR, given)?;
        self.burn(COR, sum - given)?;
        for prover in provers {
            self.credit(self.state.node(*prover)?.payout, COR, to_provers)?;
        }
        self.credit(audit.client, COR, to_client)
    }

    /// Pays the validators of an answer whose task has ended.
    pub(super) fn collect(&mut self, audit: &Audit) -> Result<(), Failure> {
        self.take(audit, AuditState::Closed)?;
        let pay = share_down(amount(audit.fee), self.state.network.proof.auditPayBps);
        let mut earners = earners_of(audit);
        earners.extend(self.state.proofs.members_owed(audit.taskId, audit.nodeId));
        let wanted = pay * earners.len() as u128;
        let books = &self.state.proofs.books;
        let booked = books.get(&(audit.model, audit.asset)).copied().unwrap_or(0);
        require!(
            wanted <= booked,
            ProofOfInference_BookTooSmall { wanted: u256(wanted), booked: u256(booked) }
        );
        self.book(audit.model, audit.asset, |booked| booked - wanted)?;
        let (id, node) = (audit.taskId, audit.nodeId);
        self.emit(AuditCollected { taskId: id, nodeId: node, amount: u256(wanted) })?;
        for earner in earners {
            self.credit(self.state.node(earner)?.payout, audit.asset, pay)?;
        }
        Ok(())
    }
}
