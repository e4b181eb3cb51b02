//! `NodePool`: what owners do with their nodes.

use alloy::primitives::Address;
use assay_bindings::{
    NodePool::{
        NodePool_CapacityOutOfBounds, NodePool_EmptyClass, NodePool_KeyChangedLately,
        NodePool_ModelTwice, NodePool_NotOwner, NodePool_NotProtocol, NodePool_NotSession,
        NodePool_OfferCount, NodePool_OperatorInUse, NodePool_StillBonded, NodePool_StillDrawn,
        NodePool_StillReserved, NodePool_UnknownNode, NodePool_WrongState, NodePool_ZeroAddress,
        NodePoolCalls, NodeRegistered, NodeRegistration, NodeStateChanged, Offer, Offered,
        OperatorChanged, PayoutChanged, setOperatorCall, setPayoutCall,
    },
    SessionPayment::{StakeReleased, Staked},
};

use super::Run;
use crate::{
    num::{u40, u256},
    refusal::{Failure, require},
    state::{Node, NodeState},
};

/// Places of a node at most, over all its models.
const MAX_CAPACITY: u64 = 8;
/// Between two changes of an operator key; what the old one signed counts for so long.
pub(super) const KEY_GRACE_S: u64 = 3 * 24 * 3600;

impl Run<'_> {
    pub(super) fn nodes(&mut self, call: &NodePoolCalls) -> Result<(), Failure> {
        use NodePoolCalls as C;
        let caller = self.at.caller;
        match call {
            C::register(call) => self.register_node(&call.registration),
            C::setOperator(call) => self.set_operator(call),
            C::setPayout(call) => self.set_payout(call),
            C::drain(call) => self.drain_node(call.nodeId),
            C::resume(call) => self.resume(call.nodeId),
            C::exit(call) => self.exit(call.nodeId),
            C::releaseStake(call) => self.release_stake(call.nodeId),
            C::enterDraw(_) | C::reserve(_) | C::reserveNamed(_) | C::release(_) => {
                Err(NodePool_NotSession { caller }.into())
            }
            C::jail(_) => Err(NodePool_NotProtocol { caller }.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn known_node(&self, id: u32) -> Result<&Node, Failure> {
        Ok(self.state.nodes.get(&id).ok_or(NodePool_UnknownNode { nodeId: id })?)
    }

    fn owned_node(&self, id: u32) -> Result<&Node, Failure> {
        let (node, caller) = (self.known_node(id)?, self.at.caller);
        require!(node.owner == caller, NodePool_NotOwner { nodeId: id, caller });
        Ok(node)
    }

    fn check_operator_free(&self, operator: Address) -> Result<(), Failure> {
        match self.state.node_by_operator(operator) {
            Some(node) => Err(NodePool_OperatorInUse { operator, nodeId: node }.into()),
            None => Ok(()),
        }
    }

    pub(super) fn set_state(&mut self, id: u32, to: NodeState) -> Result<(), Failure> {
        let from = self.known_node(id)?.state;
        self.emit(NodeStateChanged { nodeId: id, oldState: from as u8, newState: to as u8 })
    }

    fn take_part(&mut self, id: u32) -> Result<(), Failure> {
        let dedicated = self.known_node(id)?.is_dedicated();
        self.set_state(id, if dedicated { NodeState::Dedicated } else { NodeState::Ephemeral })
    }

    fn register_node(&mut self, registration: &NodeRegistration) -> Result<(), Failure> {
        let (operator, payout) = (registration.operator, registration.payout);
        require!(!operator.is_zero() && !payout.is_zero(), NodePool_ZeroAddress {});
        require!(!registration.numericClass.is_zero(), NodePool_EmptyClass {});
        self.check_operator_free(operator)?;
        let version = self.state.tunables.version_at(self.at.time_s);
        let terms = self.state.tunables.node_terms(version)?.clone();
        let id = self.state.nodes.len() as u32 + 1;
        let owner = self.at.caller;
        self.emit(NodeRegistered {
            nodeId: id,
            owner,
            operator,
            payout,
            dedicatedTo: registration.dedicatedTo,
            numericClass: registration.numericClass,
            termsVersion: version,
        })?;
        self.take_part(id)?;
        let active_from_s = self.at.time_s + u64::from(terms.activationDelay);
        let places = self.offer(id, &registration.offers, active_from_s)?;
        let stake = u256(terms.collateralPerSlot * u128::from(places));
        self.emit(Staked { nodeId: id, from: owner, amount: stake })
    }

    /// Places of a new node's offers; their number.
    fn offer(&mut self, id: u32, offers: &[Offer], active_from_s: u64) -> Result<u64, Failure> {
        let (min, max) = (u256(1_u8), u256(MAX_CAPACITY));
        require!(
            (1..=MAX_CAPACITY).contains(&(offers.len() as u64)),
            NodePool_OfferCount { offers: u256(offers.len() as u64), min, max }
        );
        let mut places = 0;
        for offer in offers {
            let model = self.open_model(offer.modelId)?;
            let twice = self.known_node(id)?.places.iter().any(|place| place.0 == model);
            require!(!twice, NodePool_ModelTwice { modelId: offer.modelId });
            places += u64::from(offer.capacity);
            let capacity = if offer.capacity == 0 { 0 } else { places };
            require!(
                (1..=MAX_CAPACITY).contains(&capacity),
                NodePool_CapacityOutOfBounds { capacity: u256(capacity), min, max }
            );
            let active_from = u40(active_from_s);
            let capacity = offer.capacity;
            self.emit(Offered { nodeId: id, model, capacity, activeFrom: active_from })?;
        }
        Ok(places)
    }

    fn set_operator(&mut self, call: &setOperatorCall) -> Result<(), Failure> {
        let (id, operator) = (call.nodeId, call.operator);
        let node = self.owned_node(id)?;
        let state = node.state as u8;
        require!(node.state != NodeState::Exited, NodePool_WrongState { nodeId: id, state });
        require!(!operator.is_zero(), NodePool_ZeroAddress {});
        let next_s = node.operator_since_s + KEY_GRACE_S;
        require!(
            self.at.time_s >= next_s,
            NodePool_KeyChangedLately { nodeId: id, next: u40(next_s) }
        );
        self.check_operator_free(operator)?;
        let old = node.operator;
        self.emit(OperatorChanged { nodeId: id, oldOperator: old, newOperator: operator })
    }

    fn set_payout(&mut self, call: &setPayoutCall) -> Result<(), Failure> {
        let (id, payout) = (call.nodeId, call.payout);
        let old = self.owned_node(id)?.payout;
        require!(!payout.is_zero(), NodePool_ZeroAddress {});
        self.emit(PayoutChanged { nodeId: id, oldPayout: old, newPayout: payout })
    }

    fn drain_node(&mut self, id: u32) -> Result<(), Failure> {
        let state = self.owned_node(id)?.state;
        require!(
            matches!(state, NodeState::Ephemeral | NodeState::Dedicated),
            NodePool_WrongState { nodeId: id, state: state as u8 }
        );
        self.set_state(id, NodeState::Draining)
    }

    /// Draws that were entered before a node drained may still find it.
    fn check_not_drawn(&self, id: u32) -> Result<(), Failure> {
        if self.known_node(id)?.is_dedicated() {
            return Ok(());
        }
        let places = self.state.places_of(id);
        let left_s = places.iter().map(|(_, _, place)| place.active_until_s).max().unwrap_or(0);
        let until_s = left_s + self.state.network.draw_window_s;
        require!(
            self.at.time_s >= until_s,
            NodePool_StillDrawn { nodeId: id, until: u40(until_s) }
        );
        Ok(())
    }

    fn resume(&mut self, id: u32) -> Result<(), Failure> {
        let node = self.owned_node(id)?;
        let state = node.state as u8;
        require!(node.state == NodeState::Draining, NodePool_WrongState { nodeId: id, state });
        let version = node.terms_version;
        self.check_not_drawn(id)?;
        self.take_part(id)?;
        let delay = self.state.tunables.node_terms(version)?.activationDelay;
        let active_from = u40(self.at.time_s + u64::from(delay));
        let models: Vec<u32> = self.known_node(id)?.places.iter().map(|place| place.0).collect();
        for same in models.chunk_by(|one, other| one == other) {
            let (Some(model), capacity) = (same.first(), same.len() as u8) else { continue };
            self.emit(Offered { nodeId: id, model: *model, capacity, activeFrom: active_from })?;
        }
        Ok(())
    }

    fn exit(&mut self, id: u32) -> Result<(), Failure> {
        let state = self.owned_node(id)?.state;
        require!(
            matches!(state, NodeState::Draining | NodeState::Jailed),
            NodePool_WrongState { nodeId: id, state: state as u8 }
        );
        let places = self.state.places_of(id);
        let reserved = places.iter().filter(|(_, _, place)| place.session != 0).count() as u64;
        require!(
            reserved == 0,
            NodePool_StillReserved { nodeId: id, reservations: u256(reserved) }
        );
        // No draw finds one that was proven to have lied.
        if state == NodeState::Draining {
            self.check_not_drawn(id)?;
        }
        self.set_state(id, NodeState::Exiting)
    }

    fn release_stake(&mut self, id: u32) -> Result<(), Failure> {
        let node = self.known_node(id)?;
        let (state, owner) = (node.state as u8, node.owner);
        require!(node.state == NodeState::Exiting, NodePool_WrongState { nodeId: id, state });
        let exit_at = u40(node.exit_at_s);
        require!(
            self.at.time_s >= node.exit_at_s,
            NodePool_StillBonded { nodeId: id, exitAt: exit_at }
        );
        self.set_state(id, NodeState::Exited)?;
        let stake = u256(self.state.accounts.stake(id));
        self.emit(StakeReleased { nodeId: id, owner, amount: stake })
    }
}
