//! `assay task`.

use clap::{Args, Subcommand};

use super::KeyArgs;

#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Submit a task by transaction and wait for its answer.
    #[command(after_help = "Example:\n  assay task submit --session 2 \"What is a miner?\"")]
    Submit(TaskSubmitArgs),
    /// Show a task as the chain has it, with its answer.
    Show(TaskShowArgs),
    /// Take back a task that waits for a node to claim it.
    Cancel(TaskCancelArgs),
}

#[derive(Debug, Args)]
pub struct TaskSubmitArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// The question.
    pub prompt: String,
    /// Session of the key's owner.
    #[arg(long)]
    pub session: u64,
    /// Most tokens of the answer.
    #[arg(long, default_value_t = 128)]
    pub max_tokens: u32,
    /// Node that shall serve it; default: chosen by the session's seed.
    #[arg(long, default_value_t = 0)]
    pub node: u32,
    /// Seconds that the first node has for its answer.
    #[arg(long, default_value_t = 60)]
    pub deadline_s: u64,
    /// Answers wanted, each by another node, each paid: 1 to 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub redundancy: u8,
    /// Nodes that are asked one after the other for an answer.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub attempts: u8,
    /// Let the session's nodes claim the task instead of giving it to one.
    #[arg(long, conflicts_with = "node")]
    pub pull: bool,
    /// Do not wait for the answer: `assay task show` has it later.
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct TaskShowArgs {
    /// Id of the task, 0x and 64 hex digits.
    pub task: assay_types::TaskId,
}

#[derive(Debug, Args)]
pub struct TaskCancelArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Id of the task, 0x and 64 hex digits.
    pub task: assay_types::TaskId,
}
