// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IProofOfInference} from "../interfaces/IProofOfInference.sol";
import {NodeId, TaskId} from "../types/Ids.sol";

/// Positions of an answer that are looked at, counted from 1, and the blocks that they lie in.
library Positions {
    bytes32 internal constant DOMAIN = keccak256("assay.audit.positions.v1");
    /// Positions of a block: its median forgives odd ones, and leaves no room for a part with other weights.
    uint256 internal constant BLOCK = 32;
    /// An answer below this has no block: its sampling alone is judged.
    uint256 internal constant MIN_FOR_BLOCKS = 4;

    function seedOf(bytes32 value, TaskId taskId, NodeId nodeId) internal pure returns (bytes32) {
        return keccak256(abi.encode(DOMAIN, value, taskId, nodeId));
    }

    /// `wanted` different positions out of `count` from `first` on, ascending; all of them if there are not more.
    function draw(bytes32 seed, uint256 first, uint256 count, uint256 wanted)
        internal
        pure
        returns (uint256[] memory positions)
    {
        positions = new uint256[](count < wanted ? count : wanted);
        if (count <= wanted) {
            for (uint256 i; i < count; ++i) {
                positions[i] = first + i;
            }
            return positions;
        }
        uint256 hash;
        unchecked {
            // Nothing here is larger than a word of 64 bits times a number of tokens.
            for (uint256 j; j < wanted; ++j) {
                if (j & 3 == 0) hash = uint256(keccak256(abi.encode(seed, j >> 2)));
                uint256 word = uint64(hash >> (192 - 64 * (j & 3)));
                uint256 place = word * (count - j) >> 64;
                uint256 i;
                for (; i < j && positions[i] - first <= place; ++i) {
                    ++place;
                }
                for (uint256 k = j; k > i; --k) {
                    positions[k] = positions[k - 1];
                }
                positions[i] = first + place;
            }
        }
    }

    /// How many blocks an answer of `n` tokens has.
    function blocksOf(uint256 n) internal pure returns (uint256 blocks) {
        if (n < MIN_FOR_BLOCKS) return 0;
        blocks = (n + BLOCK / 2) / BLOCK;
        if (blocks == 0) blocks = 1;
    }

    /// Whether so many blocks of an answer can fail, this one, counted from 0, worst.
    function canFail(uint256 n, uint256 failing, uint256 worst) internal pure returns (bool) {
        uint256 blocks = blocksOf(n);
        return failing <= blocks && worst < (blocks == 0 ? 1 : blocks);
    }

    /// First position and number of positions of a block, counted from 0; the last one goes on to the end.
    function windowOf(uint256 n, uint256 index) internal pure returns (uint256 first, uint256 count) {
        first = index * BLOCK + 1;
        count = index + 1 >= blocksOf(n) ? n + 1 - first : BLOCK;
    }

    /// Positions that somebody named: 32 bits each, the first highest of the first word, zeros behind the last.
    function unpack(uint256 named, uint256 alsoNamed, uint256 n) internal pure returns (uint256[] memory positions) {
        positions = new uint256[](16);
        uint256 count;
        uint256 last;
        for (uint256 i; i < 16; ++i) {
            if (i == 8) named = alsoNamed;
            uint256 position = named >> 224;
            named <<= 32;
            if (position == 0) {
                // Nothing may stand behind a gap.
                if (named != 0 || (i < 8 && alsoNamed != 0)) {
                    revert IProofOfInference.ProofOfInference_BadPosition(position, n);
                }
                break;
            }
            if (position <= last || position > n) {
                revert IProofOfInference.ProofOfInference_BadPosition(position, n);
            }
            positions[count++] = last = position;
        }
        assembly ("memory-safe") {
            mstore(positions, count)
        }
    }
}
