// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Outcome, Series} from "../../../src/interfaces/INodeStats.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {StatsBase} from "./StatsBase.sol";

contract NodeStatsDrawLevelTest is StatsBase {
    /// What changed a level, when, and what it was then.
    struct Change {
        uint256 time;
        uint256 level;
    }

    Change[] internal changes;

    /// By the definition: the level after the last change before the epoch began, less its decay until then.
    function wantedAt(uint256 asOf) internal view returns (uint256) {
        uint256 start = asOf - asOf % EPOCH;
        for (uint256 i = changes.length; i > 0; --i) {
            Change memory change = changes[i - 1];
            if (change.time >= start) continue;
            uint256 lost = (start - change.time) / PERIOD;
            return lost > change.level ? 0 : change.level - lost;
        }
        return 0;
    }

    /// Any work, at any times: a draw of this epoch or the one before sees the level as its epoch began.
    function testFuzz_is_the_level_as_the_epoch_began(bytes32 seed) public {
        uint256 random = uint256(seed);
        for (uint256 i; i < 20; ++i) {
            random = uint256(keccak256(abi.encode(random)));
            uint256 kind = random % 8;
            if (kind < 5) count(Outcome.Settled, uint32(random >> 8) % 100);
            else count(Outcome(kind - 4), 1);
            if (kind != 5) changes.push(Change(block.timestamp, level()));
            // Within the second, the epoch, some epochs, or some periods.
            uint256[4] memory spans = [uint256(1), EPOCH / 2, 3 * EPOCH, 2 * PERIOD];
            skipTime((random >> 64) % (spans[(random >> 40) % 4] + 1));
            uint256 now_ = block.timestamp;
            assertEq(drawLevel(), wantedAt(now_), "this epoch");
            uint256 before = now_ - (random >> 128) % (EPOCH + 1);
            assertEq(stats.drawLevelOf(NODE, uint40(before)), wantedAt(before), "up to an epoch ago");
        }
    }

    /// [D1] The draw's level is the same at its entry and for as long as it may wait.
    function testFuzz_does_not_move_while_a_draw_waits(uint16 had, uint40 offset, uint40 wait, bool good) public {
        count(Outcome.Settled, had);
        skipTime(bound(offset, 0, 3 * EPOCH));
        uint40 asOf = uint40(block.timestamp);
        uint8 before = stats.drawLevelOf(NODE, asOf);
        count(good ? Outcome.Settled : Outcome.Silent, 500);
        assertEq(stats.drawLevelOf(NODE, asOf), before, "at once");
        skipTime(bound(wait, 0, EPOCH));
        count(good ? Outcome.Settled : Outcome.Silent, 500);
        assertEq(stats.drawLevelOf(NODE, asOf), before, "later");
    }

    function test_work_weighs_from_the_next_epoch_on() public {
        count(Outcome.Settled, 1023);
        assertEq(drawLevel(), 0, "the epoch's first second");
        skipTime(EPOCH - 1);
        assertEq(drawLevel(), 0, "its last second");
        skipTime(1);
        assertEq(drawLevel(), 10, "the next");
    }

    /// [P4]
    function testFuzz_dedicated_work_never_weighs(uint32 times) public {
        stats.count(NODE, Series.Dedicated, Outcome.Settled, times);
        skipTime(EPOCH);
        assertEq(drawLevel(), 0, "level");
        assertEq(stats.drawLevelOf(NodeId.wrap(1), uint40(block.timestamp)), 0, "unknown node");
    }
}
