// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {AssetId} from "../../../src/types/Ids.sol";
import {PaymentBase} from "./PaymentBase.sol";

contract PaymentWithdrawTest is PaymentBase {
    function setUp() public override {
        super.setUp();
        deposited(COR, 100e18, 0);
        vm.startPrank(address(session));
        payment.returnRest(ID, COR, 1, client);
        vm.stopPrank();
    }

    /// [M7]
    function testFuzz_withdraw_moves_the_callers_own_balance(uint256 amount, address to) public {
        vm.assume(to != address(0) && to != address(payment) && to != client);
        amount = bound(amount, 1, 100e18);
        uint256 before = token.balanceOf(to);
        vm.prank(client);
        payment.withdraw(COR, to, amount);
        assertEq(token.balanceOf(to) - before, amount, "received");
        assertEq(payment.balanceOf(client, COR), 100e18 - amount, "left");
        backed();
    }

    function testFuzz_withdraw_refuses_more_than_the_balance(uint256 amount, bool inUsd) public {
        uint256 balance = inUsd ? 0 : 100e18;
        amount = bound(amount, balance + 1, type(uint256).max - 100e18 - 2);
        AssetId asset = inUsd ? USD : COR;
        vm.prank(client);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_InsufficientBalance.selector, client, asset, amount, balance
            )
        );
        payment.withdraw(asset, client, amount);
    }

    function test_withdraw_refusals() public {
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        payment.withdraw(COR, client, 0);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector));
        payment.withdraw(COR, address(0), 1);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_OwnAddress.selector));
        payment.withdraw(COR, address(payment), 1);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_UnknownAsset.selector, 2));
        payment.withdraw(AssetId.wrap(2), client, 1);
    }
}
