//! Lanes of a session, and their money.

use anyhow::{Result, ensure};
use assay_bindings::Session;
use assay_client::parse_cor;

use super::{parse_lane, show};
use crate::{
    args::{Global, LaneAdd, LaneReclaim, SessionTopUp},
    commands::client,
    ui,
};

pub async fn add(global: &Global, args: LaneAdd) -> Result<()> {
    let (holder, allotment) = parse_lane(&args.lane)?;
    let (_, client) = client(global, &args.key, "client").await?;
    client.wallet.add_lane(args.session, holder, allotment).await?;
    show(global, &client.reader, args.session).await
}

/// Announces it, or ends it once the notice is over.
pub async fn reclaim(global: &Global, args: LaneReclaim) -> Result<()> {
    let (session, lane) = (args.session, args.lane);
    let (_, client) = client(global, &args.key, "client").await?;
    let (wallet, chain) = (&client.wallet, &client.wallet.chain);
    let contract = Session::new(chain.deployment.sessions, &chain.provider);
    let reclaim_at = contract.laneOf(session, lane).call().await?.reclaimAt.to::<u64>();
    if reclaim_at == 0 {
        wallet.change(Session::reclaimLaneCall { sessionId: session, lane }).await?;
        let at = contract.laneOf(session, lane).call().await?.reclaimAt;
        ui::note(format!(
            "lane {lane} takes no request that ends after {at} (unix seconds); call this again then"
        ));
    } else {
        let now = client.reader.head_time_s().await?;
        ensure!(
            now > reclaim_at,
            "lane {lane} still serves what its router began: its money can be had in {} s",
            reclaim_at.saturating_sub(now) + 1
        );
        wallet.change(Session::finishReclaimCall { sessionId: session, lane }).await?;
    }
    show(global, &client.reader, session).await
}

pub async fn top_up(global: &Global, args: SessionTopUp) -> Result<()> {
    let amount = parse_cor(&args.amount)?;
    let (_, client) = client(global, &args.key, "client").await?;
    client.wallet.fund(args.session, args.lane, amount).await?;
    show(global, &client.reader, args.session).await
}
