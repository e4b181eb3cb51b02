// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISessionQueue} from "../interfaces/ISessionQueue.sol";
import {SessionId, TaskId} from "../types/Ids.sol";

/// The queue of a session: tickets in order. One word; tickets are counted from 1, so the zero word is an empty queue.
library Tickets {
    struct Line {
        /// Tickets given, and tickets that left the head.
        uint64 given;
        uint64 passed;
    }

    /// Tasks of one queue at most: bounds how far a claim has to look, and what one lane can put before the others.
    uint256 internal constant LIMIT = 64;

    function isFull(Line storage self) internal view returns (bool) {
        return self.given - self.passed >= LIMIT;
    }

    function enter(Line storage self, SessionId sessionId) internal returns (uint64 ticket) {
        if (isFull(self)) revert ISessionQueue.SessionQueue_QueueFull(sessionId, LIMIT);
        return ++self.given;
    }

    /// The task leaves the head.
    function pass(Line storage self, TaskId taskId, uint64 ticket) internal {
        uint64 head = self.passed + 1;
        if (ticket != head) revert ISessionQueue.SessionQueue_NotHead(taskId, ticket, head);
        self.passed = head;
    }
}
