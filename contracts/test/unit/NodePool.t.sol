// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodePool} from "../../src/NodePool.sol";
import {IModelRegistry} from "../../src/interfaces/IModelRegistry.sol";
import {Draw, INodePool, Node, NodeRegistration, NodeState} from "../../src/interfaces/INodePool.sol";
import {ModelId, NodeId, NumericClass} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

contract NodePoolTest is Base {
    function draw(bytes32 seed, uint40 asOf, uint8 min, uint8 count) internal returns (NodeId[] memory) {
        Draw memory wanted = Draw(MODEL, seed, asOf, pool.slotCount(MODEL), min, count);
        vm.prank(address(session));
        return pool.reserve(wanted);
    }

    function release(NodeId[] memory nodes) internal {
        vm.prank(address(session));
        pool.release(nodes);
    }

    function assertState(NodeId nodeId, NodeState state) internal view {
        assertEq(uint8(pool.nodeOf(nodeId).state), uint8(state), "state");
    }

    function id(uint32 i) internal pure returns (NodeId) {
        return NodeId.wrap(i);
    }

    function noEligible(uint256 found, uint256 wanted) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(INodePool.NodePool_NoEligible.selector, MODEL, found, wanted);
    }

    function test_constructor_refuses_the_zero_address() public {
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        new NodePool(address(1), address(2), address(0), NodePool.Config(1, 1, 1, 1));
    }

    function test_register_takes_stake_and_places() public {
        fund(ownerOf(1), 3 * COLLATERAL);
        NodeRegistration memory wanted = registration(1, 3);
        vm.expectEmit();
        emit INodePool.NodeRegistered(
            id(1), ownerOf(1), MODEL, wanted.operator, payoutOf(1), CLASS, 3, 3 * COLLATERAL, uint40(block.timestamp) + 1
        );
        vm.prank(ownerOf(1));
        pool.register(wanted);
        Node memory node = pool.nodeOf(id(1));
        assertEq(node.owner, ownerOf(1), "owner");
        assertEq(node.capacity, 3, "capacity");
        assertState(id(1), NodeState.Ephemeral);
        assertEq(payment.stakeOf(id(1)), 3 * COLLATERAL, "stake");
        assertEq(token.balanceOf(ownerOf(1)), 0, "paid");
        assertEq(pool.slotCount(MODEL), 3, "places");
        assertEq(pool.nodeCount(), 1, "nodes");
        assertEq(NodeId.unwrap(pool.nodeByOperator(wanted.operator)), 1, "operator");
        (address operator, NumericClass class) = pool.committerOf(id(1));
        assertEq(operator, wanted.operator, "committer");
        assertEq(NumericClass.unwrap(class), NumericClass.unwrap(CLASS), "class");
        assertEq(pool.payoutOf(id(1)), payoutOf(1), "payout");
    }

    function test_register_checks_its_input() public {
        NodeRegistration memory wanted = registration(1, 0);
        bytes4 bounds = INodePool.NodePool_CapacityOutOfBounds.selector;
        vm.expectRevert(abi.encodeWithSelector(bounds, 0, 1, 8));
        pool.register(wanted);
        wanted.capacity = 9;
        vm.expectRevert(abi.encodeWithSelector(bounds, 9, 1, 8));
        pool.register(wanted);
        wanted.capacity = 1;
        wanted.payout = address(0);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        pool.register(wanted);
        wanted = registration(1, 1);
        wanted.operator = address(0);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        pool.register(wanted);
        wanted = registration(1, 1);
        wanted.numericClass = NumericClass.wrap(0);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_EmptyClass.selector));
        pool.register(wanted);
        wanted = registration(1, 1);
        wanted.modelId = ModelId.wrap("nothing");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, wanted.modelId));
        pool.register(wanted);
        newNode(1, 1);
        wanted = registration(1, 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_OperatorInUse.selector, wanted.operator, id(1)));
        pool.register(wanted);
    }

    function test_keys_are_the_owners_to_change() public {
        newNode(1, 1);
        newNode(2, 1);
        bytes memory stranger = abi.encodeWithSelector(INodePool.NodePool_NotOwner.selector, id(1), address(this));
        vm.expectRevert(stranger);
        pool.setOperator(id(1), address(5));
        vm.expectRevert(stranger);
        pool.setPayout(id(1), address(5));
        vm.expectRevert(stranger);
        pool.exit(id(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(9)));
        pool.setOperator(id(9), address(5));

        address old = operatorOf(id(1));
        address taken = operatorOf(id(2));
        vm.startPrank(ownerOf(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_OperatorInUse.selector, taken, id(2)));
        pool.setOperator(id(1), taken);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        pool.setOperator(id(1), address(0));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        pool.setPayout(id(1), address(0));
        vm.expectEmit();
        emit INodePool.OperatorChanged(id(1), old, address(5));
        pool.setOperator(id(1), address(5));
        vm.expectEmit();
        emit INodePool.PayoutChanged(id(1), payoutOf(1), address(6));
        pool.setPayout(id(1), address(6));
        vm.stopPrank();
        assertEq(NodeId.unwrap(pool.nodeByOperator(old)), 0, "old key is free");
        assertEq(NodeId.unwrap(pool.nodeByOperator(address(5))), 1, "new key");
        assertEq(pool.payoutOf(id(1)), address(6), "payout");
    }

    function test_exit_waits_out_the_unbonding_time() public {
        newNode(1, 2);
        vm.startPrank(ownerOf(1));
        pool.exit(id(1));
        assertState(id(1), NodeState.Exiting);
        uint40 exitAt = uint40(block.timestamp) + UNBONDING;
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Exiting));
        pool.exit(id(1));
        skipTime(UNBONDING - 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_StillBonded.selector, id(1), exitAt));
        pool.releaseStake(id(1));
        skipTime(1);
        vm.stopPrank();
        pool.releaseStake(id(1));
        assertState(id(1), NodeState.Exited);
        assertEq(payment.balanceOf(ownerOf(1)), 2 * COLLATERAL, "stake is the owner's");
        assertEq(payment.stakeOf(id(1)), 0, "no stake");
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Exited));
        pool.releaseStake(id(1));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Exited));
        vm.prank(ownerOf(1));
        pool.setOperator(id(1), address(5));
        // Its key may serve another node.
        newNode(1, 1);
    }

    function test_stake_stays_while_a_session_needs_the_node() public {
        newNodes(1, 1);
        NodeId[] memory nodes = draw("seed", uint40(block.timestamp), 1, 1);
        vm.prank(ownerOf(1));
        pool.exit(id(1));
        skipTime(UNBONDING);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_WrongState.selector, id(1), NodeState.Exiting));
        pool.releaseStake(id(1));
        release(nodes);
        assertState(id(1), NodeState.Exiting);
        pool.releaseStake(id(1));
    }

    function test_reserve_and_release_are_the_sessions() public {
        bytes memory refused = abi.encodeWithSelector(INodePool.NodePool_NotSession.selector, address(this));
        vm.expectRevert(refused);
        pool.reserve(Draw(MODEL, "seed", 0, 0, 1, 1));
        vm.expectRevert(refused);
        pool.release(new NodeId[](0));
    }

    function test_reserve_fills_capacity_and_no_more() public {
        newNodes(1, 2);
        NodeId[] memory nodes = draw("a", uint40(block.timestamp), 1, 1);
        assertState(id(1), NodeState.Reserved);
        draw("b", uint40(block.timestamp), 1, 1);
        assertEq(pool.nodeOf(id(1)).reservations, 2, "reservations");
        vm.expectRevert(noEligible(0, 1));
        this.tryDraw("c", uint40(block.timestamp), 1, 1);
        release(nodes);
        assertState(id(1), NodeState.Reserved);
        release(nodes);
        assertState(id(1), NodeState.Ephemeral);
    }

    function tryDraw(bytes32 seed, uint40 asOf, uint8 min, uint8 count) external {
        draw(seed, asOf, min, count);
    }

    function test_reserve_takes_one_node_of_an_owner() public {
        newNode(1, 4);
        fund(ownerOf(1), COLLATERAL * 4);
        NodeRegistration memory second = registration(2, 4);
        vm.prank(ownerOf(1));
        pool.register(second);
        skipTime(2);
        vm.expectRevert(noEligible(1, 2));
        this.tryDraw("a", uint40(block.timestamp), 2, 2);
        NodeId[] memory nodes = draw("a", uint40(block.timestamp), 1, 2);
        assertEq(nodes.length, 1, "fewer than the maximum is enough");
    }

    function test_reserve_with_an_empty_pool_finds_nobody() public {
        vm.expectRevert(noEligible(0, 1));
        this.tryDraw("a", uint40(block.timestamp), 1, 8);
    }

    function test_places_count_after_the_activation_delay() public {
        newNode(1, 1);
        uint40 now_ = uint40(block.timestamp);
        vm.expectRevert(noEligible(0, 1));
        this.tryDraw("a", now_, 1, 1);
        draw("a", now_ + 1, 1, 1);
    }

    function test_leaving_nodes_are_not_drawn() public {
        newNodes(1, 8);
        vm.prank(ownerOf(1));
        pool.exit(id(1));
        vm.expectRevert(noEligible(0, 1));
        this.tryDraw("a", uint40(block.timestamp), 1, 1);
    }

    /// Places that came after the commit neither count nor move the others.
    function test_draw_is_fixed_by_the_count_at_the_commit() public {
        newNodes(5, 2);
        uint32 slots = pool.slotCount(MODEL);
        uint40 asOf = uint40(block.timestamp);
        Draw memory wanted = Draw(MODEL, "seed", asOf, slots, 1, 3);
        vm.prank(address(session));
        NodeId[] memory first = pool.reserve(wanted);
        release(first);
        skipTime(5);
        for (uint256 i = 6; i < 12; ++i) {
            newNode(i, 8);
        }
        vm.prank(address(session));
        NodeId[] memory again = pool.reserve(wanted);
        assertEq(keccak256(abi.encode(first)), keccak256(abi.encode(again)), "same draw");
    }

    function test_places_are_reused_only_after_every_draw_that_may_count_them() public {
        newNodes(1, 2);
        vm.prank(ownerOf(1));
        pool.exit(id(1));
        skipTime(1 + REUSE_DELAY);
        newNode(2, 1);
        assertEq(pool.slotCount(MODEL), 3, "too early: a new place");
        skipTime(1);
        newNode(3, 1);
        assertEq(pool.slotCount(MODEL), 3, "first place again");
        newNode(4, 2);
        assertEq(pool.slotCount(MODEL), 4, "second place again, then a new one");
        skipTime(2);
        // All three of the new owners can be drawn: no place was given twice.
        for (uint256 seed; seed < 8; ++seed) {
            NodeId[] memory nodes = draw(bytes32(seed), uint40(block.timestamp), 3, 3);
            assertEq(nodes.length, 3, "three owners");
            release(nodes);
        }
    }

    /// Frequencies follow capacity: 8 places against 1, bounds of seven standard deviations around 8/9.
    function test_draw_is_weighted_by_capacity() public {
        newNode(1, 8);
        newNode(2, 1);
        skipTime(2);
        uint256 hits;
        for (uint256 i; i < 900; ++i) {
            NodeId[] memory nodes = draw(keccak256(abi.encode(i)), uint40(block.timestamp), 1, 1);
            if (NodeId.unwrap(nodes[0]) == 1) ++hits;
            release(nodes);
        }
        assertTrue(hits > 733 && hits < 867, "share of the larger node");
    }

    function testFuzz_draw_finds_different_eligible_owners(bytes32 seed, uint8 count, uint8 busy) public {
        count = count % 8 + 1;
        newNodes(6, 2);
        // Some nodes are full.
        for (uint256 i; i < busy % 8; ++i) {
            try this.tryDraw(keccak256(abi.encode(seed, i)), uint40(block.timestamp), 1, 1) {} catch {}
        }
        uint8[7] memory before;
        for (uint32 i = 1; i <= 6; ++i) {
            before[i] = pool.nodeOf(id(i)).reservations;
        }
        Draw memory wanted = Draw(MODEL, seed, uint40(block.timestamp), pool.slotCount(MODEL), 0, count);
        vm.prank(address(session));
        NodeId[] memory nodes = pool.reserve(wanted);
        assertTrue(nodes.length <= count, "no more than asked");
        for (uint256 i; i < nodes.length; ++i) {
            uint32 n = NodeId.unwrap(nodes[i]);
            assertTrue(n >= 1 && n <= 6, "a node");
            assertTrue(before[n] < 2, "had room");
            assertEq(pool.nodeOf(nodes[i]).reservations, before[n] + 1, "reserved once");
        }
    }
}
