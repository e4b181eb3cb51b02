//! One task from its beginning to its stored answer.

use std::{sync::Arc, time::Duration};

use alloy::signers::local::PrivateKeySigner;
use assay_bindings::SessionQueue;
use assay_engine::Engine;
use assay_store::ContentStore;
use assay_types::{
    B256, CommitScope, EMPTY_ROOT, NodeId, ProofSeal, TokenSeal,
    link::{FromMiner, Offer},
};
use tokio::sync::mpsc;

use super::{
    Sessions,
    check::{COMMIT_MARGIN_S, Checked, Refusal, Terms, check, genuine, refuse},
    generate::{Made, fetch, generate, pin},
    outlet::Outlet,
};
use crate::{
    answers::{Answer, Answers, OpenAnswer},
    clock::ChainClock,
    committer,
    ledger::Ledger,
    status::Stats,
};

/// What jobs work with.
pub(crate) struct Tools {
    pub node: NodeId,
    pub operator: PrivateKeySigner,
    pub ledger: Arc<dyn Ledger>,
    pub sessions: Sessions,
    pub engine: Arc<dyn Engine>,
    pub store: Arc<dyn ContentStore>,
    pub answers: Answers,
    pub clock: Arc<ChainClock>,
    pub stats: Arc<Stats>,
    pub committer: mpsc::UnboundedSender<committer::Input>,
    pub stall_timeout: Duration,
}

/// Where a task came from.
#[derive(Debug)]
pub(crate) enum Source {
    Offer(Box<Offer>),
    Chain,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer is stored and will be committed.
    Answered,
    /// Not taken, and the offer may be a forgery: it says nothing about the task.
    Forged,
    /// Declined or failed; not served again.
    GivenUp,
}

/// Serves a task. Dropping the future stops it without an answer, unless the answer is stored already.
pub(crate) async fn serve(tools: &Tools, terms: Terms, source: Source, outlet: Outlet) -> Outcome {
    let decline = |refusal: Refusal| {
        tracing::info!(task = %terms.task, code = refusal.code, message = %refusal.message, "declined");
        tools.stats.declined(refusal.code);
        let Refusal { code, message } = refusal;
        outlet.end(FromMiner::Decline { task: terms.task, code: code.into(), message });
    };
    if let Source::Offer(offer) = &source
        && let Err(refusal) = genuine(tools, offer, outlet.router().unwrap_or_default()).await
    {
        decline(refusal);
        return Outcome::Forged;
    }
    let work_s = terms.deadline_s.saturating_sub(tools.clock.now_s() + COMMIT_MARGIN_S);
    let timer = tokio::time::sleep(Duration::from_secs(work_s));
    tokio::pin!(timer);
    let late = || {
        let deadline_s = terms.deadline_s;
        refuse(
            "expired",
            format!("the deadline {deadline_s} came before the answer: sign a later one"),
        )
    };
    let checked = tokio::select! {
        checked = prepare(tools, &terms, &source, &outlet) => checked,
        () = &mut timer => Err(late()),
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            decline(refusal);
            return Outcome::GivenUp;
        }
    };
    let prompt_tokens = u32::try_from(checked.prompt_ids.len()).unwrap_or(u32::MAX);
    outlet.accept(prompt_tokens);
    let work = async {
        let made = generate(tools, terms.task, checked, &outlet).await?;
        let digest = pin(tools, terms.task, &made).await?;
        Ok::<_, Refusal>((made, digest))
    };
    let worked = tokio::select! {
        worked = work => worked,
        () = &mut timer => Err(late()),
    };
    let answered = worked.and_then(|(made, digest)| {
        stand_by(tools, &terms, source, &made, (digest, prompt_tokens)).map(|()| (made, digest))
    });
    match answered {
        Ok((made, output_digest)) => {
            tools.stats.served();
            outlet.end(FromMiner::Done {
                task: terms.task,
                end_reason: made.end_reason,
                prompt_tokens,
                output_tokens: u32::try_from(made.ids.len()).unwrap_or(u32::MAX),
                output_digest,
                stream_hash: made.stream_hash,
            });
            Outcome::Answered
        }
        Err(Refusal { code, message }) => {
            tracing::warn!(task = %terms.task, code, message, "a task failed");
            tools.stats.failed(code);
            tools.stats.error(format!("task {}: {message}", terms.task));
            outlet.end(FromMiner::Error { task: Some(terms.task), code: code.into(), message });
            Outcome::GivenUp
        }
    }
}

async fn prepare(
    tools: &Tools,
    terms: &Terms,
    source: &Source,
    outlet: &Outlet,
) -> Result<Checked, Refusal> {
    match source {
        Source::Offer(offer) => check(tools, terms, &offer.block, Some(offer.request.feeCap)).await,
        Source::Chain => {
            let block = fetch(tools, terms.task, terms.request_digest, outlet).await?;
            check(tools, terms, &block, None).await
        }
    }
}

/// Stores the answer; from here on the node stands by it.
fn stand_by(
    tools: &Tools,
    terms: &Terms,
    source: Source,
    made: &Made,
    (output_digest, prompt_tokens): (B256, u32),
) -> Result<(), Refusal> {
    let scope = CommitScope {
        chain_id: tools.ledger.chain_id(),
        queue: tools.ledger.queue(),
        task: terms.task,
        node: tools.node,
    };
    let seal = TokenSeal {
        output_digest,
        prompt_hash: made.prompt_hash,
        prompt_tokens,
        output_tokens: u32::try_from(made.ids.len()).unwrap_or(u32::MAX),
        class: tools.engine.info().numeric_class,
        end_reason: made.end_reason,
        salt: B256::new(rand::random()),
    };
    let proof = ProofSeal { root: EMPTY_ROOT, salt: B256::new(rand::random()) };
    let answer = Answer {
        task: terms.task,
        signed: match source {
            Source::Offer(offer) => Some((offer.request, offer.signature)),
            Source::Chain => None,
        },
        deadline_s: terms.deadline_s,
        commit: SessionQueue::Commit::new(&seal, proof.hash(&scope)),
        proof,
    };
    tools.answers.store(&answer).map_err(|error| refuse("internal", error.to_string()))?;
    let open = OpenAnswer { answer, attempts: 0, settle_at_s: None };
    // The committer has ended only if the miner stops; then the next start commits.
    let _ = tools.committer.send(committer::Input::Answered(Box::new(open)));
    Ok(())
}
