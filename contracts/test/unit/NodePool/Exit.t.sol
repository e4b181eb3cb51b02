// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, NodeState} from "../../../src/interfaces/INodePool.sol";
import {Terms} from "../../../src/interfaces/IParameters.sol";
import {AssetId, ModelIndex} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolExitTest is PoolBase {
    function refused(bytes memory reason) internal {
        vm.expectRevert(reason);
        exit(1);
    }

    function testFuzz_starts_unbonding_and_gives_the_places_back(uint8 one, uint8 other) public {
        one = uint8(bound(one, 1, 7));
        other = uint8(bound(other, 1, 8 - one));
        registerFor(ownerOf(1), registrationOfTwo(1, one, other));
        drain(1);
        skipTime(WINDOW + 1);
        vm.expectEmit();
        emit INodePool.NodeStateChanged(id(1), NodeState.Draining, NodeState.Exiting);
        exit(1);
        assertEq(pool.nodeOf(id(1)).exitAt, block.timestamp + UNBONDING, "exit");
        (ModelIndex[] memory indices,) = pool.offersOf(id(1));
        assertEq(indices.length, 0, "offers");
        assertPool(one, 0, 0);
        // The next node takes what was given back, and as much as it needs beside.
        registerFor(ownerOf(2), registrationOfTwo(2, other, one));
        assertPool(one > other ? one : other, other, 0);
    }

    function testFuzz_refuses_while_a_session_needs_it(uint8 sessions, uint40 later) public {
        sessions = uint8(bound(sessions, 1, 8));
        newNodes(1, 8);
        for (uint64 i = 1; i <= sessions; ++i) {
            drawOne(i);
        }
        drain(1);
        skipTime(bound(later, WINDOW + 1, 365 days));
        for (uint64 i = sessions; i > 0; --i) {
            refused(abi.encodeWithSelector(INodePool.NodePool_StillReserved.selector, id(1), i));
            release(i, only(id(1)));
        }
        exit(1);
    }

    function testFuzz_refuses_while_a_waiting_draw_can_find_it(uint40 later) public {
        newNode(1, 1);
        drain(1);
        skipTime(bound(later, 0, WINDOW));
        refused(abi.encodeWithSelector(INodePool.NodePool_StillDrawn.selector, id(1), START + 1 + WINDOW));
        vm.warp(START + 1 + WINDOW);
        exit(1);
    }

    function test_a_dedicated_node_is_in_no_draw_and_need_not_wait() public {
        newDedicated(1, 1);
        drain(1);
        exit(1);
    }

    function test_a_jailed_node_is_found_by_no_draw_and_need_not_wait() public {
        newNode(1, 2);
        jail(1);
        exit(1);
        assertState(id(1), NodeState.Exiting);
        assertPool(2, 0, 0);
    }

    /// Jailed while it unbonds, it begins again; its places are given back once.
    function test_a_node_that_is_jailed_while_exiting_unbonds_from_the_start() public {
        newNode(1, 2);
        drain(1);
        skipTime(WINDOW + 1);
        exit(1);
        skipTime(UNBONDING - 1);
        jail(1);
        skipTime(100);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Jailed));
        pool.releaseStake(id(1));
        exit(1);
        assertEq(pool.nodeOf(id(1)).exitAt, block.timestamp + UNBONDING, "exit");
        newNode(2, 2);
        newNode(3, 2);
        assertPool(4, 4, 0);
        skipTime(ACTIVATION_DELAY);
        assertEq(pool.eligibilityOf(id(2), INDEX, uint40(block.timestamp)).free, 2, "own places");
        assertEq(pool.eligibilityOf(id(3), INDEX, uint40(block.timestamp)).free, 2, "own places");
    }

    function test_the_terms_of_the_registration_hold_for_the_exit() public {
        newNode(1, 1);
        Terms memory next = terms();
        next.node.unbondingPeriod = 9 days;
        vm.prank(GOVERNOR);
        parameters.propose(next);
        skipTime(DELAY);
        drain(1);
        skipTime(WINDOW + 1);
        exit(1);
        assertEq(pool.nodeOf(id(1)).exitAt, block.timestamp + UNBONDING, "exit");
    }

    function testFuzz_refuses_a_stranger(address caller) public {
        newNode(1, 1);
        vm.assume(caller != ownerOf(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotOwner.selector, id(1), caller));
        vm.prank(caller);
        pool.exit(id(1));
    }

    function test_refuses_an_unknown_node() public {
        refused(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(1)));
    }

    /// [T3]
    function test_refuses_every_other_state() public {
        bytes4 wrong = INodePool.NodePool_WrongState.selector;
        newNode(1, 1);
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Ephemeral));
        newDedicated(2, 1);
        vm.expectRevert(abi.encodeWithSelector(wrong, id(2), NodeState.Dedicated));
        exit(2);
        drain(1);
        skipTime(WINDOW + 1);
        exit(1);
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Exiting));
        skipTime(UNBONDING);
        pool.releaseStake(id(1));
        refused(abi.encodeWithSelector(wrong, id(1), NodeState.Exited));
    }
}

contract NodePoolReleaseStakeTest is PoolBase {
    function exiting(uint8 capacity) internal {
        newNode(1, capacity);
        drain(1);
        skipTime(WINDOW + 1);
        exit(1);
    }

    function testFuzz_credits_the_owner_after_unbonding(uint8 capacity, address caller, uint40 later) public {
        capacity = uint8(bound(capacity, 1, 8));
        exiting(capacity);
        skipTime(UNBONDING + bound(later, 0, 1000 days));
        vm.expectEmit();
        emit INodePool.NodeStateChanged(id(1), NodeState.Exiting, NodeState.Exited);
        vm.prank(caller);
        pool.releaseStake(id(1));
        uint256 stake = uint256(COLLATERAL) * capacity;
        assertEq(payment.stakeOf(id(1)), 0, "stake");
        assertEq(payment.balanceOf(ownerOf(1), AssetId.wrap(0)), stake, "balance");
    }

    function testFuzz_refuses_before_unbonding_is_over(uint40 later) public {
        exiting(1);
        uint40 exitAt = uint40(block.timestamp) + UNBONDING;
        skipTime(bound(later, 0, UNBONDING - 1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_StillBonded.selector, id(1), exitAt));
        pool.releaseStake(id(1));
        vm.warp(exitAt);
        pool.releaseStake(id(1));
    }

    function refused(NodeState state) internal {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), state));
        pool.releaseStake(id(1));
    }

    function test_refuses_every_other_state() public {
        newNode(1, 1);
        refused(NodeState.Ephemeral);
        drain(1);
        refused(NodeState.Draining);
        jail(1);
        refused(NodeState.Jailed);
        exit(1);
        skipTime(UNBONDING);
        pool.releaseStake(id(1));
        refused(NodeState.Exited);
    }

    function test_refuses_an_unknown_node() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(1)));
        pool.releaseStake(id(1));
    }
}
