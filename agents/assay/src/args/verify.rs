//! `assay verify`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Id of the task, 0x and 64 hex digits.
    pub task: assay_types::TaskId,
    /// The model that was paid for: assay-demo, a folder, a .gguf file, or an id of the Hugging Face hub.
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Only the answer of this node.
    #[arg(long, value_name = "NODE")]
    pub node: Option<u32>,
    /// Thresholds: the calibration.json that `assay model calibrate --report` wrote; default: those of assay-demo, for its
    /// tasks. Without any, margins are shown, and only what is wrong whatever the thresholds are fails.
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
}
