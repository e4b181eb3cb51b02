//! Which nodes of a reservation serve a task, and who follows one that does not answer.

use alloy::{
    primitives::{B256, U256, keccak256},
    sol_types::SolValue,
};
use assay_types::{Lane, NodeId, Nonce};

/// Indices into a reservation's nodes in the order in which they are asked for a task: the named node first, then
/// cyclically from the one that the seed and the nonce choose.
///
/// A named node that is not of the reservation is left out; `seed` is only looked at if more than the named node is
/// asked for.
pub fn order(
    nodes: &[NodeId],
    named: Option<NodeId>,
    seed: B256,
    lane: Lane,
    nonce: Nonce,
) -> Vec<usize> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let hash = keccak256((seed, lane.0, nonce.0).abi_encode());
    let start = (U256::from_be_bytes(hash.0) % U256::from(nodes.len())).to::<usize>();
    let first = named.and_then(|named| nodes.iter().position(|node| *node == named));
    let cycle = (0..nodes.len()).map(|i| (start + i) % nodes.len());
    first.into_iter().chain(cycle.filter(|i| Some(*i) != first)).collect()
}
