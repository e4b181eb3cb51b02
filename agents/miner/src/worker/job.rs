//! One task from its beginning to its stored answer.

use std::{sync::Arc, time::Duration};

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_bindings::SessionQueue;
use assay_engine::Engine;
use assay_protocol::{QueueScope, commitment_of};
use assay_store::ContentStore;
use assay_types::{
    B256, CommitScope, NodeId, Precommit, ProofSeal, Signed, TaskId, TokenSeal,
    link::{FromMiner, Offer},
};
use tokio::sync::mpsc;

use super::{
    Promises, Seeds,
    check::{
        COMMIT_MARGIN_S, Checked, Refusal, Terms, accept, accept_given, check, genuine, refuse,
    },
    generate::{Made, fetch, generate, pin, pin_result},
    outlet::Outlet,
};
use crate::{
    answers::{Answer, Answers, OpenAnswer, SignedReceipt},
    clock::ChainClock,
    committer,
    ledger::Ledger,
    salts::Salts,
    status::Stats,
};

/// What jobs work with.
pub(crate) struct Tools {
    pub node: NodeId,
    pub operator: PrivateKeySigner,
    pub ledger: Arc<dyn Ledger>,
    pub seeds: Seeds,
    pub promises: Promises,
    pub engine: Arc<dyn Engine>,
    pub store: Arc<dyn ContentStore>,
    pub answers: Answers,
    pub clock: Arc<ChainClock>,
    pub stats: Arc<Stats>,
    pub committer: mpsc::UnboundedSender<committer::Input>,
    pub stall_timeout: Duration,
}

impl Tools {
    /// What commitments of this node are bound to.
    pub(crate) fn scope(&self, task: TaskId) -> CommitScope {
        let queue = QueueScope { chain_id: self.ledger.chain_id(), queue: self.ledger.queue() };
        queue.commit_scope(task, self.node)
    }
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
    /// Not begun, e.g. because the offer may be a forgery: that says nothing about the task.
    Untouched,
    /// Declined or failed, with this code; not served again.
    GivenUp(&'static str),
}

/// Serves a task. Dropping the future stops it without an answer, unless the answer is stored already.
pub(crate) async fn serve(tools: &Tools, terms: Terms, source: Source, outlet: Outlet) -> Outcome {
    let task = terms.task;
    let outcome = attempt(tools, terms, source, outlet).await;
    if outcome != Outcome::Answered {
        tools.promises.release(task).await;
    }
    outcome
}

async fn attempt(tools: &Tools, terms: Terms, source: Source, outlet: Outlet) -> Outcome {
    let decline = |refusal: Refusal| {
        tracing::info!(task = %terms.task, code = refusal.code, message = %refusal.message, "declined");
        tools.stats.declined(refusal.code);
        let Refusal { code, message } = refusal;
        outlet.end(FromMiner::Decline { task: terms.task, code: code.into(), message });
        code
    };
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
    // Bounded by the reads' own time limits, but for a seed that a given task waits for.
    let begun = tokio::select! {
        begun = begin(tools, &terms, &source, &outlet) => begun,
        () = &mut timer, if matches!(source, Source::Chain) => Err(late()),
    };
    let (beacon, signed) = match begun {
        Ok(begun) => begun,
        Err(refusal) => {
            let code = decline(refusal);
            return match source {
                Source::Offer(_) => Outcome::Untouched,
                Source::Chain => Outcome::GivenUp(code),
            };
        }
    };
    let checked = tokio::select! {
        checked = prepare(tools, &terms, &source, (&outlet, beacon)) => checked,
        () = &mut timer => Err(late()),
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(refusal) => return Outcome::GivenUp(decline(refusal)),
    };
    let prompt_tokens = u32::try_from(checked.prompt_ids.len()).unwrap_or(u32::MAX);
    outlet.accept(prompt_tokens);
    let worked = tokio::select! {
        worked = work(tools, &terms, checked, (&source, &outlet, signed)) => worked,
        () = &mut timer => Err(late()),
    };
    let answered = worked.and_then(|worked| {
        stand_by(tools, &terms, source, &worked, prompt_tokens).map(|precommit| (worked, precommit))
    });
    match answered {
        Ok((worked, precommit)) => {
            tools.stats.served();
            if let Some((commitment, signature)) = precommit {
                outlet.precommit(commitment, signature);
            }
            outlet.end(done(terms.task, &worked, prompt_tokens));
            Outcome::Answered
        }
        Err(Refusal { code, message }) => {
            tracing::warn!(task = %terms.task, code, message, "a task failed");
            tools.stats.failed(code);
            tools.stats.error(format!("task {}: {message}", terms.task));
            outlet.end(FromMiner::Error { task: Some(terms.task), code: code.into(), message });
            Outcome::GivenUp(code)
        }
    }
}

fn done(task: TaskId, worked: &Worked, prompt_tokens: u32) -> FromMiner {
    FromMiner::Done {
        task,
        end_reason: worked.made.end_reason,
        prompt_tokens,
        output_tokens: u32::try_from(worked.made.record.ids().len()).unwrap_or(u32::MAX),
        output_digest: worked.digest,
        stream_hash: worked.made.stream_hash,
    }
}

async fn begin(
    tools: &Tools,
    terms: &Terms,
    source: &Source,
    outlet: &Outlet,
) -> Result<(B256, Option<SignedReceipt>), Refusal> {
    match source {
        Source::Offer(offer) => {
            let router = outlet.router().unwrap_or_default();
            let admission = genuine(tools, offer, router).await?;
            outlet.set_holder(admission.holder);
            accept(tools, terms, &offer.request, &admission).await
        }
        Source::Chain => accept_given(tools, terms).await,
    }
}

async fn prepare(
    tools: &Tools,
    terms: &Terms,
    source: &Source,
    (outlet, beacon): (&Outlet, B256),
) -> Result<Checked, Refusal> {
    match source {
        Source::Offer(offer) => check(tools, terms, &offer.block, beacon).await,
        Source::Chain => {
            let block = fetch(tools, terms.task, terms.request_digest, outlet).await?;
            check(tools, terms, &block, beacon).await
        }
    }
}

/// A generation that is pinned.
struct Worked {
    made: Made,
    salts: Salts,
    /// Of the result block.
    digest: B256,
}

async fn work(
    tools: &Tools,
    terms: &Terms,
    checked: Checked,
    (source, outlet, signed): (&Source, &Outlet, Option<SignedReceipt>),
) -> Result<Worked, Refusal> {
    let salts = Salts::of(&tools.operator, &tools.scope(terms.task))
        .map_err(|error| refuse("internal", format!("the operator key cannot sign: {error}")))?;
    let keep = async {
        // A validator must find what was asked, also if the router does not keep it.
        match source {
            Source::Offer(offer) if tools.promises.has(terms.task).await => {
                pin(tools, terms.task, offer.block.clone()).await.map(drop)
            }
            _ => Ok(()),
        }
    };
    let generated = generate(tools, terms.task, checked, outlet, signed);
    let (made, ()) = tokio::try_join!(generated, keep)?;
    let digest = pin_result(tools, terms.task, &made, salts.block).await?;
    Ok(Worked { made, salts, digest })
}

/// Stores the answer; from here on the node stands by it. Returns its precommitment, if the task wants one.
fn stand_by(
    tools: &Tools,
    terms: &Terms,
    source: Source,
    worked: &Worked,
    prompt_tokens: u32,
) -> Result<Option<(B256, assay_types::Signature)>, Refusal> {
    let scope = tools.scope(terms.task);
    let Worked { made, salts, digest } = worked;
    let seal = TokenSeal {
        output_digest: *digest,
        prompt_hash: made.prompt_hash,
        prompt_tokens,
        output_tokens: u32::try_from(made.record.ids().len()).unwrap_or(u32::MAX),
        class: tools.engine.info().numeric_class,
        end_reason: made.end_reason.sealed(),
        salt: salts.tokens,
    };
    let tree = made.record.tree().map_err(|error| refuse("internal", error.to_string()))?;
    let proof = ProofSeal { root: tree.root(), salt: salts.proof };
    let answer = Answer {
        task: terms.task,
        signed: match source {
            Source::Offer(offer) => Some((offer.request, offer.signature)),
            Source::Chain => None,
        },
        redundancy: terms.redundancy,
        deadline_s: terms.deadline_s,
        answer: SessionQueue::Answer::new(tools.node, &seal, proof.hash(&scope)),
        proof,
        proof_block: made.record.encode(),
    };
    tools.answers.store(&answer).map_err(|error| refuse("internal", error.to_string()))?;
    let precommit = (terms.redundancy > 1).then(|| {
        let commitment = commitment_of(&scope, &answer.answer);
        let hash = Precommit::new(&scope, commitment).signing_hash(scope.chain_id, scope.queue);
        tools.operator.sign_hash_sync(&hash).map(|signature| (commitment, signature))
    });
    let open = OpenAnswer { answer, attempts: 0 };
    // The committer has ended only if the miner stops; then the next start commits.
    let _ = tools.committer.send(committer::Input::Answered(Box::new(open)));
    // Without its signature nobody can carry it: the node sends it itself.
    Ok(precommit.and_then(Result::ok))
}
