//! Calibration: how much honest nodes of a model differ, which thresholds follow from it, and what they
//! catch.
//!
//! Each numeric class at hand answers the same questions. Every class audits the answers of every class;
//! a third of the honest audits gives the thresholds of a pair, the rest shows how often they accuse an
//! honest node. Cheats then answer as if they were nodes of the first class.

mod answers;
mod audit;
mod cheats;
mod cosine;
mod edits;
mod fit;
mod plot;
mod power;
mod questions;
mod report;
mod table;

use std::{path::PathBuf, sync::Arc, time::Instant};

use assay_engine::{Engine, EngineError, EngineInfo, NumericClass};
use assay_proof::Calibration;

pub use answers::{Answer, Answers};
pub use audit::{Audit, fails_f, fails_g};
pub use cheats::{Cheat, cheaper};
pub use edits::{EDITS, Edit, Edited, Tally};
pub use fit::{Noise, Spread};
pub use power::{Failures, Roc, Share, failures, failures_within, statistic_f, statistic_g};
pub use questions::{Question, SETTINGS, Setting};
pub use table::{Table, TableError, TablePair};

use self::{
    audit::audit_all,
    cosine::{Embedding, cosine},
    edits::{Lie, Sampled},
};
use crate::{
    MistralEngine,
    source::{Dtype, LoadOptions},
};

/// Names of nodes; they decide the seeds.
const MINER: &str = "miner";
const SECOND: &str = "second miner";
/// Answers that are made before they are kept.
const KEPT_AT_ONCE: usize = 250;
/// Fewest audits that thresholds are taken from.
const FEWEST_TO_FIT: u32 = 20;

/// Is told what is being done, how much of it is done, and how much there is.
pub type Tick = Arc<dyn Fn(&str, u32, u32) + Send + Sync>;

/// What to measure.
#[derive(Clone)]
pub struct Options {
    /// The model; its data type is that of the first class.
    pub model: LoadOptions,
    /// Data types that honest nodes run it in, at least one.
    pub classes: Vec<Dtype>,
    /// What dishonest ones run.
    pub cheats: Vec<Cheat>,
    /// Honest audits that the thresholds are tried on, for each pair of classes; half as many set them.
    pub audits: u32,
    /// Answers of each cheat, and of each edit.
    pub trials: u32,
    /// Answers of each cheat to open questions.
    pub open: u32,
    /// Names of the cheats that are asked open questions; all if there are none.
    pub open_to: Vec<String>,
    /// Most tokens of an answer.
    pub tokens: u32,
    /// Honest answers that other machines made.
    pub answers: Vec<Answers>,
    /// Where answers are kept: what is there already is not made again.
    pub keep: Option<PathBuf>,
    /// Is told about progress.
    pub tick: Tick,
}

/// A miner's class and a validator's, with what was measured.
pub struct Pair {
    pub miner: NumericClass,
    pub validator: NumericClass,
    pub calibration: Calibration,
    /// Of the audits that set the thresholds.
    pub noise: Noise,
    /// Those that did not.
    pub honest: Vec<Audit>,
    /// Those of cheats, if they claim to be of this miner's class.
    pub cheats: Vec<Caught>,
    /// Changed answers of honest weights.
    pub edits: Vec<Edited>,
}

/// Audits of a cheat.
pub struct Caught {
    pub name: String,
    pub audits: Vec<Audit>,
    /// Those of its answers to open questions.
    pub open: Vec<Audit>,
}

/// Answers of another machine, audited here under a pair's thresholds.
pub struct Elsewhere {
    pub machine: String,
    pub miner: NumericClass,
    pub validator: NumericClass,
    pub noise: Noise,
    pub failures: Failures,
}

/// Cosine similarity of two honest answers to a question, and of a cheat's and an honest one.
pub struct Similarity {
    pub honest: Vec<f64>,
    pub cheats: Vec<(String, Vec<f64>)>,
}

/// All that was measured.
pub struct Outcome {
    pub model: EngineInfo,
    pub machine: String,
    pub options: Options,
    pub pairs: Vec<Pair>,
    pub elsewhere: Vec<Elsewhere>,
    /// Absent for a model whose embedding cannot be read.
    pub similarity: Option<Similarity>,
    pub seconds: u64,
}

impl Options {
    /// Honest audits that set the thresholds.
    fn to_fit(&self) -> u32 {
        (self.audits / 2).max(FEWEST_TO_FIT)
    }

    /// The first questions; for a model without a chat template they are all plain text.
    fn questions(&self, engine: &MistralEngine, count: u32) -> Vec<Question> {
        let has_template = engine.manifest().chat_template_sha256.is_some();
        (0..count).map(|number| Question::new(number, has_template)).collect()
    }

    /// Tells of one more of so many things each time that it is called.
    fn count(&self, what: &str, of: u32) -> impl FnMut() + use<> {
        self.count_from(0, what, of)
    }

    fn count_from(&self, mut done: u32, what: &str, of: u32) -> impl FnMut() + use<> {
        let (tick, what) = (self.tick.clone(), what.to_owned());
        move || {
            done += 1;
            tick(&what, done, of);
        }
    }

    async fn load(&self, model: &LoadOptions, dtype: Dtype) -> Result<MistralEngine, EngineError> {
        MistralEngine::load(LoadOptions { dtype, ..model.clone() }).await
    }
}

/// Everything that is audited.
struct Made {
    model: EngineInfo,
    /// Of each class.
    honest: Vec<Answers>,
    /// Of another node of the first class.
    second: Answers,
    cheats: Vec<(String, Answers)>,
    /// Answers of the same cheats to open questions.
    open: Vec<Answers>,
    lies: Vec<(Edit, Vec<Lie>)>,
}

/// Honest answers alone, to be audited on another machine.
///
/// # Errors
/// The engine's.
pub async fn answer(options: &Options) -> Result<Answers, EngineError> {
    let engine = options.load(&options.model, options.model.dtype).await?;
    let questions = options.questions(&engine, options.to_fit() + options.audits);
    answers_of(&engine, options, "answering", MINER, questions).await
}

/// Measures everything.
///
/// # Errors
/// The engines', and [`EngineError::Unsupported`] if classes are too far apart for any calibration.
pub async fn run(options: Options) -> Result<Outcome, EngineError> {
    let begun = Instant::now();
    let made = make(&options).await?;
    let similarity = similarity(&options, &made)?;
    let (mut pairs, mut elsewhere) = (Vec::new(), Vec::new());
    for dtype in &options.classes {
        let engine = options.load(&options.model, *dtype).await?;
        let auditor = Auditor { engine, options: &options };
        for (index, answers) in made.honest.iter().enumerate() {
            let mut pair = auditor.pair(answers).await?;
            if index == 0 {
                pair.cheats = auditor.cheats(&made).await?;
                pair.edits = auditor.edits(&made.lies).await?;
            }
            pairs.push(pair);
        }
        for answers in &options.answers {
            let found = auditor.elsewhere(answers, &mut pairs).await?;
            elsewhere.extend(found);
        }
    }
    let seconds = begun.elapsed().as_secs();
    let machine = answers::machine();
    Ok(Outcome { model: made.model, machine, options, pairs, elsewhere, similarity, seconds })
}

async fn make(options: &Options) -> Result<Made, EngineError> {
    let count = options.to_fit() + options.audits;
    let (mut honest, mut first) = (Vec::new(), None);
    for dtype in &options.classes {
        let engine = options.load(&options.model, *dtype).await?;
        let name = engine.info().numeric_class;
        let what = format!("honest answers in {name}");
        let questions = options.questions(&engine, count);
        let answers = answers_of(&engine, options, &what, MINER, questions).await?;
        if first.is_none() {
            let what = format!("a second answer to each in {name}");
            let questions = options.questions(&engine, options.trials.min(count));
            let second = answers_of(&engine, options, &what, SECOND, questions).await?;
            let lies = lies_of(&engine, options, &answers).await?;
            first = Some((second, lies, engine.info().clone()));
        }
        honest.push(answers);
    }
    let none = || EngineError::Internal("no class to calibrate".into());
    let (second, lies, model) = first.ok_or_else(none)?;
    let (mut cheats, mut open) = (Vec::new(), Vec::new());
    for Cheat { name, load } in &options.cheats {
        let engine = MistralEngine::load(load.clone()).await?;
        let what = format!("answers of a cheat: {name}");
        let questions = options.questions(&engine, options.trials);
        cheats.push((name.clone(), answers_of(&engine, options, &what, name, questions).await?));
        let what = format!("answers to open questions of a cheat: {name}");
        let is_asked = options.open_to.is_empty() || options.open_to.contains(name);
        let count = if is_asked { options.open } else { 0 };
        let questions = (0..count).map(Question::open).collect();
        open.push(answers_of(&engine, options, &what, name, questions).await?);
    }
    Ok(Made { model, honest, second, cheats, open, lies })
}

/// What could be made of honest answers.
async fn lies_of(
    engine: &MistralEngine,
    options: &Options,
    honest: &Answers,
) -> Result<Vec<(Edit, Vec<Lie>)>, EngineError> {
    let asked = || (0..options.trials).map(Question::open);
    let what = "honest answers to open questions";
    let open = answers_of(engine, options, what, MINER, asked().collect()).await?;
    let mut sampled = Sampled { honest: open, otherwise: Vec::new() };
    for edit in EDITS {
        let Edit::Sampled(sampling) = edit else { continue };
        let setting = Setting { name: "another", sampling };
        let questions = asked().map(|question| Question { setting, ..question }).collect();
        let answers = answers_of(engine, options, &edit.name(), MINER, questions).await?;
        sampled.otherwise.push((edit, answers));
    }
    let count = u32::try_from(honest.answers.len()).unwrap_or(u32::MAX);
    let tick = options.count("edits of honest answers", count);
    edits::lies(engine, honest, &sampled, options.trials as usize, tick).await
}

/// Answers of a node; what is kept of them is not made again.
async fn answers_of(
    engine: &MistralEngine,
    options: &Options,
    what: &str,
    node: &str,
    questions: Vec<Question>,
) -> Result<Answers, EngineError> {
    let count = u32::try_from(questions.len()).unwrap_or(u32::MAX);
    let Some(folder) = &options.keep else {
        let tick = options.count(what, count);
        return Answers::make(engine, questions.into_iter(), node, options.tokens, tick).await;
    };
    let name: String = what.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let file = folder.join(format!("{name}-{}.json", options.tokens));
    let mut kept = Answers::kept(&file, engine, &questions, node)?;
    let mut left = questions.into_iter().skip(kept.answers.len()).peekable();
    let done = u32::try_from(kept.answers.len()).unwrap_or(u32::MAX);
    let mut tick = options.count_from(done, what, count);
    while left.peek().is_some() {
        let some = left.by_ref().take(KEPT_AT_ONCE);
        let more = Answers::make(engine, some, node, options.tokens, &mut tick).await?;
        kept.answers.extend(more.answers);
        kept.save(&file)?;
    }
    Ok(kept)
}

/// An engine that audits.
struct Auditor<'a> {
    engine: MistralEngine,
    options: &'a Options,
}

impl Auditor<'_> {
    async fn audit(&self, answers: &Answers, what: &str) -> Result<Vec<Audit>, EngineError> {
        let count = u32::try_from(answers.answers.len()).unwrap_or(u32::MAX);
        audit_all(&self.engine, answers, self.options.count(what, count)).await
    }

    async fn pair(&self, answers: &Answers) -> Result<Pair, EngineError> {
        let (miner, validator) = (answers.numeric_class, self.engine.info().numeric_class);
        let what = format!("audits of {miner} by {validator}");
        let mut audits = self.audit(answers, &what).await?;
        let honest = audits.split_off(audits.len().min(self.options.to_fit() as usize));
        let (calibration, noise) = (fit::fit(&audits)?, fit::noise(&audits));
        let (cheats, edits) = (Vec::new(), Vec::new());
        Ok(Pair { miner, validator, calibration, noise, honest, cheats, edits })
    }

    async fn cheats(&self, made: &Made) -> Result<Vec<Caught>, EngineError> {
        let validator = self.engine.info().numeric_class;
        let mut cheats = Vec::new();
        for ((name, answers), open) in made.cheats.iter().zip(&made.open) {
            let what = format!("audits by {validator} of a cheat: {name}");
            let audits = self.audit(answers, &what).await?;
            let what = format!("audits by {validator} of a cheat's open answers: {name}");
            let open = self.audit(open, &what).await?;
            cheats.push(Caught { name: name.clone(), audits, open });
        }
        Ok(cheats)
    }

    async fn edits(&self, lies: &[(Edit, Vec<Lie>)]) -> Result<Vec<Edited>, EngineError> {
        let validator = self.engine.info().numeric_class;
        let mut edits = Vec::new();
        for (edit, lies) in lies {
            let what = format!("audits by {validator} of edits: {}", edit.name());
            let mut tick = self.options.count(&what, u32::try_from(lies.len()).unwrap_or(u32::MAX));
            let mut found = Vec::with_capacity(lies.len());
            for lie in lies {
                found.push(edits::examine(&self.engine, lie).await?);
                tick();
            }
            edits.push(Edited { edit: *edit, found });
        }
        Ok(edits)
    }

    /// Audits another machine's answers: under the pair's thresholds if its class was measured here, and
    /// as a pair of its own if not.
    async fn elsewhere(
        &self,
        answers: &Answers,
        pairs: &mut Vec<Pair>,
    ) -> Result<Option<Elsewhere>, EngineError> {
        let (miner, validator) = (answers.numeric_class, self.engine.info().numeric_class);
        let known = pairs.iter().find(|pair| pair.miner == miner && pair.validator == validator);
        let Some(calibration) = known.map(|pair| pair.calibration) else {
            let pair = self.pair(answers).await?;
            pairs.push(pair);
            return Ok(None);
        };
        let what = format!("audits by {validator} of answers made elsewhere");
        let audits = self.audit(answers, &what).await?;
        Ok(Some(Elsewhere {
            machine: answers.machine.clone(),
            miner,
            validator,
            noise: fit::noise(&audits),
            failures: failures(audits.iter(), &calibration),
        }))
    }
}

fn similarity(options: &Options, made: &Made) -> Result<Option<Similarity>, EngineError> {
    let folder = cheats::folder(&options.model)?;
    let Some(table) = folder.map(|folder| Embedding::read(&folder)).transpose()?.flatten() else {
        return Ok(None);
    };
    // Answers stand in the order of the questions.
    let against = |answers: &Answers| -> Vec<f64> {
        let pairs = answers.answers.iter().zip(&made.second.answers);
        pairs.map(|(a, b)| cosine(&table.of(&a.ids), &table.of(&b.ids))).collect()
    };
    let honest = made.honest.first().map(against).unwrap_or_default();
    let of = |(name, answers): &(String, Answers)| (name.clone(), against(answers));
    Ok(Some(Similarity { honest, cheats: made.cheats.iter().map(of).collect() }))
}
