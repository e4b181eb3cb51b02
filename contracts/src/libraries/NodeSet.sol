// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeId} from "../types/Ids.sol";

/// Up to eight node ids in one word: 32 bits each, the first lowest, zeros behind the last.
library NodeSet {
    /// Nodes of a session at most: as many as fit one word.
    uint256 internal constant MAX = 8;

    function pack(NodeId[] memory nodes) internal pure returns (uint256 set) {
        for (uint256 i; i < nodes.length; ++i) {
            set |= uint256(NodeId.unwrap(nodes[i])) << (32 * i);
        }
    }

    function unpack(uint256 set) internal pure returns (NodeId[] memory nodes) {
        nodes = new NodeId[](length(set));
        for (uint256 i; i < nodes.length; ++i) {
            nodes[i] = nodeAt(set, i);
        }
    }

    /// The first `count` of the set.
    function first(uint256 set, uint256 count) internal pure returns (NodeId[] memory) {
        uint256 shift = 32 * (MAX - count);
        return unpack(set << shift >> shift);
    }

    /// Place of the last one, by halves: there are no zeros between.
    function length(uint256 set) internal pure returns (uint256 n) {
        unchecked {
            if (set >> 128 != 0) (n, set) = (4, set >> 128);
            if (set >> 64 != 0) (n, set) = (n + 2, set >> 64);
            if (set >> 32 != 0) return n + 2;
            return set == 0 ? n : n + 1;
        }
    }

    function nodeAt(uint256 set, uint256 index) internal pure returns (NodeId) {
        return NodeId.wrap(uint32(set >> (index << 5)));
    }

    function contains(uint256 set, NodeId nodeId) internal pure returns (bool) {
        uint32 wanted = NodeId.unwrap(nodeId);
        if (wanted == 0) return false;
        for (; set != 0; set >>= 32) {
            if (uint32(set) == wanted) return true;
        }
        return false;
    }

    /// One bit, at the place of a node; 0 if it is not there.
    function bitOf(uint256 set, NodeId nodeId) internal pure returns (uint8) {
        uint256 wanted = NodeId.unwrap(nodeId);
        unchecked {
            for (uint256 i; set != 0; ++i) {
                if (uint32(set) == wanted) return uint8(1 << i);
                set >>= 32;
            }
        }
        return 0;
    }

    /// Those of `set` that `others` does not have.
    function without(uint256 set, uint256 others) internal pure returns (NodeId[] memory nodes) {
        uint256 left;
        uint256 count;
        for (; set != 0; set >>= 32) {
            if (contains(others, nodeAt(set, 0))) continue;
            left |= uint256(uint32(set)) << (32 * count++);
        }
        return unpack(left);
    }

    function joined(NodeId[] memory one, NodeId[] memory other) internal pure returns (NodeId[] memory) {
        return unpack(pack(one) | pack(other) << (32 * one.length));
    }
}
