//! Whether a task may be served: everything that the contract would refuse, found before any work.

use assay_engine::EngineError;
use assay_types::{
    Address, B256, Bytes, Lane, MAX_OUTPUT_LIMIT, RequestBlock, SessionId, TaskId, TaskRequest,
    link::Offer, sha256,
};

use super::Tools;
use crate::{answers::ChainTask, ledger::LedgerError};

/// Seconds between the last token and the deadline that the commit needs to get on chain: two blocks
/// of a chain of two seconds, and its pin.
pub(crate) const COMMIT_MARGIN_S: u64 = 5;
/// Seconds that must be left for generating; below that an offer is a task lost.
const MIN_WORK_S: u64 = 3;

/// A reason not to serve a task, with its stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: &'static str,
    pub message: String,
}

/// What a task asks for, by whichever way it came.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub task: TaskId,
    pub session: SessionId,
    pub request_digest: B256,
    pub max_prompt: u32,
    pub max_output: u32,
    pub deadline_s: u64,
}

/// A task that may be served.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub block: RequestBlock,
    pub prompt_ids: Vec<u32>,
    pub beacon: B256,
}

pub(crate) fn refuse(code: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        refuse("internal", error.to_string())
    }
}

impl Terms {
    pub(crate) fn of_request(task: TaskId, request: &TaskRequest) -> Self {
        Self {
            task,
            session: SessionId(request.sessionId),
            request_digest: request.requestDigest,
            max_prompt: request.maxPrompt,
            max_output: request.maxOutput,
            deadline_s: request.deadline,
        }
    }

    pub(crate) fn of_chain(given: &ChainTask) -> Self {
        Self {
            task: given.task,
            session: given.session,
            request_digest: given.request_digest,
            max_prompt: given.max_prompt,
            max_output: given.max_output,
            deadline_s: given.deadline_s,
        }
    }
}

/// Whether the holder of the lane signed exactly this request for this node, and is the router that offers
/// it. A request that passes is genuine: what it leads to is its holder's doing.
pub(crate) async fn genuine(tools: &Tools, offer: &Offer, router: Address) -> Result<(), Refusal> {
    let request = &offer.request;
    if request.nodeId != tools.node.0 {
        return Err(refuse(
            "not_reserved",
            format!("the request is for node {}, this is node {}", request.nodeId, tools.node),
        ));
    }
    let ledger = &tools.ledger;
    let signer = request
        .signer(ledger.chain_id(), ledger.queue(), &offer.signature)
        .map_err(|error| refuse("bad_signature", error.to_string()))?;
    let (session, lane) = (SessionId(request.sessionId), Lane(request.lane));
    match tools.sessions.holder(session, lane).await? {
        Some(holder) if holder == signer && holder == router => Ok(()),
        Some(holder) if holder == signer => Err(refuse(
            "wrong_router",
            format!(
                "router {router} offers a request of {holder}, who holds lane {lane} of session {session}: only the holder may offer it"
            ),
        )),
        Some(holder) => Err(refuse(
            "bad_signature",
            format!(
                "{signer} signed, but lane {lane} of session {session} is held by {holder}: sign with that key, for this chain and queue"
            ),
        )),
        None => Err(refuse(
            "unknown_session",
            format!(
                "session {session} or its lane {lane} does not exist on chain {}",
                ledger.chain_id()
            ),
        )),
    }
}

/// Session, node, model, seed, price and deadline. Returns the session's seed.
async fn terms(tools: &Tools, terms: &Terms, fee_cap: Option<u128>) -> Result<B256, Refusal> {
    let session = terms.session;
    let Some((view, seed)) = tools.sessions.get(session).await? else {
        let chain = tools.ledger.chain_id();
        return Err(refuse(
            "unknown_session",
            format!("session {session} does not exist on chain {chain}"),
        ));
    };
    if !view.nodes.contains(&tools.node) {
        let node = tools.node;
        return Err(refuse(
            "not_reserved",
            format!("session {session} has not reserved node {node}"),
        ));
    }
    if view.model_id != tools.engine.info().model_id {
        return Err(refuse(
            "wrong_model",
            format!(
                "session {session} pays for model {}, not for the one of this node",
                view.model_id
            ),
        ));
    }
    if !view.takes_tasks || seed.is_zero() {
        return Err(refuse(
            "unknown_session",
            format!(
                "session {session} takes no tasks now: wait until it is active and has its seed"
            ),
        ));
    }
    let fee = u128::from(terms.max_prompt)
        .saturating_mul(view.price_in)
        .saturating_add(u128::from(terms.max_output).saturating_mul(view.price_out));
    if fee_cap.is_some_and(|cap| cap < fee) {
        return Err(refuse(
            "bad_request",
            format!(
                "the request may cost {fee}, above its feeCap: raise feeCap or ask for fewer tokens"
            ),
        ));
    }
    if fee < view.min_fee {
        return Err(refuse(
            "bad_request",
            format!(
                "the request may cost {fee} at most, below the smallest fee of {}: allow more tokens",
                view.min_fee
            ),
        ));
    }
    deadline(tools, terms.deadline_s, view.max_deadline_s)?;
    Ok(seed)
}

/// Near enough to be taken, far enough to be met.
fn deadline(tools: &Tools, deadline_s: u64, max_ahead_s: u64) -> Result<(), Refusal> {
    let now = tools.clock.now_s();
    if deadline_s > now.saturating_add(max_ahead_s) {
        return Err(refuse(
            "bad_request",
            format!(
                "the deadline {} is more than {} s ahead, it is {now} now: sign an earlier one",
                deadline_s, max_ahead_s
            ),
        ));
    }
    if deadline_s < now.saturating_add(COMMIT_MARGIN_S + MIN_WORK_S) {
        return Err(refuse(
            "expired",
            format!("the deadline {} is too near, it is {now} now: sign a later one", deadline_s),
        ));
    }
    Ok(())
}

/// Digest, form and bounds of the request block.
fn block(terms: &Terms, bytes: &Bytes) -> Result<RequestBlock, Refusal> {
    if sha256(bytes) != terms.request_digest {
        return Err(refuse("bad_request", "the request block does not have the signed digest"));
    }
    let block =
        RequestBlock::decode(bytes).map_err(|error| refuse("bad_request", error.to_string()))?;
    if (block.max_prompt, block.max_output) != (terms.max_prompt, terms.max_output) {
        return Err(refuse(
            "bad_request",
            "max_prompt and max_output of block and request differ: write the same into both",
        ));
    }
    if terms.max_output > MAX_OUTPUT_LIMIT {
        return Err(refuse("bad_request", format!("maxOutput is above {MAX_OUTPUT_LIMIT}")));
    }
    Ok(block)
}

/// Prompt and answer must fit the request's bound and the model's context.
async fn prompt(tools: &Tools, block: &RequestBlock) -> Result<Vec<u32>, Refusal> {
    let ids = tools.engine.tokenize(&block.prompt).await.map_err(|error| refusal_of(&error))?;
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Err(refuse("bad_request", "the prompt has no tokens: send some text"));
    }
    if count > block.max_prompt {
        return Err(refuse(
            "prompt_too_long",
            format!("the prompt has {count} tokens, the request allows {}", block.max_prompt),
        ));
    }
    let max_context = tools.engine.info().max_context;
    if count.saturating_add(block.max_output) > max_context {
        return Err(refuse(
            "prompt_too_long",
            format!(
                "the prompt has {count} tokens and the answer may have {}: together above the model's context of {max_context}",
                block.max_output
            ),
        ));
    }
    Ok(ids)
}

/// What a failure of the engine means to whoever offered the task.
pub(crate) fn refusal_of(error: &EngineError) -> Refusal {
    let code = match error {
        EngineError::ContextExceeded { .. } => "prompt_too_long",
        error if error.is_client_fault() => "bad_request",
        _ => "internal",
    };
    refuse(code, error.to_string())
}

/// Everything about a genuine task.
pub(crate) async fn check(
    tools: &Tools,
    wanted: &Terms,
    bytes: &Bytes,
    fee_cap: Option<u128>,
) -> Result<Checked, Refusal> {
    let beacon = terms(tools, wanted, fee_cap).await?;
    let block = block(wanted, bytes)?;
    let prompt_ids = prompt(tools, &block).await?;
    Ok(Checked { block, prompt_ids, beacon })
}
