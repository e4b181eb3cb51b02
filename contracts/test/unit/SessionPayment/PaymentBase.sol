// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionPayment} from "../../../src/SessionPayment.sol";
import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {AssetId, SessionId, TaskId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

/// Payment by itself: the tests speak for the three contracts that may move accounts.
abstract contract PaymentBase is Base {
    SessionId internal constant ID = SessionId.wrap(7);
    TaskId internal constant TASK = TaskId.wrap("task");

    /// Puts money into the two lanes of a session.
    function deposited(AssetId asset, uint96 owners, uint96 routers) internal {
        uint96[] memory allotments = new uint96[](1);
        allotments[0] = routers;
        vm.prank(address(session));
        payment.deposit(ID, asset, client, owners + routers, allotments);
    }

    function notProtocol(address caller) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(ISessionPayment.SessionPayment_NotProtocol.selector, caller);
    }

    function backed() internal view {
        assertEq(payment.totalAccounts(COR), token.balanceOf(address(payment)), "COR is backed");
        assertEq(payment.totalAccounts(USD), usd.balanceOf(address(payment)), "dollars are backed");
    }
}
