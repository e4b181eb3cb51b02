//! `assay task submit|show|cancel`: tasks without a router.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy::{
    primitives::{B256, U256, aliases::U96},
    providers::Provider,
    rpc::types::Filter,
    sol_types::SolEvent,
};
use anyhow::{Context, Result, bail, ensure};
use assay_bindings::{Session, SessionPayment, SessionQueue};
use assay_chain::Chain;
use assay_protocol::TaskState;
use assay_store::{ContentStore, KuboStore, cid_of};
use assay_types::{
    BLOCK_VERSION, Dispatch, Lane, Message, Nonce, Prompt, RequestBlock, ResultBlock, Sampling,
    SessionId, TaskId, task_id,
};
use serde_json::{Value, json};

use super::{head_time, reader, writer};
use crate::{
    amount::cor,
    args::{Global, TaskCancelArgs, TaskCommand, TaskSubmitArgs},
    ui,
};

/// Tokens that a chat template adds around a message, at most. Every token is at least a byte of text.
const TEMPLATE_TOKENS: usize = 64;
/// The owner's own lane.
const OWN_LANE: Lane = Lane(0);
/// Pause between two looks at the chain while a task is under way.
const POLL: Duration = Duration::from_millis(200);
/// How far the chain's newest block may be behind our clock, seconds; a chain that stands still longer goes by its own.
const MAX_LAG_S: u64 = 60;
/// Looks past the last deadline: the refund may still be on its way.
const GRACE: Duration = Duration::from_secs(30);

pub async fn run(global: &Global, command: TaskCommand) -> Result<()> {
    match command {
        TaskCommand::Submit(args) => submit(global, args).await,
        TaskCommand::Show(args) => {
            let (network, chain) = reader(global).await?;
            let store = KuboStore::new(&network.ipfs_url)?;
            show(global, (&chain, network.start_block), &store, args.task).await
        }
        TaskCommand::Cancel(args) => cancel(global, args).await,
    }
}

/// Brings the task as it stands, which only its events tell.
async fn cancel(global: &Global, args: TaskCancelArgs) -> Result<()> {
    let (network, wallet) = writer(global, &args.key, "client").await?;
    let (chain, task) = (&wallet.chain, args.task);
    let queue = SessionQueue::new(chain.deployment.queue, &chain.provider);
    let state = state_name(queue.statusOf(task.0).call().await?.state);
    ensure!(
        state == "queued",
        "task {task} is {state}: only a task that waits for a node to claim it (`--pull`) can be taken back"
    );
    let start = network.start_block;
    let moved = events::<SessionQueue::TaskMoved>(chain, start, task).await?.pop();
    let submitted = events::<SessionQueue::TaskSubmitted>(chain, start, task).await?.pop();
    let current = moved
        .map(|event| event.task)
        .or(submitted.map(|event| event.task))
        .context("the task is not among the chain's events")?;
    wallet.send(chain.deployment.queue, SessionQueue::cancelCall { task: current }).await?;
    let store = KuboStore::new(&network.ipfs_url)?;
    show(global, (chain, start), &store, task).await
}

async fn submit(global: &Global, args: TaskSubmitArgs) -> Result<()> {
    let (network, wallet) = writer(global, &args.key, "client").await?;
    let store = &KuboStore::new(&network.ipfs_url)?;
    let start_block = network.start_block;
    let max_context = network.model.as_ref().map(|model| model.max_context);
    let chain = &wallet.chain;
    let sessions = Session::new(chain.deployment.sessions, &chain.provider);
    let lane = sessions
        .laneOf(args.session, OWN_LANE.0)
        .call()
        .await
        .with_context(|| format!("session {} cannot be read: does it exist?", args.session))?;
    ensure!(
        lane.holder == wallet.address(),
        "session {} belongs to {}, not to {}: open one of your own with `assay session open`",
        args.session,
        lane.holder,
        wallet.address()
    );
    let block = request_block(&args, max_context)?;
    let (bytes, digest) = block.encode()?;
    let stored = store.put(bytes.into()).await?;
    ensure!(stored == digest, "the content store returned another digest");
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let funds = payment.fundsOf(args.session, OWN_LANE.0).call().await?;
    let nonce = Nonce(funds.nextNonce);
    let task = task_id(chain.deployment.queue, SessionId(args.session), OWN_LANE, nonce);
    let now = chain_time(chain).await?;
    let request = SessionQueue::TaskRequest {
        sessionId: args.session,
        lane: OWN_LANE.0,
        nonce: nonce.0,
        // Whichever reservation is current: the chain decides, and nobody has begun.
        seedRound: 0,
        requestDigest: digest,
        maxPrompt: block.max_prompt,
        maxOutput: block.max_output,
        feeCap: U96::MAX,
        deadline: now + args.deadline_s,
        nodeId: args.node,
        redundancy: args.redundancy,
        attempts: args.attempts,
        dispatch: if args.pull { Dispatch::Pull } else { Dispatch::Push } as u8,
        callbackGas: 0,
    };
    let receipt = wallet.send(chain.deployment.queue, SessionQueue::submitCall { request }).await?;
    if !global.json {
        ui::note(format!(
            "task {task} submitted in {}; waiting for its answer",
            receipt.transaction_hash
        ));
    }
    if !args.no_wait {
        let longest = Duration::from_secs(args.deadline_s + later_s(chain, &args).await?);
        wait_for_answer(chain, task, longest + GRACE).await?;
    }
    show(global, (chain, start_block), store, task).await
}

/// Seconds that a task may go on after its first deadline: what later attempts and several answers take.
async fn later_s(chain: &Chain, args: &TaskSubmitArgs) -> Result<u64> {
    let sessions = Session::new(chain.deployment.sessions, &chain.provider);
    let times = sessions.progressOf(args.session).call().await?;
    let retries = u64::from(args.attempts.saturating_sub(1)) * times.attemptTime.to::<u64>();
    Ok(retries + times.revealTime.to::<u64>())
}

fn request_block(args: &TaskSubmitArgs, max_context: Option<u32>) -> Result<RequestBlock> {
    let bound =
        u32::try_from(args.prompt.len() + TEMPLATE_TOKENS).context("the prompt is too long")?;
    let room = max_context.map_or(u32::MAX, |context| context.saturating_sub(args.max_tokens));
    ensure!(
        room > 0,
        "--max-tokens {} leaves no room for a prompt in the model's context",
        args.max_tokens
    );
    Ok(RequestBlock {
        max_output: args.max_tokens,
        max_prompt: bound.min(room),
        prompt: Prompt::Messages(vec![Message {
            content: args.prompt.clone(),
            role: "user".into(),
        }]),
        salt: B256::from(rand::random::<[u8; 32]>()),
        sampling: Sampling { temperature_milli: 0, ..Sampling::default() },
        stop: Vec::new(),
        version: BLOCK_VERSION,
    })
}

/// The chain's own clock decides about deadlines.
async fn chain_time(chain: &Chain) -> Result<u64> {
    let ours =
        SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
    let head = head_time(chain).await?;
    Ok(head.max(ours.min(head + MAX_LAG_S)))
}

fn state_name(state: u8) -> &'static str {
    match TaskState::try_from(state) {
        Ok(TaskState::None) => "none",
        Ok(TaskState::Queued) => "queued",
        Ok(TaskState::Assigned) => "assigned",
        Ok(TaskState::Precommitted) => "precommitted",
        Ok(TaskState::Committed) => "committed",
        Ok(TaskState::Settled) => "settled",
        Ok(TaskState::Refunded) => "refunded",
        Err(_) => "unknown",
    }
}

async fn wait_for_answer(chain: &Chain, task: TaskId, longest: Duration) -> Result<()> {
    let queue = SessionQueue::new(chain.deployment.queue, &chain.provider);
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < longest {
        match state_name(queue.statusOf(task.0).call().await?.state) {
            "committed" | "settled" => return Ok(()),
            "refunded" => bail!(
                "task {task} was refunded: its node did not answer before the deadline. Submit it again"
            ),
            _ => tokio::time::sleep(POLL).await,
        }
    }
    bail!(
        "task {task} is past its deadline and nobody has refunded it: is an oracle running? Anyone may call \
         SessionQueue.advance"
    )
}

/// Events of one task of one kind, oldest first: the contract itself keeps only a hash.
pub async fn events<E: SolEvent>(chain: &Chain, start_block: u64, task: TaskId) -> Result<Vec<E>> {
    let filter = Filter::new()
        .from_block(start_block)
        .address(chain.deployment.queue)
        .event_signature(E::SIGNATURE_HASH)
        .topic1(task.0);
    let logs = chain.provider.get_logs(&filter).await?;
    logs.into_iter().map(|log| Ok(log.log_decode::<E>()?.inner.data)).collect()
}

/// One answer of a task.
async fn answer(store: &KuboStore, event: &SessionQueue::TaskCommitted) -> Result<Value> {
    let bytes = store.get(event.outputDigest).await?;
    let block = ResultBlock::decode(&bytes).context("the pinned result is not a result block")?;
    Ok(json!({
        "node": event.nodeId,
        "fee": event.fee.to_string(),
        "result_cid": cid_of(event.outputDigest).to_string(),
        "text": block.text,
        "output_tokens": block.ids.len(),
        "end_reason": block.end_reason,
    }))
}

async fn show(
    global: &Global,
    (chain, start_block): (&Chain, u64),
    store: &KuboStore,
    task: TaskId,
) -> Result<()> {
    let queue = SessionQueue::new(chain.deployment.queue, &chain.provider);
    let state = state_name(queue.statusOf(task.0).call().await?.state);
    ensure!(state != "none", "there is no task {task} on this chain");
    let submitted = events::<SessionQueue::TaskSubmitted>(chain, start_block, task).await?;
    let submitted = submitted.first().context("the task is not among the chain's events")?;
    let mut answers = Vec::new();
    for event in events::<SessionQueue::TaskCommitted>(chain, start_block, task).await? {
        answers.push(answer(store, &event).await?);
    }
    let fees = answers.iter().filter_map(|answer| answer["fee"].as_str()?.parse::<U256>().ok());
    let fee: U256 = fees.sum();
    let first = answers.first().cloned().unwrap_or_default();
    let value = json!({
        "task": task,
        "state": state,
        "session": submitted.sessionId,
        "lane": submitted.task.lane,
        "node": first.get("node").cloned().unwrap_or(submitted.nodeId.into()),
        "held": submitted.task.held.to_string(),
        "fee": fee.to_string(),
        "result_cid": first["result_cid"],
        "text": first["text"],
        "output_tokens": first["output_tokens"],
        "end_reason": first["end_reason"],
        "answers": answers,
    });
    ui::show(global.json, &value, describe)
}

fn describe(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let amount = |key: &str| cor(text(key).parse::<U256>().unwrap_or_default());
    let mut lines = Vec::new();
    if value["text"].is_string() {
        lines.push(format!("{}\n", text("text")));
    }
    lines.push(format!("task {}: {}", text("task"), text("state")));
    lines.push(format!("  session {}, node {}", value["session"], value["node"]));
    let answers = value["answers"].as_array().map_or(0, Vec::len);
    match answers {
        0 => lines.push(format!("  held    {}", amount("held"))),
        1 => lines.push(format!("  fee     {}", amount("fee"))),
        count => lines.push(format!("  fee     {} for {count} answers", amount("fee"))),
    }
    if value["result_cid"].is_string() {
        lines.push(format!("  result  {}", text("result_cid")));
    }
    lines.join("\n")
}
