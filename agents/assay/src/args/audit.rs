//! `assay audit`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    #[command(flatten)]
    pub range: AuditRange,
    #[command(flatten)]
    pub chain: AuditChain,
    /// Write the report as a page to this file, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Begin anew, though an earlier audit was interrupted.
    #[arg(long)]
    pub fresh: bool,
    /// Fetch the requests, results and manifests that the chain names from this Kubo RPC, and check them.
    #[arg(long, env = "ASSAY_IPFS_URL", value_name = "URL")]
    pub ipfs_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Tell in plain words what became of a task or a node: amounts, selections, penalties, and why.
    #[command(
        after_help = "Examples:\n  assay audit explain 3\n  assay audit explain 0x5e1f...   # a task: the header x-assay-task of its answer"
    )]
    Explain(AuditExplainArgs),
    /// Follow the chain and check every block as it comes, until Ctrl-C; then ends as an audit does. Goes on where it was
    /// when it is started again.
    #[command(
        after_help = "Example:\n  assay audit watch --observe 127.0.0.1:9200   # /metrics, /health, /ready"
    )]
    Watch(AuditWatchArgs),
}

#[derive(Clone, Debug, Args)]
pub struct AuditRange {
    /// First block to check; those before it are executed alone.
    #[arg(long, default_value_t = 1, value_name = "BLOCK")]
    pub from: u64,
    /// Last block to check; default: the newest.
    #[arg(long, value_name = "BLOCK")]
    pub to: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub struct AuditChain {
    /// JSON-RPC of the chain; default: the network's. It is not trusted.
    #[arg(long, env = "ASSAY_RPC_URL", value_name = "URL")]
    pub rpc_url: Option<String>,
    /// Where the contracts are: a file like script/deployments/<chain id>.toml; default: the network's folder.
    #[arg(long, value_name = "FILE")]
    pub deployment: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AuditExplainArgs {
    /// A node's number, or a task's id.
    pub subject: String,
    #[command(flatten)]
    pub chain: AuditChain,
}

#[derive(Debug, Args)]
pub struct AuditWatchArgs {
    #[command(flatten)]
    pub chain: AuditChain,
    /// Where /metrics, /health and /ready are served.
    #[arg(long, env = "ASSAY_OBSERVE", value_name = "ADDR")]
    pub observe: Option<SocketAddr>,
    /// Begin anew, with the chain's first block.
    #[arg(long)]
    pub fresh: bool,
}
