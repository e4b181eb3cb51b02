// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Eligibility, INodePool, NodeRegistration, NodeState, Offer} from "../../../src/interfaces/INodePool.sol";
import {Outcome, Series} from "../../../src/interfaces/INodeStats.sol";
import {ModelId, ModelIndex, NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolViewsTest is PoolBase {
    function test_unknown_nodes_are_refused_or_told_by_zeros() public {
        bytes memory unknown = abi.encodeWithSelector(INodePool.NodePool_UnknownNode.selector, id(1));
        vm.expectRevert(unknown);
        pool.nodeOf(id(1));
        vm.expectRevert(unknown);
        pool.offersOf(id(1));
        vm.expectRevert(unknown);
        pool.reservationsOf(id(1));
        vm.expectRevert(unknown);
        pool.eligibilityOf(id(1), INDEX, START);
        (address operator, NumericClass class) = pool.committerOf(id(1));
        assertEq(operator, address(0), "operator");
        assertEq(NumericClass.unwrap(class), 0, "class");
        assertEq(pool.payoutOf(id(1)), address(0), "payout");
        assertTrue(!pool.answersFor(id(1), address(0)), "nobody answers for nobody");
        assertEq(NodeId.unwrap(pool.nodeByOperator(address(1))), 0, "operator");
    }

    function test_committer_is_operator_and_class() public {
        newNode(1, 1);
        (address operator, NumericClass class) = pool.committerOf(id(1));
        assertEq(operator, operatorOf(1), "operator");
        assertEq(NumericClass.unwrap(class), NumericClass.unwrap(CLASS), "class");
        assertTrue(!pool.answersFor(id(1), address(0)), "the zero address is no key");
    }

    function testFuzz_eligibility_tells_why(uint8 capacity, uint8 used, uint40 asOf) public {
        capacity = uint8(bound(capacity, 1, 8));
        used = uint8(bound(used, 0, capacity));
        newNodes(1, capacity);
        for (uint64 i = 1; i <= used; ++i) {
            drawOne(i);
        }
        asOf = uint40(bound(asOf, START, START + 1000));
        Eligibility memory told = pool.eligibilityOf(id(1), INDEX, asOf);
        bool active = asOf >= START + ACTIVATION_DELAY;
        assertEq(uint8(told.state), uint8(NodeState.Ephemeral), "state");
        assertEq(told.places, capacity, "places");
        assertEq(told.active, active ? capacity : 0, "active");
        assertEq(told.free, active ? capacity - used : 0, "free");
        assertEq(told.activeFrom, START + ACTIVATION_DELAY, "active from");
        assertEq(told.acceptanceBps, 5000, "level 0");
        told = pool.eligibilityOf(id(1), OTHER_INDEX, asOf);
        assertEq(told.places, 0, "another model");
        assertEq(told.activeFrom, 0, "another model");
    }

    function testFuzz_acceptance_grows_with_the_level(uint8 level) public {
        level = uint8(bound(level, 0, 10));
        newNode(1, 1);
        vm.prank(QUEUE);
        stats.count(id(1), Series.Drawn, Outcome.Settled, uint32((1 << level) - 1));
        assertEq(pool.eligibilityOf(id(1), INDEX, START).acceptanceBps, 5000, "not in this epoch");
        skipTime(EPOCH);
        uint256 told = pool.eligibilityOf(id(1), INDEX, uint40(block.timestamp)).acceptanceBps;
        assertEq(told, 5000 + 500 * uint256(level), "in the next");
    }

    function test_a_dedicated_node_is_eligible_for_no_draw() public {
        newDedicated(1, 2);
        skipTime(ACTIVATION_DELAY);
        Eligibility memory told = pool.eligibilityOf(id(1), INDEX, uint40(block.timestamp));
        assertEq(uint8(told.state), uint8(NodeState.Dedicated), "state");
        assertEq(told.places, 2, "places");
        assertEq(told.active, 0, "active");
        assertEq(told.free, 0, "free");
    }

    function test_offers_of_eight_models() public {
        NodeRegistration memory wanted = registration(1, 1);
        wanted.offers = new Offer[](8);
        (wanted.offers[0], wanted.offers[1]) = (Offer(MODEL, 1), Offer(OTHER_MODEL, 1));
        for (uint256 i = 2; i < 8; ++i) {
            ModelId modelId = ModelId.wrap(bytes32(i));
            registerModel(modelId);
            wanted.offers[i] = Offer(modelId, 1);
        }
        registerFor(ownerOf(1), wanted);
        (ModelIndex[] memory indices, uint8[] memory capacities) = pool.offersOf(id(1));
        assertEq(indices.length, 8, "offers");
        for (uint256 i; i < 8; ++i) {
            assertEq(ModelIndex.unwrap(indices[i]), i + 1, "model");
            assertEq(capacities[i], 1, "capacity");
        }
    }
}
