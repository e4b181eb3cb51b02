// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, NodeState} from "../../../src/interfaces/INodePool.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolJailTest is PoolBase {
    function testFuzz_no_draw_finds_the_node(uint8 capacity, bytes32 seed) public {
        capacity = uint8(bound(capacity, 1, 8));
        newNodes(1, capacity);
        vm.expectEmit();
        emit INodePool.NodeStateChanged(id(1), NodeState.Ephemeral, NodeState.Jailed);
        jail(1);
        assertState(id(1), NodeState.Jailed);
        assertPool(capacity, 0, 0);
        assertEq(draw(1, seed, 1).length, 0, "found in the same second");
        assertEq(pool.eligibilityOf(id(1), INDEX, uint40(block.timestamp)).free, 0, "free");
        skipTime(1);
        assertEq(draw(2, seed, 1).length, 0, "found later");
    }

    function test_what_has_reserved_it_can_release_it() public {
        newNodes(1, 1);
        NodeId nodeId = drawOne(5);
        jail(1);
        assertPool(1, 1, 1);
        release(5, only(nodeId));
        assertPool(1, 0, 0);
        exit(1);
    }

    function test_a_second_time_changes_nothing() public {
        newNodes(1, 1);
        jail(1);
        skipTime(5);
        vm.recordLogs();
        jail(1);
        assertEq(vm.getRecordedLogs().length, 0, "events");
        assertState(id(1), NodeState.Jailed);
    }

    /// [T3]
    function test_every_state_with_stake_can_be_jailed() public {
        newDedicated(1, 1);
        jail(1);
        newNode(2, 1);
        drain(2);
        jail(2);
        newNode(3, 1);
        drain(3);
        skipTime(WINDOW + 1);
        exit(3);
        jail(3);
        for (uint256 i = 1; i <= 3; ++i) {
            assertState(id(i), NodeState.Jailed);
        }
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotDedicated.selector, id(1), CLIENT));
        reserveNamed(1, only(id(1)));
    }

    function test_refuses_a_node_whose_stake_is_gone() public {
        newNode(1, 1);
        jail(1);
        exit(1);
        skipTime(UNBONDING);
        pool.releaseStake(id(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Exited));
        jail(1);
    }

    function test_refuses_an_unknown_node() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(1)));
        jail(1);
    }

    function testFuzz_refuses_who_is_neither_the_queue_nor_the_proof(address caller) public {
        newNode(1, 1);
        vm.assume(caller != QUEUE && caller != PROOF);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotProtocol.selector, caller));
        vm.prank(caller);
        pool.jail(id(1));
    }
}
