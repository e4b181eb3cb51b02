// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISessionPayment, LaneFunds, Payout} from "../../../src/interfaces/ISessionPayment.sol";
import {SessionId} from "../../../src/types/Ids.sol";
import {PaymentBase} from "./PaymentBase.sol";

/// hold, pay, refund.
contract PaymentTasksTest is PaymentBase {
    address internal miner = address(0x111);
    uint64 internal constant WINDOW = 256;

    function setUp() public override {
        super.setUp();
        deposited(COR, 100e18, 100e18);
    }

    function held(uint64 nonce, uint96 amount) internal {
        vm.prank(address(queue));
        payment.hold(ID, ROUTER_LANE, nonce, amount);
    }

    function payout(uint96 held_, uint96 each) internal view returns (Payout memory) {
        return Payout(COR, ID, ROUTER_LANE, TASK, held_, miner, each, router, each, publisher, each, each, each);
    }

    function pay(Payout memory one) internal {
        Payout[] memory payouts = new Payout[](1);
        payouts[0] = one;
        vm.prank(address(queue));
        payment.pay(payouts, keeper);
    }

    // ---- hold

    /// [M2]
    function testFuzz_hold_takes_only_what_is_free(uint96 amount) public {
        if (amount > 100e18) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ISessionPayment.SessionPayment_InsufficientDeposit.selector, ID, ROUTER_LANE, amount, 100e18
                )
            );
            held(0, amount);
            return;
        }
        held(0, amount);
        LaneFunds memory funds = payment.fundsOf(ID, ROUTER_LANE);
        assertEq(funds.free, 100e18 - amount, "free");
        assertEq(funds.held, amount, "held");
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, 100e18, "a lane cannot spend another's");
    }

    /// [B3] The window; that a nonce is used once is the queue's.
    function testFuzz_nonce_lies_within_the_window(uint64 largest, uint64 nonce) public {
        largest = uint64(bound(largest, 0, WINDOW - 1));
        held(largest, 0);
        if (nonce > uint256(largest) + WINDOW) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ISessionPayment.SessionPayment_NonceTooFarAhead.selector, ID, ROUTER_LANE, nonce, largest + WINDOW
                )
            );
            held(nonce, 0);
            return;
        }
        held(nonce, 0);
        uint64 next = (nonce > largest ? nonce : largest) + 1;
        assertEq(payment.fundsOf(ID, ROUTER_LANE).nextNonce, next, "one more than the largest");
    }

    function test_first_nonce_at_the_windows_end() public {
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_NonceTooFarAhead.selector, ID, ROUTER_LANE, WINDOW, WINDOW - 1
            )
        );
        held(WINDOW, 0);
        held(WINDOW - 1, 0);
        assertEq(payment.nonceWindow(), WINDOW, "window");
    }

    function test_only_the_queue_moves_held_money() public {
        vm.expectRevert(notProtocol(address(this)));
        payment.hold(ID, ROUTER_LANE, 0, 1);
        vm.expectRevert(notProtocol(address(this)));
        payment.pay(new Payout[](0), keeper);
        vm.expectRevert(notProtocol(address(this)));
        payment.refund(ID, ROUTER_LANE, COR, TASK, 1, keeper, 1);
        vm.prank(address(session));
        vm.expectRevert(notProtocol(address(session)));
        payment.hold(ID, ROUTER_LANE, 0, 1);
    }

    // ---- pay

    function test_pay_frees_what_the_fee_leaves() public {
        held(0, 50e18);
        uint256 supply = token.totalSupply();
        pay(payout(50e18, 1e18));
        LaneFunds memory funds = payment.fundsOf(ID, ROUTER_LANE);
        assertEq(funds.held, 0, "held");
        assertEq(funds.free, 95e18, "free");
        assertEq(payment.balanceOf(miner, COR), 1e18, "miner");
        assertEq(payment.balanceOf(router, COR), 1e18, "router");
        assertEq(payment.balanceOf(publisher, COR), 1e18, "publisher");
        assertEq(payment.balanceOf(keeper, COR), 1e18, "keeper");
        assertEq(supply - token.totalSupply(), 1e18, "destroyed");
        backed();
    }

    function testFuzz_pay_refuses_a_fee_above_what_is_held(uint96 held_, uint96 each) public {
        held_ = uint96(bound(held_, 0, 100e18));
        each = uint96(bound(each, uint256(held_) / 5 + 1, type(uint96).max));
        held(0, held_);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, uint256(each) * 5, held_
            )
        );
        pay(payout(held_, each));
    }

    /// [M2] [M5] One task cannot be paid out of what is held for another, nor twice.
    function test_pay_refuses_more_than_the_lane_holds() public {
        held(0, 5e18);
        pay(payout(5e18, 1e18));
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, 5e18, 0));
        pay(payout(5e18, 1e18));
    }

    function test_pay_refuses_a_payee_without_address() public {
        held(0, 5e18);
        Payout memory one = payout(5e18, 1e18);
        one.miner = address(0);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector));
        pay(one);
        one = payout(5e18, 1e18);
        (one.router, one.routerShare) = (address(0), 0);
        pay(one);
        backed();
    }

    /// Payouts of any accounts, lanes and assets in one call come to the same as one by one.
    function testFuzz_pay_many_equals_one_by_one(uint256 seed) public {
        vm.prank(address(session));
        payment.deposit(ID2, USD, client, 1000e6, new uint96[](0));
        Payout[] memory payouts = new Payout[](12);
        uint256[3] memory cor;
        uint256[3] memory dollars;
        for (uint64 i; i < 12; ++i) {
            uint256 bits = uint256(keccak256(abi.encode(seed, i)));
            bool inUsd = bits % 2 == 0;
            uint256 who = (bits >> 8) % 3;
            uint96 share = uint96((bits >> 16) % 1e6);
            payouts[i] = Payout({
                asset: inUsd ? USD : COR,
                sessionId: inUsd ? ID2 : ID,
                lane: inUsd || (bits >> 2) % 2 == 0 ? OWNER_LANE : ROUTER_LANE,
                taskId: TASK,
                held: share * 4,
                miner: address(uint160(0xE0 + who)),
                minerShare: share,
                router: address(0),
                routerShare: 0,
                publisher: publisher,
                royalty: share,
                tip: share,
                burnt: share
            });
            if (inUsd) dollars[who] += share;
            else cor[who] += share;
            vm.prank(address(queue));
            payment.hold(payouts[i].sessionId, payouts[i].lane, i, share * 4);
        }
        vm.prank(address(queue));
        payment.pay(payouts, keeper);
        for (uint160 who; who < 3; ++who) {
            assertEq(payment.balanceOf(address(0xE0 + who), COR), cor[who], "COR");
            assertEq(payment.balanceOf(address(0xE0 + who), USD), dollars[who], "dollars");
        }
        uint256 sum = cor[0] + cor[1] + cor[2];
        assertEq(payment.balanceOf(publisher, COR), sum, "royalties");
        assertEq(payment.balanceOf(keeper, COR), sum, "tips");
        sum = dollars[0] + dollars[1] + dollars[2];
        assertEq(payment.balanceOf(keeper, USD), sum, "tips in dollars");
        assertEq(payment.balanceOf(address(0xdEaD), USD), sum, "burnt dollars");
        backed();
    }

    SessionId internal constant ID2 = SessionId.wrap(8);

    // ---- refund

    function testFuzz_refund_frees_all_but_the_tip(uint96 held_, uint96 tip) public {
        held_ = uint96(bound(held_, 0, 100e18));
        held(0, held_);
        if (tip > held_) {
            vm.expectRevert(
                abi.encodeWithSelector(ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, tip, held_)
            );
            vm.prank(address(queue));
            payment.refund(ID, ROUTER_LANE, COR, TASK, held_, keeper, tip);
            return;
        }
        vm.prank(address(queue));
        payment.refund(ID, ROUTER_LANE, COR, TASK, held_, keeper, tip);
        assertEq(payment.fundsOf(ID, ROUTER_LANE).free, 100e18 - tip, "free");
        assertEq(payment.fundsOf(ID, ROUTER_LANE).held, 0, "held");
        assertEq(payment.balanceOf(keeper, COR), tip, "keeper");
        backed();
    }

    function test_refund_refuses_more_than_the_lane_holds() public {
        held(0, 1);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, 2, 1));
        vm.prank(address(queue));
        payment.refund(ID, ROUTER_LANE, COR, TASK, 2, keeper, 0);
    }
}
