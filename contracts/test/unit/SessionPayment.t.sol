// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

import {SessionPayment} from "../../src/SessionPayment.sol";
import {ISessionPayment, Payout} from "../../src/interfaces/ISessionPayment.sol";
import {NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

/// Keeps a hundredth of every transfer.
contract FeeToken is ERC20("fee", "FEE") {
    constructor() {
        _mint(msg.sender, 1e24);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0), value / 100);
    }
}

contract SessionPaymentTest is Base {
    SessionId internal constant ID = SessionId.wrap(1);
    TaskId internal constant TASK = TaskId.wrap("task");
    NodeId internal constant NODE = NodeId.wrap(1);

    function deposit(uint128 amount) internal {
        vm.prank(address(session));
        payment.deposit(ID, client, amount);
    }

    function payout(uint128 share) internal view returns (Payout[] memory payouts) {
        payouts = new Payout[](1);
        payouts[0] = Payout(ID, TASK, payoutOf(1), share, router, share, publisher, share, share, share);
    }

    function assertFunds(uint128 free, uint128 held) internal view {
        (uint128 free_, uint128 held_) = payment.sessionFunds(ID);
        assertEq(free_, free, "free");
        assertEq(held_, held, "held");
        assertEq(payment.totalAccounts(), token.balanceOf(address(payment)), "accounts are backed");
    }

    function test_constructor_refuses_the_zero_address() public {
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector));
        new SessionPayment(address(1), address(2), address(3), address(0));
    }

    function test_every_account_is_moved_by_its_contract_alone() public {
        bytes memory refused = abi.encodeWithSelector(ISessionPayment.SessionPayment_NotProtocol.selector, keeper);
        vm.startPrank(keeper);
        vm.expectRevert(refused);
        payment.deposit(ID, client, 1);
        vm.expectRevert(refused);
        payment.returnRest(ID, keeper);
        vm.expectRevert(refused);
        payment.hold(ID, 1);
        vm.expectRevert(refused);
        payment.free(ID, TASK, 1);
        vm.expectRevert(refused);
        payment.pay(new Payout[](0), keeper);
        vm.expectRevert(refused);
        payment.refund(ID, TASK, 1, keeper, 1);
        vm.expectRevert(refused);
        payment.stake(NODE, client, 1);
        vm.expectRevert(refused);
        payment.releaseStake(NODE, keeper);
        vm.stopPrank();
    }

    function test_deposit_hold_free_return() public {
        vm.expectEmit();
        emit ISessionPayment.Deposited(ID, client, 100);
        deposit(100);
        assertFunds(100, 0);
        vm.startPrank(address(queue));
        payment.hold(ID, 60);
        assertFunds(40, 60);
        bytes4 insufficient = ISessionPayment.SessionPayment_InsufficientDeposit.selector;
        vm.expectRevert(abi.encodeWithSelector(insufficient, ID, 41, 40));
        payment.hold(ID, 41);
        payment.free(ID, TASK, 10);
        assertFunds(50, 50);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, 51, 50));
        payment.free(ID, TASK, 51);
        vm.stopPrank();
        vm.prank(address(session));
        assertEq(payment.returnRest(ID, client), 50, "rest");
        assertFunds(0, 50);
        assertEq(payment.balanceOf(client), 50, "balance");
    }

    function test_deposit_of_nothing_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        deposit(0);
    }

    function test_tokens_that_take_a_fee_are_refused() public {
        FeeToken odd = new FeeToken();
        SessionPayment other = new SessionPayment(address(odd), address(this), address(2), address(3));
        odd.approve(address(other), 100);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_TransferMismatch.selector, 100, 99));
        other.deposit(ID, address(this), 100);
    }

    function test_pay_credits_shares_and_burns() public {
        deposit(100);
        uint256 supply = token.totalSupply();
        vm.startPrank(address(queue));
        payment.hold(ID, 60);
        payment.pay(payout(10), keeper);
        assertFunds(40, 10);
        assertEq(payment.balanceOf(payoutOf(1)), 10, "miner");
        assertEq(payment.balanceOf(router), 10, "router");
        assertEq(payment.balanceOf(publisher), 10, "publisher");
        assertEq(payment.balanceOf(keeper), 10, "keeper");
        assertEq(token.totalSupply(), supply - 10, "burnt");
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, 55, 10));
        payment.pay(payout(11), keeper);
        Payout[] memory toNobody = payout(1);
        toNobody[0].miner = address(0);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector));
        payment.pay(toNobody, keeper);
        vm.stopPrank();
    }

    function test_pay_sums_what_neighbours_pay_to_one_account() public {
        deposit(100);
        vm.startPrank(address(queue));
        payment.hold(ID, 75);
        Payout[] memory payouts = new Payout[](3);
        for (uint256 i; i < 3; ++i) {
            payouts[i] = payout(5)[0];
        }
        payouts[1].miner = payoutOf(2);
        vm.expectEmit();
        emit ISessionPayment.Credited(payoutOf(1), 5);
        vm.expectEmit();
        emit ISessionPayment.Credited(payoutOf(2), 5);
        vm.expectEmit();
        emit ISessionPayment.Credited(payoutOf(1), 5);
        vm.expectEmit();
        emit ISessionPayment.Credited(router, 15);
        vm.expectEmit();
        emit ISessionPayment.Credited(publisher, 15);
        vm.expectEmit();
        emit ISessionPayment.Credited(keeper, 15);
        vm.expectEmit();
        emit ISessionPayment.Burnt(15);
        payment.pay(payouts, keeper);
        vm.stopPrank();
        assertEq(payment.balanceOf(payoutOf(1)), 10, "first miner");
        assertFunds(25, 0);
    }

    function test_refund_gives_back_and_tips() public {
        deposit(100);
        vm.startPrank(address(queue));
        payment.hold(ID, 60);
        payment.refund(ID, TASK, 55, keeper, 5);
        vm.stopPrank();
        assertFunds(95, 0);
        assertEq(payment.balanceOf(keeper), 5, "tip");
    }

    function test_stake_and_release() public {
        vm.startPrank(address(pool));
        vm.expectEmit();
        emit ISessionPayment.Staked(NODE, client, 100);
        payment.stake(NODE, client, 100);
        assertEq(payment.stakeOf(NODE), 100, "stake");
        vm.expectEmit();
        emit ISessionPayment.StakeReleased(NODE, keeper, 100);
        payment.releaseStake(NODE, keeper);
        vm.stopPrank();
        assertEq(payment.stakeOf(NODE), 0, "stake");
        assertEq(payment.balanceOf(keeper), 100, "balance");
        assertFunds(0, 0);
    }

    function test_withdraw_pays_out_the_callers_balance() public {
        vm.prank(address(pool));
        payment.stake(NODE, client, 100);
        vm.prank(address(pool));
        payment.releaseStake(NODE, keeper);
        vm.startPrank(keeper);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        payment.withdraw(keeper, 0);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector));
        payment.withdraw(address(0), 1);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_OwnAddress.selector));
        payment.withdraw(address(payment), 1);
        bytes4 insufficient = ISessionPayment.SessionPayment_InsufficientBalance.selector;
        vm.expectRevert(abi.encodeWithSelector(insufficient, keeper, 101, 100));
        payment.withdraw(keeper, 101);
        vm.expectEmit();
        emit ISessionPayment.Withdrawn(keeper, router, 99);
        payment.withdraw(router, 99);
        vm.stopPrank();
        assertEq(token.balanceOf(router), 99, "tokens");
        assertEq(payment.balanceOf(keeper), 1, "rest");
        assertFunds(0, 0);
    }

    function testFuzz_pay_conserves(uint96[5] calldata parts, uint96 more) public {
        uint256 sum = uint256(parts[0]) + parts[1] + parts[2] + parts[3] + parts[4];
        uint256 total = sum + more;
        vm.assume(total <= token.balanceOf(address(this)) && sum > 0);
        token.transfer(client, total);
        deposit(uint128(total));
        vm.startPrank(address(queue));
        payment.hold(ID, uint128(sum));
        Payout[] memory payouts = payout(0);
        payouts[0].minerShare = parts[0];
        payouts[0].routerShare = parts[1];
        payouts[0].royalty = parts[2];
        payouts[0].tip = parts[3];
        payouts[0].burnt = parts[4];
        payment.pay(payouts, keeper);
        vm.stopPrank();
        assertFunds(more, 0);
        uint256 credited = payment.balanceOf(payoutOf(1)) + payment.balanceOf(router) + payment.balanceOf(publisher)
            + payment.balanceOf(keeper);
        assertEq(credited + parts[4] + more, total, "conserved");
        assertEq(payment.totalAccounts(), total - parts[4], "accounts");
    }
}
