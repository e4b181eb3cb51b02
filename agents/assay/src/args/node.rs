//! `assay node`.

use alloy::primitives::Address;
use clap::{Args, Subcommand};

use super::KeyArgs;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Register a node and stake for it.
    #[command(
        after_help = "Examples:\n  ASSAY_PASSWORD=... assay node register --keystore miner.json --class cpu-f32\n  assay node register --model 0x3a...:2 --model 0x7f...:1"
    )]
    Register(NodeRegisterArgs),
    /// List all nodes.
    List,
    /// Show one node: state, stake, what it earned, holds and can claim, its levels, and why it is drawn or not.
    Status(NodeStatusArgs),
    /// Take part in no further draw; what has reserved the node is served.
    Drain(NodeChange),
    /// Take part in draws again.
    Resume(NodeChange),
    /// Leave: starts the unbonding of the stake. For a drained node that is in no session.
    Exit(NodeChange),
    /// Contest what a panel found of one of the node's answers, with the owner's key, in time: seven others decide. The bond
    /// is lost if they find the answer false, too.
    Appeal(NodeAppeal),
    /// Collect: the stake once its unbonding is over, and the balance of the key.
    Withdraw(NodeWithdraw),
}

#[derive(Debug, Args)]
pub struct NodeRegisterArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Model id, with `:N` for how many sessions at once. May be repeated; default: the network's model.
    #[arg(long = "model", value_name = "MODEL_ID[:N]")]
    pub models: Vec<String>,
    /// Numeric class of the engine.
    #[arg(long, default_value = "cpu-f32")]
    pub class: assay_types::NumericClass,
    /// Sessions served at once where --model does not say: places in the draw, and units of collateral. All models
    /// together have 1 to 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub capacity: u8,
    /// Serve this client alone, who names the node; it is in no draw then.
    #[arg(long, value_name = "ADDRESS")]
    pub dedicated_to: Option<Address>,
    /// Key that signs for the node; default: the one that registers it.
    #[arg(long, value_name = "ADDRESS")]
    pub operator: Option<Address>,
    /// Who receives what it earns; default: the key that registers it.
    #[arg(long, value_name = "ADDRESS")]
    pub payout: Option<Address>,
}

#[derive(Debug, Args)]
pub struct NodeStatusArgs {
    /// Number of the node.
    pub node: u32,
}

#[derive(Debug, Args)]
pub struct NodeChange {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the node.
    pub node: u32,
}

#[derive(Debug, Args)]
pub struct NodeWithdraw {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Number of the node.
    pub node: u32,
    /// Where the money goes; default: the key's account.
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<Address>,
}

#[derive(Debug, Args)]
pub struct NodeAppeal {
    #[command(flatten)]
    pub key: KeyArgs,
    /// The task, as `assay node status` names it.
    pub task: assay_types::TaskId,
}
