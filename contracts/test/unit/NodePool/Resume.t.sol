// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, NodeState} from "../../../src/interfaces/INodePool.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolResumeTest is PoolBase {
    function resume() internal {
        vm.prank(ownerOf(1));
        pool.resume(id(1));
    }

    function refused(bytes memory reason) internal {
        vm.expectRevert(reason);
        resume();
    }

    function testFuzz_takes_part_again_after_the_activation_delay(uint8 capacity, uint40 later) public {
        capacity = uint8(bound(capacity, 1, 8));
        newNodes(1, capacity);
        drain(1);
        skipTime(WINDOW + 1 + bound(later, 0, 1000));
        uint40 activeFrom = uint40(block.timestamp) + ACTIVATION_DELAY;
        vm.expectEmit();
        emit INodePool.NodeStateChanged(id(1), NodeState.Draining, NodeState.Ephemeral);
        vm.expectEmit();
        emit INodePool.Offered(id(1), INDEX, capacity, activeFrom);
        resume();
        assertPool(capacity, capacity, 0);
        assertEq(pool.eligibilityOf(id(1), INDEX, activeFrom - 1).active, 0, "too early");
        assertEq(pool.eligibilityOf(id(1), INDEX, activeFrom).active, capacity, "active");
        vm.warp(activeFrom - 1);
        assertEq(draw(1, "early", 1).length, 0, "drawn too early");
        vm.warp(activeFrom);
        assertEq(NodeId.unwrap(drawOne(2)), 1, "drawn");
    }

    /// No second set of places: the stake backs those it has.
    function test_places_in_use_stay_in_use() public {
        newNodes(1, 2);
        drawOne(7);
        drain(1);
        skipTime(WINDOW + 1);
        resume();
        assertPool(2, 2, 1);
        skipTime(ACTIVATION_DELAY);
        drawOne(8);
        assertEq(pool.reservationsOf(id(1)), 2, "both in use");
        assertEq(draw(9, "third", 1).length, 0, "no third");
    }

    function testFuzz_refuses_while_a_waiting_draw_can_find_it(uint40 later) public {
        newNodes(1, 1);
        uint40 until = uint40(block.timestamp) + 1 + WINDOW;
        drain(1);
        skipTime(bound(later, 0, WINDOW));
        refused(abi.encodeWithSelector(INodePool.NodePool_StillDrawn.selector, id(1), until));
        vm.warp(until);
        resume();
    }

    function test_a_dedicated_node_serves_its_client_at_once() public {
        newDedicated(1, 1);
        drain(1);
        resume();
        assertState(id(1), NodeState.Dedicated);
        reserveNamed(1, only(id(1)));
    }

    function testFuzz_refuses_a_stranger(address caller) public {
        newNode(1, 1);
        drain(1);
        vm.assume(caller != ownerOf(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotOwner.selector, id(1), caller));
        vm.prank(caller);
        pool.resume(id(1));
    }

    function test_refuses_an_unknown_node() public {
        refused(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(1)));
    }

    function test_refuses_every_other_state() public {
        bytes4 wrong = INodePool.NodePool_WrongState.selector;
        newNode(1, 1);
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Ephemeral));
        drain(1);
        skipTime(WINDOW + 1);
        exit(1);
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Exiting));
        jail(1);
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Jailed));
        exit(1);
        skipTime(UNBONDING);
        pool.releaseStake(id(1));
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Exited));
    }
}
