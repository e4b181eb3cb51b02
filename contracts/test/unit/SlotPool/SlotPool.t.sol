// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Place, SlotPool} from "../../../src/libraries/SlotPool.sol";
import {NodeId, SessionId} from "../../../src/types/Ids.sol";
import {IVm} from "../../IVm.sol";

/// The library against a list that does the same in the plainest way.
contract SlotPoolTest {
    using SlotPool for SlotPool.State;
    using SlotPool for Place;

    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    NodeId internal constant NODE = NodeId.wrap(1);
    uint40 internal constant FOREVER = type(uint40).max;

    SlotPool.State internal pool;

    enum Stage {
        Nobodys,
        Active,
        Vacated
    }

    Stage[] internal stages;
    bool[] internal inUse;

    function assertEq(uint256 a, uint256 b, string memory what) internal pure {
        if (a != b) revert(string.concat(what, ": ", vm.toString(a), " != ", vm.toString(b)));
    }

    function assertCounts() internal view {
        uint256 taken;
        uint256 used;
        for (uint256 i; i < stages.length; ++i) {
            if (inUse[i]) ++used;
            if (stages[i] == Stage.Active || inUse[i]) ++taken;
            Place memory place = pool.placeAt(uint32(i));
            assertEq(NodeId.unwrap(place.nodeId) == 0 ? 1 : 0, stages[i] == Stage.Nobodys ? 1 : 0, "nobody's");
            assertEq(place.isFree() ? 0 : 1, inUse[i] ? 1 : 0, "in use");
            assertEq(place.isActive(5) ? 1 : 0, stages[i] == Stage.Active ? 1 : 0, "active");
        }
        SlotPool.Counts memory counts = pool.countsOf();
        assertEq(counts.slots, stages.length, "slots");
        assertEq(counts.taken, taken, "taken");
        assertEq(counts.used, used, "used");
    }

    /// Any order of what the pool does with its places.
    function testFuzz_counts_and_places_agree_with_a_plain_list(bytes32 seed) public {
        uint256 random = uint256(seed);
        for (uint256 step; step < 40; ++step) {
            random = uint256(keccak256(abi.encode(random)));
            uint256 what = random % 8;
            if (stages.length == 0 || what < 2) {
                takePlace();
            } else {
                movePlace(what, uint32((random >> 8) % stages.length));
            }
            assertCounts();
        }
    }

    function takePlace() internal {
        bool again;
        for (uint256 i; i < stages.length; ++i) {
            if (stages[i] == Stage.Nobodys) again = true;
        }
        uint32 index = pool.take(NODE, 5);
        if (again) {
            require(stages[index] == Stage.Nobodys, "a place of somebody was given again");
            stages[index] = Stage.Active;
        } else {
            assertEq(index, stages.length, "a new place");
            stages.push(Stage.Active);
            inUse.push(false);
        }
    }

    function movePlace(uint256 what, uint32 index) internal {
        Stage stage = stages[index];
        if (stage == Stage.Nobodys) return;
        if (what == 2) {
            pool.vacate(index, 5);
            stages[index] = Stage.Vacated;
        } else if (what == 3 && stage == Stage.Vacated) {
            pool.reopen(index, 5);
            stages[index] = Stage.Active;
        } else if (what == 4 && stage == Stage.Vacated && !inUse[index]) {
            pool.giveBack(index);
            stages[index] = Stage.Nobodys;
        } else if (what >= 5 && !inUse[index]) {
            SlotPool.Counts memory counts = pool.countsOf();
            pool.occupy(counts, index, SessionId.wrap(9));
            pool.store(counts);
            inUse[index] = true;
        } else if (what >= 5) {
            pool.free(index, 5);
            inUse[index] = false;
        }
    }

    /// [D4]
    function testFuzz_a_place_is_open_to_draws_of_its_time_alone(uint40 from, uint40 until, uint40 free, uint40 asOf)
        public
        pure
    {
        Place memory place = Place(NODE, from, until, free, SessionId.wrap(0), 0);
        bool wanted = from <= asOf && asOf < until && free <= asOf;
        require(place.isOpen(asOf) == wanted, "open");
        place.sessionId = SessionId.wrap(1);
        require(!place.isOpen(asOf), "in use");
    }

    /// The first second of a place counts, the one in which it was vacated does not.
    function testFuzz_bounds_of_a_place_are_exact(uint40 from, uint40 until) public {
        from = uint40(uint256(from) % (FOREVER - 2) + 1);
        until = from + 1 + uint40(uint256(until) % (FOREVER - from - 1));
        uint32 index = pool.take(NODE, from);
        pool.vacate(index, until);
        Place memory place = pool.placeAt(index);
        require(!place.isOpen(from - 1) && place.isOpen(from), "from");
        require(place.isOpen(until - 1) && !place.isOpen(until), "until");
    }

    /// It was vacated once: a second time does not make it count longer.
    function testFuzz_vacating_twice_keeps_the_first_time(uint40 first, uint40 second) public {
        if (first == FOREVER) --first;
        uint32 index = pool.take(NODE, 1);
        pool.vacate(index, first);
        pool.vacate(index, second);
        assertEq(pool.placeAt(index).activeUntil, first, "until");
        assertEq(pool.countsOf().taken, 0, "taken");
    }

    function testFuzz_tickets_count_from_one(uint8 draws) public {
        for (uint256 i = 1; i <= draws; ++i) {
            (uint40 ticket, uint32 slots, uint16 utilisationBps) = pool.enter();
            assertEq(ticket, i, "ticket");
            assertEq(slots, 0, "slots");
            assertEq(utilisationBps, 0, "utilisation");
        }
        assertEq(pool.countsOf().ticketsPassed, 0, "passed");
    }
}
