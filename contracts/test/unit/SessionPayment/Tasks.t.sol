// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Credit, Debit, ISessionPayment, LaneFunds} from "../../../src/interfaces/ISessionPayment.sol";
import {AssetId, Lane, SessionId} from "../../../src/types/Ids.sol";
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

    function debit(uint96 held_, uint96 spent) internal pure returns (Debit memory) {
        return Debit(ID, ROUTER_LANE, COR, TASK, held_, spent);
    }

    /// Pays `each` to five accounts, the last of which is nobody.
    function pay(uint96 held_, uint96 each) internal {
        Debit[] memory debits = new Debit[](1);
        debits[0] = debit(held_, each * 5);
        address[5] memory accounts = [miner, router, publisher, keeper, address(0)];
        Credit[] memory credits = new Credit[](5);
        for (uint256 i; i < 5; ++i) {
            credits[i] = Credit(accounts[i], COR, each);
        }
        vm.prank(address(queue));
        payment.pay(debits, credits);
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
        payment.pay(new Debit[](0), new Credit[](0));
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
        pay(50e18, 1e18);
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
        each = uint96(bound(each, uint256(held_) / 5 + 1, type(uint96).max / 5));
        held(0, held_);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, uint256(each) * 5, held_
            )
        );
        pay(held_, each);
    }

    /// [M2] [M5] One task cannot be paid out of what is held for another, nor twice.
    function test_pay_refuses_more_than_the_lane_holds() public {
        held(0, 5e18);
        pay(5e18, 1e18);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_PayoutMismatch.selector, TASK, 5e18, 0));
        pay(5e18, 1e18);
    }

    /// [M1] Not a unit more or less than the lanes spend, in each asset.
    function testFuzz_pay_refuses_what_does_not_balance(uint96 spent, uint96 credited, bool inUsd) public {
        spent = uint96(bound(spent, 0, 100e18));
        held(0, spent);
        Debit[] memory debits = new Debit[](1);
        debits[0] = debit(spent, spent);
        Credit[] memory credits = new Credit[](1);
        credits[0] = Credit(miner, inUsd ? USD : COR, credited);
        bool balanced = inUsd ? spent == 0 && credited == 0 : spent == credited;
        if (!balanced) {
            (AssetId asset, uint256 wanted, uint256 given) =
                inUsd && spent == 0 ? (USD, 0, credited) : (COR, spent, inUsd ? 0 : credited);
            vm.expectRevert(
                abi.encodeWithSelector(ISessionPayment.SessionPayment_Unbalanced.selector, asset, wanted, given)
            );
        }
        vm.prank(address(queue));
        payment.pay(debits, credits);
        backed();
    }

    function test_pay_refuses_an_asset_that_is_none() public {
        Credit[] memory credits = new Credit[](1);
        credits[0] = Credit(miner, AssetId.wrap(2), 1);
        vm.prank(address(queue));
        (bool taken,) = address(payment).call(abi.encodeCall(payment.pay, (new Debit[](0), credits)));
        assertTrue(!taken, "no such asset");
    }

    /// Lanes, accounts and assets in one call come to the same as each by itself.
    function testFuzz_pay_many_equals_one_by_one(uint256 seed) public {
        vm.prank(address(session));
        payment.deposit(ID2, USD, client, 1000e6, new uint96[](0));
        Debit[] memory debits = new Debit[](12);
        Credit[] memory credits = new Credit[](24);
        uint256[3] memory cor;
        uint256[3] memory dollars;
        uint256[2] memory burnt;
        for (uint64 i; i < 12; ++i) {
            uint256 bits = uint256(keccak256(abi.encode(seed, i)));
            bool inUsd = bits % 2 == 0;
            uint256 who = (bits >> 8) % 3;
            uint96 share = uint96((bits >> 16) % 1e6);
            (SessionId id, AssetId asset) = inUsd ? (ID2, USD) : (ID, COR);
            Lane lane = inUsd || (bits >> 2) % 2 == 0 ? OWNER_LANE : ROUTER_LANE;
            debits[i] = Debit(id, lane, asset, TASK, share * 4, share * 2);
            credits[2 * i] = Credit(address(uint160(0xE0 + who)), asset, share);
            credits[2 * i + 1] = Credit(address(0), asset, share);
            (inUsd ? dollars : cor)[who] += share;
            burnt[inUsd ? 1 : 0] += share;
            vm.prank(address(queue));
            payment.hold(id, lane, i, share * 4);
        }
        uint256 supply = token.totalSupply();
        vm.prank(address(queue));
        payment.pay(debits, credits);
        for (uint160 who; who < 3; ++who) {
            assertEq(payment.balanceOf(address(0xE0 + who), COR), cor[who], "COR");
            assertEq(payment.balanceOf(address(0xE0 + who), USD), dollars[who], "dollars");
        }
        assertEq(supply - token.totalSupply(), burnt[0], "destroyed");
        assertEq(payment.balanceOf(address(0xdEaD), USD), burnt[1], "burnt dollars");
        assertEq(payment.fundsOf(ID2, OWNER_LANE).free, 1000e6 - 2 * burnt[1], "dollars left");
        uint256 left = uint256(payment.fundsOf(ID, OWNER_LANE).free) + payment.fundsOf(ID, ROUTER_LANE).free;
        assertEq(left, 200e18 - 2 * burnt[0], "COR left");
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
