// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeId} from "../types/Ids.sol";

/// Work is counted apart, so that a friendly client's dedicated session does not raise a node in the draws.
enum Series {
    /// Tasks of sessions that drew the node. Its level weighs in draws.
    Drawn,
    /// Tasks of sessions that named the node.
    Dedicated
}

/// What happened to a task at a node.
enum Outcome {
    /// Answered in time and paid.
    Settled,
    /// Handed back in time: no fault.
    Declined,
    /// No answer, or no precommitment, by the deadline.
    Silent,
    /// Precommitted, and not opened by the deadline.
    Unrevealed
}

/// Counters of one node in one series. One word.
struct Record {
    uint32 settled;
    uint32 declined;
    uint32 silent;
    uint32 unrevealed;
    /// Consecutive successes since the level last changed.
    uint16 streak;
    /// 0 to 10, as of `updatedAt`.
    uint8 level;
    /// Levels at the start of the epoch of `updatedAt` and of the one before it: what draws look at.
    uint8 levelAtEpoch;
    uint8 levelBefore;
    /// Unix seconds; the last success or fault. Declining changes no level and does not stop its decay.
    uint40 updatedAt;
}

/// Counters and levels of nodes; written only by the protocol's own contracts.
interface INodeStats {
    /// The node's whole record after the change.
    event StatsChanged(NodeId indexed nodeId, Series indexed series, Outcome indexed outcome, uint32 times, Record record);

    error NodeStats_NotProtocol(address caller);
    error NodeStats_ZeroAddress();
    error NodeStats_ZeroPeriod();

    /// Only `SessionQueue`: `times` tasks of the node ended like this.
    function count(NodeId nodeId, Series series, Outcome outcome, uint32 times) external;

    function recordOf(NodeId nodeId, Series series) external view returns (Record memory);

    /// The level now, after decay.
    function levelOf(NodeId nodeId, Series series) external view returns (uint8);

    /// The level in `Series.Drawn` that a draw as of `asOf` (unix seconds, at most two epochs ago) goes by: as it stood
    /// when the epoch of `asOf` began, so that nobody can move it once the draw's seed is known.
    function drawLevelOf(NodeId nodeId, uint40 asOf) external view returns (uint8);

    /// Seconds without a success, or a fault, which costs more, that cost a level.
    function levelPeriod() external view returns (uint40);

    /// Seconds of an epoch: no shorter than the time that a draw may take.
    function epochLength() external view returns (uint40);

    function queue() external view returns (address);
}
