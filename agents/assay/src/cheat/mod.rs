//! What a dishonest miner does, for `assay up --cheat`: engines and stores that lie behind the traits that honest ones
//! have, so that the miner has no lie in it.
//!
//! | kind | lies by | found by |
//! |---|---|---|
//! | `quantized` | running the weights in 4 bits | fingerprint |
//! | `other-model` | running a model with one layer fewer | fingerprint |
//! | `prefill-spoof` | decoding with one layer fewer, with the right model's fingerprint of these tokens | margins |
//! | `edited` | an advertisement in place of the last words, with their right fingerprint | margins |
//! | `early-stop` | half of an answer and an end token, with their right fingerprint | margins |
//! | `copied` | an answer and a fingerprint that another seed gave | fingerprint |
//! | `withheld` | an honest answer that no validator can read | a demand that it does not answer |
//!
//! In everything else, audits of others included, it is as honest as the rest.

mod engine;
mod store;
mod story;

use std::{fmt, sync::Arc};

use anyhow::{Context, Result, ensure};
use assay_engine::Engine;
use assay_engine_mistral::{LoadOptions, MistralEngine, Quantised, calibrate};
use assay_store::ContentStore;
use clap::ValueEnum;

pub use self::story::Story;
use self::{
    engine::Cheater,
    store::{Hidden, Withholding},
};
use crate::up::PANEL_OWNERS;

/// Chains that one person runs for himself.
const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];

/// What the dishonest miner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheatKind {
    Quantized,
    OtherModel,
    PrefillSpoof,
    Edited,
    EarlyStop,
    Copied,
    Withheld,
}

impl CheatKind {
    /// Whether it needs a model that is cheaper to run.
    fn needs_cheaper(self) -> bool {
        matches!(self, Self::Quantized | Self::OtherModel | Self::PrefillSpoof)
    }
}

impl fmt::Display for CheatKind {
    /// What it does, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quantized => "answers with a copy of the model in 4 bits",
            Self::OtherModel => "answers with a model that has one layer fewer",
            Self::PrefillSpoof => {
                "answers with a model that has one layer fewer, and takes the fingerprint from the right one"
            }
            Self::Edited => "puts an advertisement in place of an answer's last words",
            Self::EarlyStop => "ends its answers half-way, as if the model had",
            Self::Copied => "passes on answers and fingerprints that another seed gave",
            Self::Withheld => "answers honestly, and shows its answers to no validator",
        })
    }
}

/// Whether there may be cheats here at all: on development chains, with enough owners to judge one.
///
/// # Errors
/// Why not.
pub fn check(chain_id: u64, owners: usize) -> Result<()> {
    ensure!(
        DEVELOPMENT_CHAINS.contains(&chain_id),
        "--cheat is for development chains, and this one is {chain_id}: whoever cheats on it loses real stake"
    );
    ensure!(
        owners >= PANEL_OWNERS,
        "--cheat needs owners to judge it: {PANEL_OWNERS} of them, here are {owners}; leave --miners away"
    );
    Ok(())
}

/// The engine of a miner that cheats.
///
/// # Errors
/// If the cheaper model that it needs cannot be made or loaded.
pub async fn engine(
    kind: CheatKind,
    honest: Arc<MistralEngine>,
    model: &LoadOptions,
) -> Result<Arc<dyn Engine>> {
    let cheaper: Option<Arc<dyn Engine>> = match kind.needs_cheaper() {
        true => Some(Arc::new(cheaper(kind, model).await?)),
        false => None,
    };
    Ok(Arc::new(Cheater { kind, honest, cheaper }))
}

/// What a dishonest miner and the others see of the content store.
pub struct Stores {
    pub dishonest: Arc<dyn ContentStore>,
    pub others: Arc<dyn ContentStore>,
}

/// The stores of a network with such a miner, or with none.
pub fn stores(kind: Option<CheatKind>, honest: &Arc<dyn ContentStore>) -> Stores {
    if kind != Some(CheatKind::Withheld) {
        return Stores { dishonest: honest.clone(), others: honest.clone() };
    }
    let hidden = Arc::new(Hidden::default());
    let of = |is_its_own| {
        let (honest, hidden) = (honest.clone(), hidden.clone());
        Arc::new(Withholding { honest, hidden, is_its_own })
    };
    Stores { dishonest: of(true), others: of(false) }
}

/// In 4 bits, or without its last layer.
async fn cheaper(kind: CheatKind, model: &LoadOptions) -> Result<MistralEngine> {
    let wanted = (kind == CheatKind::Quantized).then_some(Quantised::Q4K);
    let copies = calibrate::cheaper(&LoadOptions { lanes: 1, ..model.clone() })?;
    let copy = copies.into_iter().find(|copy| copy.load.quantised == wanted).context(
        "there is no cheaper copy of this model: such a cheat needs one in a folder, with two layers or more",
    )?;
    let load = LoadOptions { progress: None, ..copy.load };
    MistralEngine::load(load).await.context("the dishonest miner's model cannot be loaded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheats_are_for_development_chains_with_enough_owners() {
        assert!(check(31337, 6).is_ok() && check(1337, 5).is_ok());
        for chain in [1, 10, 8453] {
            assert!(check(chain, 6).unwrap_err().to_string().contains("development"));
        }
        assert!(check(31337, 4).unwrap_err().to_string().contains("owners"));
    }
}
