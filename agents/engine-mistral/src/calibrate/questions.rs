//! What is asked in a calibration: conversations and plain texts, under different sampling parameters.
//! Question `n` is the same on every machine.

use assay_engine::{B256, Message, Prompt, Sampling};
use sha2::{Digest, Sha256};

const TOPICS: [&str; 24] = [
    "sessions",
    "miners",
    "routers",
    "the beacon",
    "staking",
    "an audit",
    "the price of a token",
    "content identifiers",
    "the sea",
    "a railway",
    "bread",
    "old maps",
    "bees",
    "winter",
    "a violin",
    "prime numbers",
    "the moon",
    "glass",
    "a letter home",
    "chess",
    "rain",
    "salt",
    "a lighthouse",
    "sleep",
];
const FORMS: [&str; 10] = [
    "What is {}?",
    "Explain how {} works.",
    "Tell me something about {}",
    "Why would anyone care about {}?",
    "Write three sentences on {}.",
    "hello! can you help me with {}",
    "Compare {} with a clock.",
    "Who are you, and what has {} to do with it?",
    "List what one should know about {}:",
    "In the year 1900, {} was",
];

const BEGINNINGS: [&str; 3] =
    ["user: {}? And {}? And {}?", "user: {}?\nuser: {}?\nuser: {}?", "1. {}\n2. {}\n3. {}\n4."];

/// Sampling parameters of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it is called in the report.
    pub name: &'static str,
    pub sampling: Sampling,
}

/// OpenAI's defaults: temperature 1, nothing cut off, no penalties.
pub(crate) const PLAIN: Sampling = Sampling {
    temperature_milli: 1000,
    top_p_milli: 1000,
    top_k: 0,
    min_p_milli: 0,
    frequency_penalty_milli: 0,
    presence_penalty_milli: 0,
};

/// The settings in turn: every second question is sampled plainly at temperature 1.
pub const SETTINGS: [Setting; 6] = [
    Setting { name: "temperature 1", sampling: PLAIN },
    Setting { name: "greedy", sampling: Sampling { temperature_milli: 0, ..PLAIN } },
    Setting {
        name: "temperature 0.7, top_p 0.9",
        sampling: Sampling { temperature_milli: 700, top_p_milli: 900, ..PLAIN },
    },
    Setting {
        name: "temperature 1, top_k 40, min_p 0.05",
        sampling: Sampling { top_k: 40, min_p_milli: 50, ..PLAIN },
    },
    Setting {
        name: "temperature 0.8, penalties 0.5 and 0.3",
        sampling: Sampling {
            temperature_milli: 800,
            frequency_penalty_milli: 500,
            presence_penalty_milli: 300,
            ..PLAIN
        },
    },
    Setting { name: "temperature 1.5", sampling: Sampling { temperature_milli: 1500, ..PLAIN } },
];

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    pub number: u32,
    pub prompt: Prompt,
    pub setting: Setting,
}

impl Question {
    /// Question `number`; a model without a chat template gets plain text only.
    pub fn new(number: u32, has_template: bool) -> Self {
        let digest = digest("question", number);
        let pick =
            |at: usize, count: usize| digest.get(at).map_or(0, |byte| usize::from(*byte) % count);
        let topic = TOPICS.get(pick(0, TOPICS.len())).copied().unwrap_or_default();
        let form = FORMS.get(pick(1, FORMS.len())).copied().unwrap_or_default();
        let text = form.replace("{}", topic);
        let prompt = if has_template && pick(2, 4) != 0 {
            Prompt::Messages(vec![Message { role: "user".into(), content: text }])
        } else {
            Prompt::Text(text)
        };
        let which = if number.is_multiple_of(2) { 0 } else { 1 + pick(3, SETTINGS.len() - 1) };
        let [plain, ..] = SETTINGS;
        let setting = SETTINGS.get(which).copied().unwrap_or(plain);
        Self { number, prompt, setting }
    }

    /// Open question `number`: the beginning of a text that goes on in many ways, sampled plainly.
    pub fn open(number: u32) -> Self {
        let digest = digest("open question", number);
        let pick =
            |at: usize, count: usize| digest.get(at).map_or(0, |byte| usize::from(*byte) % count);
        let topic = |at: usize| TOPICS.get(pick(at, TOPICS.len())).copied().unwrap_or_default();
        let form = BEGINNINGS.get(pick(0, BEGINNINGS.len())).copied().unwrap_or_default();
        let text = (1..=3).fold(form.to_owned(), |text, at| text.replacen("{}", topic(at), 1));
        let [setting, ..] = SETTINGS;
        Self { number, prompt: Prompt::Text(text), setting }
    }

    /// `seedG` of a node's answer to it.
    pub fn seed(&self, node: &str) -> B256 {
        B256::from(digest(node, self.number))
    }
}

fn digest(domain: &str, number: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(domain.as_bytes());
    hash.update(number.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_questions_are_beginnings() {
        let texts: std::collections::HashSet<String> =
            (0..400).map(|n| format!("{:?}", Question::open(n).prompt)).collect();
        assert!(texts.len() > 380, "{}", texts.len());
        assert!(texts.iter().all(|text| text.starts_with("Text") && !text.contains("{}")));
        assert_eq!(Question::open(3).setting, SETTINGS[0]);
        assert_eq!(Question::open(3).seed("miner"), Question::new(3, true).seed("miner"));
    }

    #[test]
    fn questions_repeat_and_differ() {
        let all: Vec<Question> = (0..400).map(|n| Question::new(n, true)).collect();
        assert_eq!(format!("{:?}", all[7]), format!("{:?}", Question::new(7, true)));
        for setting in SETTINGS {
            setting.sampling.check().unwrap();
            assert!(all.iter().filter(|q| q.setting == setting).count() > 10, "{}", setting.name);
        }
        let texts: std::collections::HashSet<String> =
            all.iter().map(|q| format!("{:?}", q.prompt)).collect();
        assert!(texts.len() > 150, "{}", texts.len());
        assert!(
            all.iter().all(|q| matches!(Question::new(q.number, false).prompt, Prompt::Text(_)))
        );
        assert_ne!(all[0].seed("miner"), all[0].seed("validator"));
        assert_ne!(all[0].seed("miner"), all[1].seed("miner"));
    }
}
