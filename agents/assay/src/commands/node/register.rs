//! `assay node register`.

use alloy::primitives::{Address, U256};
use anyhow::{Context, Result, ensure};
use assay_bindings::{NodePool, Parameters};
use assay_types::ModelId;

use super::status;
use crate::{
    args::{Global, NodeRegisterArgs},
    commands::writer,
    network::Network,
};

/// Places that a node can have, over all of its models.
const MAX_PLACES: u32 = 8;

pub async fn register(global: &Global, args: NodeRegisterArgs) -> Result<()> {
    let (network, wallet) = writer(global, &args.key, "client").await?;
    let offers = offers(&args, &network)?;
    let places: u32 = offers.iter().map(|offer| u32::from(offer.capacity)).sum();
    ensure!(
        (1..=MAX_PLACES).contains(&places),
        "the models get {places} places together, a node can have 1 to {MAX_PLACES}"
    );
    let chain = &wallet.chain;
    let parameters = Parameters::new(chain.deployment.parameters, &chain.provider);
    let version = parameters.currentVersion().call().await?;
    let unit = parameters.nodeTermsOf(version).call().await?.collateralPerSlot;
    wallet.allow_payment(U256::from(unit).saturating_mul(U256::from(places))).await?;
    let call = NodePool::registerCall {
        registration: NodePool::NodeRegistration {
            operator: args.operator.unwrap_or_else(|| wallet.address()),
            payout: args.payout.unwrap_or_else(|| wallet.address()),
            dedicatedTo: args.dedicated_to.unwrap_or(Address::ZERO),
            numericClass: args.class.0,
            offers,
        },
    };
    let receipt = wallet.send(chain.deployment.nodes, call).await?;
    let node = receipt
        .decoded_log::<NodePool::NodeRegistered>()
        .map(|log| log.nodeId)
        .context("the transaction registered no node")?;
    status::show(global, chain, network.start_block, node).await
}

fn offers(args: &NodeRegisterArgs, network: &Network) -> Result<Vec<NodePool::Offer>> {
    if args.models.is_empty() {
        let model = network
            .model
            .as_ref()
            .context("this network names no model: give one with --model MODEL_ID")?;
        return Ok(vec![NodePool::Offer { modelId: model.model_id.0, capacity: args.capacity }]);
    }
    args.models.iter().map(|text| offer(text, args.capacity)).collect()
}

/// `MODEL_ID` or `MODEL_ID:N`.
fn offer(text: &str, capacity: u8) -> Result<NodePool::Offer> {
    let hint =
        || format!("{text:?} is not a model: write MODEL_ID or MODEL_ID:N, such as 0x3a...:2");
    let (id, capacity) = match text.split_once(':') {
        Some((id, capacity)) => (id, capacity.parse().with_context(hint)?),
        None => (text, capacity),
    };
    let id: ModelId = id.parse().ok().with_context(hint)?;
    Ok(NodePool::Offer { modelId: id.0, capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_may_say_its_places() {
        let id = format!("0x{}", "3a".repeat(32));
        assert_eq!(offer(&id, 3).unwrap().capacity, 3);
        assert_eq!(offer(&format!("{id}:2"), 3).unwrap().capacity, 2);
        for bad in ["", "0x12", "x:1", &format!("{id}:"), &format!("{id}:300")] {
            assert!(offer(bad, 1).unwrap_err().to_string().contains("MODEL_ID"), "{bad}");
        }
    }
}
