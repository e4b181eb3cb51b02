// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IProofOfInference, Leaf} from "../interfaces/IProofOfInference.sol";

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
        uint256[] memory indices = _indicesOf(n, positions);
        uint256 count = indices.length;
        uint256 used;
        for (uint256 width = n; width > 1; width = (width + 1) >> 1) {
            uint256 kept;
            for (uint256 i; i < count; ++kept) {
                uint256 index = indices[i];
                bytes32 hash = hashes[i++];
                uint256 sibling = index ^ 1;
                if (sibling < width) {
                    bytes32 other;
                    if (i < count && indices[i] == sibling) {
                        other = hashes[i++];
                    } else {
                        if (used == nodes.length) revert IProofOfInference.ProofOfInference_BadProof(nodes.length);
                        other = nodes[used++];
                    }
                    hash = index & 1 == 0 ? _nodeOf(hash, other) : _nodeOf(other, hash);
                }
                (indices[kept], hashes[kept]) = (index >> 1, hash);
            }
            count = kept;
        }
        if (used != nodes.length) revert IProofOfInference.ProofOfInference_BadProof(nodes.length);
        return hashes[0];
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
        for (uint256 i; i < leaves.length; ++i) {
            hashes[i] = _leafOf(positions[i], leaves[i], contrasts, withMargins);
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

    function _leafOf(uint256 position, Leaf calldata leaf, uint256 contrasts, bool withMargins)
        private
        pure
        returns (bytes32 hash)
    {
        uint256 bits = contrasts * 16;
        uint256 packed = uint256(leaf.contrasts);
        if (packed >> bits != 0) revert IProofOfInference.ProofOfInference_BadLeaf(position);
        // From the top: a byte, the position, the id, the contrasts, the margin.
        uint256 word = position << 216 | uint256(leaf.id) << 184 | packed << (184 - bits);
        uint256 length = 9 + bits / 8;
        if (withMargins) {
            word |= uint256(2) << 248 | uint256(leaf.margin) << (152 - bits);
            length += 4;
        }
        assembly ("memory-safe") {
            mstore(0, word)
            hash := keccak256(0, length)
        }
    }

    function _nodeOf(bytes32 left, bytes32 right) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore8(data, 1)
            mstore(add(data, 1), left)
            mstore(add(data, 33), right)
            hash := keccak256(data, 65)
        }
    }
}
