//! How often cheats are caught, and how well a statistic tells them from honest nodes.

use assay_proof::Calibration;

use super::audit::{Audit, fails_f, fails_g};

/// Standard deviations of the confidence intervals: 95 %.
const Z: f64 = 1.96;

/// A share of trials, with its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    pub count: usize,
    pub of: usize,
}

impl Share {
    pub fn value(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }

    /// Wilson's interval of 95 %.
    pub fn interval(&self) -> (f64, f64) {
        if self.of == 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (self.of as f64, self.value());
        let centre = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
    }
}

/// How often audits fail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failures {
    pub f: Share,
    pub g: Share,
    pub any: Share,
}

/// How often these audits fail.
pub fn failures<'a>(
    audits: impl Iterator<Item = &'a Audit>,
    calibration: &Calibration,
) -> Failures {
    let mut failures = Failures::default();
    for audit in audits {
        let reasons = audit.reasons(calibration);
        for (share, fails) in [
            (&mut failures.f, fails_f(reasons)),
            (&mut failures.g, fails_g(reasons)),
            (&mut failures.any, !reasons.is_empty()),
        ] {
            share.of += 1;
            share.count += usize::from(fails);
        }
    }
    failures
}

/// How often the first `tokens` tokens of the audits that have so many fail.
pub fn failures_within(audits: &[Audit], tokens: usize, calibration: &Calibration) -> Failures {
    let parts: Vec<Audit> =
        audits.iter().filter(|a| a.tokens() >= tokens).map(|a| a.first(tokens)).collect();
    failures(parts.iter(), calibration)
}

/// F as one number: the largest median of a block over its limit.
pub fn statistic_f(audit: &Audit, calibration: &Calibration) -> f64 {
    let over = |(median, positions): (u16, u32)| {
        f64::from(median) / f64::from(calibration.limit(positions))
    };
    audit.medians().into_iter().map(over).fold(0.0, f64::max)
}

/// G as one number: the sum of the margins, or the largest, over its limit.
pub fn statistic_g(audit: &Audit, calibration: &Calibration) -> f64 {
    let sum = audit.capped().map(f64::from).sum::<f64>();
    let tokens = u32::try_from(audit.tokens()).unwrap_or(u32::MAX);
    let largest = f64::from(audit.margins.iter().copied().max().unwrap_or(0));
    let limit = calibration.thr(tokens).max(1) as f64;
    (sum / limit).max(largest / f64::from(calibration.hard_margin))
}

/// How well larger values tell cheats from honest nodes.
#[derive(Clone, Debug, Default)]
pub struct Roc {
    /// Share of honest audits and of cheats beyond a threshold, both rising.
    pub points: Vec<(f64, f64)>,
    /// Chance that a cheat has more than an honest node.
    pub area: f64,
}

impl Roc {
    pub fn new(honest: &[f64], cheats: &[f64]) -> Self {
        let mut thresholds: Vec<f64> = honest.iter().chain(cheats).copied().collect();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let (honest, cheats) = (sorted(honest), sorted(cheats));
        let beyond = |values: &[f64], at: f64| {
            (values.len() - values.partition_point(|v| *v < at)) as f64 / values.len().max(1) as f64
        };
        let mut points = vec![(0.0, 0.0)];
        points.extend(thresholds.iter().map(|at| (beyond(&honest, *at), beyond(&cheats, *at))));
        let area = points.windows(2).map(|pair| match pair {
            [(x, y), (right, up)] => (right - x) * (y + up) / 2.0,
            _ => 0.0,
        });
        let area = area.sum();
        Self { points, area }
    }

    /// Share of cheats caught where at most this share of honest nodes is accused.
    pub fn caught_at(&self, accused: f64) -> f64 {
        let allowed = self.points.iter().filter(|(honest, _)| *honest <= accused);
        allowed.map(|(_, cheats)| *cheats).fold(0.0, f64::max)
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_share() {
        let (low, high) = Share { count: 1000, of: 1000 }.interval();
        assert!(low > 0.995 && low < 0.9965 && (high - 1.0).abs() < 1e-9, "{low} {high}");
        let (low, high) = Share { count: 50, of: 100 }.interval();
        assert!((low - 0.404).abs() < 1e-3 && (high - 0.596).abs() < 1e-3);
        assert_eq!(Share::default().interval(), (0.0, 1.0));
    }

    #[test]
    fn areas_under_curves() {
        let apart = Roc::new(&[0.0, 1.0], &[2.0, 3.0]);
        assert_eq!((apart.area, apart.caught_at(0.0)), (1.0, 1.0));
        let same = Roc::new(&[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!((same.area, same.caught_at(0.0)), (0.5, 0.0));
        let constant = Roc::new(&[1.0; 5], &[1.0; 5]);
        assert_eq!((constant.area, constant.caught_at(0.5)), (0.5, 0.0));
        let backwards = Roc::new(&[2.0, 3.0], &[0.0, 1.0]);
        assert_eq!(backwards.area, 0.0);
    }
}
