//! `assay model register|deprecate|show`; the rest is in `calibrate` and `thresholds`.

use std::sync::Arc;

use alloy::primitives::{B256, U256, aliases::U80};
use anyhow::{Context, Result, bail};
use assay_bindings::ModelRegistry;
use assay_chain::Chain;
use assay_client::{Wallet, cor, parse_cor};
use assay_engine::Engine;
use assay_engine_mistral::{LoadOptions, LoadStep, MistralEngine, ModelSource};
use assay_store::{ContentStore, KuboStore, cid_of};
use assay_types::ModelId;
use serde_json::{Value, json};

use super::{calibrate, reader, session::COR_ASSET, thresholds, writer};
use crate::{
    args::{Global, ModelCommand, ModelDeprecateArgs, ModelRegisterArgs},
    network::{Network, ServedModel, data_folder},
    ui,
};

pub async fn run(global: &Global, command: ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Register(args) => register(global, args).await,
        ModelCommand::Deprecate(args) => deprecate(global, args).await,
        ModelCommand::Calibrate(args) => calibrate::run(global, args).await,
        ModelCommand::Publish(args) => thresholds::publish(global, args).await,
        ModelCommand::Attest(args) => thresholds::attest(global, args).await,
        ModelCommand::Random(args) => calibrate::random(global, &args),
        ModelCommand::Show(args) => {
            let (network, chain) = reader(global).await?;
            let model_id = args
                .model_id
                .or(network.model.map(|model| model.model_id))
                .context("this network names no model: give the id of one")?;
            show(global, &chain, model_id).await
        }
    }
}

/// What is registered of a model, beside the model itself.
pub struct Terms {
    /// Smallest prices of a million tokens, minor units of COR.
    pub price_in: u128,
    pub price_out: u128,
    pub royalty_bps: u16,
    pub predecessor: Option<ModelId>,
}

/// Pins the engine's manifest and registers its model; one that is registered already is left as it is.
pub async fn ensure_registered(
    wallet: &Wallet,
    store: &dyn ContentStore,
    engine: &MistralEngine,
    terms: &Terms,
) -> Result<ServedModel> {
    let manifest = store.put(engine.manifest().bytes()?.into()).await?;
    let info = engine.info();
    if find(&wallet.chain, info.model_id).await?.is_none() {
        let price = |minor: u128| {
            U80::try_from(minor)
                .ok()
                .with_context(|| format!("a price of {} is too high", cor(U256::from(minor))))
        };
        let floor = ModelRegistry::Floor {
            asset: COR_ASSET,
            priceIn: price(terms.price_in)?,
            priceOut: price(terms.price_out)?,
        };
        let registration = ModelRegistry::ModelRegistration {
            modelId: info.model_id.0,
            manifestDigest: manifest,
            predecessor: terms.predecessor.map_or(B256::ZERO, |id| id.0),
            royaltyBps: terms.royalty_bps,
            floors: vec![floor],
        };
        let call = ModelRegistry::registerCall { registration };
        wallet.send(wallet.chain.deployment.models, call).await?;
    }
    Ok(ServedModel {
        name: info.model.clone(),
        model_id: info.model_id,
        max_context: info.max_context,
    })
}

/// The model, if it is registered.
pub async fn find(chain: &Chain, model_id: ModelId) -> Result<Option<ModelRegistry::Model>> {
    let models = ModelRegistry::new(chain.deployment.models, &chain.provider);
    match models.modelOf(model_id.0).call().await {
        Ok(model) => Ok(Some(model)),
        Err(error) => {
            let known = error.as_decoded_error::<ModelRegistry::ModelRegistry_UnknownModel>();
            if known.is_some() { Ok(None) } else { Err(error.into()) }
        }
    }
}

async fn register(global: &Global, args: ModelRegisterArgs) -> Result<()> {
    let terms = Terms {
        price_in: parse_cor(&args.price_in)?,
        price_out: parse_cor(&args.price_out)?,
        royalty_bps: args.royalty_bps,
        predecessor: args.predecessor,
    };
    let (network, wallet) = writer(global, &args.key, "deployer").await?;
    let data = data_folder(global.data.as_deref())?;
    let mut options = LoadOptions::new(ModelSource::parse(&args.model), data.join("models"));
    options.progress = Some(Arc::new(|step: LoadStep| ui::note(format!("model: {step}"))));
    let engine = MistralEngine::load(options)
        .await
        .with_context(|| format!("the model {} cannot be loaded", args.model))?;
    let model_id = engine.info().model_id;
    if find(&wallet.chain, model_id).await?.is_some() {
        bail!("model {model_id} is registered already: `assay model show {model_id}`");
    }
    let store = KuboStore::new(&network.ipfs_url)?;
    let model = ensure_registered(&wallet, &store, &engine, &terms).await?;
    if network.model.is_none() {
        Network { model: Some(model), ..network }.save(&data)?;
    }
    show(global, &wallet.chain, model_id).await
}

async fn deprecate(global: &Global, args: ModelDeprecateArgs) -> Result<()> {
    let (_, wallet) = writer(global, &args.key, "deployer").await?;
    let call = ModelRegistry::deprecateCall { modelId: args.model_id.0 };
    wallet.send(wallet.chain.deployment.models, call).await?;
    show(global, &wallet.chain, args.model_id).await
}

async fn show(global: &Global, chain: &Chain, model_id: ModelId) -> Result<()> {
    let model = find(chain, model_id)
        .await?
        .with_context(|| format!("model {model_id} is not registered on this chain"))?;
    let models = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let floors = models.floorsOf(model.index, COR_ASSET).call().await?;
    let pool = assay_bindings::NodePool::new(chain.deployment.nodes, &chain.provider);
    let places = pool.poolOf(model.index).call().await?;
    let value = json!({
        "model_id": model_id,
        "version": model.version,
        "predecessor": (!model.predecessor.is_zero()).then_some(ModelId(model.predecessor)),
        "publisher": model.publisher,
        "royalty_bps": model.royaltyBps,
        "manifest_cid": cid_of(model.manifestDigest).to_string(),
        "registered_at": model.registeredAt.to::<u64>(),
        "deprecated_at": model.deprecatedAt.to::<u64>(),
        "price_in": floors.priceIn.to_string(),
        "price_out": floors.priceOut.to_string(),
        "places": places.taken,
        "places_reserved": places.used,
    });
    ui::show(global.json, &value, describe)
}

fn describe(value: &Value) -> String {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let price = |name: &str| cor(text(name).parse::<U256>().unwrap_or_default());
    let state = match value["deprecated_at"].as_u64() {
        Some(0) | None => "takes new sessions".to_owned(),
        Some(at) => format!("deprecated since {at} (unix seconds)"),
    };
    format!(
        "model {}: {state}\n  version    {}\n  publisher  {}, royalty {} of 10,000\n  manifest   {}\n  prices     {} and {} \
         per million tokens of prompt and answer, at least\n  nodes      {} places, {} of them reserved",
        text("model_id"),
        value["version"],
        text("publisher"),
        value["royalty_bps"],
        text("manifest_cid"),
        price("price_in"),
        price("price_out"),
        value["places"],
        value["places_reserved"],
    )
}
