//! A generation as a stream: choices of the tap become text, and failures of the engine errors.

use std::sync::Arc;

use assay_engine::{Contrasts, EndReason, EngineError, GenerateEvent, RowLogprobs, TextAssembler};
use mistralrs::Response;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

use crate::{
    names::Names,
    tap::{Cancel, Choice},
};

pub(crate) type BoxedDecode = Box<dyn Fn(&[u32]) -> Result<String, EngineError> + Send + Sync>;

/// What the tap notes of a row: its fingerprint, and log probabilities if they are asked for.
pub(crate) type Note = (Contrasts, Option<RowLogprobs>);

/// What mistral.rs and the tap send for one generation. Dropping them cancels: the tap chooses the end
/// token, and mistral.rs finds its response channel closed.
pub(crate) struct Channels<N> {
    pub choices: UnboundedReceiver<Choice<N>>,
    pub responses: Receiver<Response>,
    pub cancel: Cancel,
}

impl<N> Drop for Channels<N> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<N> Channels<N> {
    /// The next chosen id. Choices come before the responses that follow from them.
    pub(crate) async fn choice(&mut self) -> Choice<N> {
        loop {
            tokio::select! {
                biased;
                choice = self.choices.recv() => match choice {
                    Some(choice) => return choice,
                    None => return Err(self.last_words().await),
                },
                response = self.responses.recv() => match response {
                    Some(response) => if let Some(error) = failure(response) {
                        // The tap may have chosen in the meantime.
                        return self.choices.try_recv().unwrap_or(Err(error));
                    },
                    None => return self.choices.try_recv().unwrap_or(Err(died())),
                },
            }
        }
    }

    /// Why there are no more choices.
    async fn last_words(&mut self) -> EngineError {
        while let Some(response) = self.responses.recv().await {
            if let Some(error) = failure(response) {
                return error;
            }
        }
        died()
    }
}

/// A generation in progress. Dropping it cancels.
pub(crate) struct Run {
    channels: Channels<Note>,
    text: TextAssembler<BoxedDecode>,
    names: Arc<Names>,
    end_tokens: Arc<[u32]>,
    made: u32,
    max_output: u32,
    ended: Option<EndReason>,
    over: bool,
}

impl Run {
    pub(crate) fn new(
        channels: Channels<Note>,
        text: TextAssembler<BoxedDecode>,
        names: Arc<Names>,
        end_tokens: Arc<[u32]>,
        max_output: u32,
    ) -> Self {
        Self { channels, text, names, end_tokens, made: 0, max_output, ended: None, over: false }
    }

    /// The next event, until there are no more.
    pub(crate) async fn next(&mut self) -> Option<Result<GenerateEvent, EngineError>> {
        if self.over {
            return None;
        }
        if let Some(end_reason) = self.ended {
            self.over = true;
            return Some(Ok(GenerateEvent::Done { end_reason }));
        }
        let event = match self.channels.choice().await {
            Ok((id, note)) => self.token(id, note),
            Err(error) => Err(error),
        };
        if event.is_err() {
            self.over = true;
            self.channels.cancel.cancel();
        }
        Some(event)
    }

    fn token(
        &mut self,
        id: u32,
        (contrasts, logprobs): Note,
    ) -> Result<GenerateEvent, EngineError> {
        let is_first = self.made == 0;
        let name = |id| self.names.of(id, is_first);
        let logprobs = logprobs.map(|row| row.named(name)).transpose()?;
        self.made += 1;
        let is_end = self.end_tokens.contains(&id);
        let (mut text, mut stopped) = (String::new(), false);
        if !is_end {
            let piece = self.text.push(id)?;
            (text, stopped) = (piece.text, piece.stopped);
        }
        let over = is_end || self.made >= self.max_output;
        if over && !stopped {
            let rest = self.text.finish()?;
            text.push_str(&rest.text);
            stopped = rest.stopped;
        }
        self.ended = match () {
            () if is_end => Some(EndReason::Eos),
            () if stopped => Some(EndReason::Stop),
            () if over => Some(EndReason::Max),
            () => None,
        };
        if self.ended.is_some() {
            // A stop sequence is ours alone: mistral.rs would go on.
            self.channels.cancel.cancel();
        }
        Ok(GenerateEvent::Token { id, contrasts, text, logprobs })
    }
}

pub(crate) fn died() -> EngineError {
    EngineError::Stopped("it died in the middle of its work".into())
}

pub(crate) fn failure(response: Response) -> Option<EngineError> {
    match response {
        Response::InternalError(error) => Some(EngineError::Internal(error.to_string())),
        Response::ValidationError(error) => Some(EngineError::Internal(error.to_string())),
        Response::CompletionModelError(error, _) | Response::ModelError(error, _) => {
            Some(EngineError::Internal(error))
        }
        _ => None,
    }
}
