// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Task, TaskState} from "../interfaces/ISessionQueue.sol";
import {TaskMemory} from "./TaskMemory.sol";

/// The word that the queue stores of a task: the digest of its `Task` in the 208 highest bits, then `until` in 40 bits,
/// one bit that says whether its callback is through, and its state in the lowest seven. The zero word is no task.
library TaskWords {
    uint256 internal constant STATE_MASK = 0x7f;
    uint256 internal constant DELIVERED = 0x80;
    uint256 internal constant UNTIL_SHIFT = 8;
    uint256 internal constant DIGEST_SHIFT = 48;

    function pack(TaskState state, uint40 until, bytes32 digest_) internal pure returns (uint256) {
        return uint256(digest_) | uint256(until) << UNTIL_SHIFT | uint256(state);
    }

    function stateOf(uint256 word) internal pure returns (TaskState) {
        return TaskState(word & STATE_MASK);
    }

    /// Unix seconds.
    function untilOf(uint256 word) internal pure returns (uint40) {
        return uint40(word >> UNTIL_SHIFT);
    }

    function digestOf(uint256 word) internal pure returns (bytes32) {
        return bytes32(word >> DIGEST_SHIFT << DIGEST_SHIFT);
    }

    function isDelivered(uint256 word) internal pure returns (bool) {
        return word & DELIVERED != 0;
    }

    /// keccak256(abi.encode(task)) with the 48 lowest bits cleared.
    function digest(Task memory task) internal pure returns (bytes32) {
        return digestOf(uint256(TaskMemory.hash(task)));
    }
}
