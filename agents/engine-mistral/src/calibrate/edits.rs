//! Edits: what a miner could change in an answer that the right weights made. It feeds the changed answer
//! through them again, so that its fingerprint is right; what is left to catch it are the margins, the end
//! and the text.
//!
//! Honest answers are changed in every way that [`Edit`] knows. At the chosen place the edit is as random
//! as it says, or as clever as it can be: seed, weights and so every score are known to the miner, too.

use assay_engine::{
    B256, EndReason, Engine, EngineError, Prompt, Sampling, ScoreRequest, prompt_hash,
};
use assay_proof::{
    Calibration, Claim, Failing, Found, Sampler, Scorer, Statistics, Width, faults, margin_units,
    reasons, verdict,
};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::{
    answers::{Answer, Answers},
    questions::PLAIN,
};
use crate::MistralEngine;

/// What is slipped into an answer.
const ADVERTISEMENT: &str = " Buy now at shop.example!";
/// Random tokens that an answer is padded with.
const PADDING: usize = 10;

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A token is another one.
    RandomToken,
    /// It is what would have been chosen without the one that was.
    RunnerUp,
    /// What follows is chosen anew, too.
    Rewritten,
    /// The same where the runner-up lost most narrowly.
    NarrowlyRewritten,
    Advertisement,
    AdvertisementInText,
    Removed,
    /// Without an end token, whatever end is claimed.
    CutShort,
    /// An end token stands at some place, and nothing behind it.
    EndPutIn,
    /// The same where an end token lost most narrowly.
    NearestEndPutIn,
    PaddedAfterEnd,
    PaddedBeforeEnd,
    /// The runner-up stands in place of the end token.
    GoneOn,
    /// The ids are right, the claimed end is not.
    OtherEnd,
    /// Answers to open questions, for which temperature 1 was asked.
    Sampled(Sampling),
}

/// All edits, in the order of the report.
pub const EDITS: [Edit; 16] = [
    Edit::RandomToken,
    Edit::RunnerUp,
    Edit::Rewritten,
    Edit::NarrowlyRewritten,
    Edit::Advertisement,
    Edit::AdvertisementInText,
    Edit::Removed,
    Edit::CutShort,
    Edit::EndPutIn,
    Edit::NearestEndPutIn,
    Edit::PaddedAfterEnd,
    Edit::PaddedBeforeEnd,
    Edit::GoneOn,
    Edit::OtherEnd,
    Edit::Sampled(Sampling { temperature_milli: 700, ..PLAIN }),
    Edit::Sampled(Sampling { temperature_milli: 0, ..PLAIN }),
];

impl Edit {
    /// What it is called in the report; charts have room for 31 characters.
    pub fn name(&self) -> String {
        match self {
            Self::RandomToken => "any other token",
            Self::RunnerUp => "the runner-up",
            Self::Rewritten => "the runner-up, rest rewritten",
            Self::NarrowlyRewritten => "the same, where nearest",
            Self::Advertisement => "advertisement inserted",
            Self::AdvertisementInText => "advertisement in the text alone",
            Self::Removed => "a token removed",
            Self::CutShort => "cut short, whatever is claimed",
            Self::EndPutIn => "ended early",
            Self::NearestEndPutIn => "ended early, where nearest",
            Self::PaddedAfterEnd => "padded after the end",
            Self::PaddedBeforeEnd => "padded before the end",
            Self::GoneOn => "gone on instead of ended",
            Self::OtherEnd => "another end reason",
            Self::Sampled(Sampling { temperature_milli: 0, .. }) => {
                "greedy instead of temperature 1"
            }
            Self::Sampled(sampling) => {
                let milli = f64::from(sampling.temperature_milli);
                return format!("temperature {} instead of 1", milli / 1000.0);
            }
        }
        .to_owned()
    }
}

/// What a validator found in the changed answers of one kind.
pub struct Edited {
    pub edit: Edit,
    pub found: Vec<Statistics>,
}

/// How the trials of one edit ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub trials: usize,
    pub caught: usize,
    /// Whose largest margin is above the hard margin.
    pub above: usize,
    /// Those of them that are caught.
    pub above_caught: usize,
    /// Whose end or text is not that of the ids.
    pub content: usize,
}

impl Edited {
    /// What a validator makes of it; the fingerprint is right.
    pub fn tally(&self, calibration: &Calibration) -> Tally {
        let mut tally = Tally { trials: self.found.len(), ..Tally::default() };
        for found in &self.found {
            let reasons = verdict(found, Failing::default(), true, calibration);
            let is_above = found.max_margin > calibration.hard_margin;
            tally.caught += usize::from(!reasons.is_empty());
            tally.above += usize::from(is_above);
            tally.above_caught += usize::from(is_above && !reasons.is_empty());
            tally.content += usize::from(!found.faults.is_empty());
        }
        tally
    }
}

/// What a miner claims to have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lie {
    prompt_ids: Vec<u32>,
    sampling: Sampling,
    seed: B256,
    ids: Vec<u32>,
    /// At the end of the text of the ids.
    slipped_in: &'static str,
    end_reason: EndReason,
    /// What the request allows.
    max_output: u32,
}

/// What else could have stood at a position.
#[derive(Clone, Copy, Debug)]
struct Choice {
    /// The token with the next best score that ends nothing.
    runner_up: u32,
    /// Its margin.
    margin: u32,
    /// The least margin of an end token, and which one.
    end: (u32, u32),
}

/// An honest answer and what its miner knows of it.
struct Recorded<'a> {
    answer: &'a Answer,
    choices: Vec<Choice>,
    /// Tokens before the end token, if there is one.
    body: usize,
}

impl<'a> Recorded<'a> {
    /// Reads an answer with the engine that made it; `None` if it would not choose the same tokens again.
    async fn read(engine: &MistralEngine, answer: &'a Answer) -> Result<Option<Self>, EngineError> {
        let vocabulary = engine.info().vocab_size;
        let mut sampler = Sampler::new(answer.sampling, answer.seed, vocabulary)?;
        let mut scorer = Scorer::new(answer.sampling, answer.seed, vocabulary)?;
        let ends = engine.end_tokens().to_vec();
        let reader = move |row: &[f32], id: u32| {
            let mut others = row.to_vec();
            for other in ends.iter().chain([&id]) {
                if let Some(logit) = others.get_mut(*other as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
            let runner_up = sampler.clone().next(&others)?;
            let margin =
                |id: u32| Ok::<_, EngineError>(margin_units(scorer.clone().score(row, id)?.margin));
            let mut end = (u32::MAX, 0);
            for id in &ends {
                end = end.min((margin(*id)?, *id));
            }
            let choice = Choice { runner_up, margin: margin(runner_up)?, end };
            scorer.score(row, id)?;
            Ok((sampler.next(row)? == id).then_some(choice))
        };
        let (prompt_ids, ids) = (answer.prompt_ids.clone(), answer.ids.clone());
        let choices = engine.read_rows(prompt_ids, ids, reader).await?;
        let choices: Option<Vec<Choice>> = choices.into_iter().collect();
        let is_end = |id: &&u32| engine.end_tokens().contains(id);
        let body = answer.ids.len() - usize::from(answer.ids.last().filter(is_end).is_some());
        Ok(choices.map(|choices| Self { answer, choices, body }))
    }

    fn ends(&self) -> bool {
        self.body < self.answer.ids.len()
    }

    /// Whether an honest miner could have answered this request so.
    fn is_honest(&self, lie: &Lie) -> bool {
        let tokens = lie.ids.len();
        let end_reason = if self.ends() && tokens == self.answer.ids.len() {
            EndReason::Eos
        } else if tokens <= self.body && tokens == lie.max_output as usize {
            EndReason::Max
        } else {
            return false;
        };
        lie.slipped_in.is_empty()
            && lie.end_reason == end_reason
            && self.answer.ids.starts_with(&lie.ids)
    }
}

/// The claim that these ids, and not the answer's, are the answer. Its end looks right: without an end
/// token it is as long as the request allows.
fn claim(answer: &Answer, ids: Vec<u32>, ends: bool) -> Lie {
    let (end_reason, spare) = if ends { (EndReason::Eos, 1) } else { (EndReason::Max, 0) };
    Lie {
        prompt_ids: answer.prompt_ids.clone(),
        sampling: answer.sampling,
        seed: answer.seed,
        max_output: count(&ids) + spare,
        ids,
        slipped_in: "",
        end_reason,
    }
}

/// What edits need to know of the model.
struct Words {
    vocabulary: u32,
    ends: Vec<u32>,
    advertisement: Vec<u32>,
}

impl Words {
    async fn of(engine: &MistralEngine) -> Result<Self, EngineError> {
        let mut advertisement = engine.tokenize(&Prompt::Text(ADVERTISEMENT.into())).await?;
        let ends = engine.end_tokens().to_vec();
        advertisement.retain(|id| !ends.contains(id));
        Ok(Self { vocabulary: engine.info().vocab_size, ends, advertisement })
    }

    fn padding(&self, random: &mut ChaCha8Rng) -> Vec<u32> {
        (0..PADDING).map(|_| self.any(random)).collect()
    }

    fn any(&self, random: &mut ChaCha8Rng) -> u32 {
        loop {
            let id = random.next_u32() % self.vocabulary;
            if !self.ends.contains(&id) {
                return id;
            }
        }
    }
}

/// Changes an answer; `None` if it cannot be changed so, or would still be honest.
fn change(recorded: &Recorded<'_>, edit: Edit, words: &Words) -> Option<Lie> {
    let Recorded { answer, choices, body } = recorded;
    let (mut random, ends) = (random(edit, answer.question), recorded.ends());
    let (mut ids, place) = (answer.ids.clone(), pick(&mut random, *body));
    let narrowest = |of: fn(&Choice) -> u32| {
        let places = choices.get(..*body)?.iter().enumerate();
        places.min_by_key(|(_, choice)| of(choice)).map(|(at, _)| at)
    };
    let ended_at = |at: usize| {
        let (_, end) = choices.get(at)?.end;
        Some(claim(answer, [answer.ids.get(..at)?, &[end]].concat(), true))
    };
    let replaced = |at: usize, id: u32| {
        let mut ids = answer.ids.clone();
        *ids.get_mut(at)? = id;
        Some(claim(answer, ids, ends))
    };
    // What is chosen anew behind a change has no margins: it is left out, as if no more was asked for.
    let rewritten = |at: usize| {
        let other = choices.get(at)?.runner_up;
        Some(claim(answer, [answer.ids.get(..at)?, &[other]].concat(), false))
    };
    let lie = match edit {
        Edit::RandomToken => replaced(place?, words.any(&mut random))?,
        Edit::RunnerUp => replaced(place?, choices.get(place?)?.runner_up)?,
        Edit::Rewritten => rewritten(place?)?,
        Edit::NarrowlyRewritten => rewritten(narrowest(|choice| choice.margin)?)?,
        Edit::Advertisement => {
            let at = pick(&mut random, body + 1)?;
            ids.splice(at..at, words.advertisement.iter().copied());
            claim(answer, ids, ends)
        }
        Edit::AdvertisementInText => Lie { slipped_in: ADVERTISEMENT, ..claim(answer, ids, ends) },
        Edit::Removed => {
            ids.remove(place?);
            claim(answer, ids, ends)
        }
        Edit::CutShort => {
            let whole = claim(answer, ids.clone(), ends);
            ids.truncate(place?.max(1));
            Lie { ids, end_reason: any_end(&mut random), ..whole }
        }
        Edit::EndPutIn => ended_at(place?)?,
        Edit::NearestEndPutIn => ended_at(narrowest(|choice| choice.end.0)?)?,
        Edit::OtherEnd => Lie { end_reason: any_end(&mut random), ..claim(answer, ids, ends) },
        Edit::PaddedAfterEnd if ends => {
            ids.extend(words.padding(&mut random));
            claim(answer, ids, false)
        }
        Edit::PaddedBeforeEnd if ends => {
            ids.splice(body..body, words.padding(&mut random));
            claim(answer, ids, true)
        }
        Edit::GoneOn if ends => rewritten(*body)?,
        // There is no end to pad, or it is another answer altogether.
        Edit::PaddedAfterEnd | Edit::PaddedBeforeEnd | Edit::GoneOn | Edit::Sampled(_) => {
            return None;
        }
    };
    (!lie.ids.is_empty() && !recorded.is_honest(&lie)).then_some(lie)
}

/// Answers to the same questions: as asked, and sampled in other ways.
pub(crate) struct Sampled {
    pub honest: Answers,
    pub otherwise: Vec<(Edit, Answers)>,
}

/// Changes honest answers of `engine` in every way, each at most once in each and at most `trials` of them.
pub(crate) async fn lies(
    engine: &MistralEngine,
    honest: &Answers,
    sampled: &Sampled,
    trials: usize,
    mut tick: impl FnMut(),
) -> Result<Vec<(Edit, Vec<Lie>)>, EngineError> {
    let words = Words::of(engine).await?;
    let mut all: Vec<(Edit, Vec<Lie>)> = EDITS.map(|edit| (edit, Vec::new())).into();
    for answer in &honest.answers {
        let recorded = Recorded::read(engine, answer).await?;
        tick();
        let Some(recorded) = recorded else { continue };
        for (edit, lies) in all.iter_mut().filter(|(_, lies)| lies.len() < trials) {
            lies.extend(change(&recorded, *edit, &words));
        }
    }
    for (edit, otherwise) in &sampled.otherwise {
        let Some((_, lies)) = all.iter_mut().find(|(other, _)| other == edit) else { continue };
        let pairs = sampled.honest.answers.iter().zip(&otherwise.answers);
        lies.extend(pairs.filter(|(honest, made)| honest.ids != made.ids).map(|(honest, made)| {
            let ends = made.ids.last().is_some_and(|id| words.ends.contains(id));
            claim(honest, made.ids.clone(), ends)
        }));
    }
    Ok(all)
}

fn pick(random: &mut ChaCha8Rng, count: usize) -> Option<usize> {
    (random.next_u32() as usize).checked_rem(count)
}

fn any_end(random: &mut ChaCha8Rng) -> EndReason {
    let ends = [EndReason::Eos, EndReason::Stop, EndReason::Max, EndReason::Cancelled];
    pick(random, ends.len()).and_then(|at| ends.get(at).copied()).unwrap_or(EndReason::Eos)
}

fn random(edit: Edit, question: u32) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(edit.name());
    hash.update(question.to_le_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// What a validator finds in such an answer, with its fingerprint apart.
pub(crate) async fn examine(engine: &MistralEngine, lie: &Lie) -> Result<Statistics, EngineError> {
    let Lie { ids, prompt_ids, end_reason, .. } = lie;
    let reading = engine.read(ids, &[]).await?;
    let text = reading.text.clone() + lie.slipped_in;
    let (tokens, prompt_tokens) = (count(ids), count(prompt_ids));
    let claim = Claim {
        tokens,
        ids,
        text: &text,
        end_reason: end_reason.sealed(),
        block_end_reason: *end_reason,
        prompt_hash: prompt_hash(prompt_ids),
        prompt_tokens,
    };
    let found = Found {
        prompt_ids,
        vocabulary: engine.info().vocab_size,
        end_tokens: engine.end_tokens(),
        max_output: lie.max_output,
        text: &reading.text,
        stopped_at: reading.stopped_at,
        cancel_is_signed: false,
    };
    let faults = faults(&claim, &found);
    let request = ScoreRequest {
        prompt_ids: prompt_ids.clone(),
        claimed_ids: ids.clone(),
        sampling: lie.sampling,
        seed: lie.seed,
    };
    let scores = engine.score(request).await?;
    let audit = assay_proof::Audit::new(tokens, ids, &scores, Width::default(), reasons(&faults));
    Ok(audit.statistics())
}

fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 0;

    fn answer(ids: &[u32]) -> Answer {
        Answer {
            question: 7,
            prompt_ids: vec![5],
            sampling: PLAIN,
            seed: B256::ZERO,
            ids: ids.to_vec(),
            contrasts: Vec::new(),
        }
    }

    fn recorded(answer: &Answer) -> Recorded<'_> {
        let choice =
            |at: u32| Choice { runner_up: 50 + at, margin: 100 - at, end: (10 * at + 10, END) };
        let body = answer.ids.len() - usize::from(answer.ids.last() == Some(&END));
        Recorded { answer, choices: (0..answer.ids.len() as u32).map(choice).collect(), body }
    }

    fn changed(answer: &Answer, edit: Edit) -> Option<Lie> {
        let words = Words { vocabulary: 100, ends: vec![END], advertisement: vec![90, 91] };
        change(&recorded(answer), edit, &words)
    }

    #[test]
    fn every_edit_changes_the_answer_as_it_says() {
        let whole = answer(&[11, 12, 13, 14, END]);
        let lie = |edit| changed(&whole, edit).unwrap();
        let differing = |ids: &[u32]| ids.iter().zip(&whole.ids).filter(|(a, b)| a != b).count();
        for edit in [Edit::RandomToken, Edit::RunnerUp] {
            let lie = lie(edit);
            assert_eq!((lie.ids.len(), differing(&lie.ids)), (5, 1), "{edit:?}");
            assert_eq!((lie.end_reason, lie.ids.last()), (EndReason::Eos, Some(&END)));
        }
        // The narrowest margin is that of the last token, an end token is nearest at the first.
        let narrow = lie(Edit::NarrowlyRewritten);
        assert_eq!((narrow.ids, narrow.end_reason), (vec![11, 12, 13, 53], EndReason::Max));
        assert_eq!(lie(Edit::NearestEndPutIn).ids, [END]);
        assert_eq!(lie(Edit::GoneOn).ids, [11, 12, 13, 14, 54]);
        assert_eq!(lie(Edit::Removed).ids.len(), 4);
        assert!(lie(Edit::Advertisement).ids.windows(2).any(|pair| pair == [90, 91]));
        assert_eq!(lie(Edit::PaddedBeforeEnd).ids.len(), 5 + PADDING);
        assert!(lie(Edit::PaddedAfterEnd).ids.starts_with(&whole.ids));
        assert_eq!(lie(Edit::AdvertisementInText).slipped_in, ADVERTISEMENT);
        let cut = lie(Edit::CutShort);
        assert!(whole.ids.starts_with(&cut.ids) && cut.ids.len() < cut.max_output as usize);
    }

    #[test]
    fn what_is_honest_is_no_lie() {
        let (ended, full) = (answer(&[11, 12, END]), answer(&[11, 12, 13]));
        for (answer, ends) in [(&ended, true), (&full, false)] {
            let recorded = recorded(answer);
            let whole = claim(answer, answer.ids.clone(), ends);
            assert!(recorded.is_honest(&whole));
            assert!(recorded.is_honest(&claim(answer, vec![11], false)), "asked for one token");
            assert!(!recorded.is_honest(&Lie { slipped_in: "!", ..whole.clone() }));
            assert!(!recorded.is_honest(&Lie { end_reason: EndReason::Stop, ..whole.clone() }));
            assert!(!recorded.is_honest(&Lie { ids: vec![11], ..whole }));
        }
        // Nothing ends there that could be padded.
        for edit in [Edit::PaddedAfterEnd, Edit::PaddedBeforeEnd, Edit::GoneOn] {
            assert_eq!(changed(&full, edit), None);
        }
        // What is left was asked for alone.
        assert_eq!(changed(&answer(&[11]), Edit::Removed), None);
    }

    #[test]
    fn trials_are_counted_by_what_catches_them() {
        let calibration =
            Calibration::unpack(crate::calibrate::Table::demo().unwrap().pairs[0].word.into());
        let calibration = calibration.unwrap();
        let hard = calibration.hard_margin;
        let of = |margin, faults| Statistics::new(&[margin, 0], faults);
        let none = assay_proof::Reasons::default();
        let found = vec![of(hard + 1, none), of(1, none), of(0, assay_proof::Reasons::END)];
        let tally = Edited { edit: Edit::RunnerUp, found }.tally(&calibration);
        let want = Tally { trials: 3, caught: 2, above: 1, above_caught: 1, content: 1 };
        assert_eq!(tally, want);
    }
}
