// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// A contract that owns a session and wants to be told its answers.
interface IAssayConsumer {
    /// Called by `SessionQueue.deliver`, once for each settled task whose request asked for it, with the gas that the
    /// request named. What it does with the answer, even a revert, does not touch the task.
    /// `outputDigest` is the sha-256 of the result block: the digest of its CID; zero if the task was refunded.
    function onAnswer(SessionId sessionId, TaskId taskId, NodeId nodeId, bytes32 outputDigest, uint32 outputTokens)
        external;
}
