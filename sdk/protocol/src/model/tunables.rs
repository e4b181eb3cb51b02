//! `Parameters`, and `NodeStats`, which only the queue may write.

use alloy::primitives::Address;
use assay_bindings::{
    NodeStats::{NodeStats_NotProtocol, NodeStatsCalls},
    Parameters::{
        GovernorChanged, GovernorProposed, Parameters_NotGovernor, Parameters_NotSuccessor,
        Parameters_NothingPending, Parameters_Pending, ParametersCalls, Terms, TermsProposed,
        TermsWithdrawn,
    },
};

use super::Run;
use crate::{
    num::u40,
    refusal::{Failure, require},
    terms::{Frame, check},
};

impl Run<'_> {
    pub(super) fn parameters(&mut self, call: &ParametersCalls) -> Result<(), Failure> {
        match call {
            ParametersCalls::propose(call) => self.propose(&call.terms),
            ParametersCalls::withdrawProposal(_) => self.withdraw_proposal(),
            ParametersCalls::proposeGovernor(call) => self.propose_governor(call.successor_),
            ParametersCalls::acceptGovernor(_) => self.accept_governor(),
            _ => Ok(()),
        }
    }

    pub(super) fn stats(&mut self, call: &NodeStatsCalls) -> Result<(), Failure> {
        match call {
            NodeStatsCalls::count(_) => {
                Err(NodeStats_NotProtocol { caller: self.at.caller }.into())
            }
            _ => Ok(()),
        }
    }

    fn only_governor(&self) -> Result<(), Failure> {
        let caller = self.at.caller;
        require!(caller == self.state.tunables.governor, Parameters_NotGovernor { caller });
        Ok(())
    }

    fn propose(&mut self, terms: &Terms) -> Result<(), Failure> {
        self.only_governor()?;
        let (tunables, network) = (&self.state.tunables, &self.state.network);
        let latest = tunables.latest();
        let effective_at = u40(tunables.effective_at_s);
        require!(
            self.at.time_s >= tunables.effective_at_s,
            Parameters_Pending { version: latest, effectiveAt: effective_at }
        );
        let frame = Frame {
            assets: network.assets,
            max_royalty_bps: network.max_royalty_bps,
            draw_window_s: network.draw_window_s,
            longest_audit_s: network.longest_audit_s,
            longest_life_s: 0,
            shortest_unbonding_s: 0,
        };
        check(terms, &frame.after(tunables.versions.values())).map_err(Failure::Refused)?;
        let effective_at = u40(self.at.time_s + network.proposal_delay_s);
        self.emit(TermsProposed {
            version: latest + 1,
            effectiveAt: effective_at,
            terms: terms.clone(),
        })
    }

    fn withdraw_proposal(&mut self) -> Result<(), Failure> {
        self.only_governor()?;
        let tunables = &self.state.tunables;
        require!(self.at.time_s < tunables.effective_at_s, Parameters_NothingPending {});
        self.emit(TermsWithdrawn { version: tunables.latest() })
    }

    fn propose_governor(&mut self, successor: Address) -> Result<(), Failure> {
        self.only_governor()?;
        self.emit(GovernorProposed { governor: self.at.caller, successor })
    }

    fn accept_governor(&mut self) -> Result<(), Failure> {
        let (caller, tunables) = (self.at.caller, &self.state.tunables);
        require!(caller == tunables.successor, Parameters_NotSuccessor { caller });
        self.emit(GovernorChanged { oldGovernor: tunables.governor, newGovernor: caller })
    }
}
