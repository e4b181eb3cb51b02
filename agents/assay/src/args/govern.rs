//! `assay model` and `assay params`.

use std::path::PathBuf;

use assay_types::{NumericClass, NumericClassError};
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
    /// Measure how much honest nodes of a model differ, derive the thresholds of its proof, and report what they catch.
    #[command(
        after_help = "Examples:\n  assay model calibrate --report ./calibration\n  assay model calibrate --audits 60 --trials 20 --report ./quick\n  assay model calibrate --model ~/models/Qwen3-0.6B --cheat ./qwen3-0.6b.Q4_K.gguf --report ./qwen\n\nTwo machines:\n  first$  assay model calibrate --save answers.json\n  second$ assay model calibrate --answers answers.json --report ./calibration"
    )]
    Calibrate(ModelCalibrateArgs),
    /// Publisher: write measured thresholds on chain. From the first pair of classes on, new sessions of the model are
    /// proven; a pair stands for ever.
    #[command(
        after_help = "Example:\n  assay model calibrate --model ~/models/Qwen3-0.6B --report ./qwen\n  assay model publish --account deployer --calibration ./qwen/calibration.json"
    )]
    Publish(ModelPublishArgs),
    /// Operator of a staked node: vouch for published thresholds, which one's own measurement must not exceed. A pair can
    /// cost stake once three owners have.
    #[command(
        after_help = "Example:\n  assay model calibrate --class f32 --trials 1 --report ./mine\n  assay model attest --account miner-1 --calibration ./mine/calibration.json"
    )]
    Attest(ModelAttestArgs),
    /// Write a model with random weights: as fast as a real one of its shape, and its answers are as long as asked for.
    #[command(after_help = "Example:\n  assay model random --shape qwen3-0.6b ./random")]
    Random(ModelRandomArgs),
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

#[derive(Debug, Args)]
pub struct ModelCalibrateArgs {
    /// assay-demo, a folder, a .gguf file, or an id of the Hugging Face hub.
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Numeric classes that honest nodes run it in here; every one audits every one.
    #[arg(long = "class", value_delimiter = ',', default_value = "f32,f16", value_name = "TYPE")]
    pub classes: Vec<DataType>,
    /// What a dishonest miner might run instead, beside copies of 8 and 4 bits and one with a layer fewer, which are made
    /// of a model in a folder. May be repeated.
    #[arg(long = "cheat", value_name = "MODEL")]
    pub cheats: Vec<String>,
    /// Honest audits that the thresholds of each pair of classes are tried on; half as many others set them.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub audits: u32,
    /// Answers of each cheat, and answers changed in each way.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub trials: u32,
    /// Answers of each cheat to open questions, whose choices are what its tokens are judged by.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub open: u32,
    /// Only this cheat is asked open questions, by its name in the report. May be repeated; default: all are.
    #[arg(long, value_name = "CHEAT")]
    pub open_to: Vec<String>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub tokens: u32,
    /// Answers that run at once, each with a copy of the model in memory.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub lanes: u8,
    /// Honest answers that another machine saved: they are audited here, too. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub answers: Vec<PathBuf>,
    /// Only answer the questions in the first class and save the answers, for another machine to audit.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["report", "answers", "cheats"])]
    pub save: Option<PathBuf>,
    /// Folder where answers are kept as they are made: a run that was stopped goes on with them.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Folder for the table, the page and its charts; the table is printed in any case.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ModelPublishArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// The calibration.json that `assay model calibrate --report` wrote; default: that of assay-demo, which is part of
    /// this program.
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Only this pair of numeric classes, as MINER:VALIDATOR; default: all of the file. May be repeated.
    #[arg(long = "pair", value_name = "PAIR", value_parser = parse_pair)]
    pub pairs: Vec<(NumericClass, NumericClass)>,
}

#[derive(Debug, Args)]
pub struct ModelAttestArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// What the node's owner measured: the calibration.json that `assay model calibrate --report` wrote.
    #[arg(long, value_name = "FILE")]
    pub calibration: PathBuf,
    /// The node; default: the key's.
    #[arg(long, value_name = "NODE")]
    pub node: Option<u32>,
}

/// `cpu-f32:cpu-f16`, of a miner and a validator.
fn parse_pair(text: &str) -> Result<(NumericClass, NumericClass), String> {
    let (miner, validator) =
        text.split_once(':').ok_or("write MINER:VALIDATOR, as cpu-f32:cpu-f16")?;
    let class = |text: &str| text.parse().map_err(|error: NumericClassError| error.to_string());
    Ok((class(miner)?, class(validator)?))
}

/// Data types of a CPU.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum DataType {
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Args)]
pub struct ModelRandomArgs {
    /// Folder to write; about 1.2 GB for Qwen3-0.6B's shape.
    pub folder: PathBuf,
    /// Its shape.
    #[arg(long, default_value = "small")]
    pub shape: ModelShape,
    /// Another number, other weights.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Shapes of random models.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ModelShape {
    /// 4 layers of 256, a vocabulary of 4,096: for calibrations within minutes.
    Small,
    /// 28 layers of 1,024, a vocabulary of 151,936.
    #[value(name = "qwen3-0.6b")]
    Qwen3,
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
