//! The tap: our sampler inside mistral.rs, as a logits processor of one request.
//!
//! It sees every row of logits, chooses the token and leaves mistral.rs a row with that one id. It is
//! also the only place where the chosen ids can be had: responses carry text. It never returns an error
//! and never panics, because either would disturb the other sequences of the batch: after a failure or
//! a cancellation it chooses the end token, which ends its own sequence alone.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use assay_engine::EngineError;
use mistralrs::{CustomLogitsProcessor, Tensor};
use tokio::sync::mpsc::UnboundedSender;

use crate::lanes::LaneGuard;

/// Chooses the id that follows from a row of logits, and notes something of the row. Called once a
/// position, in order; after an error no more.
pub(crate) type Chooser<N> = Box<dyn FnMut(&[f32]) -> Result<(u32, N), EngineError> + Send>;

/// What the tap reports for a step. At most one per token of `max_output`, so an unbounded channel is
/// bounded by the request.
pub(crate) type Choice<N> = Result<(u32, N), EngineError>;

/// Says that nobody waits for the generation any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct State<N> {
    chooser: Chooser<N>,
    made: usize,
    last: u32,
    over: bool,
}

pub(crate) struct Tap<N> {
    state: Mutex<State<N>>,
    prompt_tokens: usize,
    /// Ends a sequence; known to mistral.rs as such.
    end_token: u32,
    choices: UnboundedSender<Choice<N>>,
    cancel: Cancel,
    /// mistral.rs drops the tap with its sequence; only then is the lane free.
    _lane: Option<LaneGuard>,
}

impl<N> Tap<N> {
    pub(crate) fn new(
        chooser: Chooser<N>,
        prompt_tokens: usize,
        end_token: u32,
        choices: UnboundedSender<Choice<N>>,
        cancel: Cancel,
    ) -> Self {
        let state = State { chooser, made: 0, last: end_token, over: false };
        let state = Mutex::new(state);
        Self { state, prompt_tokens, end_token, choices, cancel, _lane: None }
    }

    /// Keeps `lane` for as long as the tap lives.
    pub(crate) fn in_lane(self, lane: LaneGuard) -> Self {
        Self { _lane: Some(lane), ..self }
    }

    fn choose(&self, logits: &Tensor, context: &[u32]) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.over || self.cancel.is_cancelled() {
            return self.end_token;
        }
        let position = self.prompt_tokens + state.made;
        if state.made > 0 && context.len() + 1 == position {
            // The same position again: the engine repeats a step. Same logits, same choice.
            return state.last;
        }
        let choice = if context.len() == position {
            read_row(logits).and_then(|row| (state.chooser)(&row))
        } else {
            let got = context.len();
            Err(EngineError::Internal(format!("a step at position {got} instead of {position}")))
        };
        let chosen = match &choice {
            Ok((id, _)) => {
                (state.last, state.made) = (*id, state.made + 1);
                *id
            }
            Err(_) => {
                state.over = true;
                self.end_token
            }
        };
        if self.choices.send(choice).is_err() {
            state.over = true;
        }
        chosen
    }
}

/// One row of logits as numbers.
pub(crate) fn read_row(logits: &Tensor) -> Result<Vec<f32>, EngineError> {
    logits
        .to_vec1::<f32>()
        .map_err(|error| EngineError::Internal(format!("the logits cannot be read: {error}")))
}

impl<N: Send> CustomLogitsProcessor for Tap<N> {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
        let id = self.choose(logits, context);
        let width = logits.elem_count();
        let mut row = vec![f32::NEG_INFINITY; width];
        if let Some(logit) = row.get_mut(id as usize) {
            *logit = 0.0;
        }
        Tensor::from_vec(row, width, logits.device())
    }
}

#[cfg(test)]
mod tests {
    use assay_engine::{B256, Sampling};
    use assay_proof::Sampler;
    use mistralrs::Device;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn sampler() -> Chooser<()> {
        let greedy = Sampling { temperature_milli: 0, ..Sampling::default() };
        let mut sampler = Sampler::new(greedy, B256::ZERO, 3).unwrap();
        Box::new(move |row| Ok((sampler.next(row)?, ())))
    }

    fn row(values: [f32; 4]) -> Tensor {
        Tensor::from_vec(values.to_vec(), 4, &Device::Cpu).unwrap()
    }

    fn picked(tap: &Tap<()>, values: [f32; 4], context: &[u32]) -> usize {
        let row = tap.apply(&row(values), context).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(row.iter().filter(|l| l.is_finite()).count(), 1);
        row.iter().position(|l| *l == 0.0).unwrap()
    }

    #[test]
    fn it_chooses_one_id_per_position() {
        let (sender, mut choices) = unbounded_channel();
        let tap = Tap::new(sampler(), 2, 0, sender, Cancel::default());
        assert_eq!(picked(&tap, [0.0, 9.0, 0.0, 50.0], &[5, 6]), 1);
        // A repeated step is not counted, whatever its logits are.
        assert_eq!(picked(&tap, [0.0, 0.0, 9.0, 50.0], &[5, 6]), 1);
        assert_eq!(picked(&tap, [0.0, 0.0, 9.0, 50.0], &[5, 6, 1]), 2);
        assert_eq!(choices.try_recv().unwrap().unwrap().0, 1);
        assert_eq!(choices.try_recv().unwrap().unwrap().0, 2);
        assert!(choices.try_recv().is_err());
    }

    #[test]
    fn a_failure_ends_its_own_sequence_only() {
        let (sender, mut choices) = unbounded_channel();
        let tap = Tap::new(sampler(), 1, 0, sender, Cancel::default());
        assert_eq!(picked(&tap, [0.0, f32::NAN, 9.0, 0.0], &[5]), 0);
        assert_eq!(choices.try_recv().unwrap().unwrap_err().code(), "sampling");
        assert_eq!(picked(&tap, [0.0, 0.0, 9.0, 0.0], &[5, 0]), 0);
        assert!(choices.try_recv().is_err());
    }

    #[test]
    fn a_wrong_position_is_a_failure() {
        let (sender, mut choices) = unbounded_channel();
        let tap = Tap::new(sampler(), 4, 0, sender, Cancel::default());
        assert_eq!(picked(&tap, [0.0, 0.0, 9.0, 0.0], &[5]), 0);
        assert_eq!(choices.try_recv().unwrap().unwrap_err().code(), "engine_internal");
    }

    #[test]
    fn cancellation_chooses_the_end_token() {
        let (sender, mut choices) = unbounded_channel();
        let cancel = Cancel::default();
        let tap = Tap::new(sampler(), 1, 0, sender, cancel.clone());
        cancel.cancel();
        assert_eq!(picked(&tap, [0.0, 0.0, 9.0, 0.0], &[5]), 0);
        assert!(choices.try_recv().is_err());
    }
}
