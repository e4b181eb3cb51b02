// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Lane, NodeId} from "../types/Ids.sol";
import {NodeSet} from "./NodeSet.sol";

/// Which nodes of a reservation serve a task: those from a start that its seed and nonce give, one after the other
/// around the reservation, without those that were asked already. A node that the request names is asked first.
library Assignment {
    using NodeSet for uint256;

    /// Nodes of a reservation as one task sees them.
    struct Ring {
        /// See `NodeSet`.
        uint256 nodes;
        uint256 length;
        /// Index of the first that is asked.
        uint256 start;
        /// How many of the first were named by the session.
        uint8 dedicated;
    }

    function ringOf(uint256 nodes, uint8 dedicated) internal pure returns (Ring memory ring) {
        (ring.nodes, ring.length, ring.dedicated) = (nodes, nodes.length(), dedicated);
    }

    /// The ring must not be empty.
    function turn(Ring memory ring, bytes32 seed, Lane lane, uint64 nonce) internal pure {
        ring.start = uint256(keccak256(abi.encode(seed, lane, nonce))) % ring.length;
    }

    /// Index of the next node without a bit in `tried`; `ring.length` if there is none.
    function next(Ring memory ring, uint256 tried) internal pure returns (uint256 index) {
        (uint256 length, uint256 left) = (ring.length, ring.length);
        index = ring.start;
        unchecked {
            for (; left != 0; --left) {
                if (tried >> index & 1 == 0) return index;
                if (++index == length) index = 0;
            }
        }
        return length;
    }

    /// Index of a node; `ring.length` if it is not there.
    function indexOf(Ring memory ring, NodeId nodeId) internal pure returns (uint256 index) {
        for (; index < ring.length; ++index) {
            if (NodeId.unwrap(ring.nodes.nodeAt(index)) == NodeId.unwrap(nodeId)) return index;
        }
    }

    function nodeAt(Ring memory ring, uint256 index) internal pure returns (NodeId) {
        return ring.nodes.nodeAt(index);
    }

    function isDedicated(Ring memory ring, uint256 index) internal pure returns (bool) {
        return index < ring.dedicated;
    }
}
