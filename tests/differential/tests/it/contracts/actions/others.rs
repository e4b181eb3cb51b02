//! Governors, publishers, and intruders.

use alloy::primitives::{
    Address, B256, U256,
    aliases::{U24, U40, U80, U96},
};
use assay_bindings::{
    ModelRegistry::{Floor, ModelRegistration, deprecateCall, registerCall},
    NodePool::{Draw, enterDrawCall, jailCall, releaseCall, reserveCall},
    NodeStats::countCall,
    Parameters::{acceptGovernorCall, proposeCall, proposeGovernorCall, withdrawProposalCall},
    ProofOfInference::{Docket, bookCall, exposeCall, resolveCall},
    SessionPayment::{
        depositCall, fundCall, giveCall, holdCall, moveCall, payCall, refundCall, releaseStakeCall,
        topUpCall,
    },
};
use assay_protocol::Call;

use super::{Gen, Step};
use crate::contracts::world::{first_terms, floors};

fn governor(g: &mut Gen<'_>) -> Address {
    let governor = g.state().tunables.governor;
    g.caller(&[governor])
}

/// A set that may hold, or sometimes one that is out of its bounds or contradicts itself.
pub fn propose(g: &mut Gen<'_>) -> Option<Step> {
    let mut terms = first_terms();
    let tip = U96::from(g.below(4) * 10_u64.pow(13));
    (terms.session.settleDelay, terms.assets[0].tip) = (U24::from(g.among(1, 9)), tip);
    terms.session.maxAttempts = g.among(1, 4) as u8;
    terms.session.maxTasks = g.among(3, 9) as u32;
    terms.session.minerBps = g.among(5000, 9700) as u16;
    terms.session.routerBps = g.below(300) as u16;
    terms.node.unbondingPeriod = g.among(340, 450) as u32;
    match g.below(14) {
        _ if !g.wild => {}
        0 => terms.session.minerBps = 4999,
        1 => terms.session.routerBps = 3001,
        2 => terms.session.noticePeriod = U24::from(70),
        3 => terms.session.reservationTimeout = U24::from(121),
        4 => terms.node.unbondingPeriod = 50,
        5 => _ = terms.assets.pop(),
        6 => terms.assets[1].minDeposit = U96::from(1),
        7 => terms.node.reporterBps = 5001,
        8 => terms.session.settleDelay = U24::from(86_400),
        _ => {}
    }
    Some((governor(g), Call::from(proposeCall { terms })))
}

pub fn withdraw_proposal(g: &mut Gen<'_>) -> Option<Step> {
    Some((governor(g), Call::from(withdrawProposalCall {})))
}

pub fn propose_governor(g: &mut Gen<'_>) -> Option<Step> {
    let governors = g.people().governors;
    let successor = g.one(&governors)?;
    Some((governor(g), Call::from(proposeGovernorCall { successor_: successor })))
}

pub fn accept_governor(g: &mut Gen<'_>) -> Option<Step> {
    let successor = g.state().tunables.successor;
    let governors = g.people().governors;
    let caller = if successor.is_zero() { g.caller(&governors) } else { g.caller(&[successor]) };
    Some((caller, Call::from(acceptGovernorCall {})))
}

pub fn register_model(g: &mut Gen<'_>) -> Option<Step> {
    let publishers = g.people().publishers;
    let publisher = g.caller(&publishers);
    let before: Vec<B256> = g.state().models.values().map(|model| model.id).collect();
    let predecessor = if g.chance(30) { g.one(&before)? } else { B256::ZERO };
    let mut prices: Vec<Floor> = floors()
        .into_iter()
        .zip(0..)
        .map(|((price_in, price_out), asset)| Floor {
            asset,
            priceIn: price_in,
            priceOut: price_out,
        })
        .collect();
    match g.below(16) {
        _ if !g.wild => {}
        0 => prices.clear(),
        1 => prices[1].asset = 0,
        2 => prices[0].asset = 2,
        3 => prices[0].priceIn = U80::ZERO,
        4 => prices[1].priceOut = U80::MAX,
        5 => prices.extend(prices.clone()),
        6..10 => _ = prices.pop(),
        _ => {}
    }
    let known = g.slip();
    let registration = ModelRegistration {
        modelId: if known { g.one(&before)? } else { g.word() },
        manifestDigest: if g.slip() { B256::ZERO } else { g.word() },
        predecessor,
        royaltyBps: g.below(310) as u16,
        floors: prices,
    };
    Some((publisher, Call::from(registerCall { registration })))
}

pub fn deprecate(g: &mut Gen<'_>) -> Option<Step> {
    // The first model stays, so that there is always something to do.
    let models = g.state().models.iter().filter(|(index, _)| **index > 1);
    let models: Vec<(B256, Address)> = models.map(|(_, m)| (m.id, m.publisher)).collect();
    let (id, publisher) = g.one(&models)?;
    let id = if g.slip() { g.word() } else { id };
    Some((g.caller(&[publisher]), Call::from(deprecateCall { modelId: id })))
}

/// Calls that only the protocol's own contracts may make.
pub fn intrude(g: &mut Gen<'_>) -> Option<Step> {
    let caller = g.anybody();
    let call = match g.below(4) {
        0 => of_payment(g, caller),
        1 => of_nodes(g),
        2 => of_proof(g),
        _ => countCall { nodeId: 1, series: 0, outcome: 0, times: 1 }.into(),
    };
    Some((caller, call))
}

fn of_nodes(g: &mut Gen<'_>) -> Call {
    let draw = Draw {
        sessionId: 1,
        model: 1,
        seed: B256::ZERO,
        ticket: U40::from(1),
        slots: 1,
        asOf: U40::from(1),
        min: 0,
        count: 0,
        taken: Vec::new(),
    };
    match g.below(4) {
        0 => enterDrawCall { model: 1 }.into(),
        1 => reserveCall { draw }.into(),
        2 => releaseCall { sessionId: 1, model: 1, nodes: vec![1] }.into(),
        _ => jailCall { nodeId: 1 }.into(),
    }
}

fn of_proof(g: &mut Gen<'_>) -> Call {
    let (task, node) = (B256::repeat_byte(1), 1);
    match g.below(5) {
        0 => giveCall { asset: 0, to: g.people().keepers[0], amount: U256::from(1) }.into(),
        4 => fundCall { asset: 0, from: g.people().keepers[0], amount: U256::from(1) }.into(),
        1 => bookCall { model: 1, asset: 0, amount: U256::from(1) }.into(),
        2 => {
            exposeCall { taskId: task, nodeId: node, model: 1, asset: 0, fee: U96::from(1) }.into()
        }
        _ => resolveCall { docket: Docket { taskId: task, ..Docket::default() } }.into(),
    }
}

fn of_payment(g: &mut Gen<'_>, caller: Address) -> Call {
    let (session, lane, asset, amount) = (1, 0, 0, U96::from(1));
    match g.below(7) {
        0 => {
            depositCall { sessionId: session, asset, from: caller, amount, allotments: Vec::new() }
                .into()
        }
        1 => topUpCall { sessionId: session, lane, asset, from: caller, amount }.into(),
        2 => moveCall { sessionId: session, from: lane, to: 1, amount }.into(),
        3 => holdCall { sessionId: session, lane, nonce: 0, amount }.into(),
        4 => payCall { debits: Vec::new(), credits: Vec::new() }.into(),
        5 => refundCall {
            sessionId: session,
            lane,
            asset,
            taskId: B256::ZERO,
            held: amount,
            keeper: caller,
            tip: amount,
        }
        .into(),
        _ => releaseStakeCall { nodeId: 1, owner: caller }.into(),
    }
}
