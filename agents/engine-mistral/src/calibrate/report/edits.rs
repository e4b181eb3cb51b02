//! Changed answers of the right weights: how many of them a validator catches, and what is left.

use std::fmt::Write;

use assay_proof::MARGINS_PER_NAT;

use super::{
    super::{Edited, Pair, Share, Tally, plot},
    PLACES,
};

/// Shares of the trials whose largest margins are told.
const SHARES: [f64; 3] = [0.01, 0.1, 0.5];

/// The largest margin of each trial, ascending, in nats.
fn largest(edited: &Edited) -> Vec<f64> {
    let largest = edited.found.iter().map(|found| f64::from(found.max_margin) / MARGINS_PER_NAT);
    let mut largest: Vec<f64> = largest.collect();
    largest.sort_by(f64::total_cmp);
    largest
}

/// What one validator finds in changed answers.
pub(super) fn section(page: &mut String, pair: &Pair) -> std::fmt::Result {
    let validator = pair.validator;
    let hard = f64::from(pair.calibration.hard_margin) / MARGINS_PER_NAT;
    writeln!(page, "## Edits caught by a validator of {validator}\n")?;
    writeln!(
        page,
        "Honest answers of {} were changed and fed through the right weights again, as a careful cheat would do: the \
         fingerprint is right, and only tokens, end and text can give the change away. Every changed answer was scored \
         in one prefill, so that the tokens behind the change count with their new context. Where the end can be made \
         to look right, it is: an end token stands there, or the request allows no more tokens. Places are random, but for \
         *where nearest*: where it costs the least margin, which a miner who knows weights and seed can find. *The \
         runner-up* is the token that would have been chosen without the one that was. *Rest rewritten*: what follows \
         was chosen anew; it has no margins of its own and is left out. *Ended early*: an end token stands there. *Gone \
         on*: the runner-up stands in place of the end token, and more follows. Temperatures are tried on answers to \
         open questions. An answer is changed at most once in each way, and what comes to an honest answer does not \
         count.\n\n\
         *Above* are answers with a margin above the hard margin, {hard:.4} nats: all of them must be caught. *Left* is \
         what passes, the residual, with the upper end of its interval of 95 %. An answer whose end or text is not that \
         of its ids fails whatever its margins are. Margins are the largest of an answer, in nats: that which one \
         answer in a hundred, one in ten, and half of them stay below.\n",
        pair.miner
    )?;
    writeln!(
        page,
        "| change | trials | caught | above, caught | end or text | left | margin: 1 % | 10 % | 50 % |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    for edited in &pair.edits {
        row(page, edited, pair)?;
    }
    writeln!(page, "\n![Largest margins of changed answers](edits-{validator}.svg)\n")
}

fn row(page: &mut String, edited: &Edited, pair: &Pair) -> std::fmt::Result {
    let name = edited.edit.name();
    let tally = edited.tally(&pair.calibration);
    let Tally { trials, caught, above, above_caught, content } = tally;
    if trials == 0 {
        return writeln!(page, "| {name} | 0 | – | – | – | – | – | – | – |");
    }
    let left = Share { count: trials - caught, of: trials };
    let (_, high) = left.interval();
    write!(page, "| {name} | {trials} | {caught} | {above_caught} of {above} | {content} |")?;
    write!(page, " {} = {:.4} (< {high:.4}) |", left.count, left.value())?;
    let largest = largest(edited);
    for part in SHARES {
        let margin = largest.get((part * trials as f64) as usize).copied().unwrap_or_default();
        write!(page, " {} |", nats(margin))?;
    }
    writeln!(page)
}

/// What no seed could choose, or was not scored, has the largest margin there is.
fn nats(margin: f64) -> String {
    if margin < f64::from(u32::MAX) / MARGINS_PER_NAT {
        format!("{margin:.3}")
    } else {
        "impossible".into()
    }
}

/// The largest margins of each edit that leaves the end and the text alone.
pub(super) fn chart(pair: &Pair) -> plot::Chart {
    let places = plot::spaced(1e-4, 100.0, PLACES);
    let shown = |edited: &&Edited| {
        let tally = edited.tally(&pair.calibration);
        tally.trials > 0 && tally.content < tally.trials
    };
    let line = |(index, edited): (usize, &Edited)| plot::Line {
        name: edited.edit.name(),
        points: plot::beyond(&mut largest(edited), &places),
        // Colours come again.
        dashed: index >= plot::COLOURS.len(),
    };
    let hard = f64::from(pair.calibration.hard_margin) / MARGINS_PER_NAT;
    plot::Chart {
        title: format!("Largest margin of changed answers, audited by {}", pair.validator),
        x: plot::Axis { label: "nats", low: 1e-4, high: 100.0, logarithmic: true },
        y: plot::Axis { label: "share beyond", low: 0.0, high: 1.0, logarithmic: false },
        lines: pair.edits.iter().filter(shown).enumerate().map(line).collect(),
        marks: vec![(hard, "hard margin".into())],
    }
}
