//! What the four agents share: supervision, phased shutdown, configuration, metrics, logging, keystores
//!
//! An agent builds its services, gives each to a [`Runtime`] under a [`Phase`] and a name, and starts it.
//! A service that fails, panics or ends by itself stops the whole agent with an error that names it;
//! a stop goes phase by phase: intake first, then the work that is owed, then the output.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
mod health;
pub mod keystore;
mod lines;
mod logging;
mod observe;
mod supervisor;

pub use config::{ConfigError, Override, load_config};
pub use health::{Health, Readiness};
pub use logging::{LogError, LogFormat, LogOptions, init_logging};
pub use observe::{MetricsError, install_metrics, observe_router, upkeep_metrics};
pub use supervisor::{Phase, Running, Runtime, RuntimeError, shutdown_signal};

/// Any error of a service; it keeps its source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
