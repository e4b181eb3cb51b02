// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaf} from "../interfaces/IProofOfInference.sol";

/// Leaves as they lie in calldata: three words each, which are neither copied nor checked one by one.
library Leaves {
    /// The words of a leaf; `i` must be within the list.
    function wordsAt(Leaf[] calldata leaves, uint256 i)
        internal
        pure
        returns (uint256 id, uint256 contrasts, uint256 margin)
    {
        assembly ("memory-safe") {
            let leaf := add(leaves.offset, mul(i, 96))
            id := calldataload(leaf)
            contrasts := calldataload(add(leaf, 32))
            margin := calldataload(add(leaf, 64))
        }
    }
}
