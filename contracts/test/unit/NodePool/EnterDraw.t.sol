// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolEnterDrawTest is PoolBase {
    function testFuzz_gives_tickets_in_order(uint8 draws, uint8 capacity) public {
        draws = uint8(bound(draws, 1, 20));
        capacity = uint8(bound(capacity, 1, 8));
        newNode(1, capacity);
        for (uint40 i = 1; i <= draws; ++i) {
            vm.expectEmit();
            emit INodePool.DrawEntered(INDEX, i, capacity);
            vm.prank(SESSION);
            (uint40 ticket, uint32 slots,) = pool.enterDraw(INDEX);
            assertEq(ticket, i, "ticket");
            assertEq(slots, capacity, "slots");
        }
        (uint40 next, uint40 head) = pool.ticketsOf(INDEX);
        assertEq(next, uint256(draws) + 1, "next");
        assertEq(head, 1, "head");
        (next, head) = pool.ticketsOf(OTHER_INDEX);
        assertEq(next, 1, "every model has its own order");
        assertEq(head, 1, "head");
    }

    function testFuzz_utilisation_is_the_share_of_places_in_use(uint8 nodes, uint8 used, uint8 drained) public {
        nodes = uint8(bound(nodes, 1, 8));
        used = uint8(bound(used, 0, nodes));
        drained = uint8(bound(drained, 0, nodes));
        newNodes(nodes, 1);
        for (uint64 i; i < used; ++i) {
            drawOne(100 + i);
        }
        uint256 taken = nodes;
        for (uint256 i = 1; i <= drained; ++i) {
            if (pool.reservationsOf(id(i)) == 0) --taken;
            drain(i);
        }
        vm.prank(SESSION);
        (,, uint16 bps) = pool.enterDraw(INDEX);
        assertEq(bps, taken == 0 ? 0 : 10_000 * uint256(used) / taken, "utilisation");
    }

    function test_an_empty_pool_is_not_in_use() public {
        vm.prank(SESSION);
        (, uint32 slots, uint16 bps) = pool.enterDraw(INDEX);
        assertEq(slots, 0, "slots");
        assertEq(bps, 0, "utilisation");
    }

    function testFuzz_refuses_who_is_not_the_session(address caller) public {
        vm.assume(caller != SESSION);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotSession.selector, caller));
        vm.prank(caller);
        pool.enterDraw(INDEX);
    }
}
