// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Draw, INodePool} from "../../../src/interfaces/INodePool.sol";
import {NodeId, SessionId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolReserveTest is PoolBase {
    function testFuzz_reserves_different_free_nodes(bytes32 seed, uint8 count, uint8 busy) public {
        count = uint8(bound(count, 1, 8));
        newNodes(6, 2);
        for (uint64 i = 1; i <= busy % 8; ++i) {
            drawOne(i);
        }
        uint256[7] memory before;
        for (uint256 i = 1; i <= 6; ++i) {
            before[i] = pool.reservationsOf(id(i));
        }
        NodeId[] memory nodes = draw(99, seed, count);
        assertTrue(nodes.length <= count, "no more than asked");
        for (uint256 i; i < nodes.length; ++i) {
            uint256 n = NodeId.unwrap(nodes[i]);
            assertTrue(n >= 1 && n <= 6, "a node");
            assertTrue(before[n] < 2, "had room");
            // Twice the same node would be two more.
            assertEq(pool.reservationsOf(nodes[i]), before[n] + 1, "reserved once");
        }
        assertPool(12, 12, uint256(busy % 8) + nodes.length);
    }

    function test_tells_what_it_reserved() public {
        newNodes(1, 8);
        Draw memory wanted = enter(7, "seed", 1);
        vm.expectEmit();
        emit INodePool.NodeReserved(id(1), SessionId.wrap(7), INDEX);
        vm.expectEmit();
        emit INodePool.DrawPassed(INDEX, 1);
        assertEq(reserve(wanted).length, 1, "found");
    }

    /// [D3]
    function testFuzz_two_nodes_of_one_owner_are_never_together(bytes32 seed, uint8 count) public {
        count = uint8(bound(count, 2, 8));
        // Nodes 1 to 4 and 5 to 8 belong to two owners.
        for (uint256 i = 1; i <= 8; ++i) {
            registerFor(ownerOf(i <= 4 ? 1 : 2), registration(i, 2));
        }
        skipTime(ACTIVATION_DELAY);
        NodeId[] memory nodes = draw(1, seed, count);
        assertTrue(nodes.length <= 2, "as many as owners");
        if (nodes.length == 2) {
            assertTrue((NodeId.unwrap(nodes[0]) <= 4) != (NodeId.unwrap(nodes[1]) <= 4), "of different owners");
        }
    }

    function testFuzz_owners_of_nodes_that_the_session_has_are_not_drawn(bytes32 seed) public {
        registerFor(ownerOf(1), registration(1, 1));
        registerFor(ownerOf(1), registration(2, 7));
        skipTime(ACTIVATION_DELAY);
        Draw memory wanted = enter(1, seed, 1);
        wanted.taken = only(id(1));
        assertEq(reserve(wanted).length, 0, "owner is there already");
        newNode(3, 1);
        // Half of the tries take what they find: 32 of them always do, for these seeds.
        wanted = enter(1, "seed", 1);
        wanted.taken = only(id(3));
        assertEq(reserve(wanted).length, 1, "another owner");
    }

    function testFuzz_fewer_than_the_minimum_reserve_nothing(bytes32 seed, uint8 min) public {
        min = uint8(bound(min, 4, 8));
        newNodes(3, 1);
        Draw memory wanted = enter(1, seed, 8);
        wanted.min = min;
        assertEq(reserve(wanted).length, 0, "none");
        assertPool(3, 3, 0);
        (, uint40 head) = pool.ticketsOf(INDEX);
        assertEq(head, 2, "the ticket is through");
    }

    function test_count_zero_passes_the_ticket() public {
        newNodes(3, 1);
        Draw memory wanted = enter(1, "seed", 0);
        wanted.min = 0;
        vm.expectEmit();
        emit INodePool.DrawPassed(INDEX, 1);
        assertEq(reserve(wanted).length, 0, "none");
        assertPool(3, 3, 0);
    }

    function test_an_empty_pool_has_nobody() public {
        assertEq(draw(1, "seed", 8).length, 0, "none");
    }

    function testFuzz_a_full_pool_has_nobody(bytes32 seed) public {
        newNodes(2, 1);
        drawOne(1);
        drawOne(2);
        assertEq(draw(3, seed, 1).length, 0, "none");
    }

    /// [D4]
    function testFuzz_places_count_after_the_activation_delay(bytes32 seed, uint40 early) public {
        newNode(1, 8);
        skipTime(bound(early, 0, ACTIVATION_DELAY - 1));
        assertEq(draw(1, seed, 1).length, 0, "too early");
        vm.warp(START + ACTIVATION_DELAY);
        assertEq(NodeId.unwrap(drawOne(2)), 1, "then");
    }

    /// One node with a place for each of two models: a session of the one leaves the other free.
    function testFuzz_every_model_has_its_own_places(bytes32 seed) public {
        registerFor(ownerOf(1), registrationOfTwo(1, 1, 1));
        skipTime(ACTIVATION_DELAY);
        drawOne(1);
        assertEq(draw(2, seed, 1).length, 0, "its only place is in use");
        (, uint32 taken, uint32 used) = pool.poolOf(OTHER_INDEX);
        assertEq(taken, 1, "place of the other model");
        assertEq(used, 0, "in no use");
        assertEq(pool.eligibilityOf(id(1), OTHER_INDEX, uint40(block.timestamp)).free, 1, "free");
        assertEq(pool.eligibilityOf(id(1), INDEX, uint40(block.timestamp)).free, 0, "in use");
    }

    function testFuzz_refuses_a_ticket_out_of_order(uint40 ticket) public {
        newNodes(1, 1);
        Draw memory wanted = enter(1, "seed", 1);
        enter(2, "seed", 1);
        vm.assume(ticket != 1);
        wanted.ticket = ticket;
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_DrawNotNext.selector, INDEX, ticket, 1));
        reserve(wanted);
    }

    function test_refuses_a_ticket_that_was_not_given_and_one_that_is_through() public {
        Draw memory wanted = enter(1, "seed", 1);
        reserve(wanted);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_DrawNotNext.selector, INDEX, 1, 2));
        reserve(wanted);
        wanted.ticket = 2;
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_DrawNotNext.selector, INDEX, 2, 2));
        reserve(wanted);
    }

    function testFuzz_refuses_who_is_not_the_session(address caller) public {
        vm.assume(caller != SESSION);
        Draw memory wanted = enter(1, "seed", 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotSession.selector, caller));
        vm.prank(caller);
        pool.reserve(wanted);
    }
}
