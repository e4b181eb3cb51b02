// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Outcome} from "../../../src/interfaces/INodeStats.sol";
import {StatsBase} from "./StatsBase.sol";

contract NodeStatsLevelTest is StatsBase {
    /// [P4] 1, 3, 7, ... 1023 successes in a row, however they are grouped.
    function testFuzz_rises_after_two_to_the_level_successes(uint16 successes, uint16 group) public {
        successes = uint16(bound(successes, 0, 1200));
        for (uint256 left = successes; left > 0;) {
            uint32 times = uint32(bound(group, 1, left < 200 ? left : 200 + left / 4));
            if (times > left) times = uint32(left);
            count(Outcome.Settled, times);
            left -= times;
        }
        uint256 wanted;
        while (wanted < 10 && (2 << wanted) - 1 <= successes) ++wanted;
        assertEq(level(), wanted, "level");
        assertEq(record().streak, successes + 1 - (1 << wanted), "streak");
    }

    function testFuzz_ten_is_the_highest(uint32 times) public {
        count(Outcome.Settled, 1023);
        assertEq(level(), 10, "after 1023");
        count(Outcome.Settled, times);
        assertEq(level(), 10, "for ever");
    }

    /// [P4]
    function testFuzz_a_fault_costs_two_and_the_streak(uint16 successes, bool silent) public {
        count(Outcome.Settled, uint16(bound(successes, 0, 2000)));
        uint8 before = level();
        count(silent ? Outcome.Silent : Outcome.Unrevealed, 1);
        assertEq(level(), before < 2 ? 0 : before - 2, "level");
        assertEq(record().streak, 0, "streak");
    }

    function testFuzz_several_faults_cost_as_many(uint16 faults) public {
        count(Outcome.Settled, 1023);
        count(Outcome.Silent, faults);
        assertEq(level(), faults >= 5 ? 0 : 10 - 2 * uint256(faults), "level");
    }

    /// [P4]
    function testFuzz_decays_by_one_a_period(uint40 later) public {
        count(Outcome.Settled, 1023);
        later = uint40(bound(later, 0, 20 * PERIOD));
        skipTime(later);
        uint256 lost = later / PERIOD;
        assertEq(level(), lost > 10 ? 0 : 10 - lost, "level");
        // The next success counts from there, with a new streak if a level was lost.
        uint8 before = level();
        uint16 streak = record().streak;
        count(Outcome.Settled, before == 10 ? 1 : uint32(1) << before);
        assertEq(level(), before == 10 ? 10 : before + 1, "a level more");
        if (before == 10) assertEq(record().streak, streak + 1, "streak");
    }

    /// Whoever declines everything does not keep a level that he no longer earns, and does not lose one.
    function testFuzz_declining_changes_neither_level_nor_decay(uint40 later, uint32 times) public {
        count(Outcome.Settled, 20);
        assertEq(level(), 4, "level");
        uint256 wanted = record().streak;
        skipTime(PERIOD - 1);
        count(Outcome.Declined, times);
        assertEq(level(), 4, "no level lost");
        assertEq(record().streak, wanted, "streak");
        skipTime(1);
        assertEq(level(), 3, "decays on time");
        skipTime(bound(later, 0, 10 * PERIOD));
        uint8 before = level();
        count(Outcome.Declined, times);
        assertEq(level(), before, "as before");
    }
}
