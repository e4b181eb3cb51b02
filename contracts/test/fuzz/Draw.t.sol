// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Draw, INodePool} from "../../src/interfaces/INodePool.sol";
import {Outcome, Series} from "../../src/interfaces/INodeStats.sol";
import {NodeId} from "../../src/types/Ids.sol";
import {PoolBase} from "../unit/NodePool/PoolBase.sol";

/// Two draws wait. Once their seed is known, whoever would like another result tries what there is to try.
contract DrawTest is PoolBase {
    /// Of these, four are reserved, two drain, and two are in use and drain, when the draws are entered.
    uint256 internal constant NODES = 24;
    uint8 internal constant COUNT = 3;

    /// How much of the window `someActions` has left.
    uint256 internal timeLeft;
    /// Number of the next node that joins.
    uint256 internal nextNode = NODES + 1;
    /// Sessions that have reserved a single node, and their nodes.
    mapping(uint64 sessionId => NodeId[]) internal reserved;
    uint64 internal lastSession;

    error Peeked(NodeId[] first, NodeId[] second);

    /// Owners have two nodes each.
    function ownerOfNode(uint256 i) internal pure returns (address) {
        return ownerOf((i + 1) / 2);
    }

    function setUp() public override {
        super.setUp();
        for (uint256 i = 1; i <= NODES; ++i) {
            registerFor(ownerOfNode(i), registration(i, uint8(i % 8 + 1)));
        }
        skipTime(ACTIVATION_DELAY);
        for (uint64 i = 1; i <= 6; ++i) {
            lastSession = i;
            reserved[i] = only(drawOne(i));
        }
        drainAny(3);
        drainAny(4);
        drainAny(NodeId.unwrap(reserved[5][0]));
        drainAny(NodeId.unwrap(reserved[6][0]));
        // What drained can leave, or come back, in the middle of the window.
        skipTime(WINDOW / 2);
    }

    function drainAny(uint256 i) internal {
        vm.prank(ownerOfNode(i));
        try pool.drain(id(i)) {} catch {}
    }

    /// Both draws, of sessions 101 and 102, entered now with the same seed, which is known only later.
    function enterBoth(bytes32 seed) internal returns (Draw memory first, Draw memory second) {
        first = enter(101, seed, COUNT);
        second = enter(102, seed, COUNT);
        timeLeft = WINDOW;
    }

    /// What both draws would find now, in their order; nothing changes.
    function peek(Draw memory first, Draw memory second) internal returns (bytes memory result) {
        try this.peekAndRevert(first, second) {
            revert("peeks do not return");
        } catch (bytes memory reason) {
            assertEq(bytes32(bytes4(reason)), bytes32(Peeked.selector), "peek");
            // 32 tries for each of three owners of twelve nearly always find all three: an empty result would show nothing.
            assertTrue(uint8(reason[4 + 95]) != 0, "nodes of the first draw");
            return reason;
        }
    }

    function peekAndRevert(Draw memory first, Draw memory second) external {
        NodeId[] memory one = reserve(first);
        NodeId[] memory two = reserve(second);
        revert Peeked(one, two);
    }

    function assertUnmoved(bytes memory before, Draw memory first, Draw memory second) internal {
        assertEq(keccak256(peek(first, second)), keccak256(before), "result of the draws");
    }

    // ---------------------------------------------------------------- one action each

    /// [D1]
    function testFuzz_joining_moves_no_waiting_draw(bytes32 seed, uint8 joins, bool later) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        if (later) skipTime(ACTIVATION_DELAY + 1);
        for (uint256 i; i < joins % 5; ++i) {
            newNode(nextNode++, 8);
        }
        skipTime(WINDOW - ACTIVATION_DELAY - 1);
        assertUnmoved(before, first, second);
    }

    /// [D1]
    function testFuzz_draining_moves_no_waiting_draw(bytes32 seed, bool later) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        if (later) skipTime(WINDOW / 2);
        for (uint256 i = 1; i <= NODES; ++i) {
            drainAny(i);
        }
        assertUnmoved(before, first, second);
        // Nor can the nodes go away before they serve.
        skipTime(WINDOW - (later ? WINDOW / 2 : 0));
        for (uint256 i = 5; i <= NODES; ++i) {
            vm.prank(ownerOfNode(i));
            try pool.exit(id(i)) {
                assertEq(pool.reservationsOf(id(i)), 0, "left too early");
            } catch {}
        }
        assertUnmoved(before, first, second);
        // It does move the draws that are entered after it.
        skipTime(1);
        reserve(first);
        reserve(second);
        assertEq(draw(103, seed, COUNT).length, 0, "everybody drains");
    }

    function testFuzz_resuming_moves_no_waiting_draw(bytes32 seed, uint40 later) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        // Nodes 3 and 4 drained before the draws, node 7 with them.
        drainAny(7);
        skipTime(bound(later, 0, WINDOW));
        uint256 resumed;
        for (uint256 i = 3; i <= 7; ++i) {
            vm.prank(ownerOfNode(i));
            try pool.resume(id(i)) {
                ++resumed;
                assertTrue(i != 7, "resumed while a draw can find it");
            } catch {}
        }
        assertTrue(resumed > 0 || later % (uint256(WINDOW) + 1) <= WINDOW / 2, "resuming is possible");
        assertUnmoved(before, first, second);
    }

    function testFuzz_leaving_and_taking_over_its_places_moves_no_waiting_draw(bytes32 seed) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        skipTime(WINDOW / 2 + 1);
        (uint32 slots,,) = pool.poolOf(INDEX);
        vm.prank(ownerOfNode(3));
        pool.exit(id(3));
        newNode(nextNode++, 4);
        (uint32 slotsAfter,,) = pool.poolOf(INDEX);
        assertEq(slotsAfter, slots, "the same places");
        skipTime(ACTIVATION_DELAY);
        assertUnmoved(before, first, second);
    }

    function testFuzz_releasing_moves_no_waiting_draw(bytes32 seed, bool later) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        if (later) skipTime(WINDOW / 2);
        for (uint64 i = 1; i <= 6; ++i) {
            release(i, reserved[i]);
        }
        skipTime(WINDOW / 2);
        assertUnmoved(before, first, second);
    }

    function testFuzz_opening_other_sessions_moves_no_waiting_draw(bytes32 seed, uint8 others) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        for (uint64 i; i < others % 16; ++i) {
            Draw memory other = enter(200 + i, seed, 8);
            vm.expectRevert(
                abi.encodeWithSelector(INodePool.NodePool_DrawNotNext.selector, INDEX, other.ticket, first.ticket)
            );
            reserve(other);
        }
        assertUnmoved(before, first, second);
    }

    /// [D1]
    function testFuzz_levels_that_change_move_no_waiting_draw(bytes32 seed, uint40 later, uint8 times) public {
        // Some have a level already.
        for (uint256 i = 1; i <= NODES; i += 2) {
            counted(i, Outcome.Settled, 100);
        }
        skipTime(EPOCH - block.timestamp % EPOCH + bound(later, 0, EPOCH - 1));
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        for (uint256 k; k < 2; ++k) {
            for (uint256 i = 1; i <= NODES; ++i) {
                counted(i, i % 3 == 0 ? Outcome.Silent : Outcome.Settled, times);
            }
            assertUnmoved(before, first, second);
            // Perhaps over the end of the epoch.
            skipTime(WINDOW / 2);
            assertUnmoved(before, first, second);
        }
    }

    function counted(uint256 i, Outcome outcome, uint32 times) internal {
        vm.prank(QUEUE);
        stats.count(id(i), Series.Drawn, outcome, times);
    }

    /// [D2]
    function testFuzz_activating_out_of_order_is_refused(bytes32 seed) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        bytes4 notNext = INodePool.NodePool_DrawNotNext.selector;
        vm.expectRevert(abi.encodeWithSelector(notNext, INDEX, second.ticket, first.ticket));
        reserve(second);
        // Nor can it be passed.
        second.count = 0;
        vm.expectRevert(abi.encodeWithSelector(notNext, INDEX, second.ticket, first.ticket));
        reserve(second);
        second.count = COUNT;
        assertUnmoved(before, first, second);
    }

    /// What the first draw took does not come back to the second, however fast it is released.
    function testFuzz_releasing_what_an_earlier_draw_took_moves_no_later_one(bytes32 seed, bool later) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        NodeId[] memory one = reserve(first);
        assertEq(one.length, COUNT, "found");
        if (later) skipTime(5);
        release(101, one);
        NodeId[] memory two = reserve(second);
        assertEq(keccak256(abi.encodeWithSelector(Peeked.selector, one, two)), keccak256(before), "results");
    }

    // ---------------------------------------------------------------- everything together

    /// [D1] Any sequence of what anybody can do within the window, before the first draw and between the two.
    function testFuzz_nothing_moves_a_waiting_draw(bytes32 seed, bytes32 actions) public {
        (Draw memory first, Draw memory second) = enterBoth(seed);
        bytes memory before = peek(first, second);
        someActions(uint256(actions), 10);
        assertUnmoved(before, first, second);
        NodeId[] memory one = reserve(first);
        (uint64 session, NodeId[] memory nodes) = (++lastSession, one);
        someActions(uint256(keccak256(abi.encode(actions))), 10);
        if (uint256(actions) % 2 == 0) release(101, nodes);
        else reserved[session] = new NodeId[](0);
        NodeId[] memory two = reserve(second);
        assertEq(keccak256(abi.encodeWithSelector(Peeked.selector, one, two)), keccak256(before), "results");
    }

    function someActions(uint256 random, uint256 count) internal {
        for (uint256 i; i < count; ++i) {
            random = uint256(keccak256(abi.encode(random)));
            uint256 subject = (random >> 8) % (nextNode - 1) + 1;
            uint256 what = random % 7;
            if (what == 0) {
                join(uint8(random >> 16) % 8 + 1);
            } else if (what == 1) {
                drainAny(subject);
            } else if (what == 2) {
                goOrReturn(subject, false);
            } else if (what == 3) {
                goOrReturn(subject, true);
            } else if (what == 4) {
                releaseOne(uint64(subject) % 6 + 1);
            } else if (what == 5) {
                counted(subject, random >> 255 == 0 ? Outcome.Settled : Outcome.Silent, uint8(random >> 24));
            } else {
                enter(uint64(1000 + random % 1000), bytes32(random), 8);
            }
            uint256 pause = (random >> 32) % (timeLeft + 1);
            if (random >> 254 == 0) {
                skipTime(pause);
                timeLeft -= pause;
            }
        }
    }

    function join(uint8 capacity) internal {
        uint256 i = nextNode++;
        registerFor(ownerOfNode(i), registration(i, capacity));
    }

    function goOrReturn(uint256 i, bool comesBack) internal {
        vm.prank(ownerOfNode(i));
        if (comesBack) {
            try pool.resume(id(i)) {} catch {}
        } else {
            try pool.exit(id(i)) {} catch {}
        }
    }

    function releaseOne(uint64 sessionId) internal {
        if (reserved[sessionId].length == 0) return;
        release(sessionId, reserved[sessionId]);
        delete reserved[sessionId];
    }
}

/// Whom draws find, and what they cost.
contract DrawShareTest is PoolBase {
    /// Eight draws in ten thousand lie outside of four standard deviations: the seeds are fixed, and these lie inside.
    uint256 internal constant DRAWS = 1600;

    /// Of so many draws of one node, how often it was node 1.
    function hitsOfFirst() internal returns (uint256 hits, uint256 found) {
        for (uint256 i; i < DRAWS; ++i) {
            skipTime(1);
            NodeId[] memory nodes = draw(1, keccak256(abi.encode(i)), 1);
            if (nodes.length == 0) continue;
            ++found;
            if (NodeId.unwrap(nodes[0]) == 1) ++hits;
            release(1, nodes);
        }
    }

    /// [D6] 8/9 of 1600 are 1422, with a standard deviation of 13.
    function test_the_largest_weight_is_eight_times_the_smallest() public {
        newNode(1, 8);
        newNode(2, 1);
        skipTime(ACTIVATION_DELAY);
        (uint256 hits, uint256 found) = hitsOfFirst();
        assertEq(found, DRAWS, "all found somebody");
        assertTrue(hits > 1422 - 52 && hits < 1422 + 52, "share of the largest node");
    }

    /// [D6] 2/3 of 1600 are 1067, with a standard deviation of 19.
    function test_level_ten_is_drawn_twice_as_often_as_level_zero() public {
        newNode(1, 4);
        newNode(2, 4);
        vm.prank(QUEUE);
        stats.count(id(1), Series.Drawn, Outcome.Settled, 1023);
        skipTime(EPOCH);
        (uint256 hits, uint256 found) = hitsOfFirst();
        assertEq(found, DRAWS, "all found somebody");
        assertTrue(hits > 1067 - 76 && hits < 1067 + 76, "share of the proven node");
    }

    /// [P4] Work of dedicated sessions raises nothing.
    function test_the_dedicated_level_does_not_weigh() public {
        newNode(1, 4);
        newNode(2, 4);
        vm.prank(QUEUE);
        stats.count(id(1), Series.Dedicated, Outcome.Settled, 1023);
        skipTime(EPOCH);
        (uint256 hits,) = hitsOfFirst();
        assertTrue(hits > 800 - 80 && hits < 800 + 80, "an even share");
    }

    /// [G1] The same seeds and tickets make the same tries in every pool: what differs is where they look. Among ten
    /// places one try in ten looks where another looked before, at a warm place; among a hundred one in a hundred.
    function test_the_cost_of_a_draw_does_not_depend_on_the_size_of_the_pool() public {
        uint256 ten = meanGasOf(10, 1);
        uint256 hundred = meanGasOf(100, 1);
        uint256 tenThousand = meanGasOf(1250, 8);
        (uint32 slots,,) = pool.poolOf(INDEX);
        assertEq(slots, 10_000, "places");
        assertTrue(
            between(tenThousand, ten, ten * 104 / 100) && between(tenThousand, hundred, hundred * 102 / 100),
            string.concat(vm.toString(ten), ", ", vm.toString(hundred), ", ", vm.toString(tenThousand))
        );
    }

    function between(uint256 x, uint256 low, uint256 high) internal pure returns (bool) {
        return low <= x && x <= high;
    }

    function meanGasOf(uint256 nodes, uint8 capacity) internal returns (uint256) {
        setUp();
        newNodes(nodes, capacity);
        return meanGas();
    }

    function meanGas() internal returns (uint256) {
        uint256 draws = 200;
        uint256 used;
        for (uint256 i; i < draws; ++i) {
            skipTime(1);
            Draw memory wanted = enter(1, keccak256(abi.encode(i)), 1);
            uint256 before = gasleft();
            NodeId[] memory nodes = reserve(wanted);
            used += before - gasleft();
            assertEq(nodes.length, 1, "found");
            release(1, nodes);
        }
        return used / draws;
    }
}
