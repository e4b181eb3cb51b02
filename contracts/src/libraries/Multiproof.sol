// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IProofOfInference, Leaf} from "../interfaces/IProofOfInference.sol";
import {Leaves} from "./Leaves.sol";

/// Trees over what is recorded at the positions of an answer, and proofs of several leaves at once. An inner node is
/// keccak256(0x01 ‖ left ‖ right); a last node without a partner moves up unchanged. Positions are counted from 1.
library Multiproof {
    /// Positions that one proof opens: as many as a panel compares.
    uint256 internal constant MAX_POSITIONS = 16;
    /// Tokens of an answer that a tree may have: 16 levels.
    uint256 internal constant MAX_TOKENS = 65_536;

    /// The root that follows from some leaves of `n` and the nodes beside their paths: level by level from the leaves,
    /// ascending inside a level. `positions` are strictly ascending, within 1 and `n`, and as many as `hashes`, which is
    /// overwritten.
    function rootOf(uint256 n, uint256[] memory positions, bytes32[] memory hashes, bytes32[] calldata nodes)
        internal
        pure
        returns (bytes32)
    {
        uint256 at_;
        assembly ("memory-safe") {
            at_ := nodes.offset
        }
        (uint256 end, bytes32 root) = _climb(_indicesOf(n, positions), hashes, n, at_);
        if (end != at_ + 32 * nodes.length) revert IProofOfInference.ProofOfInference_BadProof(nodes.length);
        return root;
    }

    /// From the leaves to the root of a tree of `width` leaves, with the nodes that lie in the calldata from `next` on;
    /// `end` is where those that it took end. Each audit walks some sixty nodes: in assembly, since the compiler checks
    /// every index of a list.
    function _climb(uint256[] memory indices, bytes32[] memory hashes, uint256 width, uint256 next)
        private
        pure
        returns (uint256 end, bytes32 hash)
    {
        assembly ("memory-safe") {
            let count := shl(5, mload(indices))
            indices := add(indices, 32)
            hashes := add(hashes, 32)
            let data := mload(0x40)
            mstore8(data, 1)
            for {} gt(width, 1) { width := shr(1, add(width, 1)) } {
                let kept := 0
                for { let i := 0 } lt(i, count) {} {
                    let index := mload(add(indices, i))
                    hash := mload(add(hashes, i))
                    i := add(i, 32)
                    // A last node without a partner moves up as it is.
                    if lt(xor(index, 1), width) {
                        let other
                        // The next known one is the partner, or the next node is.
                        switch and(lt(i, count), eq(mload(add(indices, i)), xor(index, 1)))
                        case 1 {
                            other := mload(add(hashes, i))
                            i := add(i, 32)
                        }
                        default {
                            other := calldataload(next)
                            next := add(next, 32)
                        }
                        let side := shl(5, and(index, 1))
                        mstore(add(add(data, 1), side), hash)
                        mstore(sub(add(data, 33), side), other)
                        hash := keccak256(data, 65)
                    }
                    mstore(add(indices, kept), shr(1, index))
                    mstore(add(hashes, kept), hash)
                    kept := add(kept, 32)
                }
                count := kept
            }
            hash := mload(hashes)
            end := next
        }
    }

    /// Hashes of leaves with `contrasts` contrasts each, as the miner records them: keccak256(0x00 ‖ uint32 position ‖
    /// uint32 id ‖ contrasts). What a validator records ends with its margin and begins with 0x02.
    function hashesOf(uint256[] memory positions, Leaf[] calldata leaves, uint256 contrasts, bool withMargins)
        internal
        pure
        returns (bytes32[] memory hashes)
    {
        if (leaves.length != positions.length) {
            revert IProofOfInference.ProofOfInference_LeafCount(leaves.length, positions.length);
        }
        hashes = new bytes32[](leaves.length);
        uint256 bits = contrasts * 16;
        unchecked {
            for (uint256 i; i < leaves.length; ++i) {
                (uint256 id, uint256 packed, uint256 margin) = Leaves.wordsAt(leaves, i);
                bool clean = id >> 32 == 0 && packed >> bits == 0 && margin >> 32 == 0;
                if (!clean) revert IProofOfInference.ProofOfInference_BadLeaf(positions[i]);
                // From the top: a byte, the position, the id, the contrasts, the margin.
                uint256 word = positions[i] << 216 | id << 184 | packed << (184 - bits);
                if (withMargins) word |= uint256(2) << 248 | margin << (152 - bits);
                uint256 length = (withMargins ? 13 : 9) + (bits >> 3);
                assembly ("memory-safe") {
                    mstore(0, word)
                    mstore(add(add(hashes, 32), shl(5, i)), keccak256(0, length))
                }
            }
        }
    }

    /// Places of positions among the leaves, counted from 0.
    function _indicesOf(uint256 n, uint256[] memory positions) private pure returns (uint256[] memory indices) {
        uint256 count = positions.length;
        if (count == 0 || count > MAX_POSITIONS || n > MAX_TOKENS) {
            revert IProofOfInference.ProofOfInference_BadProof(count);
        }
        indices = new uint256[](count);
        uint256 last;
        for (uint256 i; i < count; ++i) {
            uint256 position = positions[i];
            if (position <= last || position > n) revert IProofOfInference.ProofOfInference_BadPosition(position, n);
            (indices[i], last) = (position - 1, position);
        }
    }
}
