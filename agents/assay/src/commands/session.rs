//! `assay session open|show|close`.

use alloy::primitives::{Address, U256};
use anyhow::{Context, Result, ensure};
use assay_bindings::{Session, SessionPayment};
use assay_chain::Chain;
use assay_types::ModelId;
use serde_json::{Value, json};

use crate::{
    amount::{cor, parse_cor},
    args::{Global, SessionClose, SessionCommand, SessionOpenArgs},
    keys,
    network::{Network, data_folder},
    ui,
    wallet::Wallet,
};

pub async fn run(global: &Global, command: SessionCommand) -> Result<()> {
    let network = Network::load(&data_folder(global.data.as_deref())?)?;
    match command {
        SessionCommand::Open(args) => open(global, network, args).await,
        SessionCommand::Show(args) => {
            let chain = Chain::connect(&network.rpc_url, network.deployment).await?;
            show(global, &chain, args.session).await
        }
        SessionCommand::Close(args) => close(global, network, args).await,
    }
}

/// What a session is opened with.
pub struct Opening {
    pub model_id: ModelId,
    pub deposit: u128,
    pub min_nodes: u8,
    pub max_nodes: u8,
    pub lanes: Vec<(Address, u128)>,
}

/// Opens a session and returns its number.
pub async fn open_session(wallet: &Wallet, opening: &Opening) -> Result<u64> {
    wallet.allow_payment(U256::from(opening.deposit)).await?;
    let call = Session::openCall {
        terms: Session::OpenTerms {
            modelId: opening.model_id.0,
            minNodes: opening.min_nodes,
            maxNodes: opening.max_nodes,
            // The price is the model's floor, which is frozen: there is nothing to be surprised by.
            maxPriceIn: alloy::primitives::aliases::U96::MAX,
            maxPriceOut: alloy::primitives::aliases::U96::MAX,
            deposit: opening.deposit,
            lanes: opening
                .lanes
                .iter()
                .map(|(holder, allotment)| Session::LaneTerms {
                    holder: *holder,
                    allotment: *allotment,
                })
                .collect(),
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

async fn open(global: &Global, network: Network, args: SessionOpenArgs) -> Result<()> {
    let model_id = args
        .model_id
        .or(network.model.as_ref().map(|model| model.model_id))
        .context("this network names no model: give one with --model-id")?;
    let opening = Opening {
        model_id,
        deposit: parse_cor(&args.deposit)?,
        min_nodes: args.min_nodes,
        max_nodes: args.max_nodes,
        lanes: args.lanes.iter().map(String::as_str).map(parse_lane).collect::<Result<_>>()?,
    };
    let signer = keys::open(&args.key, global.data.as_deref(), "client")?;
    let wallet = Wallet::connect(&network.rpc_url, network.deployment, signer).await?;
    let session = open_session(&wallet, &opening).await?;
    show(global, &wallet.chain, session).await
}

async fn close(global: &Global, network: Network, args: SessionClose) -> Result<()> {
    let signer = keys::open(&args.key, global.data.as_deref(), "client")?;
    let wallet = Wallet::connect(&network.rpc_url, network.deployment, signer).await?;
    let call = Session::closeCall { sessionId: args.session };
    wallet.send(wallet.chain.deployment.sessions, call).await?;
    show(global, &wallet.chain, args.session).await
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
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let funds = payment.sessionFunds(session).call().await?;
    let seed_known = !contract.seedOf(session).call().await?.is_zero();
    let value = json!({
        "session": session,
        "state": state_name(info.state as u8),
        "owner": info.owner,
        "model_id": info.modelId,
        "nodes": info.nodes,
        "price_in": info.priceIn.to_string(),
        "price_out": info.priceOut.to_string(),
        "free": funds.free.to_string(),
        "held": funds.held.to_string(),
        "seed_known": seed_known,
        "ends_at": info.endsAt.to::<u64>(),
    });
    ui::show(global.json, &value, |value| {
        describe(value, U256::from(funds.free), U256::from(funds.held))
    })
}

fn describe(value: &Value, free: U256, held: U256) -> String {
    let nodes: Vec<String> =
        value["nodes"].as_array().into_iter().flatten().map(ToString::to_string).collect();
    let mut text = format!(
        "session {}: {}\n  owner  {}\n  nodes  {}\n  free   {}\n  held   {}",
        value["session"],
        value["state"].as_str().unwrap_or_default(),
        value["owner"].as_str().unwrap_or_default(),
        if nodes.is_empty() { "none yet".into() } else { nodes.join(", ") },
        cor(free),
        cor(held),
    );
    if value["state"] == "open" {
        text.push_str("\n  waits for its nodes: an oracle draws them within seconds");
    }
    if let Some(ends_at) = value["ends_at"].as_u64().filter(|at| *at > 0) {
        text.push_str(&format!(
            "\n  ends at {ends_at} (unix seconds); then the rest returns to the owner's balance"
        ));
    }
    text
}
