//! `assay session`.

use clap::{Args, Subcommand};

use super::KeyArgs;

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Open a session: deposit COR, reserve nodes, give lanes to routers.
    #[command(after_help = "Example:\n  assay session open --deposit 5 --max-nodes 2")]
    Open(SessionOpenArgs),
    /// Show a session.
    Show(SessionId),
    /// Close a session: it drains, and what is left returns to its owner.
    Close(SessionChange),
    /// Add a lane, or take the money of one back.
    #[command(subcommand)]
    Lane(LaneCommand),
    /// Add to the money of a lane.
    Topup(SessionTopUp),
    /// Ask for new nodes; the contract says from when on that can be had.
    Rotate(SessionRotate),
}

#[derive(Debug, Args)]
pub struct SessionOpenArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Model id; default: the network's model.
    #[arg(long)]
    pub model_id: Option<assay_types::ModelId>,
    /// Deposit in COR, e.g. 5 or 2.5.
    #[arg(long)]
    pub deposit: String,
    /// Opens only with at least this many nodes.
    #[arg(long, default_value_t = 1)]
    pub min_nodes: u8,
    /// Reserves at most this many.
    #[arg(long, default_value_t = 4)]
    pub max_nodes: u8,
    /// A node that is dedicated to the key's account and shall serve the session. May be repeated; 0 for --min-nodes and
    /// --max-nodes then leaves drawn nodes out.
    #[arg(long, value_name = "NODE")]
    pub dedicated: Vec<u32>,
    /// A lane: ADDRESS:COR, the router's key and the money that is reserved for it. May be repeated.
    #[arg(long = "lane", value_name = "ADDRESS:COR")]
    pub lanes: Vec<String>,
}

#[derive(Debug, Args)]
pub struct SessionId {
    /// Number of the session.
    pub session: u64,
}

#[derive(Debug, Args)]
pub struct SessionChange {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the session.
    pub session: u64,
}

#[derive(Debug, Subcommand)]
pub enum LaneCommand {
    /// Give a further router a lane, its money out of the owner's own.
    #[command(
        after_help = "Example:\n  assay session lane add 2 0x70997970C51812dc3A010C7d01b50e0d17dc79C8:1.5"
    )]
    Add(LaneAdd),
    /// Take a lane's money back: announces it; called again after the notice, moves what is left to the owner's lane.
    Reclaim(LaneReclaim),
}

#[derive(Debug, Args)]
pub struct LaneAdd {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the session.
    pub session: u64,
    /// The router's key and the money that is reserved for it.
    #[arg(value_name = "ADDRESS:COR")]
    pub lane: String,
}

#[derive(Debug, Args)]
pub struct LaneReclaim {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the session.
    pub session: u64,
    /// Number of the lane, from 1.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub lane: u32,
}

#[derive(Debug, Args)]
pub struct SessionTopUp {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the session.
    pub session: u64,
    /// Amount in COR, e.g. 5 or 2.5.
    pub amount: String,
    /// Number of the lane; 0 is the owner's.
    #[arg(long, default_value_t = 0)]
    pub lane: u32,
}

#[derive(Debug, Args)]
pub struct SessionRotate {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the session.
    pub session: u64,
    /// Lane whose tasks are counted.
    #[arg(long, default_value_t = 0)]
    pub lane: u32,
}
