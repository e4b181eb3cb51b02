//! What is asked.

use assay_types::{BLOCK_VERSION, Message, Prompt, RequestBlock, Sampling};

use crate::ClientError;

/// Tokens that a chat template adds around a conversation, at most.
const TEMPLATE_TOKENS: usize = 48;
/// Tokens that it adds around one message, at most.
const MESSAGE_TOKENS: usize = 16;

/// A question, and how it is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The conversation, or a text without the model's template.
    pub prompt: Prompt,
    /// Most tokens of the answer.
    pub max_output: u32,
    /// How tokens are chosen; what [`Question::new`] asks for is greedy.
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Log probabilities are wanted, with so many alternatives at each position: at most
    /// [`assay_types::MAX_TOP_LOGPROBS`]. A router's answer has them; a task by transaction cannot. They are the node's
    /// word, which no proof covers.
    pub top_logprobs: Option<u32>,
    /// Tokens of prompt and answer that the model takes together, if known: the bound of the prompt stays within it.
    pub max_context: Option<u32>,
}

impl Question {
    /// One message of a user; at most 128 tokens of answer, greedy.
    pub fn new(text: impl Into<String>) -> Self {
        let message = Message { content: text.into(), role: "user".into() };
        Self {
            prompt: Prompt::Messages(vec![message]),
            max_output: 128,
            sampling: Sampling { temperature_milli: 0, ..Sampling::default() },
            stop: Vec::new(),
            top_logprobs: None,
            max_context: None,
        }
    }

    /// The request block: what is pinned, and whose sha-256 the chain gets. Its salt is random, so that equal questions
    /// have different digests. Every token of a prompt is at least a byte of text, which bounds what is paid for it.
    ///
    /// # Errors
    /// If the answer leaves no room for a prompt, or a bound of the block is broken.
    pub fn block(&self) -> Result<RequestBlock, ClientError> {
        let bytes: usize = match &self.prompt {
            Prompt::Messages(list) => list.iter().map(|m| m.content.len() + MESSAGE_TOKENS).sum(),
            Prompt::Text(text) => text.len(),
        };
        let bound = u32::try_from(bytes + TEMPLATE_TOKENS).unwrap_or(u32::MAX);
        let max_context = self.max_context.unwrap_or(u32::MAX);
        let room = max_context.saturating_sub(self.max_output);
        if room == 0 {
            return Err(ClientError::NoRoom { max_output: self.max_output, max_context });
        }
        let block = RequestBlock {
            max_output: self.max_output,
            max_prompt: bound.min(room),
            prompt: self.prompt.clone(),
            salt: rand::random::<[u8; 32]>().into(),
            sampling: self.sampling,
            stop: self.stop.clone(),
            top_logprobs: self.top_logprobs,
            version: BLOCK_VERSION,
        };
        block.check()?;
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompts_bound_fits_its_text_and_the_models_context() {
        let question = Question::new("four");
        assert_eq!(question.block().unwrap().max_prompt, 4 + 16 + 48);
        let tight = Question { max_context: Some(140), ..question.clone() };
        assert_eq!(tight.block().unwrap().max_prompt, 12);
        let none = Question { max_context: Some(128), ..question.clone() };
        assert!(matches!(none.block(), Err(ClientError::NoRoom { .. })));
        let zero = Question { max_output: 0, ..question.clone() };
        assert!(matches!(zero.block(), Err(ClientError::Question(_))));
        let wish = |top| Question { top_logprobs: Some(top), ..question.clone() }.block();
        assert_eq!(wish(20).unwrap().top_logprobs, Some(20));
        assert!(matches!(wish(21), Err(ClientError::Question(_))));
        assert_ne!(question.block().unwrap().salt, question.block().unwrap().salt);
    }
}
