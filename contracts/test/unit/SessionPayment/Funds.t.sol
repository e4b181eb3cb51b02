// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionPayment} from "../../../src/SessionPayment.sol";
import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {AssetId} from "../../../src/types/Ids.sol";
import {UsdToken} from "../../mocks/UsdToken.sol";
import {PaymentBase} from "./PaymentBase.sol";

/// deposit, topUp, move, payTip, returnRest.
contract PaymentFundsTest is PaymentBase {
    // ---- deposit

    function testFuzz_deposit_gives_allotments_and_lane_0_the_rest(bool inUsd, uint96 owners, uint96 routers) public {
        AssetId asset = inUsd ? USD : COR;
        uint256 most = inUsd ? 5_000e6 : 5_000e18;
        owners = uint96(bound(owners, 0, most));
        routers = uint96(bound(routers, owners == 0 ? 1 : 0, most));
        deposited(asset, owners, routers);
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, owners, "lane 0");
        assertEq(payment.fundsOf(ID, ROUTER_LANE).free, routers, "lane 1");
        assertEq(payment.totalAccounts(asset), uint256(owners) + routers, "total");
        backed();
    }

    function test_deposit_refusals() public {
        uint96[] memory allotments = new uint96[](2);
        (allotments[0], allotments[1]) = (3, 8);
        vm.expectRevert(notProtocol(address(this)));
        payment.deposit(ID, COR, client, 10, allotments);
        vm.startPrank(address(session));
        vm.expectRevert(
            abi.encodeWithSelector(ISessionPayment.SessionPayment_InsufficientDeposit.selector, ID, 2, 8, 7)
        );
        payment.deposit(ID, COR, client, 10, allotments);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_UnknownAsset.selector, 2));
        payment.deposit(ID, AssetId.wrap(2), client, 11, allotments);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        payment.deposit(ID, COR, client, 0, new uint96[](0));
    }

    // ---- topUp

    function testFuzz_top_up_adds_to_one_lane(uint96 amount) public {
        amount = uint96(bound(amount, 1, 10_000e18));
        vm.prank(address(session));
        payment.topUp(ID, ROUTER_LANE, COR, client, amount);
        assertEq(payment.fundsOf(ID, ROUTER_LANE).free, amount, "free");
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, 0, "the other lane");
        backed();
    }

    function test_top_up_refusals() public {
        vm.expectRevert(notProtocol(address(this)));
        payment.topUp(ID, OWNER_LANE, COR, client, 1);
        vm.startPrank(address(session));
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_ZeroAmount.selector));
        payment.topUp(ID, OWNER_LANE, COR, client, 0);
    }

    /// What is free and held together stays within its 96 bits, whatever the token's supply is.
    function test_no_lane_overflows() public {
        usd = new UsdToken(address(this), type(uint256).max / 2);
        payment = new SessionPayment(
            SessionPayment.Wiring({
                pool: address(pool), proof: address(proof), queue: address(queue), session: address(session)
            }),
            assets()
        );
        fundUsd(client, type(uint256).max / 4);
        uint96 most = type(uint96).max;
        vm.prank(address(session));
        payment.topUp(ID, OWNER_LANE, USD, client, most);
        vm.prank(address(queue));
        payment.hold(ID, OWNER_LANE, 0, most);
        vm.prank(address(session));
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_AmountTooLarge.selector, uint256(most) + 1, uint256(most)
            )
        );
        payment.topUp(ID, OWNER_LANE, USD, client, 1);
        vm.prank(address(queue));
        payment.refund(ID, OWNER_LANE, USD, TASK, most, keeper, 0);
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, most, "the largest value");
        backed();
    }

    // ---- move

    function testFuzz_move_takes_only_what_is_free(uint96 free, uint96 amount) public {
        free = uint96(bound(free, 1, 10_000e18));
        deposited(COR, free, 0);
        bool enough = amount <= free;
        if (!enough) {
            vm.expectRevert(
                abi.encodeWithSelector(
                    ISessionPayment.SessionPayment_InsufficientDeposit.selector, ID, OWNER_LANE, amount, free
                )
            );
        }
        vm.prank(address(session));
        payment.move(ID, OWNER_LANE, ROUTER_LANE, amount);
        assertEq(payment.fundsOf(ID, ROUTER_LANE).free, enough ? amount : 0, "to");
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, enough ? free - amount : free, "from");
        backed();
    }

    function test_move_to_itself_changes_nothing() public {
        deposited(COR, 10, 0);
        vm.prank(address(session));
        payment.move(ID, OWNER_LANE, OWNER_LANE, 10);
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, 10, "free");
        backed();
    }

    function test_move_and_tip_and_return_only_by_the_session() public {
        vm.expectRevert(notProtocol(address(this)));
        payment.move(ID, OWNER_LANE, ROUTER_LANE, 1);
        vm.expectRevert(notProtocol(address(this)));
        payment.payTip(ID, COR, keeper, 1);
        vm.expectRevert(notProtocol(address(this)));
        payment.returnRest(ID, COR, 1, client);
    }

    // ---- payTip

    function testFuzz_tip_is_at_most_what_is_free(uint96 free, uint96 tip) public {
        free = uint96(bound(free, 0, 10_000e18 - 1));
        deposited(COR, free, 1);
        vm.prank(address(session));
        uint96 paid = payment.payTip(ID, COR, keeper, tip);
        assertEq(paid, tip < free ? tip : free, "paid");
        assertEq(payment.balanceOf(keeper, COR), paid, "keeper");
        assertEq(payment.fundsOf(ID, OWNER_LANE).free, free - paid, "lane 0");
        assertEq(payment.fundsOf(ID, ROUTER_LANE).free, 1, "other lanes pay nothing");
        backed();
    }

    // ---- returnRest

    function testFuzz_rest_of_all_lanes_is_the_owners(bool inUsd, uint96 owners, uint96 routers) public {
        AssetId asset = inUsd ? USD : COR;
        owners = uint96(bound(owners, 1, 5_000e6));
        routers = uint96(bound(routers, 0, 5_000e6));
        deposited(asset, owners, routers);
        vm.prank(address(session));
        uint256 returned = payment.returnRest(ID, asset, 2, client);
        assertEq(returned, uint256(owners) + routers, "returned");
        assertEq(payment.balanceOf(client, asset), returned, "balance");
        assertEq(payment.balanceOf(client, inUsd ? COR : USD), 0, "of this asset alone");
        vm.prank(address(session));
        assertEq(payment.returnRest(ID, asset, 2, client), 0, "once");
        backed();
    }
}
