//! Does what the worker's state decides.

use std::{collections::HashMap, sync::Arc, time::Duration};

use assay_chain::DatabaseError;
use assay_types::{
    Address, Cancellation, Signed, TaskId,
    link::{CANCEL_SLACK_TOKENS, FromMiner, Offer, SignedCancellation},
    sha256,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    LinkRef, Outlets, Tools,
    check::{Terms, genuine},
    claim::{Claim, claim},
    job::{Outcome, Source, serve},
    outlet::Outlet,
    state::{Action, Input, JobId, State},
};
use crate::{
    committer,
    tasks::{ChainTask, Standing},
};

/// How often deadlines of waiting tasks are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a stop waits for tasks that run; below the runtime's patience with this phase, and with
/// time left for their commits.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// Offers that are checked beside the jobs; each may hold a block of 1 MiB.
const MAX_ASIDE: usize = 64;

struct Job {
    id: JobId,
    task: TaskId,
    deadline_s: u64,
    outlet: Outlet,
    abort: AbortHandle,
    /// Code and message, if it was stopped.
    ending: Option<(&'static str, &'static str)>,
}

/// The service; its parts come from the wiring.
pub(crate) struct Worker {
    pub tools: Arc<Tools>,
    pub capacity: u8,
    pub inputs: mpsc::Receiver<Input>,
    /// Where links find what their routers come back for.
    pub outlets: Outlets,
    /// Cancelled when the database knows what the chain knew when the miner started: until then, a task could be
    /// begun that was answered in a life that the database has forgotten.
    pub caught_up: CancellationToken,
    /// Cancelled when no answer can come any more.
    pub done: CancellationToken,
}

/// Jobs in progress, and small works beside them.
struct Jobs {
    set: JoinSet<Outcome>,
    by_tokio: HashMap<Id, Job>,
    /// Offers of tasks that run or are declined, being checked.
    aside: JoinSet<()>,
    claims: JoinSet<(Box<ChainTask>, Claim)>,
}

impl Worker {
    /// Takes tasks until `drain`, then finishes what runs; `stop` is the end of patience for that.
    pub(crate) async fn run(
        mut self,
        drain: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), DatabaseError> {
        // However this ends, nobody waits for more answers.
        let _done = self.done.clone().drop_guard();
        let mut state = State::new(self.capacity);
        let mut jobs = Jobs {
            set: JoinSet::new(),
            by_tokio: HashMap::new(),
            aside: JoinSet::new(),
            claims: JoinSet::new(),
        };
        tokio::select! {
            () = self.caught_up.cancelled() => {}
            () = drain.cancelled() => return Ok(()),
        }
        for task in self.tools.answers.open_tasks()? {
            let standing = self.tools.answers.standing(&task, self.tools.node)?;
            let input = Input::Chain { task: task.task, now: Some(Box::new(task)), standing };
            self.take(input, &mut state)?;
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut draining, mut until) = (false, None::<Instant>);
        loop {
            if let Some(until) = until
                && (state.busy() == 0 || Instant::now() >= until)
            {
                self.give_up(&mut jobs);
                return Ok(());
            }
            let mut actions = tokio::select! {
                biased;
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    state.drain();
                    vec![]
                }
                () = stop.cancelled(), if until.is_none() => {
                    until = Some(Instant::now() + STOP_PATIENCE);
                    vec![]
                }
                Some(ended) = jobs.set.join_next_with_id() => {
                    self.ended(ended, &mut state, &mut jobs)?;
                    vec![]
                }
                Some(_) = jobs.aside.join_next() => vec![],
                Some(claimed) = jobs.claims.join_next() => {
                    if let Ok((queued, claim)) = claimed {
                        state.claim_ended(&queued, claim, self.tools.clock.now_s());
                    }
                    vec![]
                }
                Some(input) = self.inputs.recv() => self.take(input, &mut state)?,
                _ = tick.tick() => vec![],
            };
            actions.extend(state.fill(self.tools.clock.now_s()));
            for action in actions {
                self.act(action, &mut jobs)?;
            }
            self.tools.stats.set_running(state.running());
        }
    }

    fn take(&self, input: Input, state: &mut State) -> Result<Vec<Action>, DatabaseError> {
        let answers = &self.tools.answers;
        let spent = match &input {
            Input::Offer { task, .. } => answers.is_spent(*task)?,
            Input::Chain { now: Some(given), standing: Standing::Due, .. } => {
                let spent = answers.is_spent(given.task)?;
                if spent && !answers.is_answered(given.task)? {
                    self.hand_back(given);
                }
                spent
            }
            Input::Chain { now: Some(given), standing: Standing::Replaced, .. } => {
                tracing::warn!(task = %given.task, "another request of this nonce was begun before: the task is handed back");
                self.hand_back(given);
                true
            }
            Input::Chain { task, .. } => answers.is_spent(*task)?,
            Input::Cancel { .. } => false,
        };
        let cancel = match &input {
            Input::Cancel { task, link, .. } => Some((*task, link.clone())),
            _ => None,
        };
        let actions = state.on(input, spent);
        if let Some((task, link)) = cancel.filter(|_| actions.is_empty()) {
            tell_unknown(task, &link);
        }
        Ok(actions)
    }

    /// The chain gave this node a task that it does not serve: the next node shall not have to wait.
    fn hand_back(&self, given: &ChainTask) {
        let (task, until_s) = (given.task, given.record.until_s);
        // The committer has ended only if the miner stops; then the next start hands it back.
        let _ = self.tools.committer.send(committer::Input::Decline { task, until_s });
    }

    fn act(&self, action: Action, jobs: &mut Jobs) -> Result<(), DatabaseError> {
        match action {
            Action::StartOffer { job, task, link, offer } => {
                let terms = Terms::of_request(task, &offer.request);
                self.start(job, terms, Source::Offer(offer), Some(link), jobs);
            }
            Action::StartGiven { job, given } => {
                self.start(job, Terms::of_chain(&given), Source::Chain, None, jobs);
            }
            Action::Claim { queued } => {
                let tools = self.tools.clone();
                jobs.claims.spawn(async move {
                    let ended = claim(&tools, &queued).await;
                    (queued, ended)
                });
            }
            Action::Attach { job, task, link, offer } => {
                if jobs.aside.len() >= MAX_ASIDE {
                    self.decline(task, &link, ("busy", "too many offers at once: offer it later"));
                } else if let Some(running) =
                    jobs.by_tokio.values().find(|running| running.id == job)
                {
                    let outlet = running.outlet.clone();
                    self.attach(task, link, offer, outlet, &mut jobs.aside);
                }
            }
            Action::Decline { task, link, offer, code, message } => {
                self.decline(task, &link, (code, message));
                if jobs.aside.len() < MAX_ASIDE {
                    self.drop_if_genuine(task, link.router, offer, &mut jobs.aside);
                }
            }
            Action::Cancel { job, task, signed, link } => {
                let running = jobs.by_tokio.values_mut().find(|running| running.id == job);
                match running.filter(|running| running.outlet.belongs_to(link.router)) {
                    Some(running) => self.cancel(running, signed, link),
                    None => {
                        tracing::debug!(%task, router = %link.router, "a cancel of a task of another router");
                        tell_unknown(task, &link);
                    }
                }
            }
            Action::Stop { job } => {
                let running = jobs.by_tokio.values_mut().find(|running| running.id == job);
                if let Some(running) = running
                    && !self.tools.answers.is_answered(running.task)?
                {
                    running.ending = Some(("moved", "the chain gave the task to another node"));
                    running.abort.abort();
                }
            }
            Action::Drop { given } => {
                tracing::warn!(task = %given.task, "a task of the chain found no free place before its deadline");
                self.tools.stats.declined("busy");
                self.drop_task(given.task, "busy", given.record.until_s)?;
            }
        }
        Ok(())
    }

    fn start(
        &self,
        id: JobId,
        terms: Terms,
        source: Source,
        link: Option<LinkRef>,
        jobs: &mut Jobs,
    ) {
        let (task, deadline_s) = (terms.task, terms.deadline_s);
        // A task of the chain is shown to nobody until its router asks for it.
        let stream = matches!(&source, Source::Offer(offer) if offer.stream);
        let outlet = self.outlets.open(task, terms.request_digest, link, stream);
        let (tools, frames) = (self.tools.clone(), outlet.clone());
        let abort = jobs.set.spawn(async move { serve(&tools, terms, source, frames).await });
        let job = Job { id, task, deadline_s, outlet, abort, ending: None };
        jobs.by_tokio.insert(job.abort.id(), job);
    }

    fn ended(
        &self,
        ended: Result<(Id, Outcome), JoinError>,
        state: &mut State,
        jobs: &mut Jobs,
    ) -> Result<(), DatabaseError> {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a job died");
                }
                (error.id(), None)
            }
        };
        let Some(job) = jobs.by_tokio.remove(&id) else { return Ok(()) };
        state.ended(job.task, job.id);
        self.outlets.retire(&job.outlet);
        let code = match outcome {
            Some(Outcome::Answered) => return Ok(()),
            Some(Outcome::Untouched) => return self.look_again(job.task, state),
            Some(Outcome::GivenUp(code)) => code,
            // Stopped after its answer was stored: it stands, but nobody need wait for its end.
            None if self.tools.answers.is_answered(job.task)? => {
                let message = "stopped with its answer stored, which is committed".to_owned();
                let (task, code) = (Some(job.task), "stopped".into());
                job.outlet.end(FromMiner::Error { task, code, message });
                return Ok(());
            }
            None => {
                let crashed = ("internal", "the node failed; offer the task to another one");
                let (code, message) = job.ending.unwrap_or(crashed);
                self.fail(&job, code, message);
                code
            }
        };
        self.drop_task(job.task, code, job.deadline_s)
    }

    /// The chain may have given the task to this node while its offer was refused.
    fn look_again(&self, task: TaskId, state: &mut State) -> Result<(), DatabaseError> {
        if let Some(given) = self.tools.answers.chain_task(task)? {
            let standing = self.tools.answers.standing(&given, self.tools.node)?;
            self.take(Input::Chain { task, now: Some(Box::new(given)), standing }, state)?;
        }
        Ok(())
    }

    fn fail(&self, job: &Job, code: &'static str, message: &str) {
        self.tools.stats.failed(code);
        let message = message.to_owned();
        job.outlet.end(FromMiner::Error { task: Some(job.task), code: code.into(), message });
    }

    /// Patience is over: what runs now is lost, and its router is told.
    fn give_up(&self, jobs: &mut Jobs) {
        for (_, job) in jobs.by_tokio.drain() {
            job.abort.abort();
            self.fail(&job, "stopping", "the node was stopped; offer the task to another one");
        }
    }

    /// The router wants no more of the answer. What was shown is paid: by a signature of the lane's holder over it, or
    /// else the answer goes on and is paid whole. What is nothing to speak of is given up.
    fn cancel(&self, running: &mut Job, signed: Option<SignedCancellation>, link: LinkRef) {
        let (outlet, task) = (&running.outlet, running.task);
        let (holder, is_holder) = (outlet.holder(), outlet.holder() == Some(link.router));
        outlet.mute(link);
        let (chain_id, queue) = (self.tools.ledger.chain_id(), self.tools.ledger.queue());
        let is_signed = |signed: &SignedCancellation| {
            let cancellation = Cancellation::new(task, signed.tokens);
            let signer = cancellation.signer(chain_id, queue, &signed.signature).ok();
            signed.tokens > 0 && signer.is_some() && signer == holder
        };
        let signed = signed.filter(is_signed);
        let paid = signed.map_or(0, |signed| signed.tokens);
        let shown = outlet.shown();
        if shown > paid.saturating_add(CANCEL_SLACK_TOKENS) {
            tracing::info!(%task, shown, paid, "a cancellation would leave out what was shown: the answer goes on");
            return;
        }
        match signed {
            Some(signed) => outlet.cut(signed),
            None if is_holder => {
                running.ending = Some(("cancelled", "stopped as its router asked"));
                running.abort.abort();
            }
            None => {
                tracing::debug!(%task, "only the lane's holder takes a task back: the answer goes on")
            }
        }
    }

    fn decline(&self, task: TaskId, link: &LinkRef, (code, message): (&'static str, &str)) {
        self.tools.stats.declined(code);
        link.send(FromMiner::Decline { task, code: code.into(), message: message.into() });
    }

    fn drop_task(&self, task: TaskId, code: &str, deadline_s: u64) -> Result<(), DatabaseError> {
        let answers = &self.tools.answers;
        answers.drop_task(task, code, (deadline_s, self.tools.clock.now_s()))?;
        if let Some(given) = answers.chain_task(task)?
            && given.standing(self.tools.node) == Standing::Due
        {
            self.hand_back(&given);
        }
        Ok(())
    }

    /// A router has another offer of a task that runs.
    fn attach(
        &self,
        task: TaskId,
        link: LinkRef,
        offer: Box<Offer>,
        outlet: Outlet,
        aside: &mut JoinSet<()>,
    ) {
        let tools = self.tools.clone();
        aside.spawn(async move {
            let digest = outlet.request_digest();
            let same = offer.request.requestDigest == digest && sha256(&offer.block) == digest;
            let refusal = match genuine(&tools, &offer, link.router).await {
                Ok(admission) if same && may_follow(&outlet, admission.holder, link.router) => {
                    outlet.set_holder(admission.holder);
                    None
                }
                Ok(_) if same => {
                    Some(("wrong_router", "another router shows this answer already".into()))
                }
                Ok(_) => {
                    Some(("bad_request", "another request of this nonce is being served".into()))
                }
                Err(refusal) => Some((refusal.code, refusal.message)),
            };
            match refusal {
                None => {
                    outlet.give_block(offer.block);
                    outlet.attach(link, offer.stream);
                }
                Some((code, message)) => {
                    tools.stats.declined(code);
                    link.send(FromMiner::Decline { task, code: code.into(), message });
                }
            }
        });
    }

    /// The holder of its lane goes elsewhere, so the task is not served when the chain shows it. Who offers the request
    /// of another has no say in that.
    fn drop_if_genuine(
        &self,
        task: TaskId,
        router: Address,
        offer: Box<Offer>,
        aside: &mut JoinSet<()>,
    ) {
        let tools = self.tools.clone();
        aside.spawn(async move {
            let Offer { request, signature, stream, .. } = *offer;
            let deadline_s = request.deadline;
            let offer = Offer { request, signature, block: assay_types::Bytes::new(), stream };
            let times = (deadline_s, tools.clock.now_s());
            if let Ok(admission) = genuine(&tools, &offer, router).await
                && admission.holder == Some(router)
                && let Err(error) = tools.answers.drop_task(task, "busy", times)
            {
                tracing::error!(%task, %error, "a declined task could not be remembered");
            }
        });
    }
}

/// Whether a router may be shown an answer that is under way: it holds the lane, or nobody else is shown it.
fn may_follow(outlet: &Outlet, holder: Option<Address>, router: Address) -> bool {
    holder == Some(router) || outlet.router().is_none_or(|other| other == router)
}

/// The router need not count on an end of the task: it does not run here, or not for this router.
fn tell_unknown(task: TaskId, link: &LinkRef) {
    let message = "this node does not run the task".to_owned();
    link.send(FromMiner::Error { task: Some(task), code: "unknown_task".into(), message });
}
