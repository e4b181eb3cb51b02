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

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u32) -> Vec<NodeId> {
        (11..11 + count).map(NodeId).collect()
    }

    #[test]
    fn everybody_is_asked_once_around_from_where_the_seed_points() {
        let mut starts = [0; 5];
        for nonce in 0..200 {
            let turn = order(&nodes(5), None, B256::ZERO, Lane(1), Nonce(nonce));
            let around: Vec<usize> = (0..5).map(|i| (turn[0] + i) % 5).collect();
            assert_eq!(turn, around);
            starts[turn[0]] += 1;
        }
        assert!(starts.iter().all(|times| *times > 15), "{starts:?}");
    }

    #[test]
    fn a_named_node_is_the_first_and_the_others_keep_their_order() {
        let around = order(&nodes(4), None, B256::ZERO, Lane(0), Nonce(3));
        let turn = order(&nodes(4), Some(NodeId(13)), B256::ZERO, Lane(0), Nonce(3));
        assert_eq!(turn[0], 2);
        let others: Vec<usize> = around.into_iter().filter(|index| *index != 2).collect();
        assert_eq!(turn[1..], others);
        assert_eq!(order(&[], None, B256::ZERO, Lane(0), Nonce(0)), Vec::<usize>::new());
    }
}
