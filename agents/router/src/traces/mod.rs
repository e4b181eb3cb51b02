//! When a request did what, as spans of OpenTelemetry, for whoever runs a collector. Nothing of what is asked or answered
//! is in them.
//!
//! One trace is one answer. Its root lasts from the request to the checked end and says which task and node it became,
//! how many tokens it had, or why it failed. Below it: `admission` (a session and room on a node are found), `signing`
//! (the request is encoded, charged, signed and handed over), `offer` (until the node takes it or not), `first token`,
//! `generation`, `end` (the pinned result is read back and compared). What goes to a second node is there once more.
//!
//! Built with the feature `otlp`; without it nothing of this is compiled but empty functions.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use off::{Exporting, Trace, Traces};
#[cfg(feature = "otlp")]
pub use otlp::{Exporting, Trace, Traces};

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// This program has no exporter in it.
    #[error(
        "this program was built without traces: build it with `--features otlp`, or leave --otlp-endpoint out"
    )]
    NotBuilt,
    /// The address is none.
    #[error("no spans can be sent to {endpoint:?}: {reason}; name a collector as http://host:4318")]
    Endpoint {
        /// The address.
        endpoint: String,
        /// Why not.
        reason: String,
    },
}

/// A stage of a request.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    name: &'static str,
    since: Instant,
}

impl Stage {
    /// A stage that begins now.
    pub fn begin(name: &'static str) -> Self {
        Self::since(name, Instant::now())
    }

    /// A stage that began then.
    pub fn since(name: &'static str, since: Instant) -> Self {
        Self { name, since }
    }

    /// What is done in it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.since
    }

    /// How long it has lasted.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}
