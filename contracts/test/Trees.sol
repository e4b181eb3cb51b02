// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaf} from "../src/interfaces/IProofOfInference.sol";

/// Trees of answers, built whole and written anew: what the contracts must find from proofs alone.
library Trees {
    /// Leaf at a position, counted from 1; of a validator if `withMargin`.
    function leafOf(uint256 position, Leaf memory leaf, uint256 contrasts, bool withMargin)
        internal
        pure
        returns (bytes32)
    {
        bytes memory data = abi.encodePacked(uint8(withMargin ? 2 : 0), uint32(position), leaf.id);
        data = contrasts == 4 ? abi.encodePacked(data, leaf.contrasts) : abi.encodePacked(data, uint32(leaf.contrasts));
        if (withMargin) data = abi.encodePacked(data, leaf.margin);
        return keccak256(data);
    }

    function hashesOf(Leaf[] memory leaves, uint256 contrasts, bool withMargin)
        internal
        pure
        returns (bytes32[] memory hashes)
    {
        hashes = new bytes32[](leaves.length);
        for (uint256 i; i < leaves.length; ++i) {
            hashes[i] = leafOf(i + 1, leaves[i], contrasts, withMargin);
        }
    }

    function above(bytes32[] memory level) internal pure returns (bytes32[] memory next) {
        next = new bytes32[]((level.length + 1) / 2);
        for (uint256 i; i < next.length; ++i) {
            next[i] = 2 * i + 1 == level.length
                ? level[2 * i]
                : keccak256(abi.encodePacked(uint8(1), level[2 * i], level[2 * i + 1]));
        }
    }

    function rootOf(bytes32[] memory level) internal pure returns (bytes32) {
        while (level.length > 1) {
            level = above(level);
        }
        return level[0];
    }

    /// Nodes beside the paths of some positions, level by level.
    function proofOf(bytes32[] memory level, uint256[] memory positions)
        internal
        pure
        returns (bytes32[] memory nodes)
    {
        nodes = new bytes32[](16 * 17);
        uint256 count;
        bool[] memory known = new bool[](level.length);
        for (uint256 i; i < positions.length; ++i) {
            known[positions[i] - 1] = true;
        }
        for (; level.length > 1; level = above(level)) {
            bool[] memory next = new bool[]((level.length + 1) / 2);
            for (uint256 i; i < level.length; ++i) {
                if (!known[i]) continue;
                next[i / 2] = true;
                uint256 sibling = i ^ 1;
                if (sibling < level.length && !known[sibling]) nodes[count++] = level[sibling];
            }
            known = next;
        }
        assembly {
            mstore(nodes, count)
        }
    }

    function pick(Leaf[] memory leaves, uint256[] memory positions) internal pure returns (Leaf[] memory picked) {
        picked = new Leaf[](positions.length);
        for (uint256 i; i < positions.length; ++i) {
            picked[i] = leaves[positions[i] - 1];
        }
    }
}
