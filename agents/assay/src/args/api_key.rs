//! `assay api-key`.

use alloy::primitives::Address;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key. It is shown once: only its hash is stored.
    #[command(
        after_help = "Example:\n  assay api-key create team-a --budget 5 --per month --requests-per-minute 60 --model assay-demo"
    )]
    Create(ApiKeyCreateArgs),
    /// Show all keys, and what each has used.
    List(ApiKeyRouter),
    /// Show one key: its limits, and what it has used in each period of its budget.
    Show(ApiKeyId),
    /// Revoke a key. Answers that it is given are cut off.
    Revoke(ApiKeyId),
}

/// Whose keys they are.
#[derive(Clone, Debug, Args)]
pub struct ApiKeyRouter {
    /// The router's address; default: the only one that ran in the folder.
    #[arg(long, value_name = "ADDRESS")]
    pub router: Option<Address>,
}

#[derive(Debug, Args)]
pub struct ApiKeyCreateArgs {
    #[command(flatten)]
    pub router: ApiKeyRouter,
    /// What it is called in lists.
    pub name: String,
    /// COR that its answers may cost, e.g. 5 or 2.5; default: as much as the router's sessions have.
    #[arg(long, value_name = "COR")]
    pub budget: Option<String>,
    /// How often the budget begins anew; default: never.
    #[arg(long, value_name = "PERIOD", requires = "budget")]
    pub per: Option<BudgetPeriod>,
    /// Requests that it may send in a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers in a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_per_minute: Option<u32>,
    /// Days until it expires; default: never.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub days: Option<u32>,
    /// A model that it may ask for, by name; default: all. May be repeated.
    #[arg(long = "model", value_name = "NAME")]
    pub models: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ApiKeyId {
    #[command(flatten)]
    pub router: ApiKeyRouter,
    /// Its id, key_...
    pub id: String,
}

/// How often a budget begins anew.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BudgetPeriod {
    Day,
    Week,
    Month,
}
