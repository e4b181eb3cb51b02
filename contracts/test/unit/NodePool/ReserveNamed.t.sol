// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {NodeId, SessionId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolReserveNamedTest is PoolBase {
    /// [D5]
    function testFuzz_reserves_every_place_once(uint8 capacity) public {
        capacity = uint8(bound(capacity, 1, 8));
        NodeId nodeId = newDedicated(1, capacity);
        for (uint64 i = 1; i <= capacity; ++i) {
            vm.expectEmit();
            emit INodePool.NodeReserved(nodeId, SessionId.wrap(i), INDEX);
            reserveNamed(i, only(nodeId));
            assertEq(pool.reservationsOf(nodeId), i, "reservations");
        }
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, nodeId, INDEX));
        reserveNamed(99, only(nodeId));
        // It is in no draw, and does not count as its pool's.
        assertPool(0, 0, 0);
        release(1, only(nodeId));
        reserveNamed(99, only(nodeId));
    }

    function test_reserves_several_or_none() public {
        NodeId[] memory nodes = new NodeId[](2);
        (nodes[0], nodes[1]) = (newDedicated(1, 1), newDedicated(2, 1));
        reserveNamed(1, only(nodes[1]));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, nodes[1], INDEX));
        reserveNamed(2, nodes);
        assertEq(pool.reservationsOf(nodes[0]), 0, "none");
        release(1, only(nodes[1]));
        reserveNamed(2, nodes);
        assertEq(pool.reservationsOf(nodes[0]), 1, "both");
        assertEq(pool.reservationsOf(nodes[1]), 1, "both");
    }

    function test_refuses_a_node_twice() public {
        NodeId[] memory nodes = new NodeId[](2);
        nodes[0] = nodes[1] = newDedicated(1, 8);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, nodes[0], INDEX));
        reserveNamed(1, nodes);
        reserveNamed(1, only(nodes[0]));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, nodes[0], INDEX));
        reserveNamed(1, only(nodes[0]));
    }

    function test_refuses_a_model_that_it_does_not_serve() public {
        NodeId nodeId = newDedicated(1, 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, nodeId, OTHER_INDEX));
        vm.prank(SESSION);
        pool.reserveNamed(SessionId.wrap(1), OTHER_INDEX, CLIENT, only(nodeId));
    }

    function testFuzz_refuses_another_client(address client) public {
        vm.assume(client != CLIENT);
        NodeId nodeId = newDedicated(1, 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotDedicated.selector, nodeId, client));
        vm.prank(SESSION);
        pool.reserveNamed(SessionId.wrap(1), INDEX, client, only(nodeId));
    }

    /// [D5]
    function test_refuses_nodes_of_draws_and_unknown_ones() public {
        newNodes(1, 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotDedicated.selector, id(1), address(0)));
        vm.prank(SESSION);
        pool.reserveNamed(SessionId.wrap(1), INDEX, address(0), only(id(1)));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotDedicated.selector, id(2), address(0)));
        vm.prank(SESSION);
        pool.reserveNamed(SessionId.wrap(1), INDEX, address(0), only(id(2)));
    }

    function testFuzz_refuses_who_is_not_the_session(address caller) public {
        vm.assume(caller != SESSION);
        NodeId nodeId = newDedicated(1, 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotSession.selector, caller));
        vm.prank(caller);
        pool.reserveNamed(SessionId.wrap(1), INDEX, CLIENT, only(nodeId));
    }
}
