// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IModelRegistry} from "../../../src/interfaces/IModelRegistry.sol";
import {INodePool, Node, NodeRegistration, NodeState, Offer} from "../../../src/interfaces/INodePool.sol";
import {Terms} from "../../../src/interfaces/IParameters.sol";
import {ModelId, ModelIndex, NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolRegisterTest is PoolBase {
    function refused(NodeRegistration memory wanted, bytes memory reason) internal {
        fund(ownerOf(1));
        vm.expectRevert(reason);
        vm.prank(ownerOf(1));
        pool.register(wanted);
        assertEq(pool.nodeCount(), 0, "nodes");
        assertPool(0, 0, 0);
    }

    function testFuzz_stores_the_node(address owner, address operator, address payout, bytes32 class) public {
        vm.assume(owner != address(0) && operator != address(0) && payout != address(0) && class != 0);
        vm.assume(owner != address(this) && owner != address(payment));
        NodeRegistration memory wanted = registration(1, 1);
        (wanted.operator, wanted.payout, wanted.numericClass) = (operator, payout, NumericClass.wrap(class));
        fund(owner);
        vm.expectEmit();
        emit INodePool.NodeRegistered(id(1), owner, operator, payout, address(0), wanted.numericClass, 1);
        vm.expectEmit();
        emit INodePool.NodeStateChanged(id(1), NodeState.None, NodeState.Ephemeral);
        vm.expectEmit();
        emit INodePool.Offered(id(1), INDEX, 1, START + ACTIVATION_DELAY);
        vm.prank(owner);
        assertEq(NodeId.unwrap(pool.register(wanted)), 1, "id");
        Node memory node = pool.nodeOf(id(1));
        assertEq(node.owner, owner, "owner");
        assertEq(uint8(node.state), uint8(NodeState.Ephemeral), "state");
        assertEq(node.exitAt, 0, "exit");
        assertEq(node.termsVersion, 1, "version");
        assertEq(node.operator, operator, "operator");
        assertEq(node.operatorSince, 0, "never changed");
        assertEq(node.previousOperator, address(0), "no key before");
        assertEq(node.payout, payout, "payout");
        assertEq(node.dedicatedTo, address(0), "dedicated");
        assertEq(NumericClass.unwrap(node.numericClass), class, "class");
        assertEq(NodeId.unwrap(pool.nodeByOperator(operator)), 1, "by operator");
        assertEq(pool.nodeCount(), 1, "nodes");
    }

    function testFuzz_takes_a_place_and_its_stake_for_each_unit_of_capacity(uint8 one, uint8 other) public {
        one = uint8(bound(one, 1, 7));
        other = uint8(bound(other, 1, 8 - one));
        registerFor(ownerOf(1), registrationOfTwo(1, one, other));
        assertPool(one, one, 0);
        (uint32 slots,,) = pool.poolOf(OTHER_INDEX);
        assertEq(slots, other, "places of the other model");
        assertEq(payment.stakeOf(id(1)), uint256(COLLATERAL) * (one + other), "stake");
        (ModelIndex[] memory indices, uint8[] memory capacities) = pool.offersOf(id(1));
        assertEq(indices.length, 2, "offers");
        assertEq(capacities.length, 2, "capacities");
        assertEq(ModelIndex.unwrap(indices[0]), 1, "model");
        assertEq(ModelIndex.unwrap(indices[1]), 2, "other model");
        assertEq(capacities[0], one, "capacity");
        assertEq(capacities[1], other, "other capacity");
    }

    /// [D5]
    function test_a_dedicated_node_is_in_no_draw() public {
        newDedicated(1, 3);
        assertState(id(1), NodeState.Dedicated);
        assertEq(pool.nodeOf(id(1)).dedicatedTo, CLIENT, "dedicated");
        assertPool(0, 0, 0);
        assertEq(payment.stakeOf(id(1)), 3 * uint256(COLLATERAL), "stake");
    }

    function test_the_terms_of_the_day_hold_for_the_node() public {
        Terms memory next = terms();
        next.node.collateralPerSlot = 7e18;
        vm.prank(GOVERNOR);
        parameters.propose(next);
        newNode(1, 2);
        skipTime(DELAY);
        newNode(2, 2);
        assertEq(payment.stakeOf(id(1)), 200e18, "stake before");
        assertEq(payment.stakeOf(id(2)), 14e18, "stake after");
        assertEq(pool.nodeOf(id(2)).termsVersion, 2, "version");
    }

    function test_refuses_the_zero_address() public {
        NodeRegistration memory wanted = registration(1, 1);
        wanted.operator = address(0);
        refused(wanted, abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        wanted = registration(1, 1);
        wanted.payout = address(0);
        refused(wanted, abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
    }

    function test_refuses_an_empty_class() public {
        NodeRegistration memory wanted = registration(1, 1);
        wanted.numericClass = NumericClass.wrap(0);
        refused(wanted, abi.encodeWithSelector(INodePool.NodePool_EmptyClass.selector));
    }

    function testFuzz_refuses_a_capacity_out_of_bounds(uint8 one, uint8 other) public {
        bytes4 reason = INodePool.NodePool_CapacityOutOfBounds.selector;
        one = uint8(bound(one, 9, 255));
        refused(registration(1, one), abi.encodeWithSelector(reason, one, 1, 8));
        refused(registration(1, 0), abi.encodeWithSelector(reason, 0, 1, 8));
        one = uint8(bound(one, 1, 8));
        other = uint8(bound(other, 9 - one, 255));
        refused(registrationOfTwo(1, one, other), abi.encodeWithSelector(reason, uint256(one) + other, 1, 8));
        refused(registrationOfTwo(1, one, 0), abi.encodeWithSelector(reason, 0, 1, 8));
    }

    function test_refuses_no_offers_and_too_many() public {
        NodeRegistration memory wanted = registration(1, 1);
        wanted.offers = new Offer[](0);
        refused(wanted, abi.encodeWithSelector(INodePool.NodePool_OfferCount.selector, 0, 1, 8));
        wanted.offers = new Offer[](9);
        refused(wanted, abi.encodeWithSelector(INodePool.NodePool_OfferCount.selector, 9, 1, 8));
    }

    function test_refuses_a_model_twice() public {
        NodeRegistration memory wanted = registrationOfTwo(1, 1, 1);
        wanted.offers[1].modelId = MODEL;
        refused(wanted, abi.encodeWithSelector(INodePool.NodePool_ModelTwice.selector, MODEL));
    }

    function test_refuses_an_unknown_and_a_deprecated_model() public {
        NodeRegistration memory wanted = registration(1, 1);
        wanted.offers[0].modelId = ModelId.wrap("nothing");
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, bytes32("nothing")));
        vm.prank(PUBLISHER);
        models.deprecate(MODEL);
        refused(registration(1, 1), abi.encodeWithSelector(IModelRegistry.ModelRegistry_Deprecated.selector, MODEL));
    }

    function test_refuses_an_operator_in_use() public {
        newNode(1, 1);
        NodeRegistration memory wanted = registration(2, 1);
        wanted.operator = operatorOf(1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_OperatorInUse.selector, operatorOf(1), id(1)));
        vm.prank(ownerOf(2));
        pool.register(wanted);
    }

    function test_refuses_an_owner_without_stake() public {
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(payment), 0, COLLATERAL)
        );
        vm.prank(ownerOf(1));
        pool.register(registration(1, 1));
        assertEq(pool.nodeCount(), 0, "nodes");
    }
}
