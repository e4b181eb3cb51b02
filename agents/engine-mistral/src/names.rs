//! What tokens are called where log probabilities name them: by the text that each adds, or by its bytes where that is
//! a part of a character.

use std::sync::Arc;

use assay_engine::{EngineError, TokenName};

use crate::engine::Decode;

/// Stands in a decoded text for bytes that are no character.
const REPLACEMENT: char = '\u{FFFD}';
/// Bytes of a byte-level vocabulary that are written as the character of the same number.
const WRITTEN_AS_THEY_ARE: [std::ops::RangeInclusive<u8>; 3] = [33..=126, 161..=172, 174..=255];
/// The characters of the other bytes begin here.
const FIRST_OF_THE_OTHERS: u32 = 256;

/// A token as its vocabulary has it.
pub(crate) struct Entry {
    /// Its spelling there.
    pub spelling: String,
    /// Whether it is a mark that has no text.
    pub is_special: bool,
}

/// Finds a token in the vocabulary.
pub(crate) type Find = dyn Fn(u32) -> Option<Entry> + Send + Sync;

/// The names of a model's tokens.
pub(crate) struct Names {
    decode: Arc<Decode>,
    find: Arc<Find>,
    end_tokens: Arc<[u32]>,
    /// A token with a plain text. What follows one is decoded as in the middle of a text: some decoders drop a space at
    /// its beginning.
    anchor: Option<(u32, String)>,
}

impl Names {
    /// Of a tokenizer whose `anchor` has a plain text.
    pub(crate) fn new(
        decode: Arc<Decode>,
        find: Arc<Find>,
        end_tokens: Arc<[u32]>,
        anchor: Option<u32>,
    ) -> Self {
        let anchor = anchor.and_then(|id| Some((id, decode(&[id]).ok()?)));
        Self { decode, find, end_tokens, anchor }
    }

    /// The name of a token, at the beginning of an answer or later.
    pub(crate) fn of(&self, id: u32, is_first: bool) -> Result<TokenName, EngineError> {
        let entry = (self.find)(id);
        let is_mark = self.end_tokens.contains(&id) || entry.as_ref().is_some_and(|e| e.is_special);
        if is_mark {
            return Ok(TokenName::Special(entry.map(|e| e.spelling).unwrap_or_default()));
        }
        let text = self.text(id, is_first)?;
        if !text.contains(REPLACEMENT) {
            return Ok(TokenName::Text(text));
        }
        // Believed only if they decode to the same.
        let bytes = entry.and_then(|entry| bytes(&entry.spelling));
        match bytes.filter(|bytes| String::from_utf8_lossy(bytes) == text) {
            Some(bytes) if std::str::from_utf8(&bytes).is_err() => {
                Ok(TokenName::Bytes(bytes.into()))
            }
            _ => Ok(TokenName::Text(text)),
        }
    }

    fn text(&self, id: u32, is_first: bool) -> Result<String, EngineError> {
        if let Some((anchor, before)) = self.anchor.as_ref().filter(|_| !is_first) {
            let both = (self.decode)(&[*anchor, id])?;
            if let Some(text) = both.strip_prefix(before.as_str()) {
                return Ok(text.to_owned());
            }
        }
        (self.decode)(&[id])
    }
}

/// The bytes of a spelling: `<0xE2>` is one, as vocabularies of SentencePiece write it; in those of GPT-2's kind each
/// character is one.
fn bytes(spelling: &str) -> Option<Vec<u8>> {
    let fallback = spelling.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    if let Some(byte) = fallback.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        return Some(vec![byte]);
    }
    spelling.chars().map(byte).collect()
}

fn byte(character: char) -> Option<u8> {
    let as_it_is = |byte: &u8| WRITTEN_AS_THEY_ARE.iter().any(|range| range.contains(byte));
    let code = u32::from(character);
    match code.checked_sub(FIRST_OF_THE_OTHERS) {
        Some(place) => (0..=u8::MAX).filter(|byte| !as_it_is(byte)).nth(place as usize),
        None => u8::try_from(code).ok().filter(as_it_is),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_one_character() {
        assert_eq!(bytes("âĤ"), Some(vec![0xE2, 0x82]));
        assert_eq!(bytes("Ġa"), Some(b" a".to_vec()));
        assert_eq!(bytes("<0xE2>"), Some(vec![0xE2]));
        assert_eq!(bytes("▁a"), None);
        let characters = (33..=0x143).filter_map(char::from_u32);
        let mut all: Vec<u8> = characters.filter_map(byte).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..=u8::MAX));
    }

    /// Drops a space at the beginning of a text, as Llama's decoder does.
    #[test]
    fn a_token_is_called_by_the_text_that_it_adds() {
        const SPELLINGS: [&str; 6] = ["</s>", "a", "▁a", "▁", "<0xE2>", "é"];
        let decode = |ids: &[u32]| {
            let text: String = ids.iter().map(|id| SPELLINGS[*id as usize]).collect();
            let text = text.replace('▁', " ").replace("<0xE2>", "\u{FFFD}").replace("</s>", "");
            Ok(text.strip_prefix(' ').unwrap_or(&text).to_owned())
        };
        let find = |id: u32| {
            let spelling = SPELLINGS.get(id as usize)?.to_string();
            Some(Entry { spelling, is_special: id == 0 })
        };
        let names = Names::new(Arc::new(decode), Arc::new(find), Arc::new([5]), Some(1));
        let text = |text: &str| TokenName::Text(text.into());
        let name = |id, is_first| names.of(id, is_first).unwrap();
        assert_eq!((name(2, true), name(2, false)), (text("a"), text(" a")));
        assert_eq!((name(3, true), name(3, false)), (text(""), text(" ")));
        assert_eq!(name(4, false), TokenName::Bytes(vec![0xE2].into()));
        assert_eq!(name(0, false), TokenName::Special("</s>".into()));
        // What ends an answer has no text, whatever the vocabulary says.
        assert_eq!(name(5, false), TokenName::Special("é".into()));
    }
}
