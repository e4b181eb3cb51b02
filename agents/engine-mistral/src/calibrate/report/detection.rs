//! The cheats that run other weights: how many of them a validator catches.

use std::fmt::Write;

use assay_proof::SPOT_POSITIONS;

use super::super::{
    Audit, Caught, Failures, Pair, SETTINGS, Share, failures, failures_within, plot,
    questions::Question,
};

/// Lengths that answers are cut to.
const LENGTHS: [usize; 6] = [4, 8, 16, 32, 64, 128];
/// Fewer answers of a length say nothing of a share.
const FEWEST: usize = 10;
/// Fewest tokens of an answer whose choices are judged by its mean entropy.
const OPEN_TOKENS: usize = 32;
/// Mean entropies that answers are sorted by, in nats.
const ENTROPIES: [(f32, f32); 5] =
    [(0.0, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, f32::INFINITY)];
/// From this mean entropy on choices are open, in nats.
const OPEN_NATS: f32 = 1.0;

/// What one validator catches.
pub(super) fn section(page: &mut String, pair: &Pair) -> std::fmt::Result {
    let Pair { validator, .. } = pair;
    writeln!(page, "## Cheats caught by a validator of {validator}\n")?;
    writeln!(
        page,
        "Each cheat says that it is of {}. The tables have the share of cheats caught when their answers are cut to so many \
         tokens, of how many answers, and the lower end of its interval of 95 %. Shorter answers do not count.\n\n\
         By F, the fingerprint, which needs {SPOT_POSITIONS} tokens:\n",
        pair.miner
    )?;
    let within = |cheat: &Caught, n| failures_within(&cheat.audits, n, &pair.calibration);
    by_length(page, pair, |cheat, n| within(cheat, n).f)?;
    writeln!(page, "![Power of F](power-f-{validator}.svg)\n")?;
    writeln!(
        page,
        "By G, the tokens. A miner that decodes with the cheat's weights and makes its fingerprint with the right ones \
         passes F, and is caught as often as this table says:\n"
    )?;
    by_length(page, pair, |cheat, n| within(cheat, n).g)?;
    writeln!(page, "![Power of G](power-g-{validator}.svg)\n")?;
    open(page, pair)?;
    writeln!(
        page,
        "By the mean entropy of the answer's positions, for answers of {OPEN_TOKENS} to {} tokens to all questions at \
         temperature 1 without restrictions, G catches:\n",
        LENGTHS.last().copied().unwrap_or_default()
    )?;
    by_entropy(page, pair)
}

/// What is caught of answers to open questions.
fn open(page: &mut String, pair: &Pair) -> std::fmt::Result {
    if pair.cheats.iter().all(|cheat| cheat.open.is_empty()) {
        return writeln!(page, "G sees only choices that were open.\n");
    }
    writeln!(
        page,
        "G sees only choices that were open. So each cheat was asked open questions, too: beginnings of texts to go on \
         with, at temperature 1 without restrictions. Of the answers whose tokens, as far as they are looked at, have a \
         mean entropy of at least {OPEN_NATS} nat in the validator's eyes, G catches:\n"
    )?;
    by_length(page, pair, |cheat, n| {
        let long = cheat.open.iter().filter(|audit| audit.tokens() >= n);
        let parts = long.map(|audit| audit.first(n)).filter(|a| a.mean_entropy() >= OPEN_NATS);
        failures(parts.collect::<Vec<_>>().iter(), &pair.calibration).g
    })?;
    writeln!(page, "And F, of all answers to open questions:\n")?;
    by_length(page, pair, |cheat, n| failures_within(&cheat.open, n, &pair.calibration).f)
}

fn by_length(
    page: &mut String,
    pair: &Pair,
    of: impl Fn(&Caught, usize) -> Share,
) -> std::fmt::Result {
    write!(page, "| cheat |")?;
    LENGTHS.iter().try_for_each(|length| write!(page, " {length} tokens |"))?;
    writeln!(page, "\n|---|{}", "--:|".repeat(LENGTHS.len()))?;
    for cheat in &pair.cheats {
        write!(page, "| {} |", cheat.name)?;
        LENGTHS.iter().try_for_each(|n| write!(page, " {} |", share(of(cheat, *n))))?;
        writeln!(page)?;
    }
    writeln!(page)
}

fn by_entropy(page: &mut String, pair: &Pair) -> std::fmt::Result {
    let longest = LENGTHS.last().copied().unwrap_or_default();
    write!(page, "| cheat |")?;
    ENTROPIES.iter().try_for_each(|(low, high)| match high.is_finite() {
        true => write!(page, " {low} to {high} nats |"),
        false => write!(page, " from {low} nats |"),
    })?;
    writeln!(page, "\n|---|{}", "--:|".repeat(ENTROPIES.len()))?;
    for Caught { name, audits, open } in &pair.cheats {
        let plain = audits.iter().filter(|audit| is_plain(audit)).chain(open);
        let open: Vec<Audit> = plain
            .filter(|audit| audit.tokens() >= OPEN_TOKENS)
            .map(|audit| audit.first(longest))
            .collect();
        write!(page, "| {name} |")?;
        for (low, high) in ENTROPIES {
            let inside = |audit: &&Audit| (low..high).contains(&audit.mean_entropy());
            let found = failures(open.iter().filter(inside), &pair.calibration);
            write!(page, " {} |", share(found.g))?;
        }
        writeln!(page)?;
    }
    writeln!(page)
}

/// Whether the answer was sampled at temperature 1 from all tokens.
fn is_plain(audit: &Audit) -> bool {
    let [plain, ..] = SETTINGS;
    Question::new(audit.question, true).setting == plain
}

/// `0.998 of 1000`, with the lower end of its interval.
fn share(share: Share) -> String {
    if share.of < FEWEST {
        return "–".into();
    }
    let (low, _) = share.interval();
    format!("{:.4} of {} (> {low:.4})", share.value(), share.of)
}

/// What is caught within so many tokens.
pub(super) fn power_chart(pair: &Pair, name: &str, of: fn(&Failures) -> Share) -> plot::Chart {
    let longest = pair.cheats.iter().flat_map(|cheat| cheat.audits.iter().map(Audit::tokens)).max();
    let lengths: Vec<usize> =
        (1..=longest.unwrap_or(1)).filter(|n| *n < 16 || n % 4 == 0).collect();
    let line = |Caught { name, audits, .. }: &Caught| {
        let found = |length: &usize| {
            let share = of(&failures_within(audits, *length, &pair.calibration));
            (share.of >= FEWEST).then(|| (*length as f64, share.value()))
        };
        plot::Line {
            name: name.clone(),
            points: lengths.iter().filter_map(found).collect(),
            dashed: false,
        }
    };
    plot::Chart {
        title: format!("Cheats caught by {name}, {} audited by {}", pair.miner, pair.validator),
        x: plot::Axis {
            label: "tokens",
            low: 1.0,
            high: longest.unwrap_or(1).max(2) as f64,
            logarithmic: true,
        },
        y: plot::Axis { label: "share caught", low: 0.0, high: 1.0, logarithmic: false },
        lines: pair.cheats.iter().map(line).collect(),
        marks: [4.0, 32.0, 64.0].map(|n| (n, format!("{n}"))).to_vec(),
    }
}
