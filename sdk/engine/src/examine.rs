//! Examining a claimed answer with a model of one's own: everything that a verdict is made of, but for the miner's
//! fingerprint, which is compared with this one.

use assay_proof::{Audit, Claim, Fault, Found, Width, check_ids, faults, reasons};
use assay_types::{
    B256, CommitScope, RequestBlock, ResultBlock, SeedInput, TokenSeal, prompt_hash, seed_g,
};

use crate::{Engine, EngineError, ScoreRequest};

/// A committed answer, with its blocks. All of it is hostile input.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The task, and the node that answered.
    pub scope: CommitScope,
    /// The beacon value that seeds the task.
    pub beacon: B256,
    /// What the node committed to.
    pub seal: &'a TokenSeal,
    /// What was asked.
    pub request: &'a RequestBlock,
    /// What was answered; `None` if what the digest names is no result block.
    pub result: Option<&'a ResultBlock>,
    /// Whether the holder of the task's lane signed that it cancels after so many tokens
    /// ([`ResultBlock::is_cancelled_by`]).
    pub cancel_is_signed: bool,
}

/// What a model of one's own thinks of an answer.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Margins and fingerprint at every position of the answer, and the reasons that it gives by itself.
    pub audit: Audit,
    /// Those reasons in words.
    pub faults: Vec<Fault>,
}

/// Reads prompt and answer again, and scores the claimed tokens with one prefill. What cannot be scored counts as
/// impossible tokens, never as an error.
///
/// # Errors
/// The engine's own failures: they say nothing about the answer.
pub async fn examine(
    engine: &dyn Engine,
    answered: &Answered<'_>,
    width: Width,
) -> Result<Examination, EngineError> {
    let Answered { seal, request, .. } = answered;
    let prompt_ids = match engine.tokenize(&request.prompt).await {
        // A request that no model can read has no answer: whoever committed one made its prompt up.
        Err(error) if error.is_client_fault() => Vec::new(),
        prompt_ids => prompt_ids?,
    };
    let (ids, text) =
        answered.result.map_or((&[][..], ""), |block| (block.ids.as_slice(), block.text.as_str()));
    let claim = Claim {
        tokens: seal.output_tokens,
        ids,
        text,
        end_reason: seal.end_reason,
        block_end_reason: answered.result.map_or(seal.end_reason, |block| block.end_reason),
        prompt_hash: seal.prompt_hash,
        prompt_tokens: seal.prompt_tokens,
    };
    let vocabulary = engine.info().vocab_size;
    let readable = check_ids(seal.output_tokens, ids, vocabulary).is_ok();
    let reading =
        if readable { engine.read(ids, &request.stop).await? } else { Default::default() };
    let found = Found {
        prompt_ids: &prompt_ids,
        vocabulary,
        end_tokens: engine.end_tokens(),
        max_output: request.max_output,
        text: &reading.text,
        stopped_at: reading.stopped_at,
        cancel_is_signed: answered.cancel_is_signed,
    };
    let faults = faults(&claim, &found);
    let scores = if readable { score(engine, answered, &prompt_ids, ids).await? } else { vec![] };
    let audit = Audit::new(seal.output_tokens, ids, &scores, width, reasons(&faults));
    Ok(Examination { audit, faults })
}

async fn score(
    engine: &dyn Engine,
    answered: &Answered<'_>,
    prompt_ids: &[u32],
    ids: &[u32],
) -> Result<Vec<crate::Score>, EngineError> {
    let CommitScope { chain_id, queue, task, node } = answered.scope;
    let seed = seed_g(&SeedInput {
        chain_id,
        queue,
        task,
        // The prompt that was asked, not the one that is claimed.
        prompt_hash: prompt_hash(prompt_ids),
        node,
        beacon: answered.beacon,
    });
    let request = ScoreRequest {
        prompt_ids: prompt_ids.to_vec(),
        claimed_ids: ids.to_vec(),
        sampling: answered.request.sampling,
        seed,
    };
    match engine.score(request).await {
        Err(error) if error.is_client_fault() => Ok(Vec::new()),
        scores => scores,
    }
}

#[cfg(test)]
mod tests {
    use assay_proof::{Calibration, Failing, Reasons, verdict};
    use assay_types::{
        Address, BLOCK_VERSION, EndReason, NodeId, Prompt, Sampling, StreamHash, TaskId,
    };

    use super::*;
    use crate::{EchoEngine, EchoOptions, GenerateRequest};

    const SCOPE: CommitScope = CommitScope {
        chain_id: 31337,
        queue: Address::ZERO,
        task: TaskId(B256::repeat_byte(1)),
        node: NodeId(7),
    };
    const BEACON: B256 = B256::repeat_byte(5);

    fn engine(weights: u8) -> EchoEngine {
        EchoEngine::new(EchoOptions { weights, ..EchoOptions::default() }).unwrap()
    }

    fn request() -> RequestBlock {
        RequestBlock {
            max_output: 40,
            max_prompt: 64,
            prompt: Prompt::Text("an answer to this".into()),
            salt: B256::ZERO,
            sampling: Sampling::default(),
            stop: vec!["STOP".into()],
            top_logprobs: None,
            version: BLOCK_VERSION,
        }
    }

    /// What an honest node with this engine answers.
    async fn answer(engine: &EchoEngine, request: &RequestBlock) -> (TokenSeal, ResultBlock) {
        let prompt_ids = engine.tokenize(&request.prompt).await.unwrap();
        let prompt_hash = prompt_hash(&prompt_ids);
        let CommitScope { chain_id, queue, task, node } = SCOPE;
        let seed = SeedInput { chain_id, queue, task, prompt_hash, node, beacon: BEACON };
        let prompt_tokens = prompt_ids.len() as u32;
        let wanted = GenerateRequest {
            prompt_ids,
            sampling: request.sampling,
            seed: seed_g(&seed),
            max_output: request.max_output,
            stop: request.stop.clone(),
            top_logprobs: None,
        };
        let done = engine.generate(wanted).await.unwrap().finish().await.unwrap();
        let result = ResultBlock {
            cancellation: None,
            end_reason: done.end_reason,
            stream_hash: StreamHash::of(task, &done.ids),
            ids: done.ids,
            salt: B256::ZERO,
            text: done.text,
            version: BLOCK_VERSION,
        };
        let seal = TokenSeal {
            output_digest: B256::ZERO,
            prompt_hash,
            prompt_tokens,
            output_tokens: result.ids.len() as u32,
            class: engine.info().numeric_class,
            end_reason: result.end_reason,
            salt: B256::ZERO,
        };
        (seal, result)
    }

    async fn found(
        engine: &EchoEngine,
        seal: &TokenSeal,
        result: Option<&ResultBlock>,
    ) -> Examination {
        let request = &request();
        let answered = Answered {
            scope: SCOPE,
            beacon: BEACON,
            seal,
            request,
            result,
            cancel_is_signed: false,
        };
        examine(engine, &answered, Width::Four).await.unwrap()
    }

    /// Of an engine that leaves no choice: an honest margin is 0.
    fn strict() -> Calibration {
        Calibration {
            tau: 1,
            spot_tau: 1,
            block_limit: 1,
            width: Width::Four,
            hard_margin: 1,
            margin_bar: 1,
            thr_base: 1,
            thr_slope: 0,
            thr_spread: 0,
            drift: 1,
            drift_limit: 1,
        }
    }

    #[tokio::test]
    async fn an_honest_answer_passes_and_leaves_the_miners_fingerprint() {
        let engine = engine(0);
        let (seal, result) = answer(&engine, &request()).await;
        let seen = found(&engine, &seal, Some(&result)).await;
        assert_eq!(seen.faults, []);
        let statistics = seen.audit.statistics();
        assert_eq!((statistics.tokens, statistics.max_margin), (seal.output_tokens, 0));
        assert!(verdict(&statistics, Failing::default(), true, &strict()).is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_was_cut_is_true_if_its_cancellation_is_signed() {
        let engine = engine(0);
        let request = request();
        let (seal, whole) = answer(&engine, &request).await;
        let ids = whole.ids[..4].to_vec();
        let text = engine.read(&ids, &request.stop).await.unwrap().text;
        let cut = ResultBlock { ids, text, end_reason: EndReason::Cancelled, ..whole };
        let seal = TokenSeal { output_tokens: 4, end_reason: EndReason::Max, ..seal };
        for (cancel_is_signed, faults) in [(true, Reasons::default()), (false, Reasons::END)] {
            let answered = Answered {
                scope: SCOPE,
                beacon: BEACON,
                seal: &seal,
                request: &request,
                result: Some(&cut),
                cancel_is_signed,
            };
            let seen = examine(&engine, &answered, Width::Four).await.unwrap();
            assert_eq!(seen.audit.statistics().faults, faults);
        }
    }

    #[tokio::test]
    async fn every_lie_has_its_reason() {
        let engine = engine(0);
        let (seal, result) = answer(&engine, &request()).await;
        let text = ResultBlock { text: "an answer to that".into(), ..result.clone() };
        assert_eq!(
            found(&engine, &seal, Some(&text)).await.audit.statistics().faults,
            Reasons::TEXT
        );
        let prompt = TokenSeal { prompt_hash: B256::ZERO, ..seal };
        let seen = found(&engine, &prompt, Some(&result)).await;
        assert_eq!(seen.audit.statistics().faults, Reasons::PROMPT);
        let early = TokenSeal { end_reason: EndReason::Max, ..seal };
        let block = ResultBlock { end_reason: EndReason::Max, ..result.clone() };
        assert_eq!(
            found(&engine, &early, Some(&block)).await.audit.statistics().faults,
            Reasons::END
        );
        let mut edited = result.clone();
        edited.ids[3] ^= 1;
        let seen = found(&engine, &seal, Some(&edited)).await;
        assert!(seen.audit.statistics().max_margin > 65_536, "an edited token has a margin");
        assert_eq!(seen.audit.worst_positions(1), [4]);
        for ids in [vec![], vec![9], vec![u32::MAX; seal.output_tokens as usize]] {
            let block = ResultBlock { ids, ..result.clone() };
            let statistics = found(&engine, &seal, Some(&block)).await.audit.statistics();
            assert_eq!((statistics.faults, statistics.max_margin), (Reasons::IDS, u32::MAX));
        }
        assert_eq!(found(&engine, &seal, None).await.audit.statistics().faults, Reasons::IDS);
    }
}
