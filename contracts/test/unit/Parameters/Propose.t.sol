// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IParameters, Terms} from "../../../src/interfaces/IParameters.sol";
import {AssetId} from "../../../src/types/Ids.sol";
import {PoolBase} from "../NodePool/PoolBase.sol";

contract ParametersProposeTest is PoolBase {
    function propose(Terms memory wanted) internal {
        vm.prank(GOVERNOR);
        parameters.propose(wanted);
    }

    /// [X2]
    function testFuzz_holds_after_the_delay_and_not_a_second_earlier(uint40 later) public {
        Terms memory next = terms();
        next.session.maxTasks = 7;
        next.node.collateralPerSlot = 9;
        next.assets[0].tip = 5;
        vm.expectEmit();
        emit IParameters.TermsProposed(2, START + DELAY, next);
        propose(next);
        skipTime(bound(later, 0, DELAY - 1));
        assertEq(parameters.currentVersion(), 1, "not yet");
        bytes memory unknown = abi.encodeWithSelector(IParameters.Parameters_UnknownVersion.selector, 2);
        vm.expectRevert(unknown);
        parameters.termsOf(2);
        vm.expectRevert(unknown);
        parameters.sessionTermsOf(2);
        vm.expectRevert(unknown);
        parameters.nodeTermsOf(2);
        vm.expectRevert(unknown);
        parameters.assetTermsOf(2, AssetId.wrap(0));
        vm.warp(START + DELAY);
        assertEq(parameters.currentVersion(), 2, "now");
        assertEq(keccak256(abi.encode(parameters.termsOf(2))), keccak256(abi.encode(next)), "as proposed");
        assertEq(parameters.sessionTermsOf(2).maxTasks, 7, "session");
        assertEq(parameters.nodeTermsOf(2).collateralPerSlot, 9, "node");
        assertEq(parameters.assetTermsOf(2, AssetId.wrap(0)).tip, 5, "asset");
        // What is open goes on under what it knows.
        assertEq(keccak256(abi.encode(parameters.termsOf(1))), keccak256(abi.encode(terms())), "the set before");
    }

    function testFuzz_one_at_a_time(uint40 later) public {
        propose(terms());
        skipTime(bound(later, 0, DELAY - 1));
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_Pending.selector, 2, START + DELAY));
        propose(terms());
        vm.warp(START + DELAY);
        propose(terms());
    }

    function testFuzz_what_was_withdrawn_never_holds(uint40 later) public {
        Terms memory wrong = terms();
        wrong.session.maxTasks = 1;
        propose(wrong);
        skipTime(bound(later, 0, DELAY - 1));
        vm.expectEmit();
        emit IParameters.TermsWithdrawn(2);
        vm.prank(GOVERNOR);
        parameters.withdrawProposal();
        vm.warp(START + DELAY);
        assertEq(parameters.currentVersion(), 1, "withdrawn");
        Terms memory next = terms();
        next.session.maxTasks = 2;
        propose(next);
        skipTime(DELAY);
        assertEq(parameters.currentVersion(), 2, "the next takes its number");
        assertEq(parameters.sessionTermsOf(2).maxTasks, 2, "and its place");
    }

    function test_nothing_to_withdraw() public {
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_NothingPending.selector));
        vm.prank(GOVERNOR);
        parameters.withdrawProposal();
        propose(terms());
        vm.warp(START + DELAY);
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_NothingPending.selector));
        vm.prank(GOVERNOR);
        parameters.withdrawProposal();
    }

    /// A set with longer tasks must not meet nodes of an older one whose stake is free before.
    function test_no_task_outlives_the_unbonding_of_any_node() public {
        Terms memory next = terms();
        next.session.maxDeadline = 1 days;
        next.session.noticePeriod = 2 days;
        next.session.settleDelay = 1 days;
        uint256 life = 1 days + 3 * 60 + 30 + 1 days + LONGEST_AUDIT;
        next.node.unbondingPeriod = 30 days;
        vm.expectRevert(outOfBounds("taskLife", life, 0, UNBONDING));
        propose(next);
        // Nor may a node of a new set leave before a task of an old one.
        next = terms();
        uint256 oldLife = 300 + 3 * 60 + 30 + 2 + LONGEST_AUDIT;
        next.session.maxDeadline = 10;
        next.node.unbondingPeriod = uint32(oldLife - 1);
        vm.expectRevert(outOfBounds("unbondingPeriod", oldLife - 1, oldLife, 365 days));
        propose(next);
        next.node.unbondingPeriod = uint32(oldLife);
        propose(next);
    }

    /// What was withdrawn binds nobody.
    function test_a_withdrawn_set_leaves_no_trace_in_the_relations() public {
        Terms memory next = terms();
        next.node.unbondingPeriod = 600;
        propose(next);
        vm.prank(GOVERNOR);
        parameters.withdrawProposal();
        next = terms();
        next.session.settleDelay = 1 days;
        propose(next);
    }

    function outOfBounds(bytes32 name, uint256 value, uint256 min, uint256 max) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IParameters.Parameters_OutOfBounds.selector, name, value, min, max);
    }

    function testFuzz_refuses_who_is_not_the_governor(address caller) public {
        vm.assume(caller != GOVERNOR);
        bytes memory refused = abi.encodeWithSelector(IParameters.Parameters_NotGovernor.selector, caller);
        vm.expectRevert(refused);
        vm.prank(caller);
        parameters.propose(terms());
        vm.expectRevert(refused);
        vm.prank(caller);
        parameters.withdrawProposal();
        vm.expectRevert(refused);
        vm.prank(caller);
        parameters.proposeGovernor(caller);
    }

    function testFuzz_unknown_versions_and_assets(uint16 version, uint8 asset) public {
        if (version != 1) {
            vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_UnknownVersion.selector, version));
            parameters.termsOf(version);
        }
        asset = uint8(bound(asset, 1, 255));
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_UnknownAsset.selector, asset));
        parameters.assetTermsOf(1, AssetId.wrap(asset));
    }
}
