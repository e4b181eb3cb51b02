//! The session that a development network's router serves from.

use std::time::Duration;

use alloy::primitives::{U256, utils::Unit};
use anyhow::{Context, Result, bail};
use assay_bindings::{NodeStats, Parameters, RandomBeacon, Session, SessionPayment};
use assay_chain::Chain;
use assay_client::{Opening, Wallet, cor};

use super::{Steps, foundation::Foundation};
use crate::{
    commands::{head_time, model::find as find_model, node::status::DRAWN},
    network::ServedModel,
};

/// Deposit of the session, and what the router may spend of it.
const SESSION_COR: u128 = 1_000;
/// A session whose router has less left is spent: about two hundred of the largest requests.
const LOW_SESSION_COR: u128 = 10;
/// Nodes that one session can have.
const MAX_SESSION_NODES: u8 = 8;
/// The router's lane.
const ROUTER_LANE: u32 = 1;
/// Newest sessions that are looked at for one that still serves.
const MAX_LOOKED_AT: u64 = 64;
/// A session gets its nodes after two beacon rounds, some seconds.
pub const SESSION_START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// `SessionState`.
const OPEN: u8 = 1;
const ACTIVE: u8 = 2;

/// Goes on with the session of an earlier run, or opens one, paid by the client; waits for its nodes and its seed.
pub async fn find_or_open(
    base: &Foundation,
    chain: &Chain,
    model: &ServedModel,
    steps: &Steps,
) -> Result<u64> {
    let signer = base.accounts.client.signer.clone();
    let wallet = Wallet::connect(&base.rpc_url, base.deployment.clone(), signer).await?;
    if let Some(session) = find(base, &wallet, model, steps).await? {
        steps.say(format!("session {session}: goes on"));
        match wait_for_nodes(chain, session, steps).await {
            Ok(()) => return Ok(session),
            Err(error) => steps.say(format!("session {session}: {error:#}; a new one follows")),
        }
    }
    wait_for_slots(chain).await?;
    let deposit = SESSION_COR * Unit::ETHER.wei().to::<u128>();
    let miners = u8::try_from(base.accounts.miners.len()).unwrap_or(MAX_SESSION_NODES);
    let opening = Opening {
        model_id: model.model_id,
        deposit,
        min_nodes: 1,
        max_nodes: miners.min(MAX_SESSION_NODES),
        dedicated: Vec::new(),
        lanes: vec![(base.accounts.router.address(), deposit)],
    };
    let session =
        wallet.open_session(&opening).await.context("the client's session cannot be opened")?;
    steps.say(format!("session {session}: opened, waits for its nodes and its seed"));
    wait_for_nodes(chain, session, steps).await?;
    Ok(session)
}

/// The newest session of the client that is not ending and in which the router has money left. One that was opened before
/// its model was calibrated is closed: its answers would never be audited.
async fn find(
    base: &Foundation,
    wallet: &Wallet,
    model: &ServedModel,
    steps: &Steps,
) -> Result<Option<u64>> {
    let chain = &wallet.chain;
    let sessions = Session::new(chain.deployment.sessions, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let registered = find_model(chain, model.model_id).await?;
    let proven = registered.is_some_and(|model| model.pairs != 0);
    let low = U256::from(LOW_SESSION_COR) * Unit::ETHER.wei();
    let newest = sessions.sessionCount().call().await?;
    for session in (1..=newest).rev().take(MAX_LOOKED_AT as usize) {
        let info = sessions.sessionOf(session).call().await?;
        let ours = info.owner == base.accounts.client.address();
        let lanes = sessions.laneCount(session).call().await?;
        if !ours || ![OPEN, ACTIVE].contains(&info.state) || lanes <= U256::from(ROUTER_LANE) {
            continue;
        }
        let lane = sessions.laneOf(session, ROUTER_LANE).call().await?;
        let funds = payment.fundsOf(session, ROUTER_LANE).call().await?;
        let served = lane.holder == base.accounts.router.address() && lane.reclaimAt.is_zero();
        if !served || U256::from(funds.free) < low {
            continue;
        }
        if info.isProven || !proven {
            return Ok(Some(session));
        }
        if info.state == ACTIVE {
            wallet
                .send(chain.deployment.sessions, Session::closeCall { sessionId: session })
                .await?;
            steps.say(format!(
                "session {session}: closed, it was opened before the model was proven"
            ));
        }
    }
    Ok(None)
}

/// Waits until the places that were just registered count: a draw takes only those that were active when its session
/// was opened.
async fn wait_for_slots(chain: &Chain) -> Result<()> {
    let parameters = Parameters::new(chain.deployment.parameters, &chain.provider);
    let version = parameters.currentVersion().call().await?;
    let delay = parameters.nodeTermsOf(version).call().await?.activationDelay;
    let active_from = head_time(chain).await? + u64::from(delay);
    while head_time(chain).await? < active_from {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn wait_for_nodes(chain: &Chain, session: u64, steps: &Steps) -> Result<()> {
    let contract = Session::new(chain.deployment.sessions, &chain.provider);
    let beacon = RandomBeacon::new(chain.deployment.beacon, &chain.provider);
    let begun = tokio::time::Instant::now();
    loop {
        let info = contract.sessionOf(session).call().await?;
        let round = info.current.seedRound;
        if round != 0 && !beacon.valueOf(round).call().await?.is_zero() {
            let (nodes, number) = (info.current.nodes, info.reservations);
            steps.say(format!("session {session}: reservation {number} with nodes {nodes:?}"));
            return Ok(());
        }
        if ![OPEN, ACTIVE].contains(&info.state) {
            bail!("it ended before it had nodes");
        }
        if begun.elapsed() > SESSION_START {
            bail!(
                "session {session} got no nodes within {SESSION_START:?}: run again with --log info to see why"
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The session for a person: nodes with their levels, lanes, prices, terms.
pub async fn describe(chain: &Chain, session: u64) -> Result<String> {
    let contract = Session::new(chain.deployment.sessions, &chain.provider);
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let stats = NodeStats::new(chain.deployment.stats, &chain.provider);
    let info = contract.sessionOf(session).call().await?;
    let mut nodes = Vec::new();
    for node in &info.current.nodes {
        let level = stats.levelOf(*node, DRAWN).call().await?;
        nodes.push(format!("{node} (level {level})"));
    }
    let holder = contract.laneOf(session, ROUTER_LANE).call().await?.holder;
    let funds = payment.fundsOf(session, ROUTER_LANE).call().await?;
    Ok(format!(
        "  session   {session}, reservation {} of nodes {}; terms version {}\n  proof     {}\n  lane {ROUTER_LANE}    router {holder}, {} \
         reserved for it\n  prices    {} and {} per million tokens of prompt and answer",
        info.reservations,
        nodes.join(", "),
        info.termsVersion,
        match info.isProven {
            true => "on: answers are audited by other nodes",
            false => "off: nobody audits the answers of this session",
        },
        cor(U256::from(funds.free) + U256::from(funds.held)),
        cor(U256::from(info.priceIn)),
        cor(U256::from(info.priceOut)),
    ))
}
