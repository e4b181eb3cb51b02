//! `SessionPayment`: what accounts may do themselves, and what the other contracts make it tell.

use alloy::primitives::{Address, U256};
use assay_bindings::SessionPayment::{
    Burnt, Credited, Deposited, FundsMoved, SessionPayment_AmountTooLarge,
    SessionPayment_InsufficientBalance, SessionPayment_InsufficientDeposit,
    SessionPayment_NonceTooFarAhead, SessionPayment_NotProtocol, SessionPayment_OwnAddress,
    SessionPayment_UnknownAsset, SessionPayment_ZeroAddress, SessionPayment_ZeroAmount,
    SessionPaymentCalls, SessionReturned, TipPaid, Withdrawn, withdrawCall,
};

use super::Run;
use crate::{
    num::{u96, u256},
    refusal::{Failure, require},
    state::known,
};

/// How far ahead of the largest nonce of its lane a request may be.
const NONCE_WINDOW: u64 = 256;
/// Money of one lane at most.
const MAX_FUNDS: u128 = (1 << 96) - 1;

/// Money for one account out of neighbouring answers, which one event tells.
#[derive(Default)]
pub(super) struct Credit {
    account: Address,
    asset: u8,
    sum: u128,
}

impl Run<'_> {
    pub(super) fn payment(&mut self, call: &SessionPaymentCalls) -> Result<(), Failure> {
        use SessionPaymentCalls as C;
        match call {
            C::withdraw(call) => self.withdraw(call),
            C::deposit(_)
            | C::topUp(_)
            | C::r#move(_)
            | C::payTip(_)
            | C::returnRest(_)
            | C::hold(_)
            | C::pay(_)
            | C::refund(_)
            | C::give(_)
            | C::fund(_)
            | C::stake(_)
            | C::releaseStake(_)
            | C::slash(_) => Err(SessionPayment_NotProtocol { caller: self.at.caller }.into()),
            _ => Ok(()),
        }
    }

    fn withdraw(&mut self, call: &withdrawCall) -> Result<(), Failure> {
        let (asset, to, amount, account) = (call.asset, call.to, call.amount, self.at.caller);
        let network = &self.state.network;
        require!(!amount.is_zero(), SessionPayment_ZeroAmount {});
        require!(!to.is_zero(), SessionPayment_ZeroAddress {});
        require!(to != network.deployment.payment, SessionPayment_OwnAddress {});
        require!(asset < network.assets, SessionPayment_UnknownAsset { asset });
        let balance = u256(self.state.accounts.balance(account, asset));
        require!(
            amount <= balance,
            SessionPayment_InsufficientBalance { account, asset, wanted: amount, balance }
        );
        self.emit(Withdrawn { account, asset, to, amount })
    }

    /// Money that enters a lane.
    pub(super) fn deposit(
        &mut self,
        (session, lane): (u64, u32),
        from: Address,
        sum: u128,
    ) -> Result<(), Failure> {
        if sum == 0 {
            return Ok(());
        }
        self.check_room((session, lane), sum)?;
        self.emit(Deposited { sessionId: session, lane, from, amount: u256(sum) })
    }

    fn check_room(&self, (session, lane): (u64, u32), sum: u128) -> Result<(), Failure> {
        let funds = known(self.state.session(session)?.lane(lane), "lane", lane)?;
        let sum = u256(funds.free + funds.held) + u256(sum);
        let max = u256(MAX_FUNDS);
        require!(sum <= max, SessionPayment_AmountTooLarge { amount: sum, max });
        Ok(())
    }

    /// Free money from one lane to another.
    pub(super) fn move_funds(
        &mut self,
        session: u64,
        (from, to): (u32, u32),
        sum: u128,
    ) -> Result<(), Failure> {
        let free = known(self.state.session(session)?.lane(from), "lane", from)?.free;
        require!(
            sum <= free,
            SessionPayment_InsufficientDeposit {
                sessionId: session,
                lane: from,
                wanted: u96(sum),
                free: u96(free),
            }
        );
        self.emit(FundsMoved { sessionId: session, from, to, amount: u256(sum) })
    }

    /// A keeper's tip out of lane 0, or as much as there is.
    pub(super) fn pay_tip(&mut self, session: u64) -> Result<(), Failure> {
        let found = self.state.session(session)?;
        let asset = found.asset;
        let tip = self.state.tunables.tip(found.terms_version, asset)?;
        let paid = tip.min(known(found.lane(0), "lane", 0)?.free);
        if paid == 0 {
            return Ok(());
        }
        let keeper = self.at.caller;
        self.emit(TipPaid { sessionId: session, keeper, asset, amount: u256(paid) })
    }

    /// What is free in all lanes becomes the owner's.
    pub(super) fn return_rest(&mut self, session: u64) -> Result<U256, Failure> {
        let found = self.state.session(session)?;
        let owner = found.owner;
        let free: Vec<u128> = found.lanes.iter().map(|lane| lane.free).collect();
        for (lane, sum) in (0_u32..).zip(&free) {
            if *sum != 0 {
                let amount = u256(*sum);
                self.emit(SessionReturned { sessionId: session, lane, owner, amount })?;
            }
        }
        Ok(u256(free.iter().sum::<u128>()))
    }

    /// Whether a lane can hold so much for a request. The queue's own event tells that it does.
    pub(super) fn check_hold(
        &self,
        (session, lane): (u64, u32),
        nonce: u64,
        sum: u128,
    ) -> Result<(), Failure> {
        let funds = known(self.state.session(session)?.lane(lane), "lane", lane)?;
        let limit = funds.next_nonce.saturating_add(NONCE_WINDOW - 1);
        require!(
            nonce <= limit,
            SessionPayment_NonceTooFarAhead { sessionId: session, lane, nonce, limit }
        );
        require!(
            sum <= funds.free,
            SessionPayment_InsufficientDeposit {
                sessionId: session,
                lane,
                wanted: u96(sum),
                free: u96(funds.free),
            }
        );
        Ok(())
    }

    pub(super) fn credit(&mut self, account: Address, asset: u8, sum: u128) -> Result<(), Failure> {
        if sum == 0 {
            return Ok(());
        }
        self.emit(Credited { account, asset, amount: u256(sum) })
    }

    /// Adds to a credit; what it had is told if it was another account's.
    pub(super) fn gather(
        &mut self,
        credit: &mut Credit,
        (account, asset): (Address, u8),
        sum: u128,
    ) -> Result<(), Failure> {
        if (credit.account, credit.asset) != (account, asset) {
            self.tell(credit)?;
            *credit = Credit { account, asset, sum: 0 };
        }
        credit.sum += sum;
        Ok(())
    }

    pub(super) fn tell(&mut self, credit: &Credit) -> Result<(), Failure> {
        self.credit(credit.account, credit.asset, credit.sum)
    }

    pub(super) fn burn(&mut self, asset: u8, sum: u128) -> Result<(), Failure> {
        if sum == 0 {
            return Ok(());
        }
        self.emit(Burnt { asset, amount: u256(sum) })
    }
}
