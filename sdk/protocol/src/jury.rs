//! Which validators are drawn for an answer: out of the model's pool, as it stood when the answer was committed.

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::SolValue,
};
use assay_bindings::ProofOfInference::Audit;

use crate::{
    audit::{joined, nodes_of},
    num::int,
    state::{Gap, NodeState, State},
};

/// Tries for each validator.
pub const MAX_TRIES: u32 = 32;

impl State {
    /// The next validator of an audit, of the miner's class if `same_class`; it joins those that were drawn. `None` if
    /// the tries found nobody.
    pub(crate) fn draw_validator(
        &self,
        audit: &mut Audit,
        same_class: bool,
    ) -> Result<Option<u32>, Gap> {
        let found = self.draw_beside(audit, U256::ZERO, same_class)?;
        if let Some(node) = found {
            audit.drawn = joined(audit.drawn, node);
        }
        Ok(found)
    }

    /// The same, but nobody of the owners of `others` either; it joins nobody.
    pub(crate) fn draw_beside(
        &self,
        audit: &mut Audit,
        others: U256,
        same_class: bool,
    ) -> Result<Option<u32>, Gap> {
        if audit.slots == 0 {
            return Ok(None);
        }
        let miner_class = self.node(audit.nodeId)?.class;
        for _ in 0..MAX_TRIES {
            let Some((id, owner, class)) = self.candidate(audit) else { continue };
            let fits = !same_class || class == miner_class;
            let involved = [audit.nodes, audit.drawn, others].into_iter().flat_map(nodes_of);
            let known = involved.filter_map(|node| self.nodes.get(&node));
            let is_involved = known.into_iter().any(|node| node.owner == owner);
            let pair = (miner_class, class);
            if !fits || is_involved || self.calibration_before(audit, pair).is_none() {
                continue;
            }
            return Ok(Some(id));
        }
        Ok(None)
    }

    /// Who has the place that the next try hits, with owner and class.
    fn candidate(&self, audit: &mut Audit) -> Option<(u32, Address, B256)> {
        let input = (audit.seed, audit.taskId, audit.nodeId, audit.tries);
        audit.tries += 1;
        let hash = U256::from_be_bytes(keccak256(input.abi_encode()).0);
        let index: usize = (hash % U256::from(audit.slots)).saturating_to();
        let place = self.pools.get(&(audit.model, false))?.places.get(index)?;
        let node = self.nodes.get(&place.node).filter(|node| node.state != NodeState::Jailed)?;
        place.is_active(int(audit.committedAt)).then_some((place.node, node.owner, node.class))
    }

    /// What a miner and a validator of these classes may differ by, packed.
    pub fn calibration(&self, model: u32, miner: B256, validator: B256) -> Option<U256> {
        let pair = self.models.get(&model)?.pairs.get(&(miner, validator))?;
        Some(pair.word)
    }

    /// The same, if the pair was calibrated before the answer was committed.
    pub(crate) fn calibration_before(
        &self,
        audit: &Audit,
        (miner, validator): (B256, B256),
    ) -> Option<U256> {
        let pair = self.models.get(&audit.model)?.pairs.get(&(miner, validator))?;
        (pair.calibrated_at_s < int(audit.committedAt)).then_some(pair.word)
    }
}
