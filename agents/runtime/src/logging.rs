//! Structured logs, as text or as JSON lines, on standard error.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::lines::LineWriter;

/// What is logged unless a filter is given: our own progress, and only trouble of the libraries.
const DEFAULT_FILTER: &str = "warn,assay=info,assay_oracle=info,assay_router=info,assay_miner=info,\
    assay_runtime=info,assay_chain=info,assay_store=info,assay_devnet=info,assay_engine_mistral=info";

/// Of a connection that breaks `assay_chain` tells once; alloy would tell in four lines of errors. A filter that names them
/// hears them.
const TOLD_ELSEWHERE: &str = "alloy_pubsub=off,alloy_transport_ws=off";

/// What writes whole URLs and headers of requests into its lines, and with them the keys of endpoints and clients: no
/// filter turns that on.
const NEVER_TOLD: &str =
    "alloy_transport_http=off,tungstenite::handshake=off,jsonrpsee-server=warn";

/// Shape of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogError::Format { format: other.to_string() }),
        }
    }
}

/// How to log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: LogFormat,
    /// Directives such as `info` or `warn,assay_miner=debug`; empty for the default.
    pub filter: String,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "log filter `{filter}` is not understood; write e.g. `info` or `warn,assay_miner=debug`: {source}"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Neither `text` nor `json`.
    #[error("log format `{format}` is unknown; use `text` or `json`")]
    Format {
        /// As it was given.
        format: String,
    },
    /// Another part of the process set up logging already.
    #[error("logging is set up already in this process: {source}")]
    AlreadySet {
        /// From the subscriber.
        source: crate::BoxError,
    },
}

/// Sets up the logs of the process; call it once, first.
///
/// # Errors
/// A filter that does not parse, or logging that is set up already.
pub fn init_logging(options: &LogOptions) -> Result<(), LogError> {
    let text = if options.filter.is_empty() { DEFAULT_FILTER } else { &options.filter };
    let filter = EnvFilter::try_new(format!("{TOLD_ELSEWHERE},{text},{NEVER_TOLD}"))
        .map_err(|source| LogError::Filter { filter: text.to_string(), source })?;
    LineWriter::start();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LineWriter)
        .with_ansi(std::io::stderr().is_terminal());
    match options.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    }
    .map_err(|source| LogError::AlreadySet { source })
}
