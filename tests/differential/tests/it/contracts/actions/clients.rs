//! What clients do with sessions, lanes and money.

use alloy::primitives::{
    Address, U256,
    aliases::{U80, U96},
};
use assay_bindings::{
    Session::{
        LaneTerms, OpenTerms, Permit, addLaneCall, closeCall, finishReclaimCall, openCall,
        openWithPermitCall, reclaimLaneCall, topUpCall,
    },
    SessionPayment::withdrawCall,
};
use assay_protocol::{
    Call,
    state::{DEAD, NodeState, Session, SessionState},
};
use rand::seq::IndexedRandom;

use super::{Gen, Step};

/// Sessions that a sequence opens at most: more would only starve one another of nodes.
const MAX_SESSIONS: usize = 4;

fn open_terms(g: &mut Gen<'_>, client: Address) -> Option<OpenTerms> {
    let models: Vec<(u32, _)> =
        g.state().models.iter().map(|(index, model)| (*index, model.clone())).collect();
    let (index, model) = g.one(&models)?;
    let asset = g.below(2) as u8 + u8::from(g.slip());
    let mine: Vec<u32> = g
        .state()
        .nodes
        .iter()
        .filter(|(_, node)| node.dedicated_to == client && node.state == NodeState::Dedicated)
        .filter(|(_, node)| node.places.iter().any(|place| place.0 == index))
        .map(|(id, _)| *id)
        .collect();
    let mut dedicated = if g.chance(60) { mine } else { Vec::new() };
    if g.slip() {
        dedicated.push(g.among(1, 20) as u32);
    }
    let drawn = dedicated.is_empty() || g.chance(40);
    let max_nodes = if drawn { g.among(1, 8 - dedicated.len().min(7) as u64) as u8 } else { 0 };
    let min_nodes = if drawn { g.among(1, u64::from(max_nodes).min(3)) as u8 } else { 0 };
    let unit = if asset == 1 { 1_000_000_u128 } else { 10_u128.pow(18) };
    let deposit = if g.slip() { unit - 1 } else { unit * u128::from(g.among(1, 300)) };
    let cap = if g.slip() { U80::from(1) } else { U80::MAX };
    Some(OpenTerms {
        modelId: if g.slip() { g.word() } else { model.id },
        asset,
        minNodes: min_nodes,
        maxNodes: if g.slip() { 9 } else { max_nodes },
        dedicated,
        maxPriceIn: cap,
        maxPriceOut: U80::MAX,
        deposit: U96::from(deposit),
        lanes: lanes(g, deposit),
    })
}

fn lanes(g: &mut Gen<'_>, deposit: u128) -> Vec<LaneTerms> {
    let count = if g.slip() { 9 } else { g.below(3) };
    (0..count).map(|_| lane(g, deposit / 3)).collect()
}

fn lane(g: &mut Gen<'_>, most: u128) -> LaneTerms {
    let routers = g.people().routers.clone();
    let holder = if g.slip() { Address::ZERO } else { g.caller(&routers) };
    let share = if g.slip() { most * 5 } else { most * u128::from(g.below(4)) / 3 };
    LaneTerms { holder, allotment: U96::from(share) }
}

fn may_open(g: &Gen<'_>) -> Option<()> {
    let open = g.state().sessions.values().filter(|s| s.state != SessionState::Closed);
    (open.count() < MAX_SESSIONS).then_some(())
}

pub fn open(g: &mut Gen<'_>) -> Option<Step> {
    may_open(g)?;
    let clients = g.people().clients.clone();
    let client = g.caller(&clients);
    let terms = open_terms(g, client)?;
    Some((client, Call::from(openCall { terms })))
}

/// The permit is none: the allowance is there.
pub fn open_with_permit(g: &mut Gen<'_>) -> Option<Step> {
    may_open(g)?;
    let clients = g.people().clients.clone();
    let client = g.caller(&clients);
    let terms = open_terms(g, client)?;
    let permit = Permit { deadline: U256::MAX, v: 27, r: g.word(), s: g.word() };
    Some((client, Call::from(openWithPermitCall { terms, permit })))
}

/// A lane of a session, or sometimes one that does not exist or was taken back.
fn some_lane(g: &mut Gen<'_>, session: u64) -> u32 {
    let lanes = g.state().sessions.get(&session).map_or(1, |session| session.lanes.len());
    let beyond = u64::from(g.slip());
    let again = g.wild && g.chance(30);
    let any = g.below(lanes as u64 + beyond) as u32;
    let reclaimed = |session: &Session| {
        session.lanes.iter().position(|lane| lane.reclaim_at_s != 0).map(|lane| lane as u32)
    };
    let lane = g.state().sessions.get(&session).and_then(reclaimed);
    lane.filter(|_| again).unwrap_or(any)
}

pub fn top_up(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.state != SessionState::Closed)?;
    let lane = some_lane(g, id);
    let amount = U96::from(g.below(20) * 1_000_000);
    let clients = g.people().clients.clone();
    Some((g.caller(&clients), Call::from(topUpCall { sessionId: id, lane, amount })))
}

pub fn add_lane(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|s| matches!(s.state, SessionState::Open | SessionState::Active))?;
    let free = g.state().sessions.get(&id).map_or(0, |session| session.lanes[0].free);
    let terms = lane(g, free / 2);
    let owner = g.owner_of(id);
    Some((g.caller(&owner), Call::from(addLaneCall { sessionId: id, terms })))
}

pub fn reclaim_lane(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.lanes.len() > 1)?;
    let lane = some_lane(g, id);
    let owner = g.owner_of(id);
    Some((g.caller(&owner), Call::from(reclaimLaneCall { sessionId: id, lane })))
}

pub fn finish_reclaim(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.lanes.iter().any(|lane| lane.reclaim_at_s != 0))?;
    let lane = some_lane(g, id);
    Some((g.anybody(), Call::from(finishReclaimCall { sessionId: id, lane })))
}

pub fn close(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.session(|session| session.state == SessionState::Active)?;
    let owner = g.owner_of(id);
    Some((g.caller(&owner), Call::from(closeCall { sessionId: id })))
}

pub fn withdraw(g: &mut Gen<'_>) -> Option<Step> {
    let balances: Vec<_> =
        g.state().accounts.balances.iter().map(|(of, sum)| (*of, *sum)).collect();
    let ((account, asset), sum) = g.one(&balances)?;
    // Nobody has the one's key, and the proof has no wish to.
    if [DEAD, g.state().network.deployment.proof].contains(&account) {
        return None;
    }
    let payment = g.state().network.deployment.payment;
    let to = match g.slip() {
        true => *[Address::ZERO, payment].choose(g.rng)?,
        false => account,
    };
    let asset = if g.slip() { 2 } else { asset };
    let parts = if g.slip() { 5 } else { u128::from(g.among(0, 4)) };
    let amount = U256::from(sum * parts / 4);
    Some((account, Call::from(withdrawCall { asset, to, amount })))
}
