//! Whether a task may be served: everything that the contract would refuse, found before any work.

use assay_engine::EngineError;
use assay_protocol::{TaskState, money::fee_up, order::order};
use assay_types::{
    Address, B256, Bytes, Dispatch, Lane, MAX_OUTPUT_LIMIT, NodeId, Nonce, RequestBlock, SessionId,
    Signed, TaskId, TaskRequest, link::Offer, sha256,
};

use super::Tools;
use crate::{
    answers::{BeginError, Beginning, SignedReceipt},
    ledger::{Admission, LedgerError},
    tasks::{ChainTask, Standing},
};

/// Seconds between the last token and the deadline that the commit needs to get on chain: two blocks
/// of a chain of two seconds, and its pin.
pub(crate) const COMMIT_MARGIN_S: u64 = 5;
/// Seconds that must be left for generating; below that an offer is a task lost.
const MIN_WORK_S: u64 = 3;

/// The lane of a session's owner, whose money he may take back at any time.
const OWNERS_LANE: Lane = Lane(0);

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
    pub lane: Lane,
    /// Beacon round whose value seeds it.
    pub seed_round: u64,
    pub request_digest: B256,
    pub max_prompt: u32,
    pub max_output: u32,
    /// How many answers are wanted.
    pub redundancy: u8,
    /// What the chain holds for all of them, minor units; 0 if it does not know the task.
    pub held: u128,
    /// Unix seconds; the last in which this node's answer, or its precommitment, is taken.
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

impl From<BeginError> for Refusal {
    fn from(error: BeginError) -> Self {
        let code = match error {
            BeginError::Spent | BeginError::Different => "bad_request",
            BeginError::GivenUp => "given_up",
            BeginError::NoFunds { .. } => "no_funds",
            BeginError::Database(_) => "internal",
        };
        refuse(code, error.to_string())
    }
}

impl Terms {
    pub(crate) fn of_request(task: TaskId, request: &TaskRequest) -> Self {
        Self {
            task,
            session: SessionId(request.sessionId),
            lane: Lane(request.lane),
            seed_round: request.seedRound,
            request_digest: request.requestDigest,
            max_prompt: request.maxPrompt,
            max_output: request.maxOutput,
            redundancy: request.redundancy,
            held: 0,
            deadline_s: request.deadline,
        }
    }

    /// What each of so many answers may cost.
    fn share(&self, held: u128) -> u128 {
        held / u128::from(self.redundancy.max(1))
    }

    pub(crate) fn of_chain(given: &ChainTask) -> Self {
        let task = &given.record.task;
        Self {
            task: given.task,
            session: SessionId(task.sessionId),
            lane: Lane(task.lane),
            seed_round: task.seedRound,
            request_digest: given.request_digest,
            max_prompt: task.maxPrompt,
            max_output: task.maxOutput,
            redundancy: u8::try_from(task.parts.len()).unwrap_or(u8::MAX),
            held: task.held.to::<u128>(),
            deadline_s: given.record.until_s,
        }
    }

    fn beginning(&self, money: Option<(u128, u128)>, now_s: u64) -> Beginning {
        Beginning {
            task: self.task,
            request_digest: self.request_digest,
            session: self.session,
            lane: self.lane,
            money,
            deadline_s: self.deadline_s,
            now_s,
        }
    }
}

/// Whether the holder of the lane signed exactly this request, which is all that the contract asks for: any router may
/// pass it on. A request that passes is genuine: what it leads to is its holder's doing. Returns what decides whether it
/// is taken.
pub(crate) async fn genuine(
    tools: &Tools,
    offer: &Offer,
    router: Address,
) -> Result<Admission, Refusal> {
    let request = &offer.request;
    let ledger = &tools.ledger;
    let signer = request
        .signer(ledger.chain_id(), ledger.queue(), &offer.signature)
        .map_err(|error| refuse("bad_signature", error.to_string()))?;
    let (session, lane) = (SessionId(request.sessionId), Lane(request.lane));
    let admission = ledger.admission(session, lane, request.seedRound).await?;
    let Some((admission, holder)) =
        admission.and_then(|found| Some((found.clone(), found.holder?)))
    else {
        let chain = ledger.chain_id();
        return Err(refuse(
            "unknown_session",
            format!("session {session} or its lane {lane} does not exist on chain {chain}"),
        ));
    };
    let hash = || request.signing_hash(ledger.chain_id(), ledger.queue());
    if holder != signer && !ledger.is_signed(holder, (hash(), &offer.signature)).await? {
        return Err(refuse(
            "bad_signature",
            format!(
                "{signer} signed, but lane {lane} of session {session} is held by {holder}: sign with that key, for this chain and queue"
            ),
        ));
    }
    // Who sees one of several answers early could have it copied.
    if holder != router && request.redundancy > 1 {
        return Err(refuse(
            "wrong_router",
            format!(
                "router {router} offers a request for several answers of {holder}, who holds lane {lane} of session {session}: only the holder may offer it"
            ),
        ));
    }
    Ok(admission)
}

/// Whether the queue would take the request now. Returns what it may hold at most.
fn admit(request: &TaskRequest, admission: &Admission, now_s: u64) -> Result<u128, Refusal> {
    let bad = |message: String| Err(refuse("bad_request", message));
    let session = request.sessionId;
    if !admission.takes_tasks || admission.seed_round == 0 {
        return Err(refuse(
            "unknown_session",
            format!(
                "session {session} takes no tasks of reservation {} now: wait until it is active, and name its current or previous reservation",
                request.seedRound
            ),
        ));
    }
    if request.dispatch != Dispatch::Push as u8
        || request.seedRound == 0
        || request.callbackGas != 0
    {
        return bad(
            "an offer is pushed, names its reservation and has no callback: submit others on chain"
                .into(),
        );
    }
    if request.attempts == 0 || request.attempts > admission.max_attempts {
        return bad(format!(
            "attempts is {}, set 1 to {}",
            request.attempts, admission.max_attempts
        ));
    }
    let nodes = admission.nodes.len();
    if request.redundancy == 0 || usize::from(request.redundancy) > nodes {
        return bad(format!("redundancy is {}, set 1 to {nodes}", request.redundancy));
    }
    let (prompt, output) = (request.maxPrompt, request.maxOutput);
    let fee = fee_up(prompt, output, admission.price_in, admission.price_out);
    if request.feeCap.to::<u128>() < fee {
        return bad(format!(
            "an answer may cost {fee}, above the feeCap: raise feeCap or ask for fewer tokens"
        ));
    }
    if fee < admission.min_fee {
        let least = admission.min_fee;
        return bad(format!(
            "an answer may cost {fee} at most, below the smallest fee of {least}: allow more tokens"
        ));
    }
    deadline(request, admission, now_s)?;
    Ok(fee.saturating_mul(u128::from(request.redundancy)))
}

/// Near enough to be taken, far enough to be met.
fn deadline(request: &TaskRequest, admission: &Admission, now_s: u64) -> Result<(), Refusal> {
    let mut latest = now_s.saturating_add(admission.max_deadline_s);
    if admission.ends_at_s != 0 {
        let attempts = u64::from(request.attempts.saturating_sub(1));
        let tail = attempts.saturating_mul(admission.attempt_time_s) + admission.reveal_time_s;
        latest = latest.min(admission.ends_at_s.saturating_sub(tail));
    }
    let deadline_s = request.deadline;
    if deadline_s > latest {
        return Err(refuse(
            "bad_request",
            format!(
                "the deadline {deadline_s} is after {latest}, it is {now_s} now: sign an earlier one"
            ),
        ));
    }
    in_time(deadline_s, now_s)
}

/// Whether there is time for an answer.
fn in_time(deadline_s: u64, now_s: u64) -> Result<(), Refusal> {
    if deadline_s < now_s.saturating_add(COMMIT_MARGIN_S + MIN_WORK_S) {
        return Err(refuse(
            "expired",
            format!("the deadline {deadline_s} is too near, it is {now_s} now: sign a later one"),
        ));
    }
    Ok(())
}

/// Whether what ends then can still be begun.
pub(crate) fn has_time(until_s: u64, now_s: u64) -> bool {
    in_time(until_s, now_s).is_ok()
}

/// Whether the queue will give the request to this node.
fn is_for(request: &TaskRequest, nodes: &[NodeId], seed: B256, node: NodeId) -> bool {
    let named = Some(NodeId(request.nodeId)).filter(|named| named.0 != 0);
    let order = order(nodes, named, seed, Lane(request.lane), Nonce(request.nonce));
    let known = named.is_none_or(|named| nodes.contains(&named));
    known && order.iter().take(usize::from(request.redundancy)).any(|index| nodes[*index] == node)
}

/// Everything about an offer but its block; then it is begun. Returns the session's seed, and the newest receipt that an
/// earlier life of this node signed.
pub(crate) async fn accept(
    tools: &Tools,
    terms: &Terms,
    request: &TaskRequest,
    admission: &Admission,
) -> Result<(B256, Option<SignedReceipt>), Refusal> {
    let now_s = tools.clock.now_s();
    let hold = admit(request, admission, now_s)?;
    model(tools, terms.session, admission.model_id)?;
    let (seed, status, funds) = tokio::try_join!(
        tools.seeds.get(terms.seed_round),
        tools.ledger.status(terms.task),
        tools.ledger.funds(terms.session, terms.lane),
    )?;
    if seed.is_zero() {
        return Err(refuse(
            "unknown_session",
            format!("reservation {} has no seed yet: offer the task again later", terms.seed_round),
        ));
    }
    let on_chain = match tools.answers.chain_task(terms.task).map_err(internal)? {
        Some(known) => Some(known.standing(tools.node) == Standing::Due),
        None if status.state == TaskState::None => None,
        // It was submitted a moment ago.
        None => Some(status.state == TaskState::Assigned),
    };
    if on_chain == Some(false) {
        return Err(refuse("bad_request", "the task is on chain and not for this node to answer"));
    }
    if on_chain.is_none() && !is_for(request, &admission.nodes, seed, tools.node) {
        return Err(refuse(
            "not_reserved",
            format!("the queue would give the request to other nodes than {}", tools.node),
        ));
    }
    // Its owner may close the session before the answer: then the contract takes no such request any more.
    if on_chain.is_none() && terms.lane == OWNERS_LANE {
        return Err(refuse(
            "not_on_chain",
            "a request in lane 0 is served once it is on chain: submit it first, or sign for another lane",
        ));
    }
    if on_chain.is_none() && request.nonce >= funds.nonce_limit {
        let limit = funds.nonce_limit;
        return Err(refuse(
            "bad_request",
            format!("the nonce {} is not below {limit}", request.nonce),
        ));
    }
    promise(tools, terms, terms.share(hold)).await?;
    // What is on chain is held there.
    let money = on_chain.is_none().then_some((funds.free, hold));
    let begun = tools.answers.begin(&terms.beginning(money, now_s))?;
    Ok((seed, begun))
}

/// The same of a task of the chain: the queue has checked it. Waits for its seed.
pub(crate) async fn accept_given(
    tools: &Tools,
    terms: &Terms,
) -> Result<(B256, Option<SignedReceipt>), Refusal> {
    let now_s = tools.clock.now_s();
    let begun = tools.answers.begin(&terms.beginning(None, now_s))?;
    if terms.request_digest.is_zero() {
        return Err(refuse(
            "unknown_request",
            "the task was submitted before this node's database began",
        ));
    }
    in_time(terms.deadline_s, now_s)?;
    let session = terms.session;
    let found = tools.ledger.model_of(session).await?;
    let found = found.ok_or_else(|| refuse("unknown_session", format!("no session {session}")))?;
    model(tools, session, found)?;
    promise(tools, terms, terms.share(terms.held)).await?;
    Ok((tools.seeds.wait(terms.seed_round).await, begun))
}

/// Whether the node's stake covers an answer of at most that fee.
async fn promise(tools: &Tools, terms: &Terms, fee: u128) -> Result<(), Refusal> {
    let times = (terms.deadline_s, tools.clock.now_s());
    tools.promises.make(terms.task, (terms.session, fee), times).await
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    refuse("internal", error.to_string())
}

fn model(tools: &Tools, session: SessionId, wanted: assay_types::ModelId) -> Result<(), Refusal> {
    if wanted == tools.engine.info().model_id {
        return Ok(());
    }
    Err(refuse(
        "wrong_model",
        format!("session {session} pays for model {wanted}, not for the one of this node"),
    ))
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

/// Everything about the block of a task that was begun.
pub(crate) async fn check(
    tools: &Tools,
    wanted: &Terms,
    bytes: &Bytes,
    beacon: B256,
) -> Result<Checked, Refusal> {
    let block = block(wanted, bytes)?;
    let prompt_ids = prompt(tools, &block).await?;
    Ok(Checked { block, prompt_ids, beacon })
}
