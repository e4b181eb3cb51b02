//! What owners do with their nodes.

use alloy::primitives::{Address, B256};
use assay_bindings::NodePool::{
    NodeRegistration, Offer, drainCall, exitCall, registerCall, releaseStakeCall, resumeCall,
    setOperatorCall, setPayoutCall,
};
use assay_protocol::{Call, state::NodeState};

use super::{Gen, Step, proofs::CLASSES};

/// Nodes that take part, at most: enough for every session, and places stay scarce.
const MAX_NODES: usize = 18;

pub fn register(g: &mut Gen<'_>) -> Option<Step> {
    let takes_part =
        |state| matches!(state, NodeState::Ephemeral | NodeState::Dedicated | NodeState::Draining);
    let active = g.state().nodes.values().filter(|node| takes_part(node.state)).count();
    if active >= MAX_NODES {
        return None;
    }
    let (owners, operators) = (g.people().owners.clone(), g.people().operators.clone());
    let clients = g.people().clients.clone();
    let owner = g.caller(&owners);
    let operator = g.one(&operators)?;
    let dedicated = if g.chance(30) { g.one(&clients)? } else { Address::ZERO };
    let registration = NodeRegistration {
        operator: if g.slip() { Address::ZERO } else { operator },
        payout: if g.chance(30) { operator } else { owner },
        dedicatedTo: dedicated,
        numericClass: if g.slip() { B256::ZERO } else { CLASSES[usize::from(g.chance(25))] },
        offers: offers(g),
    };
    Some((owner, Call::from(registerCall { registration })))
}

fn offers(g: &mut Gen<'_>) -> Vec<Offer> {
    let models: Vec<B256> = g.state().models.values().map(|model| model.id).collect();
    let count = if g.slip() { 9 * g.below(2) } else { g.among(1, 2) };
    (0..count)
        .filter_map(|_| {
            let model = g.one(&models)?;
            let capacity = if g.slip() { g.below(10) } else { g.among(1, 4) } as u8;
            Some(Offer { modelId: model, capacity })
        })
        .collect()
}

fn owner(g: &Gen<'_>, node: u32) -> Vec<Address> {
    g.state().nodes.get(&node).map(|node| node.owner).into_iter().collect()
}

pub fn set_operator(g: &mut Gen<'_>) -> Option<Step> {
    let again = g.wild && g.chance(50);
    let id = g.node(|_, node| {
        node.state != NodeState::Exited && (!again || node.operator_since_s != 0)
    })?;
    let operators = g.people().operators.clone();
    let operator = g.one(&operators)?;
    let owner = owner(g, id);
    Some((g.caller(&owner), Call::from(setOperatorCall { nodeId: id, operator })))
}

pub fn set_payout(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.node(|_, _| true)?;
    let payout = if g.slip() { Address::ZERO } else { g.anybody() };
    let owner = owner(g, id);
    Some((g.caller(&owner), Call::from(setPayoutCall { nodeId: id, payout })))
}

pub fn drain(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.node(|_, n| matches!(n.state, NodeState::Ephemeral | NodeState::Dedicated))?;
    let owner = owner(g, id);
    Some((g.caller(&owner), Call::from(drainCall { nodeId: id })))
}

pub fn resume(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.node(|_, node| node.state == NodeState::Draining)?;
    let owner = owner(g, id);
    Some((g.caller(&owner), Call::from(resumeCall { nodeId: id })))
}

pub fn exit(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.node(|_, n| matches!(n.state, NodeState::Draining | NodeState::Jailed))?;
    let owner = owner(g, id);
    Some((g.caller(&owner), Call::from(exitCall { nodeId: id })))
}

pub fn release_stake(g: &mut Gen<'_>) -> Option<Step> {
    let id = g.node(|_, node| node.state == NodeState::Exiting)?;
    Some((g.anybody(), Call::from(releaseStakeCall { nodeId: id })))
}
