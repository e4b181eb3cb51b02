//! `assay model publish|attest`: measured thresholds on chain, and who vouches for them.

use std::path::Path;

use alloy::primitives::B256;
use anyhow::{Context, Result, bail, ensure};
use assay_bindings::{ModelRegistry, NodePool};
use assay_client::Wallet;
use assay_engine_mistral::calibrate::{Table, TablePair};
use assay_proof::Calibration;
use assay_types::{ModelId, NumericClass};
use serde::Serialize;

use super::{model, writer};
use crate::{
    args::{Global, ModelAttestArgs, ModelPublishArgs},
    ui,
};

/// Owners that must have attested a pair before it can cost stake: the registry's bound.
pub const ATTESTATIONS: u8 = 3;
/// `NodeState`: 1 is ephemeral, 2 dedicated.
const STAKED: [u8; 2] = [1, 2];

/// What became of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PairReport {
    miner_class: NumericClass,
    validator_class: NumericClass,
    word: B256,
    /// Whether this command wrote it, or it was there.
    written: bool,
    /// Owners that attested it.
    attested: u8,
}

/// Thresholds of a model: those of a file, which must be this model's, or those that are part of this program.
pub fn table(file: Option<&Path>, model: ModelId) -> Result<Option<Table>> {
    let Some(file) = file else { return Ok(Table::shipped(model)) };
    let table = load(file)?;
    let of = table.model_id;
    ensure!(of == model, "{} has the thresholds of model {of}, not of {model}", file.display());
    Ok(Some(table))
}

fn load(file: &Path) -> Result<Table> {
    Table::load(file).with_context(|| format!("the thresholds in {}", file.display()))
}

pub async fn publish(global: &Global, args: ModelPublishArgs) -> Result<()> {
    let (network, wallet) = writer(global, &args.key, "deployer").await?;
    let mut table = match &args.calibration {
        Some(file) => load(file)?,
        None => {
            let of = network.model.map(|model| model.model_id);
            of.and_then(Table::shipped).context(
                "this program has the thresholds of assay-demo alone: name a file with --calibration",
            )?
        }
    };
    if !args.pairs.is_empty() {
        if let Some((miner, validator)) =
            args.pairs.iter().find(|(miner, validator)| table.of(*miner, *validator).is_none())
        {
            bail!("the thresholds have no pair {miner}:{validator}");
        }
        table.pairs.retain(|p| args.pairs.contains(&(p.miner_class, p.validator_class)));
    }
    let reports = publish_table(&wallet, &table).await?;
    ui::show(global.json, reports.as_slice(), describe)
}

/// Writes the pairs of a table as the model's publisher; those that are there are left.
pub async fn publish_table(wallet: &Wallet, table: &Table) -> Result<Vec<PairReport>> {
    let (chain, id) = (&wallet.chain, table.model_id);
    let model = model::find(chain, id).await?.with_context(|| {
        format!("model {id} is not registered on this chain: `assay model register` does it")
    })?;
    ensure!(
        model.publisher == wallet.address(),
        "model {id} was published by {}, and this key is {}: only the publisher calibrates it; name that key with \
         --keystore or --account",
        model.publisher,
        wallet.address()
    );
    let registry = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let mut reports = Vec::new();
    for pair in &table.pairs {
        let (miner, validator) = (pair.miner_class, pair.validator_class);
        let there = registry.calibrationOf(model.index, miner.0, validator.0).call().await?;
        ensure!(
            there.is_zero() || B256::from(there) == pair.word,
            "the pair {miner}:{validator} is published already, with other thresholds ({there:#066x}), and stands for \
             ever: other thresholds need a new version of the model"
        );
        let call = ModelRegistry::calibrateCall {
            modelId: id.0,
            minerClass: miner.0,
            validatorClass: validator.0,
            word: pair.word.into(),
        };
        if there.is_zero() {
            wallet.send(chain.deployment.models, call).await?;
        }
        reports.push(report(wallet, model.index, pair, there.is_zero()).await?);
    }
    Ok(reports)
}

pub async fn attest(global: &Global, args: ModelAttestArgs) -> Result<()> {
    let (_, wallet) = writer(global, &args.key, "miner-1").await?;
    let node = match args.node {
        Some(node) => node,
        None => node_of(&wallet).await?,
    };
    let reports = attest_table(&wallet, &load(&args.calibration)?, node).await?;
    ui::show(global.json, reports.as_slice(), describe)
}

/// The node that a key operates.
pub async fn node_of(wallet: &Wallet) -> Result<u32> {
    let pool = NodePool::new(wallet.chain.deployment.nodes, &wallet.chain.provider);
    let node = pool.nodeByOperator(wallet.address()).call().await?;
    ensure!(
        node != 0,
        "{} operates no node: register one with `assay node register`, or name its operator's key",
        wallet.address()
    );
    Ok(node)
}

/// Vouches, as a node's operator, for every published pair of its class that the table has measured, too.
pub async fn attest_table(wallet: &Wallet, own: &Table, node: u32) -> Result<Vec<PairReport>> {
    let chain = &wallet.chain;
    let pool = NodePool::new(chain.deployment.nodes, &chain.provider);
    let found = pool.nodeOf(node).call().await?;
    ensure!(
        found.operator == wallet.address(),
        "node {node} is operated by {}, and this key is {}: name the operator's key with --keystore or --account",
        found.operator,
        wallet.address()
    );
    ensure!(
        STAKED.contains(&found.state),
        "node {node} is not staked any more: only one that takes sessions can attest"
    );
    let id = own.model_id;
    let model = model::find(chain, id).await?;
    let model = model.with_context(|| format!("model {id} is not registered on this chain"))?;
    let registry = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let mut reports = Vec::new();
    for pair in &own.pairs {
        let (miner, validator) = (pair.miner_class, pair.validator_class);
        let word = registry.calibrationOf(model.index, miner.0, validator.0).call().await?;
        if ![miner.0, validator.0].contains(&found.numericClass) || word.is_zero() {
            continue;
        }
        let published = Calibration::unpack(word)?;
        if let Some(field) = exceeded(&pair.calibration, &published) {
            bail!(
                "the measured {field} of {miner}:{validator} is above the published one: honest nodes could be accused. \
                 Measure again; if it stays, tell the publisher"
            );
        }
        let call = ModelRegistry::attestCall {
            modelId: id.0,
            minerClass: miner.0,
            validatorClass: validator.0,
            word,
            nodeId: node,
        };
        wallet.send(chain.deployment.models, call).await?;
        let published = TablePair { word: word.into(), ..pair.clone() };
        reports.push(report(wallet, model.index, &published, true).await?);
    }
    ensure!(
        !reports.is_empty(),
        "none of the measured pairs is published and of the class {} of node {node}",
        NumericClass(found.numericClass)
    );
    Ok(reports)
}

/// The first threshold that a measurement has above the published one.
fn exceeded(own: &Calibration, published: &Calibration) -> Option<&'static str> {
    let fields = [
        ("tau", own.tau.into(), published.tau.into()),
        ("spot_tau", own.spot_tau.into(), published.spot_tau.into()),
        ("hard_margin", own.hard_margin, published.hard_margin),
        ("margin_bar", own.margin_bar, published.margin_bar),
        ("thr_base", own.thr_base, published.thr_base),
        ("thr_slope", own.thr_slope, published.thr_slope),
        ("thr_spread", own.thr_spread, published.thr_spread),
    ];
    fields.into_iter().find(|(_, own, published): &(_, u32, u32)| own > published).map(|f| f.0)
}

async fn report(
    wallet: &Wallet,
    model: u32,
    pair: &TablePair,
    written: bool,
) -> Result<PairReport> {
    let chain = &wallet.chain;
    let registry = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let (miner, validator) = (pair.miner_class, pair.validator_class);
    let attested = registry.attestedOf(model, miner.0, validator.0).call().await?;
    Ok(PairReport {
        miner_class: miner,
        validator_class: validator,
        word: pair.word,
        written,
        attested,
    })
}

fn describe(reports: &[PairReport]) -> String {
    let line = |report: &PairReport| {
        format!(
            "miner {}, validator {}: {}; {} owners vouch for it{}\n  {}",
            report.miner_class,
            report.validator_class,
            if report.written { "written" } else { "was there already" },
            report.attested,
            if report.attested < ATTESTATIONS {
                ", three must before it can cost stake"
            } else {
                ""
            },
            report.word,
        )
    };
    reports.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_must_lie_within_what_is_published() {
        let published = Table::demo().unwrap().pairs[0].calibration;
        assert_eq!(exceeded(&published, &published), None);
        let louder = Calibration { hard_margin: published.hard_margin + 1, ..published };
        assert_eq!(exceeded(&louder, &published), Some("hard_margin"));
        assert_eq!(exceeded(&published, &louder), None);
    }

    #[test]
    fn a_file_of_another_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("calibration.json");
        let shipped = Table::demo().unwrap();
        std::fs::write(&file, serde_json::to_string(&shipped).unwrap()).unwrap();
        assert_eq!(table(Some(&file), shipped.model_id).unwrap(), Some(shipped.clone()));
        let other = ModelId(B256::ZERO);
        let error = table(Some(&file), other).unwrap_err();
        assert!(error.to_string().contains("not of"), "{error}");
        assert_eq!(table(None, other).unwrap(), None);
    }
}
