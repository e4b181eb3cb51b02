//! `script/bench/gateway`: the router beside other gateways, in one run on one machine.
//!
//! ```text
//! load ─HTTP→ other gateway ─HTTP→ upstream
//!    │
//!    └─HTTP→ assay-router ─its link→ node
//! ```
//!
//! The upstream and the node give the same constant answer at the same pace, and neither is the bottleneck. What each
//! gateway does with it is not the same. The others forward a request and its answer. The router forwards nothing: it
//! looks for a session that can pay, takes a nonce, signs a request, offers it over its link, checks every frame and the
//! node's signature over what it streamed, reads the result block back and compares it, writes nine entries and the
//! chain's three events into its database, and keeps its metrics and its access log, as it does in a network.
//!
//! Two things that a router works with are constant and in its process: a chain that has every task in its next block
//! ([`chain`]), and a content store that answers at once ([`store`]). The time and the work of a real chain's RPC and of
//! a daemon's round trips are not in the figures. All gateways log and count as they do by default.

mod answer;
mod chain;
mod client;
mod load;
mod node;
mod peers;
mod process;
mod report;
mod run;
mod store;
mod subject;
mod upstream;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::run::RunArgs;

/// Measures the router beside other gateways.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All gateways in turn, and a table.
    Compare(RunArgs),
    /// The router alone under a steady load for long: its memory and its speed over time.
    Soak(run::SoakArgs),
    /// Answers at full speed from whatever listens, or streams side by side, for a profiler to look at.
    Load {
        /// Who answers.
        #[arg(long)]
        address: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// How long.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Tokens of a stream on each connection, instead of answers at full speed.
        #[arg(long)]
        tokens: Option<usize>,
    },
    /// The constant upstream of the other gateways.
    Upstream {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The constant nodes of the router.
    Nodes {
        /// The router.
        #[arg(long)]
        router: SocketAddr,
        /// Where the router's store takes blocks.
        #[arg(long)]
        blocks: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 1)]
        nodes: u32,
        /// Answers that each has signed before it connects.
        #[arg(long, default_value_t = 0)]
        ahead: u64,
    },
    /// The router before a constant chain.
    Router {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// Its folder, which also holds the socket of its store.
        #[arg(long)]
        data: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Compare(args) => run::compare(&args),
        Command::Soak(args) => run::soak(&args),
        Command::Load { address, connections, tokens: Some(tokens), .. } => {
            report::show(&format!("{:?}", load::side_by_side(address, connections, tokens)?));
            Ok(())
        }
        Command::Load { address, connections, seconds, .. } => {
            let time = std::time::Duration::from_secs(seconds);
            let rate = load::at_full_speed(address, connections, time)?;
            report::show(&format!("{rate:?}"));
            Ok(())
        }
        Command::Upstream { listen } => upstream::serve(listen),
        Command::Nodes { router, blocks, nodes, ahead } => {
            node::serve(router, &blocks, (nodes, ahead))
        }
        Command::Router { listen, data } => subject::serve(listen, &data),
    }
}
