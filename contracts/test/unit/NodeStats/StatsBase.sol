// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeStats} from "../../../src/NodeStats.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {INodeStats, Outcome, Record, Series} from "../../../src/interfaces/INodeStats.sol";
import {IVm} from "../../IVm.sol";

abstract contract StatsBase {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    NodeId internal constant NODE = NodeId.wrap(7);
    // Seconds. The start is the beginning of an epoch.
    uint40 internal constant START = 1_800_000_000;
    uint40 internal constant EPOCH = 1 hours;
    uint40 internal constant PERIOD = 7 days;

    NodeStats internal stats;

    function setUp() public {
        vm.warp(START);
        stats = new NodeStats(NodeStats.Wiring({queue: address(this)}), NodeStats.Config(EPOCH, PERIOD));
    }

    function count(Outcome outcome, uint32 times) internal {
        stats.count(NODE, Series.Drawn, outcome, times);
    }

    function record() internal view returns (Record memory) {
        return stats.recordOf(NODE, Series.Drawn);
    }

    function level() internal view returns (uint8) {
        return stats.levelOf(NODE, Series.Drawn);
    }

    function drawLevel() internal view returns (uint8) {
        return stats.drawLevelOf(NODE, uint40(block.timestamp));
    }

    function skipTime(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function assertEq(uint256 a, uint256 b, string memory what) internal pure {
        if (a != b) revert(string.concat(what, ": ", vm.toString(a), " != ", vm.toString(b)));
    }
}
