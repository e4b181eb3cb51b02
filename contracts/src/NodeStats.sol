// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodeStats, Outcome, Record, Series} from "./interfaces/INodeStats.sol";
import {Levels} from "./libraries/Levels.sol";
import {NodeId} from "./types/Ids.sol";

/// One record for each node and series.
contract NodeStats is INodeStats {
    using Levels for Record;

    struct Wiring {
        address queue;
    }

    struct Config {
        uint40 epochLength;
        uint40 levelPeriod;
    }

    /// @inheritdoc INodeStats
    address public immutable queue;
    /// @inheritdoc INodeStats
    uint40 public immutable levelPeriod;
    /// @inheritdoc INodeStats
    uint40 public immutable epochLength;

    mapping(NodeId => mapping(Series => Record)) internal _records;

    constructor(Wiring memory wiring, Config memory config) {
        if (wiring.queue == address(0)) revert NodeStats_ZeroAddress();
        if (config.epochLength == 0 || config.levelPeriod == 0) revert NodeStats_ZeroPeriod();
        (queue, epochLength, levelPeriod) = (wiring.queue, config.epochLength, config.levelPeriod);
    }

    /// @inheritdoc INodeStats
    function count(NodeId nodeId, Series series, Outcome outcome, uint32 times) external {
        if (msg.sender != queue) revert NodeStats_NotProtocol(msg.sender);
        Record memory record = _records[nodeId][series];
        if (outcome == Outcome.Declined) {
            record.declined = _addCapped(record.declined, times);
        } else {
            record.touch(uint40(block.timestamp), epochLength, levelPeriod);
            if (outcome == Outcome.Settled) {
                record.settled = _addCapped(record.settled, times);
                record.succeed(times);
            } else {
                if (outcome == Outcome.Silent) record.silent = _addCapped(record.silent, times);
                else record.unrevealed = _addCapped(record.unrevealed, times);
                record.fail(times);
            }
        }
        _records[nodeId][series] = record;
        emit StatsChanged(nodeId, series, outcome, times, record);
    }

    /// @inheritdoc INodeStats
    function recordOf(NodeId nodeId, Series series) external view returns (Record memory) {
        return _records[nodeId][series];
    }

    /// @inheritdoc INodeStats
    function levelOf(NodeId nodeId, Series series) external view returns (uint8) {
        Record memory record = _records[nodeId][series];
        return record.decayed(block.timestamp, levelPeriod);
    }

    /// @inheritdoc INodeStats
    function drawLevelOf(NodeId nodeId, uint40 asOf) external view returns (uint8) {
        Record memory record = _records[nodeId][Series.Drawn];
        return record.atEpochOf(asOf, epochLength, levelPeriod);
    }

    /// A counter that is full stays full: it must never stop a settlement.
    function _addCapped(uint32 counter, uint32 times) internal pure returns (uint32) {
        uint256 sum = uint256(counter) + times;
        return sum > type(uint32).max ? type(uint32).max : uint32(sum);
    }
}
