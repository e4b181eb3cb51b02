//! `assay model` and `assay params`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::KeyArgs;

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Load a model, pin its manifest, and register it with its prices.
    #[command(
        after_help = "Example:\n  assay model register --account deployer --model ./Qwen3-0.6B --price-in 10 --price-out 20"
    )]
    Register(ModelRegisterArgs),
    /// Take no new sessions and nodes for a model; what is open goes on.
    Deprecate(ModelDeprecateArgs),
    /// Show a registered model.
    Show(ModelShowArgs),
}

#[derive(Debug, Args)]
pub struct ModelRegisterArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// assay-demo, a folder, a .gguf file, or an id of the Hugging Face hub.
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Smallest price of a million prompt tokens, in COR.
    #[arg(long, value_name = "COR")]
    pub price_in: String,
    /// Smallest price of a million generated tokens, in COR.
    #[arg(long, value_name = "COR")]
    pub price_out: String,
    /// Share of each fee that the publisher earns, in hundredths of a percent.
    #[arg(long, default_value_t = 0, value_name = "BPS")]
    pub royalty_bps: u16,
    /// The version before this one, by the same publisher.
    #[arg(long, value_name = "MODEL_ID")]
    pub predecessor: Option<assay_types::ModelId>,
}

#[derive(Debug, Args)]
pub struct ModelDeprecateArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Id of the model, 0x and 64 hex digits.
    pub model_id: assay_types::ModelId,
}

#[derive(Debug, Args)]
pub struct ModelShowArgs {
    /// Id of the model; default: the network's.
    pub model_id: Option<assay_types::ModelId>,
}

#[derive(Debug, Subcommand)]
pub enum ParamsCommand {
    /// Show the tunables that hold now, or those of one version.
    Show(ParamsShowArgs),
    /// Governor: announce a new set; it holds after the delay, and never touches what is open.
    #[command(
        after_help = "Example:\n  assay params propose --account deployer --file script/deployments/31337.toml"
    )]
    Propose(ParamsProposeArgs),
    /// Governor: take back what was announced and does not hold yet.
    Withdraw(ParamsWithdrawArgs),
}

#[derive(Debug, Args)]
pub struct ParamsShowArgs {
    /// Version to show; default: the one that holds now.
    #[arg(long)]
    pub version: Option<u16>,
}

#[derive(Debug, Args)]
pub struct ParamsProposeArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Deployment file; its sections [config.session], [config.node] and [config.assets] are proposed.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct ParamsWithdrawArgs {
    #[command(flatten)]
    pub key: KeyArgs,
}
