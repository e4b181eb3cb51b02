//! The proof of a development network: its publisher's thresholds, and the owners that vouch for them.

use alloy::{primitives::Address, providers::Provider, rpc::types::Filter, sol_types::SolEvent};
use anyhow::{Context, Result};
use assay_bindings::ModelRegistry;
use assay_chain::Chain;
use assay_client::Wallet;
use assay_engine::Engine;
use assay_engine_mistral::{MistralEngine, calibrate::Table};
use assay_types::NumericClass;

use super::{Steps, foundation::Foundation};
use crate::{
    args::UpArgs,
    commands::{
        model,
        thresholds::{self, ATTESTATIONS, attest_table, node_of, publish_table},
    },
    keys::Account,
};

/// Owners that a failing audit needs: the miner's, the first validator's, and three of a panel.
pub const PANEL_OWNERS: usize = 5;

/// Publishes the thresholds of the model, if there are any: sessions that open from then on are proven. An engine of a
/// class that they do not have would have its answers refused, so that nothing is published for it.
pub async fn publish(
    base: &Foundation,
    args: &UpArgs,
    engine: &MistralEngine,
    steps: &Steps,
) -> Result<Option<Table>> {
    let info = engine.info();
    let Some(table) = thresholds::table(args.calibration.as_deref(), info.model_id)? else {
        steps.say(format!(
            "proof: off, there are no thresholds of {}: answers are not audited. `assay model calibrate --model {} --report \
             <dir>` measures them, `--calibration <dir>/calibration.json` uses them",
            info.model, args.model
        ));
        return Ok(None);
    };
    let class = info.numeric_class;
    table.of(class, class).with_context(|| {
        format!("the thresholds have no pair {class}:{class}, which this machine computes in: measure it here")
    })?;
    let wallet = wallet(base, &base.accounts.deployer).await?;
    let pairs = publish_table(&wallet, &table).await?;
    steps.say(format!("proof: thresholds of {} pairs of classes published", pairs.len()));
    Ok(Some(table))
}

/// Lets three owners vouch for what the publisher measured, and says what cannot be audited with so few.
pub async fn attest(
    base: &Foundation,
    chain: &Chain,
    table: &Table,
    engine: &MistralEngine,
    steps: &Steps,
) -> Result<()> {
    let (id, class) = (table.model_id, engine.info().numeric_class);
    let model = model::find(chain, id).await?.context("the model is not registered")?;
    let mut own = table.clone();
    own.pairs.retain(|pair| pair.miner_class == class && pair.validator_class == class);
    let mut vouching = attested(base, chain, model.index, class).await?;
    for account in &base.accounts.miners {
        if vouching.len() >= usize::from(ATTESTATIONS) || vouching.contains(&account.address()) {
            continue;
        }
        let wallet = wallet(base, account).await?;
        let vouch = async { attest_table(&wallet, &own, node_of(&wallet).await?).await };
        match vouch.await {
            Ok(_) => vouching.push(account.address()),
            // Its node left in an earlier run; the others can.
            Err(error) => steps.say(format!("proof: {} does not vouch: {error:#}", account.name)),
        }
    }
    steps.say(format!("proof: on; {}", reach(base.accounts.miners.len())));
    Ok(())
}

/// Owners that vouch for the pair of a class with itself.
async fn attested(
    base: &Foundation,
    chain: &Chain,
    model: u32,
    class: NumericClass,
) -> Result<Vec<Address>> {
    let filter = Filter::new()
        .from_block(base.start_block)
        .address(chain.deployment.models)
        .event_signature(ModelRegistry::PairAttested::SIGNATURE_HASH);
    let logs = chain.provider.get_logs(&filter).await?;
    let events = logs.iter().filter_map(|log| {
        let event = log.log_decode::<ModelRegistry::PairAttested>().ok()?.inner.data;
        let of_pair = event.minerClass == class.0 && event.validatorClass == class.0;
        (event.index == model && of_pair).then_some(event.owner)
    });
    Ok(events.collect())
}

/// What so many owners can find out about one another.
fn reach(owners: usize) -> String {
    match owners {
        0 | 1 => "but nobody else is there to audit an answer: all stay unverified. Start six with --miners 6".into(),
        2..PANEL_OWNERS => format!(
            "but a failing audit needs a panel, which {owners} owners cannot seat: the client has the fee back, and \
             nobody is slashed. Start six with --miners 6"
        ),
        _ => format!("{owners} owners audit one another"),
    }
}

async fn wallet(base: &Foundation, account: &Account) -> Result<Wallet> {
    Ok(Wallet::connect(&base.rpc_url, base.deployment.clone(), account.signer.clone()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_audited_is_said() {
        assert!(reach(1).contains("unverified"));
        assert!((2..PANEL_OWNERS).all(|owners| reach(owners).contains("nobody is slashed")));
        assert_eq!(reach(6), "6 owners audit one another");
    }
}
