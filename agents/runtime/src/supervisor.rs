//! Supervision of named services, and shutdown in phases.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{BoxError, lines, upkeep_metrics};

/// How long intake may take to stop: it only has to refuse what is new and close its listeners.
const INTAKE_GRACE: Duration = Duration::from_secs(5);
/// How long the work that is owed may take: a commit that waits for two or three blocks of a slow chain.
const WORK_GRACE: Duration = Duration::from_secs(30);
/// How long output may take: databases close at once, a last broadcast takes a round trip.
const OUTPUT_GRACE: Duration = Duration::from_secs(10);
/// How often metrics are tidied, so that histograms stay small when nobody scrapes them.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// When a service stops. A shutdown stops the phases in this order and waits for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Takes new work in: listeners, event streams that start something.
    Intake,
    /// Does what was taken in; on stop it finishes what it owes.
    Work,
    /// What the work needs until the end: outbox, database, metrics.
    Output,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Intake, Self::Work, Self::Output];

    /// Lower-case name, as in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Work => "work",
            Self::Output => "output",
        }
    }
}

/// Why an agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A service returned an error.
    #[error("{agent}: service `{service}` failed: {source}")]
    Service {
        /// Name of the agent.
        agent: String,
        /// Name of the service.
        service: &'static str,
        /// What it returned.
        source: BoxError,
    },
    /// A service panicked: a defect of the program.
    #[error(
        "{agent}: service `{service}` panicked: {message}; this is a defect, please report it with the log"
    )]
    Panicked {
        /// Name of the agent.
        agent: String,
        /// Name of the service.
        service: &'static str,
        /// What the panic said.
        message: String,
    },
    /// A service returned although nobody had asked it to stop.
    #[error(
        "{agent}: service `{service}` ended although it was not asked to; the log says what it did last"
    )]
    EndedEarly {
        /// Name of the agent.
        agent: String,
        /// Name of the service.
        service: &'static str,
    },
    /// Services did not stop in time and were ended by force.
    #[error(
        "{agent}: did not stop within {grace_s} s in phase {phase}, ended by force: {services}; \
         what they owed is done at the next start"
    )]
    StopTimeout {
        /// Name of the agent.
        agent: String,
        /// Phase that took too long.
        phase: &'static str,
        /// How long it had.
        grace_s: u64,
        /// Names of the services, separated by commas.
        services: String,
    },
    /// The supervisor itself was ended from outside.
    #[error("{agent}: was ended by force")]
    Killed {
        /// Name of the agent.
        agent: String,
    },
}

struct Slot {
    token: CancellationToken,
    grace: Duration,
    tasks: JoinSet<Result<(), BoxError>>,
}

#[derive(Debug, Clone, Copy)]
struct Service {
    name: &'static str,
    /// It may return before the shutdown.
    may_end: bool,
}

/// The services of one agent. Dropping it ends them by force.
pub struct Runtime {
    agent: String,
    slots: [Slot; 3],
    names: HashMap<Id, Service>,
}

impl Runtime {
    /// A runtime without services; `agent` is its name in logs and errors, e.g. `miner-2`.
    pub fn new(agent: impl Into<String>) -> Self {
        let slot = |grace| Slot { token: CancellationToken::new(), grace, tasks: JoinSet::new() };
        Self {
            agent: agent.into(),
            slots: [slot(INTAKE_GRACE), slot(WORK_GRACE), slot(OUTPUT_GRACE)],
            names: HashMap::new(),
        }
    }

    /// Changes how long a shutdown waits for the services of `phase`.
    #[must_use]
    pub fn with_grace(mut self, phase: Phase, grace: Duration) -> Self {
        self.slot(phase).grace = grace;
        self
    }

    /// Token that is cancelled when `phase` has to stop. A service watches the token of its own phase.
    pub fn token(&self, phase: Phase) -> CancellationToken {
        let [intake, work, output] = &self.slots;
        match phase {
            Phase::Intake => intake.token.clone(),
            Phase::Work => work.token.clone(),
            Phase::Output => output.token.clone(),
        }
    }

    /// Starts a service that runs until the token of its phase is cancelled. If it returns an error,
    /// panics, or returns before a shutdown has begun, the agent stops with an error that names it.
    pub fn spawn<F>(&mut self, phase: Phase, service: &'static str, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.start_service(phase, service, false, future);
    }

    /// Starts a service that may finish by itself, e.g. a registration; errors and panics stop the agent.
    pub fn spawn_job<F>(&mut self, phase: Phase, service: &'static str, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.start_service(phase, service, true, future);
    }

    fn start_service<F>(&mut self, phase: Phase, name: &'static str, may_end: bool, future: F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let handle = self.slot(phase).tasks.spawn(future);
        self.names.insert(handle.id(), Service { name, may_end });
    }

    fn slot(&mut self, phase: Phase) -> &mut Slot {
        let [intake, work, output] = &mut self.slots;
        match phase {
            Phase::Intake => intake,
            Phase::Work => work,
            Phase::Output => output,
        }
    }

    /// Supervises until `stop` resolves or a service fails; then stops phase by phase.
    ///
    /// # Errors
    /// The first failure of a service, also one while stopping.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), RuntimeError> {
        self.drive(stop).await
    }

    async fn drive(&mut self, stop: impl Future<Output = ()>) -> Result<(), RuntimeError> {
        tracing::debug!(agent = %self.agent, services = self.names.len(), "started");
        let first = self.supervise(stop).await;
        if let Some(error) = &first {
            tracing::error!(agent = %self.agent, %error, "stopping because of a failure");
        } else {
            tracing::info!(agent = %self.agent, "stopping");
        }
        let mut failure = first;
        for phase in Phase::ALL {
            if let Some(error) = self.stop_phase(phase).await {
                tracing::error!(agent = %self.agent, %error, "failure while stopping");
                failure.get_or_insert(error);
            }
        }
        tracing::info!(agent = %self.agent, "stopped");
        failure.map_or(Ok(()), Err)
    }

    /// Runs in the background; the handle stops it.
    pub fn start(mut self) -> Running {
        let agent = self.agent.clone();
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (asked, killed) = (stop.clone(), kill.clone());
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = killed.cancelled() => None,
                result = self.drive(async move { asked.cancelled().await }) => Some(result),
            };
            match ended {
                Some(result) => result,
                None => {
                    // Waited for, so that files and ports are free when the agent is gone.
                    for slot in &mut self.slots {
                        slot.tasks.shutdown().await;
                    }
                    Err(RuntimeError::Killed { agent: self.agent.clone() })
                }
            }
        });
        Running { agent, stop, kill, task: Some(task) }
    }

    /// Waits for `stop` (None) or the first failure.
    async fn supervise(&mut self, stop: impl Future<Output = ()>) -> Option<RuntimeError> {
        tokio::pin!(stop);
        let mut upkeep = tokio::time::interval(METRICS_UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let [intake, work, output] = &mut self.slots;
            let ended = tokio::select! {
                biased;
                () = &mut stop => return None,
                Some(ended) = intake.tasks.join_next_with_id() => ended,
                Some(ended) = work.tasks.join_next_with_id() => ended,
                Some(ended) = output.tasks.join_next_with_id() => ended,
                _ = upkeep.tick() => {
                    upkeep_metrics();
                    continue;
                }
            };
            if let Some(error) = self.judge(ended, false) {
                return Some(error);
            }
        }
    }

    /// Cancels one phase and waits for its services.
    async fn stop_phase(&mut self, phase: Phase) -> Option<RuntimeError> {
        let slot = self.slot(phase);
        slot.token.cancel();
        let grace = slot.grace;
        let deadline = Instant::now() + grace;
        let mut failure = None;
        loop {
            let next =
                tokio::time::timeout_at(deadline, self.slot(phase).tasks.join_next_with_id());
            match next.await {
                Ok(None) => return failure,
                Ok(Some(ended)) => {
                    if let Some(error) = self.judge(ended, true) {
                        failure.get_or_insert(error);
                    }
                }
                Err(_) => {
                    let services = self.abort_phase(phase).await;
                    let timeout = RuntimeError::StopTimeout {
                        agent: self.agent.clone(),
                        phase: phase.name(),
                        grace_s: grace.as_secs(),
                        services,
                    };
                    return Some(failure.unwrap_or(timeout));
                }
            }
        }
    }

    /// Ends what is left of a phase by force; returns the names.
    async fn abort_phase(&mut self, phase: Phase) -> String {
        let slot = self.slot(phase);
        slot.tasks.abort_all();
        let mut left = Vec::new();
        while let Some(ended) = self.slot(phase).tasks.join_next_with_id().await {
            let id = match &ended {
                Ok((id, _)) => *id,
                Err(error) => error.id(),
            };
            if let Some(service) = self.names.remove(&id) {
                left.push(service.name);
            }
        }
        left.sort_unstable();
        left.join(", ")
    }

    fn judge(
        &mut self,
        ended: Result<(Id, Result<(), BoxError>), JoinError>,
        stopping: bool,
    ) -> Option<RuntimeError> {
        let (id, outcome) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        let service = self.names.remove(&id)?;
        let agent = self.agent.clone();
        match outcome {
            Ok(Ok(())) if stopping || service.may_end => {
                tracing::debug!(agent = %agent, service = service.name, "service ended");
                None
            }
            Ok(Ok(())) => Some(RuntimeError::EndedEarly { agent, service: service.name }),
            Ok(Err(source)) => Some(RuntimeError::Service { agent, service: service.name, source }),
            Err(error) => match error.try_into_panic() {
                Ok(payload) => Some(RuntimeError::Panicked {
                    agent,
                    service: service.name,
                    message: panic_message(payload.as_ref()),
                }),
                Err(_) => Some(RuntimeError::Killed { agent }),
            },
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&'static str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// An agent at work. Dropping it ends the agent by force: call [`Running::stop`] for an orderly end.
#[derive(Debug)]
pub struct Running {
    agent: String,
    stop: CancellationToken,
    kill: CancellationToken,
    task: Option<JoinHandle<Result<(), RuntimeError>>>,
}

impl Running {
    /// Token that begins the shutdown when it is cancelled.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the agent has ended, by itself or because its stop token was cancelled.
    /// Once it has told the result, it answers `Ok`.
    ///
    /// # Errors
    /// What stopped the agent.
    pub async fn wait(&mut self) -> Result<(), RuntimeError> {
        let Some(task) = self.task.as_mut() else {
            return Ok(());
        };
        let result = task.await;
        self.task = None;
        lines::flush();
        match result {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => Err(RuntimeError::Panicked {
                    agent: self.agent.clone(),
                    service: "supervisor",
                    message: panic_message(payload.as_ref()),
                }),
                Err(_) => Err(RuntimeError::Killed { agent: self.agent.clone() }),
            },
        }
    }

    /// Stops the agent phase by phase and waits for its end.
    ///
    /// # Errors
    /// What failed before or while stopping.
    pub async fn stop(mut self) -> Result<(), RuntimeError> {
        self.stop.cancel();
        self.wait().await
    }

    /// Ends the agent at once, as a crash would; nothing that it owes is done. [`Running::wait`] tells
    /// when it is gone, with its files and ports.
    pub fn kill(&self) {
        self.kill.cancel();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Resolves on Ctrl-C or, on Unix, on a request to terminate.
pub async fn shutdown_signal() {
    let interrupt = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "cannot listen for Ctrl-C; stop the process by a signal");
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for SIGTERM");
                std::future::pending::<()>().await;
            }
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
