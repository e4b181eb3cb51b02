//! Synthetic numbers of answers: what the weights say, what a miner recorded, what validators found of it, and who of
//! them lies. All of it follows from the task and the nodes, so that what is sealed can be opened later.

use alloy::primitives::{B256, U256};
use assay_bindings::ProofOfInference::Leaf;
use assay_proof::{
    Audit, Calibration, Contrasts, Failing, Reasons, Record, Score, Tree, Width, compare,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::actions::derived;

pub const CALIBRATION: Calibration = Calibration {
    tau: 10,
    spot_tau: 20,
    block_limit: 1,
    width: Width::Four,
    hard_margin: 1 << 16,
    margin_bar: 2 << 16,
    thr_base: 4 << 16,
    thr_slope: 1 << 24,
    thr_spread: 1 << 24,
    drift: 1 << 25,
    drift_limit: 1 << 16,
};
/// Contrasts of other weights are off by so much and more, 1/256 nat.
const OFF: i16 = 500;
/// Of 256 tasks, those over which validators conspire; of 256 nodes, those that take part in it.
const PLOTS: u8 = 80;
const PLOTTERS: u8 = 120;
/// A margin that no honest token has, nats.
const WRONG_NATS: f64 = 3.0;

/// How a miner made its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    Honest,
    /// With other weights, from some position on.
    Weights,
    /// The recorded ids are not the published ones.
    OtherIds,
    /// Some tokens do not follow from the weights.
    Sampling,
    /// End, text, prompt or ids are wrong.
    Content(Reasons),
}

/// What a validator does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    /// Tells what it finds.
    True,
    /// Finds nothing wrong, whatever there is.
    Lenient,
    /// Accuses the weights, the sampling or the content, whatever there is.
    Accuses(Deed),
    /// The same, and others with it: they have numbers of the same other weights.
    Conspires(Deed),
}

/// Who takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cast {
    /// Honest ones, liars of every kind, and silent ones.
    #[default]
    Mixed,
    /// Miners with other weights, and validators that tell what they find.
    Liars,
    /// The same as the first, but nobody can read any answer.
    Unread,
}

impl Cast {
    /// Whether something goes wrong that so many of 256 nodes do wrong.
    pub fn fails(self, task: B256, node: u32, what: &str, odds: u8) -> bool {
        self != Self::Liars && die(task, node, what) < odds
    }
}

fn die(task: B256, node: u32, what: &str) -> u8 {
    derived(task, node, what)[0]
}

fn content(task: B256, node: u32) -> Deed {
    let flags = [Reasons::END, Reasons::TEXT, Reasons::PROMPT, Reasons::IDS];
    Deed::Content(flags[usize::from(die(task, node, "flag") % 4)])
}

fn deed(cast: Cast, task: B256, miner: u32) -> Deed {
    if cast == Cast::Liars {
        return Deed::Weights;
    }
    if cast == Cast::Unread {
        return Deed::Content(Reasons::IDS);
    }
    match die(task, miner, "deed") {
        0..120 => Deed::Honest,
        120..165 => Deed::Weights,
        165..175 => Deed::OtherIds,
        175..215 => Deed::Sampling,
        _ => content(task, miner),
    }
}

/// What some validators of a task have agreed to say of it; `None` of most tasks.
fn plot(task: B256) -> Option<Deed> {
    let plots = [Deed::Weights, Deed::Sampling, Deed::Content(Reasons::TEXT)];
    (die(task, 0, "plot") < PLOTS).then(|| plots[usize::from(die(task, 0, "plotted") % 3)])
}

/// Most validators are honest, most of the time.
fn word(cast: Cast, task: B256, validator: u32) -> Word {
    if cast == Cast::Liars {
        return Word::True;
    }
    if let Some(deed) = plot(task)
        && die(task, validator, "conspires") < PLOTTERS
    {
        return Word::Conspires(deed);
    }
    match die(task, validator, "word") {
        0..205 => Word::True,
        205..220 => Word::Lenient,
        220..235 => Word::Accuses(Deed::Weights),
        235..245 => Word::Accuses(Deed::Sampling),
        _ => Word::Accuses(content(task, validator)),
    }
}

/// Whether a node lets the times of this task pass.
pub fn is_silent(cast: Cast, task: B256, node: u32) -> bool {
    cast.fails(task, node, "silent", 25)
}

fn rng(task: B256, node: u32, what: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(derived(task, node, what).0)
}

/// What the weights say at each position.
fn truth(task: B256, miner: u32, tokens: u32) -> Vec<[i16; 4]> {
    let mut rng = rng(task, miner, "truth");
    (0..tokens).map(|_| [(); 4].map(|()| rng.random_range(-2000..2000))).collect()
}

/// The same with a node's own noise, and with an error from a position on.
fn seen(
    truth: &[[i16; 4]],
    noise: &mut ChaCha8Rng,
    width: Width,
    off_from: usize,
) -> Vec<Contrasts> {
    let rows = truth.iter().enumerate().map(|(place, row)| {
        let off = if place < off_from { 0 } else { OFF + noise.random_range(0..200) };
        let noisy = row.map(|value| value + off + noise.random_range(-2..=2));
        Contrasts::new(&noisy[..width.contrasts()]).unwrap()
    });
    rows.collect()
}

fn ids(task: B256, miner: u32, tokens: u32) -> Vec<u32> {
    let mut rng = rng(task, miner, "ids");
    (0..tokens).map(|_| rng.random_range(0..50_000)).collect()
}

/// What a miner recorded.
pub fn record(cast: Cast, (task, miner): (B256, u32), tokens: u32, width: Width) -> Record {
    let deed = deed(cast, task, miner);
    let off_from = match deed {
        Deed::Weights => tokens as usize * usize::from(die(task, miner, "from") % 3) / 4,
        _ => usize::MAX,
    };
    let mut noise = rng(task, miner, "noise");
    let contrasts = seen(&truth(task, miner, tokens), &mut noise, width, off_from);
    let mut ids = ids(task, miner, tokens);
    if deed == Deed::OtherIds {
        ids.iter_mut().for_each(|id| *id += 1);
    }
    Record::new(ids, contrasts).unwrap()
}

/// What a validator found, or says that it found.
pub fn audit(
    cast: Cast,
    (task, miner, validator): (B256, u32, u32),
    tokens: u32,
    width: Width,
) -> Audit {
    let (deed, word) = (deed(cast, task, miner), word(cast, task, validator));
    let told = match word {
        Word::True => deed,
        Word::Lenient => Deed::Honest,
        Word::Accuses(deed) | Word::Conspires(deed) => deed,
    };
    let lies = word == Word::Accuses(Deed::Weights);
    let agreed = word == Word::Conspires(Deed::Weights);
    let mut noise = rng(task, validator, "noise");
    let weights = if agreed { truth(task, 0, tokens) } else { truth(task, miner, tokens) };
    let rows = seen(&weights, &mut noise, width, if lies { 0 } else { usize::MAX });
    let mut wrong = rng(task, miner, "margins");
    let margin = |_| match (told, wrong.random_range(0..6)) {
        (Deed::Sampling, 0) => WRONG_NATS,
        (_, 1) => 0.01,
        _ => 0.0,
    };
    let margins: Vec<f64> = (0..tokens).map(margin).collect();
    let scores: Vec<Score> = rows
        .into_iter()
        .zip(margins)
        .map(|(contrasts, margin)| Score { margin, contrasts })
        .collect();
    let faults = match told {
        Deed::Content(faults) => faults,
        _ => Reasons::default(),
    };
    Audit::new(tokens, &ids(task, miner, tokens), &scores, width, faults)
}

/// What a validator says of the miner's fingerprint when it reveals.
pub fn failing(
    cast: Cast,
    (task, validator): (B256, u32),
    record: &Record,
    audit: &Audit,
) -> Failing {
    match word(cast, task, validator) {
        Word::Lenient => Failing::default(),
        _ => compare(record.contrasts(), &audit.contrasts()).unwrap().failing(&CALIBRATION),
    }
}

fn packed(contrasts: &Contrasts) -> u64 {
    contrasts.bytes().fold(0, |word, byte| word << 8 | u64::from(byte))
}

/// A miner's leaves at these positions, and the nodes beside their paths.
pub fn opened(record: &Record, positions: &[u32]) -> (Vec<Leaf>, Vec<B256>) {
    let leaf = |at: usize| Leaf {
        id: record.ids()[at],
        contrasts: packed(&record.contrasts()[at]),
        margin: 0,
    };
    (leaves(positions, leaf), proven(record.tree().unwrap(), positions))
}

/// A validator's.
pub fn found(audit: &Audit, positions: &[u32]) -> (Vec<Leaf>, Vec<B256>) {
    let leaf = |at: usize| {
        let found = &audit.findings()[at];
        Leaf { id: found.token, contrasts: packed(&found.contrasts), margin: found.margin }
    };
    (leaves(positions, leaf), proven(audit.tree().unwrap(), positions))
}

fn leaves(positions: &[u32], leaf: impl Fn(usize) -> Leaf) -> Vec<Leaf> {
    positions.iter().map(|position| leaf(*position as usize - 1)).collect()
}

fn proven(tree: Tree, positions: &[u32]) -> Vec<B256> {
    tree.prove(positions).unwrap()
}

/// The positions with the largest margins, as an accuser names them.
pub fn named(audit: &Audit) -> (U256, U256) {
    let word = |positions: &[u32]| {
        let shifts = (0..8).map(|place| 224 - 32 * place);
        let pairs = positions.iter().zip(shifts);
        pairs.fold(U256::ZERO, |word, (position, shift)| word | U256::from(*position) << shift)
    };
    let worst = audit.worst_positions(16);
    let (first, second) = worst.split_at(worst.len().min(8));
    (word(first), word(second))
}

/// What a miner publishes of its answer: of the request and of both, bytes. A few are more than one call takes.
pub fn published(task: B256, miner: u32) -> (u32, Vec<u8>) {
    let size = match die(task, miner, "published size") {
        0..8 => 40_000,
        small => 2 + usize::from(small) % 20,
    };
    let bytes: Vec<u8> = derived(task, miner, "published").into_iter().cycle().take(size).collect();
    (bytes.len() as u32 / 2, bytes)
}
