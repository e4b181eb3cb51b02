//! What must hold of an answer whatever the model is: its end, its text, its prompt, its ids.
//!
//! The text of ids comes from outside, because it needs a tokenizer: that of all ids, assembled one by one
//! as the engine does it, up to the first stop sequence that is completed.

use assay_types::{B256, EndReason, prompt_hash};

use crate::Reasons;

/// What the miner claims: H1, and the result block under its digest.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// `n` of H1.
    pub tokens: u32,
    /// Ids of the result block.
    pub ids: &'a [u32],
    /// Text of the result block.
    pub text: &'a str,
    /// End reason of H1.
    pub end_reason: EndReason,
    /// End reason of the result block.
    pub block_end_reason: EndReason,
    /// `promptHash` of H1.
    pub prompt_hash: B256,
    /// `nPrompt` of H1.
    pub prompt_tokens: u32,
}

/// What a validator finds out by itself: from the request, the manifest and the tokenizer.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Ids of the request's rendered prompt.
    pub prompt_ids: &'a [u32],
    /// Tokens of the tokenizer.
    pub vocabulary: u32,
    /// Ids that end an answer.
    pub end_tokens: &'a [u32],
    /// Most tokens that the request allows.
    pub max_output: u32,
    /// The text of the claimed ids, up to a completed stop sequence.
    pub text: &'a str,
    /// After how many ids a stop sequence was complete, if one was; what an unfinished character held back
    /// until the end counts as the last.
    pub stopped_at: Option<u32>,
    /// Whether the holder of the task's lane signed that it cancels after so many tokens.
    pub cancel_is_signed: bool,
}

/// What is wrong with an answer itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another number of ids than committed.
    #[error("the result block has {got} ids, committed are {want}")]
    Count {
        /// Ids of the block.
        got: usize,
        /// `n` of H1.
        want: u32,
    },
    /// An id that the tokenizer does not have.
    #[error("token {t} is the id {id}, the vocabulary has {vocabulary}")]
    UnknownId {
        /// Position, from 1.
        t: u32,
        /// The id.
        id: u32,
        /// Tokens of the tokenizer.
        vocabulary: u32,
    },
    /// More tokens than asked for.
    #[error("the answer has {tokens} tokens, the request allows {max_output}")]
    TooLong {
        /// Tokens of the answer.
        tokens: u32,
        /// What the request allows.
        max_output: u32,
    },
    /// Tokens after the answer's end.
    #[error("the answer goes on after its end at token {0}")]
    GoesOn(u32),
    /// It ended for another reason, or did not end.
    #[error("the end is said to be {claimed:?}, but {found}")]
    End {
        /// What is claimed.
        claimed: EndReason,
        /// What is so.
        found: &'static str,
    },
    /// H1 and the result block disagree.
    #[error("the commitment says {0:?}, the result block {1:?}")]
    TwoEnds(EndReason, EndReason),
    /// Another text.
    #[error("the text is not that of the ids: it differs from byte {0} on")]
    Text(usize),
    /// Another prompt.
    #[error("the prompt is not that of the request")]
    Prompt,
}

impl Fault {
    /// Where it counts in a verdict.
    pub fn reason(&self) -> Reasons {
        match self {
            Self::Count { .. } | Self::UnknownId { .. } => Reasons::IDS,
            Self::TooLong { .. } | Self::GoesOn(_) | Self::End { .. } | Self::TwoEnds(..) => {
                Reasons::END
            }
            Self::Text(_) => Reasons::TEXT,
            Self::Prompt => Reasons::PROMPT,
        }
    }
}

/// The reasons of these faults.
pub fn reasons(faults: &[Fault]) -> Reasons {
    faults.iter().fold(Reasons::default(), |all, fault| all | fault.reason())
}

/// Everything that is wrong with an answer itself. Ids that cannot be are told alone: they have no end and
/// no text.
pub fn faults(claim: &Claim<'_>, found: &Found<'_>) -> Vec<Fault> {
    let prompt = check_prompt(claim, found).err();
    if let Err(fault) = check_ids(claim.tokens, claim.ids, found.vocabulary) {
        return std::iter::once(fault).chain(prompt).collect();
    }
    let end = check_end(claim, found).err();
    let text = check_text(claim.text, found.text).err();
    end.into_iter().chain(text).chain(prompt).collect()
}

/// Whether an answer's ids can be scored at all.
///
/// # Errors
/// The first fault.
pub fn check_ids(tokens: u32, ids: &[u32], vocabulary: u32) -> Result<(), Fault> {
    if ids.len() != tokens as usize || ids.is_empty() {
        return Err(Fault::Count { got: ids.len(), want: tokens });
    }
    match (1_u32..).zip(ids).find(|(_, id)| **id >= vocabulary) {
        Some((t, id)) => Err(Fault::UnknownId { t, id: *id, vocabulary }),
        None => Ok(()),
    }
}

/// Whether the answer ended where, and as, its ids say. An end token ends it before anything else, then a
/// completed stop sequence, then the length; otherwise only a signature.
fn check_end(claim: &Claim<'_>, found: &Found<'_>) -> Result<(), Fault> {
    let (tokens, claimed) = (claim.tokens, claim.block_end_reason);
    if claim.end_reason != claimed.sealed() {
        return Err(Fault::TwoEnds(claim.end_reason, claimed));
    }
    if tokens > found.max_output {
        return Err(Fault::TooLong { tokens, max_output: found.max_output });
    }
    let ended_at = (1_u32..).zip(claim.ids).find(|(_, id)| found.end_tokens.contains(id));
    let ended_at = ended_at.map(|(t, _)| t);
    let over_at = [ended_at, found.stopped_at].into_iter().flatten().min();
    if let Some(t) = over_at.filter(|t| *t < tokens) {
        return Err(Fault::GoesOn(t));
    }
    let is_max = tokens == found.max_output;
    let (holds, found) = match over_at {
        Some(_) if ended_at.is_some() => (claimed == EndReason::Eos, "its last id is an end token"),
        Some(_) => (claimed == EndReason::Stop, "a stop sequence is complete"),
        None if claimed == EndReason::Cancelled => (found.cancel_is_signed, "nobody signed that"),
        None if is_max => (claimed == EndReason::Max, "it has as many tokens as were asked for"),
        None => (false, "nothing ended it"),
    };
    if holds { Ok(()) } else { Err(Fault::End { claimed, found }) }
}

fn check_text(claimed: &str, found: &str) -> Result<(), Fault> {
    if claimed == found {
        return Ok(());
    }
    let same = claimed.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count();
    Err(Fault::Text(same))
}

fn check_prompt(claim: &Claim<'_>, found: &Found<'_>) -> Result<(), Fault> {
    let tokens = u32::try_from(found.prompt_ids.len()).ok();
    let same =
        tokens == Some(claim.prompt_tokens) && prompt_hash(found.prompt_ids) == claim.prompt_hash;
    if same { Ok(()) } else { Err(Fault::Prompt) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 2;
    const PROMPT: [u32; 3] = [1, 5, 6];

    fn claim(ids: &[u32], end_reason: EndReason) -> Claim<'_> {
        Claim {
            tokens: ids.len() as u32,
            ids,
            text: "some text",
            end_reason: end_reason.sealed(),
            block_end_reason: end_reason,
            prompt_hash: prompt_hash(&PROMPT),
            prompt_tokens: 3,
        }
    }

    fn found() -> Found<'static> {
        Found {
            prompt_ids: &PROMPT,
            vocabulary: 100,
            end_tokens: &[END, 3],
            max_output: 4,
            text: "some text",
            stopped_at: None,
            cancel_is_signed: false,
        }
    }

    #[test]
    fn honest_ends_hold() {
        let stopped = Found { stopped_at: Some(3), ..found() };
        let signed = Found { cancel_is_signed: true, ..found() };
        // What is held back until the end may complete a stop sequence there.
        let both = Found { stopped_at: Some(2), ..found() };
        for (ids, reason, found) in [
            (&[7, END][..], EndReason::Eos, found()),
            (&[7, 8, 9, 3], EndReason::Eos, found()),
            (&[7, 8, 9, 10], EndReason::Max, found()),
            (&[7, 8, 9], EndReason::Stop, stopped),
            (&[7], EndReason::Cancelled, signed),
            (&[7, END], EndReason::Eos, both),
        ] {
            assert_eq!(faults(&claim(ids, reason), &found), [], "{ids:?} {reason:?}");
        }
    }

    #[test]
    fn every_wrong_end_is_found() {
        let stopped = Found { stopped_at: Some(2), ..found() };
        let end = |claimed, found| Fault::End { claimed, found };
        for (ids, reason, found, fault) in [
            // Stopped early.
            (&[7, 8][..], EndReason::Max, found(), end(EndReason::Max, "nothing ended it")),
            (&[7, 8], EndReason::Eos, found(), end(EndReason::Eos, "nothing ended it")),
            (&[7, 8], EndReason::Stop, found(), end(EndReason::Stop, "nothing ended it")),
            (&[7], EndReason::Cancelled, found(), end(EndReason::Cancelled, "nobody signed that")),
            (
                &[7, END],
                EndReason::Cancelled,
                Found { cancel_is_signed: true, ..found() },
                end(EndReason::Cancelled, "its last id is an end token"),
            ),
            // Padded.
            (&[7, END, 8, 9], EndReason::Max, found(), Fault::GoesOn(2)),
            (&[7, END, END], EndReason::Eos, found(), Fault::GoesOn(2)),
            (&[7, 8, 9, 10], EndReason::Max, stopped, Fault::GoesOn(2)),
            (&[7, 8, END], EndReason::Eos, stopped, Fault::GoesOn(2)),
            (
                &[7, 8, 9, 10, 11],
                EndReason::Max,
                found(),
                Fault::TooLong { tokens: 5, max_output: 4 },
            ),
            // Named wrongly.
            (
                &[7, 8, 9, END],
                EndReason::Max,
                found(),
                end(EndReason::Max, "its last id is an end token"),
            ),
            (&[7, 8], EndReason::Max, stopped, end(EndReason::Max, "a stop sequence is complete")),
            (
                &[7, 8, 9, 10],
                EndReason::Stop,
                found(),
                end(EndReason::Stop, "it has as many tokens as were asked for"),
            ),
        ] {
            assert_eq!(faults(&claim(ids, reason), &found), [fault], "{ids:?} {reason:?}");
            assert_eq!(fault.reason(), Reasons::END);
        }
        let two = Claim { block_end_reason: EndReason::Max, ..claim(&[7, END], EndReason::Eos) };
        assert_eq!(faults(&two, &found()), [Fault::TwoEnds(EndReason::Eos, EndReason::Max)]);
    }

    #[test]
    fn ids_that_cannot_be_are_told_alone() {
        let ids = [7, 100, END];
        let wrong = claim(&ids, EndReason::Max);
        let fault = Fault::UnknownId { t: 2, id: 100, vocabulary: 100 };
        assert_eq!(faults(&wrong, &found()), [fault]);
        let fewer = Claim { tokens: 4, ..claim(&[7, 8], EndReason::Max) };
        assert_eq!(faults(&fewer, &found()), [Fault::Count { got: 2, want: 4 }]);
        assert_eq!(
            faults(&claim(&[], EndReason::Max), &found()),
            [Fault::Count { got: 0, want: 0 }]
        );
    }

    #[test]
    fn nothing_slips_into_text_or_prompt() {
        let advert = Claim { text: "some textBuy!", ..claim(&[7, END], EndReason::Eos) };
        assert_eq!(faults(&advert, &found()), [Fault::Text(9)]);
        let cut = Claim { text: "some", ..advert };
        assert_eq!(faults(&cut, &found()), [Fault::Text(4)]);
        let hidden = Found { prompt_ids: &[1, 9, 5, 6], ..found() };
        assert_eq!(faults(&claim(&[7, END], EndReason::Eos), &hidden), [Fault::Prompt]);
        let swapped = Found { prompt_ids: &[1, 6, 5], ..found() };
        let all = faults(&Claim { text: "x", ..claim(&[7, END], EndReason::Eos) }, &swapped);
        assert_eq!(reasons(&all), Reasons::TEXT | Reasons::PROMPT);
    }
}
