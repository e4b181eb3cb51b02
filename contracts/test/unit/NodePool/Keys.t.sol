// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, Node, NodeState} from "../../../src/interfaces/INodePool.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolSetOperatorTest is PoolBase {
    address internal constant NEW_KEY = address(0x4E3);
    address internal constant THIRD_KEY = address(0x4E4);

    function setUp() public override {
        super.setUp();
        newNode(1, 1);
        newNode(2, 1);
    }

    function set(address key) internal {
        vm.prank(ownerOf(1));
        pool.setOperator(id(1), key);
    }

    function refused(address key, bytes memory reason) internal {
        vm.expectRevert(reason);
        set(key);
    }

    function testFuzz_changes_the_key(address key) public {
        vm.assume(key != address(0) && key != operatorOf(1) && key != operatorOf(2));
        vm.expectEmit();
        emit INodePool.OperatorChanged(id(1), operatorOf(1), key);
        set(key);
        Node memory node = pool.nodeOf(id(1));
        assertEq(node.operator, key, "operator");
        assertEq(node.operatorSince, START, "since");
        assertEq(node.previousOperator, operatorOf(1), "before");
        assertEq(NodeId.unwrap(pool.nodeByOperator(key)), 1, "by new key");
        assertEq(NodeId.unwrap(pool.nodeByOperator(operatorOf(1))), 0, "by old key");
    }

    function testFuzz_the_old_keys_signatures_are_evidence_for_the_grace(uint40 later, address other) public {
        vm.assume(other != NEW_KEY && other != operatorOf(1));
        later = uint40(bound(later, 0, KEY_GRACE - 1));
        assertTrue(pool.answersFor(id(1), operatorOf(1)), "operator");
        assertTrue(!pool.answersFor(id(1), NEW_KEY), "not yet");
        set(NEW_KEY);
        skipTime(later);
        assertTrue(pool.answersFor(id(1), operatorOf(1)), "old key within the grace");
        assertTrue(pool.answersFor(id(1), NEW_KEY), "new key");
        assertTrue(!pool.answersFor(id(1), other), "somebody else");
        vm.warp(START + KEY_GRACE);
        assertTrue(!pool.answersFor(id(1), operatorOf(1)), "old key after the grace");
        assertTrue(pool.answersFor(id(1), NEW_KEY), "new key for good");
    }

    function testFuzz_refuses_a_second_change_within_the_grace(uint40 later) public {
        set(NEW_KEY);
        skipTime(bound(later, 0, KEY_GRACE - 1));
        bytes4 lately = INodePool.NodePool_KeyChangedLately.selector;
        refused(THIRD_KEY, abi.encodeWithSelector(lately, id(1), START + KEY_GRACE));
        vm.warp(START + KEY_GRACE);
        set(THIRD_KEY);
        assertEq(pool.nodeOf(id(1)).previousOperator, NEW_KEY, "before");
    }

    function test_refuses_a_key_in_use() public {
        bytes4 used = INodePool.NodePool_OperatorInUse.selector;
        refused(operatorOf(2), abi.encodeWithSelector(used, operatorOf(2), id(2)));
        refused(operatorOf(1), abi.encodeWithSelector(used, operatorOf(1), id(1)));
    }

    function test_refuses_the_zero_address() public {
        refused(address(0), abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
    }

    function testFuzz_refuses_a_stranger(address caller) public {
        vm.assume(caller != ownerOf(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotOwner.selector, id(1), caller));
        vm.prank(caller);
        pool.setOperator(id(1), NEW_KEY);
    }

    function test_refuses_an_unknown_node() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(3)));
        pool.setOperator(id(3), NEW_KEY);
    }

    function test_refuses_a_node_that_is_gone_and_frees_its_key() public {
        drain(1);
        skipTime(WINDOW + 1);
        exit(1);
        skipTime(UNBONDING);
        pool.releaseStake(id(1));
        refused(NEW_KEY, abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Exited));
        assertEq(NodeId.unwrap(pool.nodeByOperator(operatorOf(1))), 0, "free");
        // Another node may have it.
        newNode(1, 1);
    }
}

contract NodePoolSetPayoutTest is PoolBase {
    function setUp() public override {
        super.setUp();
        newNode(1, 1);
    }

    function testFuzz_changes_the_payout(address payout) public {
        vm.assume(payout != address(0));
        vm.expectEmit();
        emit INodePool.PayoutChanged(id(1), payoutOf(1), payout);
        vm.prank(ownerOf(1));
        pool.setPayout(id(1), payout);
        assertEq(pool.payoutOf(id(1)), payout, "payout");
        assertEq(pool.nodeOf(id(1)).payout, payout, "of the node");
    }

    function test_refuses_the_zero_address() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        vm.prank(ownerOf(1));
        pool.setPayout(id(1), address(0));
    }

    function testFuzz_refuses_a_stranger(address caller) public {
        vm.assume(caller != ownerOf(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotOwner.selector, id(1), caller));
        vm.prank(caller);
        pool.setPayout(id(1), caller);
    }

    function test_refuses_an_unknown_node() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(9)));
        pool.setPayout(id(9), CLIENT);
    }
}
