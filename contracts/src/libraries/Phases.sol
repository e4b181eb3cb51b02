// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Progress} from "../interfaces/ISession.sol";
import {ISessionQueue, Part, PartState, Task, TaskState} from "../interfaces/ISessionQueue.sol";
import {NodeId, TaskId} from "../types/Ids.sol";
import {Assignment} from "./Assignment.sol";

/// A task that is being moved: what is stored of it, and the rest.
struct Move {
    TaskId taskId;
    TaskState state;
    uint40 until;
    Task task;
}

/// How a task goes from phase to phase. Nothing here is stored.
library Phases {
    using Assignment for Assignment.Ring;

    /// The part of a node, which must be in `wanted`.
    function partOf(Move memory move, NodeId nodeId, PartState wanted) internal pure returns (Part memory part) {
        uint256 i = indexOf(move, nodeId);
        part = move.task.parts[i];
        if (part.state != wanted) {
            revert ISessionQueue.SessionQueue_WrongPartState(move.taskId, nodeId, part.state);
        }
    }

    /// A node never has two parts: it is asked once.
    function indexOf(Move memory move, NodeId nodeId) internal pure returns (uint256) {
        Part[] memory parts = move.task.parts;
        uint256 length = parts.length;
        unchecked {
            for (uint256 i; i < length; ++i) {
                if (NodeId.unwrap(parts[i].nodeId) == NodeId.unwrap(nodeId)) return i;
            }
        }
        revert ISessionQueue.SessionQueue_NotOnTask(move.taskId, nodeId);
    }

    /// The states that its parts are in, one bit each.
    function _statesOf(Task memory task) private pure returns (uint256 states) {
        Part[] memory parts = task.parts;
        // Asked after every answer: without a check of each index and state.
        assembly ("memory-safe") {
            let end := add(parts, mul(mload(parts), 32))
            for {} lt(parts, end) {} {
                parts := add(parts, 32)
                states := or(states, shl(mload(add(mload(parts), 32)), 1))
            }
        }
    }

    function _has(uint256 states, PartState state) private pure returns (bool) {
        return states >> uint256(state) & 1 != 0;
    }

    /// Ends the phase if none of its parts is due any more.
    function proceed(Move memory move, Progress memory progress) internal view returns (bool ended) {
        uint256 states = _statesOf(move.task);
        if (_has(states, PartState.Waiting)) return false;
        if (_has(states, PartState.Precommitted)) {
            if (move.state == TaskState.Precommitted) return false;
            enter(move, TaskState.Precommitted, progress.revealTime);
        } else if (_has(states, PartState.Committed)) {
            enter(move, TaskState.Committed, progress.settleDelay);
        } else {
            enter(move, TaskState.Refunded, 0);
        }
        return true;
    }

    /// The state from now on, for so many seconds.
    function enter(Move memory move, TaskState state, uint256 seconds_) internal view {
        (move.state, move.until) = (state, uint40(block.timestamp + seconds_));
    }

    /// Whether another attempt fits in the time and the number of them.
    function hasAttempt(Task memory task, Progress memory progress) internal view returns (bool) {
        return task.attemptsLeft != 0 && block.timestamp + progress.attemptTime <= task.finalBy;
    }

    /// Gives a part to the next node of the ring, or lets it fail.
    function passOn(Task memory task, uint256 i, Assignment.Ring memory ring) internal pure returns (bool passed) {
        uint256 index = ring.next(task.tried);
        if (index == ring.length) {
            task.parts[i].state = PartState.Failed;
            return false;
        }
        give(task, i, ring, index);
        return true;
    }

    /// Gives a part to the node at `index` of the ring.
    function give(Task memory task, uint256 i, Assignment.Ring memory ring, uint256 index) internal pure {
        task.tried |= uint8(1 << index);
        Part memory part = task.parts[i];
        (part.nodeId, part.dedicated) = (ring.nodeAt(index), ring.isDedicated(index));
        part.state = PartState.Waiting;
    }
}
