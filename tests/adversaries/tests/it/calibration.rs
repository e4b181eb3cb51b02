//! The thresholds of the network's one pair of classes.

use std::sync::LazyLock;

use assay_proof::{Calibration, SPOT_POSITIONS, Width, compare};
use assay_types::Sampling;

use crate::answers::{Submission, Task};

/// Honest answers that it is measured on. No test uses these tasks.
const TASKS: std::ops::Range<u32> = 100_000..100_040;

/// Both sides round their contrasts.
const ROUNDING: u16 = 1;

/// Room above everything that honest answers show: twice the largest median and mean, three times the largest margin and
/// sum. Half of the answers are greedy, which have margins of their own.
pub static CALIBRATION: LazyLock<Calibration> = LazyLock::new(|| {
    let (mut tau, mut spot, mut most, mut top, mut sum, mut tokens) = (0, 0, 0, 0, 0, 0);
    for number in TASKS {
        let temperature_milli = if number % 2 == 0 { 1000 } else { 0 };
        let task = Task::imagined(number, Sampling { temperature_milli, ..Sampling::default() });
        let submission = Submission::honest(&task);
        let audit = task.examined(7, &submission.seal(&task), Some(&submission.block(&task))).audit;
        let own = audit.contrasts();
        for block in compare(&submission.contrasts, &own).unwrap().blocks {
            tau = block.median.max(tau);
        }
        let four = SPOT_POSITIONS as usize;
        for (theirs, ours) in submission.contrasts.chunks_exact(four).zip(own.chunks_exact(four)) {
            spot = compare(theirs, ours).unwrap().blocks[0].median.max(spot);
        }
        let statistics = audit.statistics();
        most = statistics.max_margin.max(most);
        top = statistics.margin_sum.max(top);
        sum += u64::from(statistics.margin_sum);
        tokens += u64::from(submission.tokens());
    }
    let slope = u32::try_from((sum << 16) / tokens).unwrap();
    Calibration {
        tau: 2 * tau + ROUNDING,
        spot_tau: 2 * spot + ROUNDING,
        block_limit: 1,
        width: Width::Four,
        hard_margin: 3 * most,
        margin_bar: 3 * top,
        thr_base: 3 * top,
        thr_slope: 2 * slope,
        thr_spread: 8 * slope,
        drift: 4 * slope,
        drift_limit: 10 * top,
    }
});
