// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {SessionPayment} from "../../../src/SessionPayment.sol";
import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {AssetId} from "../../../src/types/Ids.sol";
import {FeeToken, GreedyToken, LyingToken, RefusingToken, ReentrantToken, SilentToken} from "../../mocks/BadTokens.sol";
import {PaymentBase} from "./PaymentBase.sol";

/// [M9] Tokens that do not do what they are asked to; and the list of assets. The test is the session, the queue and the
/// pool of its own `SessionPayment`.
contract PaymentTokensTest is PaymentBase {
    AssetId internal constant OTHER = AssetId.wrap(1);
    SessionPayment internal bank;

    function bankWith(address other) internal {
        address[] memory list = new address[](2);
        (list[0], list[1]) = (address(token), other);
        bank =
            new SessionPayment(SessionPayment.Wiring(address(this), address(this), address(this), address(this)), list);
    }

    function deposit(uint96 amount) internal {
        bank.deposit(ID, OTHER, address(this), amount, new uint96[](0));
    }

    function mismatch(uint256 expected, uint256 moved) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(ISessionPayment.SessionPayment_TransferMismatch.selector, expected, moved);
    }

    function test_token_that_takes_a_fee_is_refused() public {
        FeeToken bad = new FeeToken(address(this));
        bankWith(address(bad));
        bad.approve(address(bank), type(uint256).max);
        vm.expectRevert(mismatch(1000, 990));
        this.depositFromOutside(1000);
    }

    function test_token_that_takes_more_than_it_is_asked_for_is_refused() public {
        GreedyToken bad = new GreedyToken(address(this));
        bankWith(address(bad));
        bad.approve(address(bank), type(uint256).max);
        deposit(2000);
        bank.returnRest(ID, OTHER, 1, address(this));
        vm.expectRevert(mismatch(1000, 1010));
        bank.withdraw(OTHER, keeper, 1000);
    }

    function test_token_that_lies_is_refused() public {
        bankWith(address(new LyingToken(address(this))));
        vm.expectRevert(mismatch(1000, 0));
        this.depositFromOutside(1000);
    }

    function test_token_that_says_no_is_refused() public {
        address bad = address(new RefusingToken(address(this)));
        bankWith(bad);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, bad));
        this.depositFromOutside(1000);
    }

    function test_address_without_code_is_refused() public {
        bankWith(address(0xE0A));
        vm.expectRevert();
        this.depositFromOutside(1000);
    }

    /// Old stablecoins: nothing returned is not a refusal.
    function test_token_that_returns_nothing_is_taken() public {
        SilentToken other = new SilentToken(address(this));
        bankWith(address(other));
        deposit(1000);
        bank.returnRest(ID, OTHER, 1, address(this));
        bank.withdraw(OTHER, keeper, 400);
        assertEq(other.balanceOf(keeper), 400, "withdrawn");
        assertEq(bank.totalAccounts(OTHER), other.balanceOf(address(bank)), "backed");
    }

    function test_token_that_reenters_with_a_second_deposit_is_refused() public {
        ReentrantToken bad = reentrant();
        // As by `Session.topUp`, which anyone may call.
        bad.attack(address(this), abi.encodeCall(this.depositFromOutside, (500)));
        vm.expectRevert(mismatch(1000, 1500));
        this.depositFromOutside(1000);
    }

    /// What is credited before the transfer cannot be taken out within it.
    function test_token_that_reenters_with_a_withdrawal_is_refused() public {
        ReentrantToken bad = reentrant();
        deposit(700);
        bank.returnRest(ID, OTHER, 1, address(bad));
        bad.attack(address(bank), abi.encodeCall(ISessionPayment.withdraw, (OTHER, keeper, 700)));
        vm.expectRevert(mismatch(1000, 300));
        this.depositFromOutside(1000);
    }

    function test_token_that_reenters_while_it_is_withdrawn_is_refused() public {
        ReentrantToken bad = reentrant();
        deposit(1000);
        bank.returnRest(ID, OTHER, 1, address(bad));
        bad.attack(address(bank), abi.encodeCall(ISessionPayment.withdraw, (OTHER, keeper, 300)));
        vm.prank(address(bad));
        vm.expectRevert(mismatch(700, 1000));
        bank.withdraw(OTHER, keeper, 700);
    }

    function reentrant() internal returns (ReentrantToken bad) {
        bad = new ReentrantToken(address(this));
        bankWith(address(bad));
        bad.approve(address(bank), type(uint256).max);
    }

    /// For `expectRevert`, which looks at the next call.
    function depositFromOutside(uint96 amount) external {
        deposit(amount);
    }

    // ---- the list of assets

    function test_assets_are_told() public view {
        assertEq(payment.assetCount(), 2, "count");
        assertEq(payment.tokenOf(COR), address(token), "COR");
        assertEq(payment.tokenOf(USD), address(usd), "dollars");
        assertEq(payment.session(), address(session), "session");
        assertEq(payment.queue(), address(queue), "queue");
        assertEq(payment.pool(), address(pool), "pool");
    }

    function testFuzz_list_of_any_length(uint8 length) public {
        length = uint8(bound(length, 0, 10));
        address[] memory list = new address[](length);
        for (uint160 i; i < length; ++i) {
            list[i] = address(0x100 + i);
        }
        SessionPayment.Wiring memory wiring = SessionPayment.Wiring(address(1), address(4), address(2), address(3));
        if (length == 0 || length > 8) {
            vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_AssetCount.selector, length, 8));
            new SessionPayment(wiring, list);
            return;
        }
        bank = new SessionPayment(wiring, list);
        assertEq(bank.assetCount(), length, "count");
        for (uint8 i; i < length; ++i) {
            assertEq(bank.tokenOf(AssetId.wrap(i)), list[i], "token");
        }
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_UnknownAsset.selector, length));
        bank.tokenOf(AssetId.wrap(length));
    }

    function test_constructor_refusals() public {
        address[] memory list = assets();
        bytes memory zero = abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAddress.selector);
        vm.expectRevert(zero);
        new SessionPayment(SessionPayment.Wiring(address(0), address(4), address(2), address(3)), list);
        vm.expectRevert(zero);
        new SessionPayment(SessionPayment.Wiring(address(1), address(4), address(0), address(3)), list);
        vm.expectRevert(zero);
        new SessionPayment(SessionPayment.Wiring(address(1), address(4), address(2), address(0)), list);
        vm.expectRevert(zero);
        new SessionPayment(SessionPayment.Wiring(address(1), address(0), address(2), address(3)), list);
        list[1] = address(0);
        vm.expectRevert(zero);
        new SessionPayment(SessionPayment.Wiring(address(1), address(4), address(2), address(3)), list);
        list[1] = list[0];
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_AssetTwice.selector, list[0]));
        new SessionPayment(SessionPayment.Wiring(address(1), address(4), address(2), address(3)), list);
    }
}
