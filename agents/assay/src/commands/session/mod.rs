//! `assay session`.

mod lanes;

use alloy::{
    primitives::{Address, U256},
    sol_types::SolCall,
};
use anyhow::{Context, Result};
use assay_bindings::Session;
pub use assay_client::COR_ASSET;
use assay_client::{LaneView, Opening, Reader, cor, parse_cor};
use serde_json::{Value, json};

use super::{client, observer};
use crate::{
    args::{Global, KeyArgs, LaneCommand, SessionCommand, SessionOpenArgs},
    ui,
};

pub async fn run(global: &Global, command: SessionCommand) -> Result<()> {
    match command {
        SessionCommand::Open(args) => open(global, args).await,
        SessionCommand::Show(args) => {
            let (_, reader) = observer(global).await?;
            show(global, &reader, args.session).await
        }
        SessionCommand::Close(args) => {
            let (_, client) = client(global, &args.key, "client").await?;
            client.wallet.close(args.session).await?;
            show(global, &client.reader, args.session).await
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
    let (_, client) = client(global, key, "client").await?;
    client.wallet.change(call).await?;
    show(global, &client.reader, session).await
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
    let (network, client) = client(global, &args.key, "client").await?;
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
    let session = client.wallet.open_session(&opening).await?;
    show(global, &client.reader, session).await
}

async fn show(global: &Global, reader: &Reader, session: u64) -> Result<()> {
    let view = reader.session(session).await?;
    let view = view.with_context(|| format!("there is no session {session} on this chain"))?;
    let info = &view.info;
    let value = json!({
        "session": session,
        "state": view.state,
        "owner": info.owner,
        "model_id": view.model_id,
        "nodes": info.current.nodes,
        "dedicated_nodes": info.current.dedicated,
        "reservations": info.reservations,
        "seed_round": info.current.seedRound,
        "seed_known": view.is_seeded,
        "draws": info.drawRound != 0,
        "rotates_at": info.rotatesAt.to::<u64>(),
        "price_in": info.priceIn.to_string(),
        "price_out": info.priceOut.to_string(),
        "terms_version": info.termsVersion,
        "lanes": view.lanes.iter().map(lane).collect::<Vec<_>>(),
        "ends_at": info.endsAt.to::<u64>(),
    });
    ui::show(global.json, &value, describe)
}

fn lane(of: &LaneView) -> Value {
    json!({
        "lane": of.lane,
        "holder": of.holder,
        "free": of.free.to_string(),
        "held": of.held.to_string(),
        "next_nonce": of.next_nonce,
        "reclaim_at": of.reclaim_at_s,
    })
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
