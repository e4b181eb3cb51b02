// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Credit, Debit, Evidence, ISessionPayment, Rule} from "../../../src/interfaces/ISessionPayment.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PaymentBase} from "./PaymentBase.sol";

/// `give`, `fund`, and slashes of `ProofOfInference`.
contract PaymentGiveTest is PaymentBase {
    address internal validator = address(0x777);

    /// The proof's account has what answers gave for audits.
    function setUp() public override {
        super.setUp();
        deposited(COR, 100e18, 100e18);
        vm.startPrank(address(queue));
        payment.hold(ID, ROUTER_LANE, 0, 10e18);
        Debit[] memory debits = new Debit[](1);
        debits[0] = Debit(ID, ROUTER_LANE, COR, TASK, 10e18, 10e18);
        Credit[] memory credits = new Credit[](1);
        credits[0] = Credit(address(proof), COR, 10e18);
        payment.pay(debits, credits);
        vm.stopPrank();
    }

    /// [M1, M7, V20]
    function testFuzz_gives_its_own_and_no_more(uint96 amount) public {
        uint256 total = payment.totalAccounts(COR);
        if (amount > 10e18) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ISessionPayment.SessionPayment_InsufficientBalance.selector, address(proof), COR, amount, 10e18
                )
            );
        }
        vm.prank(address(proof));
        payment.give(COR, validator, amount);
        uint256 given = amount > 10e18 ? 0 : amount;
        assertEq(payment.balanceOf(validator, COR), given, "given");
        assertEq(payment.balanceOf(address(proof), COR), 10e18 - given, "left");
        assertEq(payment.totalAccounts(COR), total, "nothing is made");
    }

    function testFuzz_only_the_proof_gives(address caller) public {
        vm.assume(caller != address(proof));
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_NotProtocol.selector, caller));
        vm.prank(caller);
        payment.give(COR, validator, 0);
    }

    /// [M8, P2]
    function test_the_proof_slashes_as_the_queue_does() public {
        NodeId nodeId = newNode(1, 1);
        Evidence memory evidence = Evidence({taskId: TASK, rule: Rule.Fingerprint, measured: 4, bound: 3});
        vm.prank(address(proof));
        payment.slash(nodeId, evidence, COLLATERAL, address(proof), 1e18);
        assertEq(payment.stakeOf(nodeId), 0, "stake");
        assertEq(payment.balanceOf(address(proof), COR), 11e18, "what it gives on");
    }

    /// A bond is pulled in whole, or not at all. [M1]
    function testFuzz_what_is_pulled_for_the_proof(uint96 amount) public {
        uint256 has = token.balanceOf(client);
        amount = uint96(bound(amount, 0, has + has / 4));
        uint256 had = payment.balanceOf(address(proof), COR);
        if (amount == 0) vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        else if (amount > has) vm.expectRevert();
        vm.prank(address(proof));
        payment.fund(COR, client, amount);
        uint256 pulled = amount > has ? 0 : amount;
        assertEq(payment.balanceOf(address(proof), COR) - had, pulled, "its own");
        assertEq(has - token.balanceOf(client), pulled, "pulled");
        backed();
    }

    function testFuzz_only_the_proof_pulls(address caller) public {
        vm.assume(caller != address(proof));
        vm.expectRevert(notProtocol(caller));
        vm.prank(caller);
        payment.fund(COR, client, 1);
    }
}
