//! Opens and fills the router's own sessions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use assay_types::ModelId;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    OwnSessions,
    state::{Move, moves},
};
use crate::{
    book::service::Ledger,
    clock::now_s,
    ports::{ChainPort, PortError},
};

/// How often the sessions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Pause after the chain refused or could not be asked: most likely the wallet has to be filled first.
const RETRY_PAUSE: Duration = Duration::from_secs(30);
/// A book whose last block is not older than this, seconds, knows the sessions that there are.
const FRESH_S: u64 = 30;
/// A chain of which nothing was heard for so long has nothing more to tell: development chains rest.
const QUIET: Duration = Duration::from_secs(2);

/// Keeps the router's own sessions.
pub struct Treasury {
    /// What sessions there are.
    pub ledger: Ledger,
    /// Where they are opened.
    pub chain: Arc<dyn ChainPort>,
    /// Models that are served.
    pub models: Vec<ModelId>,
    /// How sessions are opened and filled.
    pub terms: OwnSessions,
}

/// What did not work: how often, and when it is tried again.
struct Failure {
    refused: u32,
    again: Instant,
}

impl Treasury {
    /// Looks after the sessions until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = HashMap::new();
        let (mut seen, mut quiet_since) = (0, Instant::now());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let last = self.ledger.book().last_block_s();
            if last != seen {
                (seen, quiet_since) = (last, Instant::now());
            }
            // Sessions of an earlier life are told by the chain: none is opened before they are known.
            if last.saturating_add(FRESH_S) < now_s() && quiet_since.elapsed() < QUIET {
                continue;
            }
            let own = self.ledger.book().own_sessions(now_s());
            for todo in moves(&own, &self.models, &self.terms) {
                tokio::select! {
                    () = self.perform(&todo, &mut failures) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    async fn perform(&self, todo: &Move, failures: &mut HashMap<String, Failure>) {
        let name = todo.key();
        let failure = failures.get(&name);
        if failure.is_some_and(|failure| failure.again > Instant::now()) {
            return;
        }
        let refused = failure.map_or(0, |failure| failure.refused);
        // What a block has refused would be refused under the same key for ever.
        let key = format!("{name}:{refused}");
        let done = match todo {
            Move::Open { opening, .. } => self.chain.open_session(key, *opening).await,
            Move::TopUp { session, lane, amount, .. } => {
                self.chain.top_up(key, (*session, *lane), *amount).await
            }
        };
        match done {
            Ok(()) => {
                tracing::info!(what = %name, "a session of the router's own is paid for");
                failures.remove(&name);
            }
            Err(error) => {
                tracing::warn!(what = %name, %error, "a session of the router's own cannot be paid for; the router tries again");
                let more = u32::from(matches!(error, PortError::Refused { .. }));
                let again = Instant::now() + RETRY_PAUSE;
                failures.insert(name, Failure { refused: refused.saturating_add(more), again });
            }
        }
    }
}
