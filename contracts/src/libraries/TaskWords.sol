// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Part, Task, TaskState} from "../interfaces/ISessionQueue.sol";

/// The word that the queue stores of a task: the digest of its `Task` in the 208 highest bits, then `until` in 40 bits,
/// one bit that says whether its callback is through, and its state in the lowest seven. The zero word is no task.
library TaskWords {
    uint256 internal constant STATE_MASK = 0x7f;
    uint256 internal constant DELIVERED = 0x80;
    uint256 internal constant UNTIL_SHIFT = 8;
    uint256 internal constant DIGEST_SHIFT = 48;
    /// Members of a `Task` and of a `Part`, one word each.
    uint256 internal constant TASK_BYTES = 15 * 32;
    uint256 internal constant PART_BYTES = 5 * 32;

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
        return bytes32(uint256(keccak256(encode(task, hex""))) >> DIGEST_SHIFT << DIGEST_SHIFT);
    }

    /// `head`, which is whole words, and `task` as `abi.encode` of both would have them: the words of the task, then
    /// those of its parts, which memory has in the same order. Written out because the compiler's own is much more code.
    function encode(Task memory task, bytes memory head) internal pure returns (bytes memory data) {
        Part[] memory parts = task.parts;
        uint256 tail = head.length + 32;
        data = new bytes(tail + TASK_BYTES + 32 + PART_BYTES * parts.length);
        assembly ("memory-safe") {
            let at := add(data, 32)
            mcopy(at, add(head, 32), mload(head))
            at := add(at, mload(head))
            mstore(at, tail)
            at := add(at, 32)
            mcopy(at, task, TASK_BYTES)
            at := add(at, TASK_BYTES)
            // The last word of a task says where its parts begin.
            mstore(sub(at, 32), TASK_BYTES)
            let length := mload(parts)
            mstore(at, length)
            at := add(at, 32)
            for { let i := 1 } iszero(gt(i, length)) { i := add(i, 1) } {
                mcopy(at, mload(add(parts, mul(i, 32))), PART_BYTES)
                at := add(at, PART_BYTES)
            }
        }
    }
}
