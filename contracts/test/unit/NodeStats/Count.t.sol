// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeStats} from "../../../src/NodeStats.sol";
import {INodeStats, Outcome, Record, Series} from "../../../src/interfaces/INodeStats.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {StatsBase} from "./StatsBase.sol";

contract NodeStatsCountTest is StatsBase {
    function testFuzz_counts_every_outcome_in_its_series(uint8 which, bool dedicated, uint16 times) public {
        Outcome outcome = Outcome(which % 4);
        Series series = dedicated ? Series.Dedicated : Series.Drawn;
        stats.count(NODE, series, outcome, times);
        stats.count(NODE, series, outcome, 1);
        Record memory told = stats.recordOf(NODE, series);
        uint256 wanted = uint256(times) + 1;
        assertEq(told.settled, outcome == Outcome.Settled ? wanted : 0, "settled");
        assertEq(told.declined, outcome == Outcome.Declined ? wanted : 0, "declined");
        assertEq(told.silent, outcome == Outcome.Silent ? wanted : 0, "silent");
        assertEq(told.unrevealed, outcome == Outcome.Unrevealed ? wanted : 0, "unrevealed");
        Record memory other = stats.recordOf(NODE, dedicated ? Series.Drawn : Series.Dedicated);
        assertEq(uint256(keccak256(abi.encode(other))), uint256(keccak256(new bytes(9 * 32))), "the other series");
        other = stats.recordOf(NodeId.wrap(8), series);
        assertEq(uint256(keccak256(abi.encode(other))), uint256(keccak256(new bytes(9 * 32))), "another node");
    }

    function test_tells_the_whole_record() public {
        Record memory wanted;
        (wanted.settled, wanted.level, wanted.streak, wanted.updatedAt) = (4, 2, 1, START);
        vm.expectEmit();
        emit INodeStats.StatsChanged(NODE, Series.Drawn, Outcome.Settled, 4, wanted);
        count(Outcome.Settled, 4);
        wanted.declined = 2;
        vm.expectEmit();
        emit INodeStats.StatsChanged(NODE, Series.Drawn, Outcome.Declined, 2, wanted);
        skipTime(5);
        count(Outcome.Declined, 2);
    }

    /// Settlement must not stop because somebody worked too much.
    function testFuzz_full_counters_stay_full(uint32 first, uint32 second) public {
        for (uint8 i; i < 4; ++i) {
            count(Outcome(i), first);
            count(Outcome(i), second);
            count(Outcome(i), type(uint32).max);
        }
        Record memory told = record();
        assertEq(told.settled, type(uint32).max, "settled");
        assertEq(told.declined, type(uint32).max, "declined");
        assertEq(told.silent, type(uint32).max, "silent");
        assertEq(told.unrevealed, type(uint32).max, "unrevealed");
    }

    function testFuzz_refuses_who_is_not_the_queue(address caller) public {
        if (caller == address(this)) return;
        vm.expectRevert(abi.encodeWithSelector(INodeStats.NodeStats_NotProtocol.selector, caller));
        vm.prank(caller);
        stats.count(NODE, Series.Drawn, Outcome.Settled, 1);
    }
}

contract NodeStatsConstructorTest is StatsBase {
    function test_takes_what_it_is_given() public view {
        assertEq(uint160(stats.queue()), uint160(address(this)), "queue");
        assertEq(stats.epochLength(), EPOCH, "epoch");
        assertEq(stats.levelPeriod(), PERIOD, "period");
    }

    function test_refuses_the_zero_address_and_zero_periods() public {
        vm.expectRevert(abi.encodeWithSelector(INodeStats.NodeStats_ZeroAddress.selector));
        new NodeStats(NodeStats.Wiring(address(0)), NodeStats.Config(1, 1));
        bytes memory zero = abi.encodeWithSelector(INodeStats.NodeStats_ZeroPeriod.selector);
        vm.expectRevert(zero);
        new NodeStats(NodeStats.Wiring(address(this)), NodeStats.Config(0, 1));
        vm.expectRevert(zero);
        new NodeStats(NodeStats.Wiring(address(this)), NodeStats.Config(1, 0));
    }
}
