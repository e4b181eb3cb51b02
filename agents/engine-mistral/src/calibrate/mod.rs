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
mod fit;
mod plot;
mod power;
mod questions;
mod report;
mod table;

use std::{sync::Arc, time::Instant};

use assay_engine::{Engine, EngineError, EngineInfo, NumericClass};
use assay_proof::Calibration;

pub use answers::{Answer, Answers};
pub use audit::{Audit, fails_f, fails_g};
pub use cheats::{Cheat, cheaper};
pub use fit::{Noise, Spread};
pub use power::{Failures, Roc, Share, failures, failures_within, statistic_f, statistic_g};
pub use questions::{Question, SETTINGS, Setting};
pub use table::{Table, TableError, TablePair};

use self::{
    audit::audit_all,
    cosine::{Embedding, cosine},
};
use crate::{
    MistralEngine,
    source::{Dtype, LoadOptions},
};

/// Names of nodes; they decide the seeds.
const MINER: &str = "miner";
const SECOND: &str = "second miner";
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
    /// Answers of each cheat.
    pub trials: u32,
    /// Most tokens of an answer.
    pub tokens: u32,
    /// Honest answers that other machines made.
    pub answers: Vec<Answers>,
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
    /// Audits of each cheat, if it claims to be of this miner's class.
    pub cheats: Vec<(String, Vec<Audit>)>,
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

    async fn load(&self, model: &LoadOptions, dtype: Dtype) -> Result<MistralEngine, EngineError> {
        MistralEngine::load(LoadOptions { dtype, ..model.clone() }).await
    }
}

/// Honest answers alone, to be audited on another machine.
///
/// # Errors
/// The engine's.
pub async fn answer(options: &Options) -> Result<Answers, EngineError> {
    let engine = options.load(&options.model, options.model.dtype).await?;
    answers_of(&engine, options, "answering", MINER, options.to_fit() + options.audits).await
}

/// Measures everything.
///
/// # Errors
/// The engines', and [`EngineError::Unsupported`] if classes are too far apart for any calibration.
pub async fn run(options: Options) -> Result<Outcome, EngineError> {
    let begun = Instant::now();
    let honest = options.to_fit() + options.audits;
    let mut made = Vec::new();
    let (mut second, mut model) = (None, None);
    for dtype in &options.classes {
        let engine = options.load(&options.model, *dtype).await?;
        let name = engine.info().numeric_class;
        let what = format!("honest answers in {name}");
        made.push(answers_of(&engine, &options, &what, MINER, honest).await?);
        if model.is_none() {
            let what = format!("a second answer to each in {name}");
            let count = options.trials.min(honest);
            second = Some(answers_of(&engine, &options, &what, SECOND, count).await?);
            model = Some(engine.info().clone());
        }
    }
    let none = || EngineError::Internal("no class to calibrate".into());
    let (model, second) = (model.ok_or_else(none)?, second.ok_or_else(none)?);
    let mut cheats = Vec::new();
    for Cheat { name, load } in &options.cheats {
        let engine = MistralEngine::load(load.clone()).await?;
        let what = format!("answers of a cheat: {name}");
        cheats.push((
            name.clone(),
            answers_of(&engine, &options, &what, name, options.trials).await?,
        ));
    }
    let similarity = similarity(&options, &made, &second, &cheats)?;
    let (mut pairs, mut elsewhere) = (Vec::new(), Vec::new());
    for dtype in &options.classes {
        let engine = options.load(&options.model, *dtype).await?;
        let auditor = Auditor { engine, options: &options };
        for (index, answers) in made.iter().enumerate() {
            let cheats = if index == 0 { &cheats[..] } else { &[] };
            pairs.push(auditor.pair(answers, cheats).await?);
        }
        for answers in &options.answers {
            let found = auditor.elsewhere(answers, &mut pairs).await?;
            elsewhere.extend(found);
        }
    }
    let seconds = begun.elapsed().as_secs();
    let machine = answers::machine();
    Ok(Outcome { model, machine, options, pairs, elsewhere, similarity, seconds })
}

async fn answers_of(
    engine: &MistralEngine,
    options: &Options,
    what: &str,
    node: &str,
    count: u32,
) -> Result<Answers, EngineError> {
    let has_template = engine.manifest().chat_template_sha256.is_some();
    let questions = (0..count).map(|number| Question::new(number, has_template));
    let mut done = 0;
    let tick = || {
        done += 1;
        (options.tick)(what, done, count);
    };
    Answers::make(engine, questions, node, options.tokens, tick).await
}

/// An engine that audits.
struct Auditor<'a> {
    engine: MistralEngine,
    options: &'a Options,
}

impl Auditor<'_> {
    async fn audit(&self, answers: &Answers, what: &str) -> Result<Vec<Audit>, EngineError> {
        let (mut done, count) = (0, u32::try_from(answers.answers.len()).unwrap_or(u32::MAX));
        let tick = || {
            done += 1;
            (self.options.tick)(what, done, count);
        };
        audit_all(&self.engine, answers, tick).await
    }

    async fn pair(
        &self,
        answers: &Answers,
        cheats: &[(String, Answers)],
    ) -> Result<Pair, EngineError> {
        let (miner, validator) = (answers.numeric_class, self.engine.info().numeric_class);
        let what = format!("audits of {miner} by {validator}");
        let mut audits = self.audit(answers, &what).await?;
        let honest = audits.split_off(audits.len().min(self.options.to_fit() as usize));
        let (calibration, noise) = (fit::fit(&audits)?, fit::noise(&audits));
        let mut caught = Vec::new();
        for (name, answers) in cheats {
            let what = format!("audits by {validator} of a cheat: {name}");
            caught.push((name.clone(), self.audit(answers, &what).await?));
        }
        Ok(Pair { miner, validator, calibration, noise, honest, cheats: caught })
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
            let pair = self.pair(answers, &[]).await?;
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

fn similarity(
    options: &Options,
    made: &[Answers],
    second: &Answers,
    cheats: &[(String, Answers)],
) -> Result<Option<Similarity>, EngineError> {
    let folder = cheats::folder(&options.model)?;
    let Some(table) = folder.map(|folder| Embedding::read(&folder)).transpose()?.flatten() else {
        return Ok(None);
    };
    // Answers stand in the order of the questions.
    let against = |answers: &Answers| -> Vec<f64> {
        let pairs = answers.answers.iter().zip(&second.answers);
        pairs.map(|(a, b)| cosine(&table.of(&a.ids), &table.of(&b.ids))).collect()
    };
    let honest = made.first().map(against).unwrap_or_default();
    let cheats = cheats.iter().map(|(name, answers)| (name.clone(), against(answers))).collect();
    Ok(Some(Similarity { honest, cheats }))
}
