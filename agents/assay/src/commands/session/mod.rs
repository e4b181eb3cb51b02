//! `assay session`.

mod lanes;

use alloy::{
    primitives::{
        Address, B256, U256,
        aliases::{U80, U96},
    },
    sol_types::SolCall,
};
use anyhow::{Context, Result, ensure};
use assay_bindings::{ModelRegistry, RandomBeacon, Session, SessionPayment};
use assay_chain::Chain;
use assay_types::ModelId;
use serde_json::{Value, json};

use super::{reader, writer};
use crate::{
    amount::{cor, parse_cor},
    args::{Global, KeyArgs, LaneCommand, SessionCommand, SessionOpenArgs},
    ui,
    wallet::Wallet,
};

pub async fn run(global: &Global, command: SessionCommand) -> Result<()> {
    match command {
        SessionCommand::Open(args) => open(global, args).await,
        SessionCommand::Show(args) => {
            let (_, chain) = reader(global).await?;
            show(global, &chain, args.session).await
        }
        SessionCommand::Close(args) => {
            let call = Session::closeCall { sessionId: args.session };
            change(global, &args.key, args.session, call).await
        }
        SessionCommand::Lane(LaneCommand::Add(args)) => lanes::add(global, args).await,
        SessionCommand::Lane(LaneCommand::Reclaim(args)) => lanes::reclaim(global, args).await,
        SessionCommand::Topup(args) => lanes::top_up(global, args).await,
        SessionCommand::Rotate(args) => {
            let call = Session::rotateCall { sessionId: args.session, lane: args.lane };
            change(global, &args.key, args.session, call).await
        }
    }
}

/// Sends one call about a session and shows what became of it.
async fn change(global: &Global, key: &KeyArgs, session: u64, call: impl SolCall) -> Result<()> {
    let (_, wallet) = writer(global, key, "client").await?;
    wallet.send(wallet.chain.deployment.sessions, call).await?;
    show(global, &wallet.chain, session).await
}

/// COR's place among the assets.
pub const COR_ASSET: u8 = 0;

/// What a session is opened with.
pub struct Opening {
    pub model_id: ModelId,
    pub deposit: u128,
    pub min_nodes: u8,
    pub max_nodes: u8,
    /// Nodes dedicated to the opener.
    pub dedicated: Vec<u32>,
    pub lanes: Vec<(Address, u128)>,
}

/// Minor units of COR as the contracts take them; the supply fits 96 bits.
pub fn minor(amount: u128) -> Result<U96> {
    U96::try_from(amount).ok().context("there is less COR than that")
}

/// Opens a session and returns its number.
pub async fn open_session(wallet: &Wallet, opening: &Opening) -> Result<u64> {
    wallet.allow_payment(U256::from(opening.deposit)).await?;
    let lane = |(holder, allotment): &(Address, u128)| {
        anyhow::Ok(Session::LaneTerms { holder: *holder, allotment: minor(*allotment)? })
    };
    let call = Session::openCall {
        terms: Session::OpenTerms {
            modelId: opening.model_id.0,
            asset: COR_ASSET,
            minNodes: opening.min_nodes,
            maxNodes: opening.max_nodes,
            dedicated: opening.dedicated.clone(),
            maxPriceIn: U80::MAX,
            maxPriceOut: U80::MAX,
            deposit: minor(opening.deposit)?,
            lanes: opening.lanes.iter().map(lane).collect::<Result<_>>()?,
        },
    };
    let receipt = wallet.send(wallet.chain.deployment.sessions, call).await?;
    receipt
        .decoded_log::<Session::SessionOpened>()
        .map(|log| log.sessionId)
        .context("the transaction opened no session")
}

fn parse_lane(text: &str) -> Result<(Address, u128)> {
    let hint = || {
        format!(
            "{text:?} is not a lane: write ADDRESS:COR, such as 0x70997970C51812dc3A010C7d01b50e0d17dc79C8:5"
        )
    };
    let (holder, allotment) = text.split_once(':').with_context(hint)?;
    Ok((holder.parse().with_context(hint)?, parse_cor(allotment)?))
}

async fn open(global: &Global, args: SessionOpenArgs) -> Result<()> {
    let (network, wallet) = writer(global, &args.key, "client").await?;
    let model_id = args
        .model_id
        .or(network.model.as_ref().map(|model| model.model_id))
        .context("this network names no model: give one with --model-id")?;
    let opening = Opening {
        model_id,
        deposit: parse_cor(&args.deposit)?,
        min_nodes: args.min_nodes,
        max_nodes: args.max_nodes,
        dedicated: args.dedicated,
        lanes: args.lanes.iter().map(String::as_str).map(parse_lane).collect::<Result<_>>()?,
    };
    let session = open_session(&wallet, &opening).await?;
    show(global, &wallet.chain, session).await
}

fn state_name(state: u8) -> &'static str {
    ["none", "open", "active", "draining", "closed"].get(usize::from(state)).unwrap_or(&"unknown")
}

async fn show(global: &Global, chain: &Chain, session: u64) -> Result<()> {
    let contract = Session::new(chain.deployment.sessions, &chain.provider);
    ensure!(
        session >= 1 && session <= contract.sessionCount().call().await?,
        "there is no session {session} on this chain"
    );
    let info = contract.sessionOf(session).call().await?;
    let beacon = RandomBeacon::new(chain.deployment.beacon, &chain.provider);
    let seed = match info.current.seedRound {
        0 => B256::ZERO,
        round => beacon.valueOf(round).call().await?,
    };
    let models = ModelRegistry::new(chain.deployment.models, &chain.provider);
    let model_id = models.modelAt(info.model).call().await?.modelId;
    let value = json!({
        "session": session,
        "state": state_name(info.state),
        "owner": info.owner,
        "model_id": model_id,
        "nodes": info.current.nodes,
        "dedicated_nodes": info.current.dedicated,
        "reservations": info.reservations,
        "seed_round": info.current.seedRound,
        "seed_known": !seed.is_zero(),
        "draws": info.drawRound != 0,
        "rotates_at": info.rotatesAt.to::<u64>(),
        "price_in": info.priceIn.to_string(),
        "price_out": info.priceOut.to_string(),
        "terms_version": info.termsVersion,
        "lanes": lanes(chain, session).await?,
        "ends_at": info.endsAt.to::<u64>(),
    });
    ui::show(global.json, &value, describe)
}

/// The lanes of a session with their holders and their money.
async fn lanes(chain: &Chain, session: u64) -> Result<Vec<Value>> {
    let contract = Session::new(chain.deployment.sessions, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let count = contract.laneCount(session).call().await?.to::<u32>();
    let mut lanes = Vec::new();
    for lane in 0..count {
        let info = contract.laneOf(session, lane).call().await?;
        let funds = payment.fundsOf(session, lane).call().await?;
        lanes.push(json!({
            "lane": lane,
            "holder": info.holder,
            "free": funds.free.to_string(),
            "held": funds.held.to_string(),
            "next_nonce": funds.nextNonce,
            "reclaim_at": info.reclaimAt.to::<u64>(),
        }));
    }
    Ok(lanes)
}

fn describe(value: &Value) -> String {
    let amount = |value: &Value| {
        let minor: U256 = value.as_str().unwrap_or_default().parse().unwrap_or_default();
        cor(minor)
    };
    let nodes: Vec<String> =
        value["nodes"].as_array().into_iter().flatten().map(ToString::to_string).collect();
    let mut text = format!(
        "session {}: {}, under terms version {}\n  owner  {}\n  model  {}\n  nodes  {}\n  price  {} and {} per million tokens of prompt and answer",
        value["session"],
        value["state"].as_str().unwrap_or_default(),
        value["terms_version"],
        value["owner"].as_str().unwrap_or_default(),
        value["model_id"].as_str().unwrap_or_default(),
        match nodes.is_empty() {
            true => "none yet".into(),
            false => format!("{} (reservation {})", nodes.join(", "), value["reservations"]),
        },
        amount(&value["price_in"]),
        amount(&value["price_out"]),
    );
    for lane in value["lanes"].as_array().into_iter().flatten() {
        text.push_str(&format!(
            "\n  lane {} {}  free {}, held {}",
            lane["lane"],
            lane["holder"].as_str().unwrap_or_default(),
            amount(&lane["free"]),
            amount(&lane["held"]),
        ));
    }
    if value["draws"] == true {
        text.push_str("\n  waits for nodes: an oracle draws them within seconds");
    }
    if let Some(ends_at) = value["ends_at"].as_u64().filter(|at| *at > 0) {
        text.push_str(&format!(
            "\n  ends at {ends_at} (unix seconds); then the rest returns to the owner's balance"
        ));
    }
    text
}
