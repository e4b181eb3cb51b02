//! Thresholds from honest audits: as tight as honest noise allows, with room for what was not measured.
//!
//! Honest noise of a sound pair of classes is narrow, and a cheat's is many times as large. So every
//! threshold stands a fixed number of standard deviations above honest audits, and well above the largest
//! of them; what that costs in detection is measured afterwards.

use assay_engine::EngineError;
use assay_proof::{CONTRASTS_PER_NAT, Calibration, MARGINS_PER_NAT, Width};

use super::audit::Audit;

/// Standard deviations from the mean of honest values to a threshold. For a normal distribution beyond it
/// lie 1e-9; honest ones have longer tails, which [`HEADROOM`] is for.
const DEVIATIONS: f64 = 6.0;
/// A threshold is at least this multiple of the largest honest value.
const HEADROOM: f64 = 1.5;
/// Chance that an honest token has more than the hard margin.
pub(crate) const HARD_MARGIN_CHANCE: f64 = 1e-6;
/// Share of the largest margins whose tail is fitted by an exponential.
const TAIL: f64 = 0.001;
/// The hard margin is at least this multiple of the largest contrast apart: ids are chosen among the
/// likeliest, whose logits are the largest and are rounded most.
const PAIR_HEADROOM: f64 = 2.0;
/// Smallest hard margin: 1/512 nat, half a unit of contrasts. Other processors and versions of the same
/// class add in another order, by some 1e-5 nat; nothing is gained below.
const HARD_MARGIN_FLOOR: u32 = 128;
/// What the sum of margins may grow by for a token, as a multiple of the honest mean.
const MEAN_HEADROOM: f64 = 2.0;
/// Smallest growth: 1/65536 nat in 8 tokens.
const MEAN_FLOOR: f64 = 0.125;
/// Times that the spot check of an answer is drawn.
const SPOT_DRAWS: u8 = 8;
/// Positions that an accuser names.
const ACCUSED: usize = 16;
/// Units of margins (1/65536 nat) in those of slopes (2^-32 nat).
const SLOPE: f64 = 65536.0;
/// Audits on average until a CUSUM alarms without cause, as its logarithm: e^20 is 5e8.
const CUSUM_LN_RUN: f64 = 20.0;

/// Mean, standard deviation and largest of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub count: usize,
    pub mean: f64,
    pub deviation: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let (mut count, mut mean, mut squares, mut max) = (0_u32, 0.0, 0.0, 0.0_f64);
        // Welford's sums, which do not cancel.
        for value in values {
            count += 1;
            let before = value - mean;
            mean += before / f64::from(count);
            squares += before * (value - mean);
            max = max.max(value);
        }
        let deviation = (squares / f64::from(count.max(1))).sqrt();
        Self { count: count as usize, mean, deviation, max }
    }

    /// What honest values do not exceed.
    fn bound(&self) -> f64 {
        (self.mean + DEVIATIONS * self.deviation).max(HEADROOM * self.max)
    }
}

/// Honest noise as it was measured; contrasts in 1/256 nat, margins in 1/65536 nat.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noise {
    pub distance: Spread,
    pub block_median: Spread,
    pub spot_median: Spread,
    pub margin: Spread,
    /// Tokens whose margin is not 0.
    pub disagreeing: usize,
}

/// Honest noise of these audits.
pub fn noise(audits: &[Audit]) -> Noise {
    let medians = audits.iter().flat_map(|audit| audit.medians());
    let full = medians.filter(|(_, positions)| *positions >= assay_proof::FULL_BLOCK);
    let blocks: Vec<f64> = full.map(|(median, _)| f64::from(median)).collect();
    let margins: Vec<f64> = audits.iter().flat_map(Audit::capped).map(f64::from).collect();
    Noise {
        distance: Spread::of(audits.iter().flat_map(Audit::distances).map(f64::from)),
        block_median: Spread::of(blocks.into_iter()),
        spot_median: Spread::of(spot_medians(audits).into_iter()),
        disagreeing: margins.iter().filter(|margin| **margin > 0.0).count(),
        margin: Spread::of(margins.into_iter()),
    }
}

/// Upper medians of the contrasts at four positions, drawn several times; short answers as a whole.
fn spot_medians(audits: &[Audit]) -> Vec<f64> {
    let draws = audits.iter().flat_map(|audit| (0..SPOT_DRAWS).filter_map(|n| audit.spot(n)));
    let short = audits.iter().filter(|audit| audit.tokens() < assay_proof::FULL_BLOCK as usize);
    draws
        .chain(short.map(|audit| audit.distances().collect()))
        .filter_map(|mut distances: Vec<u16>| {
            distances.sort_unstable();
            distances.get(distances.len() / 2).copied().map(f64::from)
        })
        .collect()
}

/// The thresholds of a pair of classes, from its honest audits.
///
/// # Errors
/// If there are no audits, or the noise is so large that no calibration is allowed to have it.
pub fn fit(audits: &[Audit]) -> Result<Calibration, EngineError> {
    if audits.is_empty() {
        return Err(EngineError::Internal("there are no honest audits to calibrate with".into()));
    }
    let noise = noise(audits);
    let tau = up(noise.block_median.bound()).max(1);
    let spot_tau = up(noise.spot_median.bound()).max(tau);
    let hard_margin = hard_margin(audits, &noise);
    let slope = (MEAN_HEADROOM * noise.margin.mean).max(MEAN_FLOOR);
    let spread = DEVIATIONS * noise.margin.deviation;
    let worst = Spread::of(audits.iter().map(largest_together));
    // A random walk that falls by `slope - mean` a token exceeds x with a chance of exp(-2 x fall / variance).
    let fall = slope - noise.margin.mean;
    let walk = noise.margin.deviation.powi(2) / (2.0 * fall) * CUSUM_LN_RUN;
    let calibration = Calibration {
        tau: narrow(tau),
        spot_tau: narrow(spot_tau),
        block_limit: 1,
        width: Width::Four,
        hard_margin,
        margin_bar: up(worst.bound()).max(hard_margin),
        thr_base: hard_margin,
        thr_slope: up(slope * SLOPE),
        thr_spread: up(spread * SLOPE),
        drift: up(slope * SLOPE),
        drift_limit: up(walk).max(hard_margin.saturating_mul(8)),
    };
    calibration.check().map_err(|error| EngineError::Unsupported {
        what: "a pair of classes with so much noise".into(),
        instead: format!("{error}; use classes that are nearer to each other"),
    })?;
    Ok(calibration)
}

/// No honest token is beyond it: [`HARD_MARGIN_CHANCE`] by an exponential tail of the margins themselves,
/// which are few, and a multiple of the largest contrast apart. For a token and the one that a validator
/// would have chosen instead are a pair of ids, too, and their margin is at most what their difference of
/// logits changes by.
fn hard_margin(audits: &[Audit], noise: &Noise) -> u32 {
    let mut margins: Vec<f64> =
        audits.iter().flat_map(|audit| audit.margins.iter().copied()).map(f64::from).collect();
    margins.sort_by(f64::total_cmp);
    let tail = ((margins.len() as f64 * TAIL) as usize).max(1).min(margins.len());
    let (body, tail) = margins.split_at(margins.len() - tail);
    let start = body.last().copied().unwrap_or_default();
    let excess = tail.iter().map(|margin| margin - start).sum::<f64>() / tail.len() as f64;
    let fitted = start + excess * (TAIL / HARD_MARGIN_CHANCE).ln();
    let largest = margins.last().copied().unwrap_or_default();
    let by_pairs = PAIR_HEADROOM * noise.distance.max * MARGINS_PER_NAT / CONTRASTS_PER_NAT;
    up(fitted.max(HEADROOM * largest).max(by_pairs)).max(HARD_MARGIN_FLOOR)
}

/// The sum of an answer's sixteen largest margins.
fn largest_together(audit: &Audit) -> f64 {
    let mut capped: Vec<u32> = audit.capped().collect();
    capped.sort_unstable_by(|a, b| b.cmp(a));
    capped.iter().take(ACCUSED).map(|margin| f64::from(*margin)).sum()
}

fn up(value: f64) -> u32 {
    // A cast of a float saturates.
    value.ceil() as u32
}

fn narrow(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let spread = Spread::of([1.0, 2.0, 3.0].into_iter());
        assert_eq!((spread.count, spread.mean, spread.max), (3, 2.0, 3.0));
        assert!((spread.deviation - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((spread.bound() - (2.0 + 6.0 * spread.deviation)).abs() < 1e-12);
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
