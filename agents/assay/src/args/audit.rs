//! `assay audit`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use alloy::primitives::B256;
use clap::{Args, Subcommand};

use super::KeyArgs;

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
    #[command(flatten)]
    pub rerun: AuditRerun,
}

#[derive(Clone, Debug, Args)]
pub struct AuditRerun {
    /// Score answers again with the model's weights, as `assay verify` does: so many (20), or a share of all (5%), one at least.
    #[arg(long, value_name = "COUNT|SHARE%")]
    pub rerun: Option<Sample>,
    /// Draws the answers that are scored; the same number draws the same ones. Default: a random one, which is told.
    #[arg(long, requires = "rerun", value_name = "NUMBER")]
    pub rerun_seed: Option<u64>,
    /// The model whose answers are scored: assay-demo, a folder, a .gguf file, or an id of the Hugging Face hub.
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Thresholds: the calibration.json that `assay model calibrate --report` wrote; default: those of assay-demo, for its
    /// answers. Without any, only what is wrong whatever the thresholds are is found false.
    #[arg(long, requires = "rerun", value_name = "FILE")]
    pub calibration: Option<PathBuf>,
}

/// Which answers are scored again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// So many.
    Count(usize),
    /// Of 2^64.
    Share(u64),
}

impl Sample {
    /// Whether an answer with this place in the draw may be one of them.
    pub fn takes(self, place: B256) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = place.0;
        match self {
            Self::Count(_) => true,
            Self::Share(share) => u64::from_be_bytes([a, b, c, d, e, f, g, h]) <= share,
        }
    }

    /// How many there are at most.
    pub const fn most(self) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Share(_) => usize::MAX,
        }
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a count, such as 20, nor a share, such as 5%");
        let Some(share) = text.strip_suffix('%') else {
            let count = text.parse().ok().filter(|count| *count > 0);
            return count.map(Self::Count).ok_or_else(wrong);
        };
        let share: f64 = share.parse().map_err(|_| wrong())?;
        // Also no number fails this.
        if !(share > 0.0 && share <= 100.0) {
            return Err(wrong());
        }
        Ok(Self::Share((share / 100.0 * u64::MAX as f64) as u64))
    }
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Tell in plain words what became of a task or a node: amounts, selections, penalties, and why.
    #[command(
        after_help = "Examples:\n  assay audit explain 3\n  assay audit explain 0x5e1f...   # a task: the header x-assay-task of its answer"
    )]
    Explain(AuditExplainArgs),
    /// Follow the chain and check every block as it comes, until Ctrl-C; then ends as an audit does. Goes on where it was
    /// when it is started again. Tells of nodes that signed two answers to one task, which costs them stake when somebody
    /// brings both to the contract.
    #[command(
        after_help = "Examples:\n  assay audit watch --observe 127.0.0.1:9200   # /metrics, /health, /ready\n  assay audit watch --challenge --account client   # brings what it finds, and earns the reporter's share"
    )]
    Watch(AuditWatchArgs),
}

#[derive(Clone, Debug, Args)]
pub struct AuditRange {
    /// First block to check; default: the chain's first. On a development chain those before it are executed alone; on
    /// others the state before it is fetched with proofs, and the default is the first block after all contracts stand.
    #[arg(long, default_value_t = 1, hide_default_value = true, value_name = "BLOCK")]
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
    /// Send challenges; otherwise it only tells what it would bring. The key below pays for the gas.
    #[arg(long)]
    pub challenge: bool,
    #[command(flatten)]
    pub key: KeyArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counts_or_shares() {
        assert_eq!("20".parse(), Ok(Sample::Count(20)));
        assert_eq!("100%".parse(), Ok(Sample::Share(u64::MAX)));
        assert_eq!("50%".parse(), Ok(Sample::Share(1 << 63)));
        for bad in ["", "0", "-1", "0%", "101%", "x%", "NaN%", "0.5"] {
            assert!(bad.parse::<Sample>().is_err(), "{bad}");
        }
        assert!(Sample::Share(u64::MAX).takes(B256::repeat_byte(0xff)));
        assert!(!Sample::Share(1 << 63).takes(B256::repeat_byte(0xff)));
    }
}
