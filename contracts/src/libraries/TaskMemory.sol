// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISessionQueue, Part, Task, TaskState} from "../interfaces/ISessionQueue.sol";
import {NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// Tasks in memory, each in one piece laid out as `abi.encode` would have it: the words of its head, how many parts it
/// has, the words of the parts. So it is copied from calldata, hashed and told in events as it stands, which costs a
/// fraction of decoding it and encoding it again. Only the head's last word differs: to the compiler it is where the
/// list of the parts lies (behind the piece), in the encoding it is how far they are from the head.
///
/// A task that was brought is not checked word by word. Its digest is compared with the stored one, and every word is
/// in the digest: what has bits that its type does not know is not the stored task.
library TaskMemory {
    // Assembly takes no computed constants.

    /// The 15 members of a `Task`, one word each.
    uint256 internal constant HEAD_BYTES = 480;
    /// Where its last member is.
    uint256 internal constant LIST_AT = 448;
    /// The 5 members of a `Part`, one word each.
    uint256 internal constant PART_BYTES = 160;
    /// In front of a task: the four words that `TaskSubmitted` has before it, the last of them the task's offset.
    uint256 internal constant ROOM_BYTES = 128;

    /// A task of zeros.
    function create(uint256 parts) internal pure returns (Task memory task) {
        task = _reserve(parts);
        assembly ("memory-safe") {
            let list := mload(add(task, LIST_AT))
            // Behind the calldata there are zeros.
            calldatacopy(task, calldatasize(), sub(list, task))
            mstore(add(task, LIST_AT), list)
        }
    }

    function read(Task calldata brought) internal pure returns (Task memory task) {
        task = _reserve(brought.parts.length);
        load(task, brought);
    }

    /// Overwrites a task that was created with as many parts, or more.
    function load(Task memory task, Task calldata brought) internal pure {
        // The compiler checks that they lie in the calldata, wherever that is.
        Part[] calldata parts = brought.parts;
        assembly ("memory-safe") {
            let list := mload(add(task, LIST_AT))
            calldatacopy(task, brought, LIST_AT)
            calldatacopy(add(task, add(HEAD_BYTES, 32)), parts.offset, mul(parts.length, PART_BYTES))
            mstore(list, parts.length)
        }
    }

    /// The task with so many new parts instead of its own, elsewhere in memory.
    function withParts(Task memory task, uint256 parts) internal pure returns (Task memory result) {
        result = create(parts);
        assembly ("memory-safe") {
            mcopy(result, task, LIST_AT)
        }
    }

    /// keccak256(abi.encode(task)).
    function hash(Task memory task) internal pure returns (bytes32 result) {
        (uint256 list, uint256 length) = _close(task, 32);
        assembly ("memory-safe") {
            result := keccak256(sub(task, 32), length)
        }
        _reopen(task, list);
    }

    /// Emits `TaskSubmitted`; `first` is the task's first node.
    function tellSubmitted(
        Task memory task,
        TaskId taskId,
        NodeId first,
        bytes32 requestDigest,
        uint256[2] memory times
    ) internal {
        (bytes32 topic, uint256 sessionId) = (ISessionQueue.TaskSubmitted.selector, SessionId.unwrap(task.sessionId));
        uint256 nodeId = NodeId.unwrap(first);
        (uint256 list, uint256 length) = _close(task, ROOM_BYTES);
        assembly ("memory-safe") {
            let data := sub(task, ROOM_BYTES)
            mstore(data, requestDigest)
            mcopy(add(data, 32), times, 64)
            log4(data, length, topic, taskId, sessionId, nodeId)
        }
        _reopen(task, list);
    }

    /// Emits `TaskMoved`.
    function tellMoved(Task memory task, TaskId taskId, TaskState state, uint40 until) internal {
        (bytes32 topic, uint256 state_, uint256 until_) = (ISessionQueue.TaskMoved.selector, uint256(state), until);
        (uint256 list, uint256 length) = _close(task, 64);
        assembly ("memory-safe") {
            let data := sub(task, 64)
            mstore(data, until_)
            log3(data, length, topic, taskId, state_)
        }
        _reopen(task, list);
    }

    /// Memory of a task with so many parts; only the list of the parts is written.
    function _reserve(uint256 parts) private pure returns (Task memory task) {
        assembly ("memory-safe") {
            task := add(mload(0x40), ROOM_BYTES)
            let part := add(task, add(HEAD_BYTES, 32))
            let list := add(part, mul(parts, PART_BYTES))
            mstore(add(task, LIST_AT), list)
            mstore(list, parts)
            let at := add(list, 32)
            for {} lt(part, list) { part := add(part, PART_BYTES) } {
                mstore(at, part)
                at := add(at, 32)
            }
            mstore(0x40, at)
        }
    }

    /// Makes the piece, and the word before it, the encoding of a task that stands so many bytes behind the beginning of
    /// some data; `length` is that of the data. Until `_reopen` the task's parts cannot be read.
    function _close(Task memory task, uint256 before) private pure returns (uint256 list, uint256 length) {
        assembly ("memory-safe") {
            list := mload(add(task, LIST_AT))
            let parts := mload(list)
            mstore(sub(task, 32), before)
            mstore(add(task, LIST_AT), HEAD_BYTES)
            mstore(add(task, HEAD_BYTES), parts)
            length := add(add(before, add(HEAD_BYTES, 32)), mul(parts, PART_BYTES))
        }
    }

    function _reopen(Task memory task, uint256 list) private pure {
        assembly ("memory-safe") {
            mstore(add(task, LIST_AT), list)
        }
    }
}
