//! What no set of tunables may leave.

use alloy::primitives::{B256, U256};
use assay_bindings::Parameters::{
    NodeTerms, Parameters_AssetCount, Parameters_OutOfBounds, SessionTerms, Terms,
};

use crate::{
    num::{amount, int, u256},
    refusal::Refusal,
};

const BPS: u64 = 10_000;
const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;
/// Ten million COR.
const MAX_COLLATERAL: u128 = 10_u128.pow(25);
/// A million tokens of 18 decimals.
const MAX_MIN_DEPOSIT: u128 = 10_u128.pow(24);
const MAX_UNBONDING_S: u64 = 365 * DAY_S;

/// What a set is checked against beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Assets that it must have amounts for.
    pub assets: u8,
    /// Largest royalty, hundredths of a percent.
    pub max_royalty_bps: u16,
    /// Longest that a draw may wait, seconds.
    pub draw_window_s: u64,
    /// Longest that audits of a task may take once it could be settled, seconds.
    pub longest_audit_s: u64,
    /// Longest life of a task by any set before, seconds.
    pub longest_life_s: u64,
    /// Shortest unbonding of any set before, seconds.
    pub shortest_unbonding_s: u64,
}

impl Frame {
    /// The frame of the set that follows these.
    pub fn after<'a>(mut self, sets: impl Iterator<Item = &'a Terms>) -> Self {
        (self.longest_life_s, self.shortest_unbonding_s) = (0, MAX_UNBONDING_S);
        for terms in sets {
            let life_s = task_life_s(&terms.session) + self.longest_audit_s;
            self.longest_life_s = self.longest_life_s.max(life_s);
            let unbonding_s = u64::from(terms.node.unbondingPeriod);
            self.shortest_unbonding_s = self.shortest_unbonding_s.min(unbonding_s);
        }
        self
    }
}

/// From the first deadline that a request may have to the last second of its openings, seconds from now at most.
pub fn answer_time_s(terms: &SessionTerms) -> u64 {
    let attempts_s = u64::from(terms.maxAttempts) * int(terms.attemptTime);
    int(terms.maxDeadline) + attempts_s + int(terms.revealTime)
}

/// Longest life of a task, seconds.
pub fn task_life_s(terms: &SessionTerms) -> u64 {
    answer_time_s(terms) + int(terms.settleDelay)
}

fn within(name: &str, value: u128, min: u128, max: u128) -> Result<(), Refusal> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let mut word = B256::ZERO;
    for (to, from) in word.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let (value, min, max) = (U256::from(value), U256::from(min), U256::from(max));
    Err(Parameters_OutOfBounds { name: word, value, min, max }.into())
}

fn check_all(rows: &[(&str, u64, u64, u64)]) -> Result<(), Refusal> {
    rows.iter().try_for_each(|(name, value, min, max)| {
        within(name, (*value).into(), (*min).into(), (*max).into())
    })
}

fn check_session(terms: &SessionTerms, frame: &Frame) -> Result<(), Refusal> {
    let shares = BPS - u64::from(frame.max_royalty_bps);
    let miner = u64::from(terms.minerBps);
    check_all(&[("minerBps", miner, 5000, shares)])?;
    check_all(&[
        ("routerBps", terms.routerBps.into(), 0, (shares - miner).min(3000)),
        ("maxDeadline", int(terms.maxDeadline), 10, DAY_S),
        ("attemptTime", int(terms.attemptTime), 1, HOUR_S),
        ("revealTime", int(terms.revealTime), 1, HOUR_S),
        ("settleDelay", int(terms.settleDelay), 1, DAY_S),
        ("maxAttempts", terms.maxAttempts.into(), 1, 8),
        ("noticePeriod", int(terms.noticePeriod), answer_time_s(terms) + 1, 30 * DAY_S),
        ("reservationTimeout", int(terms.reservationTimeout), 10, frame.draw_window_s),
        ("reservePeriod", int(terms.reservePeriod), 60, 90 * DAY_S),
        ("maxTasks", terms.maxTasks.into(), 1, u32::MAX.into()),
    ])
}

fn check_node(terms: &NodeTerms, frame: &Frame, life_s: u64) -> Result<(), Refusal> {
    let longest_s = life_s.max(frame.longest_life_s);
    check_all(&[
        ("taskLife", life_s, 0, frame.shortest_unbonding_s),
        ("unbondingPeriod", terms.unbondingPeriod.into(), longest_s, MAX_UNBONDING_S),
        ("activationDelay", terms.activationDelay.into(), 1, 30 * DAY_S),
    ])?;
    within("collateralPerSlot", terms.collateralPerSlot, 1, MAX_COLLATERAL)?;
    check_all(&[
        ("slashBps", terms.slashBps.into(), 1, BPS),
        ("reporterBps", terms.reporterBps.into(), 0, 5000),
    ])
}

/// Checks a set: every member by its bounds, the shares and times by one another, and every unbonding against every
/// task that may still be alive under another set.
///
/// # Errors
/// What the contract refuses it with.
pub fn check(terms: &Terms, frame: &Frame) -> Result<(), Refusal> {
    if terms.assets.len() != usize::from(frame.assets) {
        let assets = u256(terms.assets.len() as u64);
        return Err(Parameters_AssetCount { assets, wanted: u256(frame.assets) }.into());
    }
    check_session(&terms.session, frame)?;
    check_node(&terms.node, frame, task_life_s(&terms.session) + frame.longest_audit_s)?;
    for asset in &terms.assets {
        let min_deposit = amount(asset.minDeposit);
        within("minDeposit", min_deposit, 1, MAX_MIN_DEPOSIT)?;
        within("tip", amount(asset.tip), 0, min_deposit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloy::primitives::aliases::{U24, U96};
    use assay_bindings::Parameters::AssetTerms;

    use super::*;

    fn terms() -> Terms {
        let seconds = |seconds: u64| U24::from(seconds);
        Terms {
            session: SessionTerms {
                minerBps: 9000,
                routerBps: 500,
                maxDeadline: seconds(60),
                attemptTime: seconds(10),
                revealTime: seconds(8),
                settleDelay: seconds(3),
                maxAttempts: 3,
                noticePeriod: seconds(99),
                reservationTimeout: seconds(40),
                reservePeriod: seconds(90),
                maxTasks: 6,
            },
            node: NodeTerms {
                activationDelay: 2,
                unbondingPeriod: 108,
                collateralPerSlot: 1,
                slashBps: 5000,
                reporterBps: 1000,
            },
            assets: vec![AssetTerms { tip: U96::from(1), minDeposit: U96::from(1) }],
        }
    }

    fn frame() -> Frame {
        let frame = Frame {
            assets: 1,
            max_royalty_bps: 300,
            draw_window_s: 120,
            longest_audit_s: 7,
            longest_life_s: 0,
            shortest_unbonding_s: 0,
        };
        frame.after([terms()].iter())
    }

    /// What a set that differs in one member is refused with.
    fn refused(change: impl FnOnce(&mut Terms)) -> String {
        let mut terms = terms();
        change(&mut terms);
        let name = check(&terms, &frame()).unwrap_err().0;
        String::from_utf8(name[4..36].to_vec()).unwrap().trim_end_matches('\0').to_owned()
    }

    #[test]
    fn a_set_may_follow_itself() {
        assert_eq!(check(&terms(), &frame()), Ok(()));
        assert_eq!((answer_time_s(&terms().session), task_life_s(&terms().session)), (98, 101));
    }

    #[test]
    fn a_set_that_contradicts_itself_or_those_before_is_refused() {
        assert_eq!(refused(|terms| terms.session.minerBps = 9701), "minerBps");
        assert_eq!(refused(|terms| terms.session.routerBps = 701), "routerBps");
        assert_eq!(refused(|terms| terms.session.noticePeriod = U24::from(98)), "noticePeriod");
        assert_eq!(refused(|terms| terms.session.settleDelay = U24::from(4)), "taskLife");
        assert_eq!(refused(|terms| terms.node.unbondingPeriod = 107), "unbondingPeriod");
        assert_eq!(refused(|terms| terms.assets[0].tip = U96::from(2)), "tip");
        let short = |terms: &mut Terms| terms.session.reservationTimeout = U24::from(121);
        assert_eq!(refused(short), "reservationTimeout");
    }
}
