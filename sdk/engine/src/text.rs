//! From ids to text, one id at a time: characters split over tokens, and stop sequences held back.
//!
//! What a [`TextAssembler`] gives out is the detokenisation, by definition: engines stream with it and
//! detokenise with it, so the text of a result always is that of its ids. A window of the last ids is
//! decoded anew for each id, because a tokenizer's decoder may look at neighbours (leading spaces,
//! bytes of one character).

use crate::EngineError;

/// Decodes a run of ids; bytes that are not UTF-8 (yet) become U+FFFD, special tokens nothing.
pub trait Detokenize {
    /// The text of `ids`.
    fn decode(&self, ids: &[u32]) -> Result<String, EngineError>;
}

impl<F: Fn(&[u32]) -> Result<String, EngineError>> Detokenize for F {
    fn decode(&self, ids: &[u32]) -> Result<String, EngineError> {
        self(ids)
    }
}

/// Ids that may wait for the rest of a character. A character has at most four bytes, so four tokens;
/// what waits longer is not text, and is given out as it is.
const MAX_WAITING_IDS: usize = 8;
/// Ids of a character that is not complete yet, at most: all but the last of its four bytes.
const MAX_INCOMPLETE_IDS: usize = 3;

/// What an id, or the end, adds to the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text to give out.
    pub text: String,
    /// A stop sequence is complete; nothing more may be pushed.
    pub stopped: bool,
}

/// The text of a whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Up to a completed stop sequence.
    pub text: String,
    /// After how many ids one was complete; what was held back until the end counts as the last.
    pub stopped_at: Option<u32>,
}

/// Turns ids into text as they come.
#[derive(Debug)]
pub struct TextAssembler<D> {
    decoder: D,
    stops: Vec<String>,
    /// Ids of the window: those already given out, which only give context, then those that wait.
    window: Vec<u32>,
    given: usize,
    context: String,
    /// Text that may be the beginning of a stop sequence.
    held: String,
}

impl<D: Detokenize> TextAssembler<D> {
    /// An assembler that ends at the first of `stops`. Empty stop sequences are ignored.
    pub fn new(decoder: D, stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self {
            decoder,
            stops,
            window: Vec::new(),
            given: 0,
            context: String::new(),
            held: String::new(),
        }
    }

    /// Takes in the next id.
    pub fn push(&mut self, id: u32) -> Result<Piece, EngineError> {
        self.window.push(id);
        let decoded = self.decoder.decode(&self.window)?;
        let waiting = self.window.len() - self.given;
        let complete = decoded.len() > self.context.len() && !decoded.ends_with('\u{FFFD}');
        let cut = match complete {
            true => self.window.len(),
            false if waiting < MAX_WAITING_IDS => return Ok(Piece::default()),
            false => self.seam(&decoded)?,
        };
        let (settled, _) = self.window.split_at(cut);
        let settled = self.decoder.decode(settled)?;
        let fresh = fresh_part(&settled, &self.context).to_owned();
        self.window.drain(..self.given);
        self.given = cut - self.given;
        let (context, _) = self.window.split_at(self.given);
        self.context = self.decoder.decode(context)?;
        Ok(self.add(&fresh))
    }

    /// Where to cut a window that has waited long enough: before the last character, if that may still
    /// be incomplete. A cut inside a character shows, because its two parts decode to more replacement
    /// characters than the whole.
    fn seam(&self, decoded: &str) -> Result<usize, EngineError> {
        for keep in (1..=MAX_INCOMPLETE_IDS).rev() {
            let cut = self.window.len().saturating_sub(keep);
            let (before, after) = self.window.split_at(cut);
            let (before, after) = (self.decoder.decode(before)?, self.decoder.decode(after)?);
            if decoded.strip_prefix(&before) == Some(&after) {
                return Ok(cut);
            }
        }
        Ok(self.window.len())
    }

    /// The rest, when the generation has ended for another reason.
    pub fn finish(&mut self) -> Result<Piece, EngineError> {
        let mut piece = Piece::default();
        if self.window.len() > self.given {
            let decoded = self.decoder.decode(&self.window)?;
            let fresh = fresh_part(&decoded, &self.context).to_owned();
            self.window.clear();
            self.given = 0;
            self.context.clear();
            piece = self.add(&fresh);
        }
        if !piece.stopped {
            piece.text.push_str(&std::mem::take(&mut self.held));
        }
        Ok(piece)
    }

    /// The text of `ids`, up to a completed stop sequence.
    pub fn assemble(mut self, ids: &[u32]) -> Result<Reading, EngineError> {
        let mut text = String::new();
        for (t, id) in (1_u32..).zip(ids) {
            let piece = self.push(*id)?;
            text.push_str(&piece.text);
            if piece.stopped {
                return Ok(Reading { text, stopped_at: Some(t) });
            }
        }
        let rest = self.finish()?;
        text.push_str(&rest.text);
        let last = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        Ok(Reading { text, stopped_at: rest.stopped.then_some(last) })
    }

    fn add(&mut self, fresh: &str) -> Piece {
        self.held.push_str(fresh);
        if let Some(start) = first_stop(&self.held, &self.stops) {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            return Piece { text, stopped: true };
        }
        let keep = possible_stop(&self.held, &self.stops);
        let rest = self.held.split_off(self.held.len() - keep);
        Piece { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }
}

/// What `decoded` has more than `context`. Some decoders change earlier text when more follows; then
/// the common beginning counts as given out.
fn fresh_part<'a>(decoded: &'a str, context: &str) -> &'a str {
    decoded.strip_prefix(context).unwrap_or_else(|| {
        let same = decoded.char_indices().zip(context.chars()).take_while(|((_, a), b)| a == b);
        let start = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
        decoded.get(start..).unwrap_or_default()
    })
}

/// Where the stop sequence that is complete first begins; of those complete at the same byte, the
/// longest. Looking at ends makes the result independent of how the text was cut into tokens.
fn first_stop(text: &str, stops: &[String]) -> Option<usize> {
    let found = stops.iter().filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at)));
    found.min().map(|(_, start)| start)
}

/// Bytes at the end of `text` that may be the beginning of a stop sequence.
fn possible_stop(text: &str, stops: &[String]) -> usize {
    let begins = |stop: &String| {
        let longest = text.len().min(stop.len() - 1);
        (1..=longest)
            .rev()
            .find(|n| stop.get(..*n).is_some_and(|beginning| text.ends_with(beginning)))
    };
    stops.iter().filter_map(begins).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One id is one byte.
    fn bytes(ids: &[u32]) -> Result<String, EngineError> {
        let bytes: Vec<u8> = ids.iter().map(|id| *id as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// One id is one piece of text; like Llama's, a space at the beginning is dropped.
    fn words(ids: &[u32]) -> Result<String, EngineError> {
        const WORDS: [&str; 7] = [" one", " two", "x", " ", "STO", "P", "PING"];
        let text: String = ids.iter().map(|id| WORDS[*id as usize]).collect();
        Ok(text.strip_prefix(' ').map(str::to_owned).unwrap_or(text))
    }

    type Decoder = fn(&[u32]) -> Result<String, EngineError>;

    fn run(decoder: Decoder, ids: &[u32], stops: &[&str]) -> (Vec<String>, bool) {
        let stops = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut assembler = TextAssembler::new(decoder, stops);
        let mut pieces = Vec::new();
        for id in ids {
            let piece = assembler.push(*id).unwrap();
            pieces.push(piece.text);
            if piece.stopped {
                return (pieces, true);
            }
        }
        let rest = assembler.finish().unwrap();
        pieces.push(rest.text);
        (pieces, rest.stopped)
    }

    fn ids(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn a_character_split_over_tokens_comes_whole() {
        let (pieces, _) = run(bytes, &ids("a€b😀"), &[]);
        assert_eq!(pieces, ["a", "", "", "€", "b", "", "", "", "😀", ""]);
    }

    #[test]
    fn an_unfinished_character_is_given_out_at_the_end() {
        let (pieces, _) = run(bytes, &[0x61, 0xE2, 0x82], &[]);
        assert_eq!(pieces, ["a", "", "", "\u{FFFD}"]);
    }

    #[test]
    fn bytes_that_never_are_text_do_not_wait_for_ever() {
        let (pieces, _) = run(bytes, &[0xFF; 100], &[]);
        assert_eq!(pieces.concat(), "\u{FFFD}".repeat(100));
        assert!(pieces.iter().filter(|p| !p.is_empty()).count() > 10);
    }

    #[test]
    fn spaces_between_words_survive_the_window() {
        let (pieces, _) = run(words, &[0, 1, 3, 0, 2, 1], &[]);
        assert_eq!(pieces.concat(), "one two  onex two");
        assert_eq!(pieces[1], " two");
    }

    #[test]
    fn a_stop_split_over_tokens_is_held_back_and_cut() {
        let (pieces, stopped) = run(words, &[0, 4, 5, 1], &["STOP"]);
        assert_eq!((pieces, stopped), (vec!["one".into(), String::new(), String::new()], true));
        let (pieces, stopped) = run(words, &[0, 4, 6], &["STOP"]);
        assert_eq!((pieces.concat(), stopped), ("one".into(), true));
    }

    #[test]
    fn a_stop_that_never_completes_is_given_out() {
        let (pieces, stopped) = run(words, &[0, 4, 2], &["STOP"]);
        assert_eq!(pieces, ["one", "", "STOx", ""]);
        assert!(!stopped);
        let (pieces, stopped) = run(words, &[0, 4], &["STOP"]);
        assert_eq!(pieces, ["one", "", "STO"]);
        assert!(!stopped);
    }

    #[test]
    fn the_stop_that_is_complete_first_wins() {
        let (pieces, stopped) = run(bytes, &ids("xabcd"), &["abcd", "bc"]);
        assert_eq!((pieces.concat(), stopped), ("xa".into(), true));
        let (pieces, _) = run(bytes, &ids("xabc"), &["abc", "bc"]);
        assert_eq!(pieces.concat(), "x");
    }

    #[test]
    fn overlapping_beginnings_are_kept() {
        let (pieces, stopped) = run(bytes, &ids("aab"), &["ab"]);
        assert_eq!((pieces.concat(), stopped), ("a".into(), true));
        let (pieces, stopped) = run(bytes, &ids("é€"), &["€uro"]);
        assert_eq!((pieces.concat(), stopped), ("é€".into(), false));
    }

    #[test]
    fn replacement_characters_of_the_text_itself_cut_no_character() {
        for text in
            ["\u{FFFD}\u{FFFD}໐", "\u{FFFD}\u{FFFD}\u{FFFD}😀", "a\u{FFFD}\u{FFFD}é\u{FFFD}"]
        {
            assert_eq!(run(bytes, &ids(text), &[]).0.concat(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn text_full_of_replacement_characters_comes_back(text in "[\u{FFFD}a€😀]{0,24}") {
            proptest::prop_assert_eq!(run(bytes, &ids(&text), &[]).0.concat(), text);
        }

        #[test]
        fn valid_text_comes_back_as_it_is(text: String) {
            let (pieces, stopped) = run(bytes, &ids(&text), &[]);
            proptest::prop_assert_eq!(pieces.concat(), text);
            proptest::prop_assert!(!stopped);
        }

        #[test]
        fn nothing_of_a_stop_is_ever_given_out(text in "[ab€]{0,40}", stops in proptest::collection::vec("[ab€]{1,4}", 0..4)) {
            let stop_refs: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (pieces, stopped) = run(bytes, &ids(&text), &stop_refs);
            let out = pieces.concat();
            proptest::prop_assert!(text.starts_with(&out));
            proptest::prop_assert_eq!(stopped, stops.iter().any(|s| text.contains(s)));
            proptest::prop_assert!(stops.iter().all(|s| !out.contains(s)));
            proptest::prop_assert!(stopped || out == text);
        }

        #[test]
        fn how_the_text_is_cut_does_not_matter(chunks in proptest::collection::vec("[ab€]{1,5}", 0..12), stops in proptest::collection::vec("[ab€]{1,4}", 0..4)) {
            let by_chunk = |ids: &[u32]| -> Result<String, EngineError> {
                Ok(ids.iter().map(|id| chunks[*id as usize].as_str()).collect())
            };
            let all: Vec<u32> = (0..chunks.len() as u32).collect();
            let coarse = TextAssembler::new(by_chunk, stops.clone()).assemble(&all).unwrap();
            let fine = TextAssembler::new(bytes, stops).assemble(&ids(&chunks.concat())).unwrap();
            proptest::prop_assert_eq!(coarse.text, fine.text);
            proptest::prop_assert_eq!(coarse.stopped_at.is_some(), fine.stopped_at.is_some());
        }

        #[test]
        fn any_bytes_end(noise in proptest::collection::vec(0_u32..256, 0..200)) {
            let whole = TextAssembler::new(bytes, vec!["ab".into()]).assemble(&noise).unwrap();
            proptest::prop_assert!(!whole.text.contains("ab"));
        }
    }
}
