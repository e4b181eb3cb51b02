//! Lanes of a session, and their money.

use alloy::primitives::U256;
use anyhow::{Result, ensure};
use assay_bindings::Session;

use super::{change, minor, parse_lane, show};
use crate::{
    amount::parse_cor,
    args::{Global, LaneAdd, LaneReclaim, SessionTopUp},
    commands::{head_time, writer},
    ui,
};

pub async fn add(global: &Global, args: LaneAdd) -> Result<()> {
    let (holder, allotment) = parse_lane(&args.lane)?;
    let terms = Session::LaneTerms { holder, allotment: minor(allotment)? };
    let call = Session::addLaneCall { sessionId: args.session, terms };
    change(global, &args.key, args.session, call).await
}

/// Announces it, or ends it once the notice is over.
pub async fn reclaim(global: &Global, args: LaneReclaim) -> Result<()> {
    let (session, lane) = (args.session, args.lane);
    let (_, wallet) = writer(global, &args.key, "client").await?;
    let address = wallet.chain.deployment.sessions;
    let contract = Session::new(address, &wallet.chain.provider);
    let reclaim_at = contract.laneOf(session, lane).call().await?.reclaimAt.to::<u64>();
    if reclaim_at == 0 {
        wallet.send(address, Session::reclaimLaneCall { sessionId: session, lane }).await?;
        let at = contract.laneOf(session, lane).call().await?.reclaimAt;
        ui::note(format!(
            "lane {lane} takes no request that ends after {at} (unix seconds); call this again then"
        ));
    } else {
        let now = head_time(&wallet.chain).await?;
        ensure!(
            now > reclaim_at,
            "lane {lane} still serves what its router began: its money can be had in {} s",
            reclaim_at.saturating_sub(now) + 1
        );
        wallet.send(address, Session::finishReclaimCall { sessionId: session, lane }).await?;
    }
    show(global, &wallet.chain, session).await
}

pub async fn top_up(global: &Global, args: SessionTopUp) -> Result<()> {
    let amount = parse_cor(&args.amount)?;
    let (_, wallet) = writer(global, &args.key, "client").await?;
    wallet.allow_payment(U256::from(amount)).await?;
    let call =
        Session::topUpCall { sessionId: args.session, lane: args.lane, amount: minor(amount)? };
    wallet.send(wallet.chain.deployment.sessions, call).await?;
    show(global, &wallet.chain, args.session).await
}
