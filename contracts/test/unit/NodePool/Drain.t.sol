// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Draw, INodePool, NodeState} from "../../../src/interfaces/INodePool.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolDrainTest is PoolBase {
    function testFuzz_no_later_draw_finds_the_node(uint8 capacity, uint40 later, bytes32 seed) public {
        capacity = uint8(bound(capacity, 1, 8));
        newNodes(1, capacity);
        vm.expectEmit();
        emit INodePool.NodeStateChanged(id(1), NodeState.Ephemeral, NodeState.Draining);
        drain(1);
        assertState(id(1), NodeState.Draining);
        assertPool(capacity, 0, 0);
        skipTime(bound(later, 1, WINDOW));
        assertEq(draw(1, seed, 1).length, 0, "found");
        assertEq(pool.eligibilityOf(id(1), INDEX, uint40(block.timestamp)).active, 0, "active places");
    }

    /// It has to serve whoever drew it.
    function testFuzz_what_has_reserved_it_keeps_it(uint8 capacity) public {
        capacity = uint8(bound(capacity, 1, 8));
        newNodes(1, capacity);
        NodeId nodeId = drawOne(7);
        drain(1);
        assertEq(pool.reservationsOf(nodeId), 1, "reservations");
        // A place in use counts as the pool's as long as it is.
        assertPool(capacity, 1, 1);
        release(7, only(nodeId));
        assertEq(pool.reservationsOf(nodeId), 0, "released");
        assertPool(capacity, 0, 0);
    }

    function test_a_waiting_draw_that_finds_it_takes_it_into_the_count_again() public {
        newNodes(1, 8);
        Draw memory wanted = enter(1, "seed", 1);
        drain(1);
        assertPool(8, 0, 0);
        NodeId[] memory nodes = reserve(wanted);
        assertEq(nodes.length, 1, "found");
        assertPool(8, 1, 1);
    }

    function test_a_dedicated_node_takes_nothing_new() public {
        newDedicated(1, 1);
        drain(1);
        assertState(id(1), NodeState.Draining);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotDedicated.selector, id(1), CLIENT));
        reserveNamed(1, only(id(1)));
    }

    function testFuzz_refuses_a_stranger(address caller) public {
        newNode(1, 1);
        vm.assume(caller != ownerOf(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotOwner.selector, id(1), caller));
        vm.prank(caller);
        pool.drain(id(1));
    }

    function test_refuses_an_unknown_node() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(1)));
        pool.drain(id(1));
    }

    function refused(NodeState state) internal {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), state));
        drain(1);
    }

    function test_refuses_every_other_state() public {
        newNode(1, 1);
        drain(1);
        refused(NodeState.Draining);
        skipTime(WINDOW + 1);
        exit(1);
        refused(NodeState.Exiting);
        jail(1);
        refused(NodeState.Jailed);
        exit(1);
        skipTime(UNBONDING);
        pool.releaseStake(id(1));
        refused(NodeState.Exited);
    }
}
