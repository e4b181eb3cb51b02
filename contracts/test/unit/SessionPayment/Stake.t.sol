// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Evidence, ISessionPayment, Rule} from "../../../src/interfaces/ISessionPayment.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PaymentBase} from "./PaymentBase.sol";

/// stake, releaseStake, slash.
contract PaymentStakeTest is PaymentBase {
    NodeId internal constant NODE = NodeId.wrap(3);

    function staked(uint256 amount) internal {
        vm.prank(address(pool));
        payment.stake(NODE, client, amount);
    }

    function evidence() internal pure returns (Evidence memory) {
        return Evidence({taskId: TASK, rule: Rule.Equivocation, measured: 2, bound: 1});
    }

    /// [M8]
    function testFuzz_stake_and_release(uint256 amount) public {
        amount = bound(amount, 1, 10_000e18);
        staked(amount);
        assertEq(payment.stakeOf(NODE), amount, "stake");
        assertEq(payment.totalAccounts(COR), amount, "total");
        vm.prank(address(pool));
        assertEq(payment.releaseStake(NODE, keeper), amount, "released");
        assertEq(payment.stakeOf(NODE), 0, "no stake");
        assertEq(payment.balanceOf(keeper, COR), amount, "owner");
        vm.prank(address(pool));
        assertEq(payment.releaseStake(NODE, keeper), 0, "once");
        backed();
    }

    /// [P1] [M1]
    function testFuzz_slash_burns_what_the_reporter_does_not_get(uint256 stake, uint256 amount, uint256 reward) public {
        stake = bound(stake, 1, 10_000e18);
        amount = bound(amount, 0, stake);
        reward = bound(reward, 0, amount);
        staked(stake);
        uint256 supply = token.totalSupply();
        vm.expectEmit();
        emit ISessionPayment.Slashed(NODE, TASK, Rule.Equivocation, 2, 1, amount, keeper, reward);
        vm.prank(address(queue));
        payment.slash(NODE, evidence(), amount, keeper, reward);
        assertEq(payment.stakeOf(NODE), stake - amount, "stake");
        assertEq(payment.balanceOf(keeper, COR), reward, "reporter");
        assertEq(supply - token.totalSupply(), amount - reward, "burnt");
        backed();
    }

    /// [P2]
    function testFuzz_slash_that_would_drive_stake_negative_is_refused(uint256 stake, uint256 amount) public {
        stake = bound(stake, 1, 10_000e18);
        amount = bound(amount, stake + 1, type(uint256).max - stake - 2);
        staked(stake);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionPayment.SessionPayment_InsufficientStake.selector, NODE, amount, stake)
        );
        vm.prank(address(queue));
        payment.slash(NODE, evidence(), amount, keeper, 0);
        assertEq(payment.stakeOf(NODE), stake, "unchanged");
    }

    /// [P1]
    function test_slash_without_evidence_is_refused() public {
        staked(10);
        Evidence memory nothing = evidence();
        nothing.rule = Rule.None;
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_NoEvidence.selector, NODE));
        vm.prank(address(queue));
        payment.slash(NODE, nothing, 1, keeper, 0);
    }

    function test_slash_refusals() public {
        staked(10);
        vm.startPrank(address(queue));
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_RewardTooLarge.selector, 6, 5));
        payment.slash(NODE, evidence(), 5, keeper, 6);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector));
        payment.slash(NODE, evidence(), 5, address(0), 1);
    }

    function test_stake_is_the_pools_and_slashes_are_the_queues() public {
        vm.expectRevert(notProtocol(address(this)));
        payment.stake(NODE, client, 1);
        vm.expectRevert(notProtocol(address(this)));
        payment.releaseStake(NODE, client);
        vm.startPrank(address(pool));
        vm.expectRevert(notProtocol(address(pool)));
        payment.slash(NODE, evidence(), 1, keeper, 0);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        payment.stake(NODE, client, 0);
    }
}
