// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {OpenTerms, Permit} from "../../../src/interfaces/ISession.sol";
import {AssetId, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

contract SessionOpenWithPermitTest is Base {
    uint256 internal constant HOLDER_KEY = 0x401DE4;
    address internal holder = vm.addr(HOLDER_KEY);

    function setUp() public override {
        super.setUp();
        token.transfer(holder, DEPOSIT);
        usd.transfer(holder, USD_DEPOSIT);
    }

    function permitFor(ERC20Permit asset, uint256 amount, uint256 deadline) internal view returns (Permit memory) {
        bytes32 typeHash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 structHash =
            keccak256(abi.encode(typeHash, holder, address(payment), amount, asset.nonces(holder), deadline));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", asset.DOMAIN_SEPARATOR(), structHash));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(HOLDER_KEY, digest);
        return Permit(deadline, v, r, s);
    }

    function test_permit_pays_without_an_approval_in_each_asset() public {
        Permit memory permit = permitFor(token, DEPOSIT, block.timestamp);
        OpenTerms memory wanted = terms(1, 1);
        vm.prank(holder);
        SessionId id = session.openWithPermit(wanted, permit);
        assertEq(payment.fundsOf(id, OWNER_LANE).free, DEPOSIT - ALLOTMENT, "COR");
        permit = permitFor(usd, USD_DEPOSIT, block.timestamp);
        wanted = termsInUsd(1, 1);
        vm.prank(holder);
        id = session.openWithPermit(wanted, permit);
        assertEq(payment.fundsOf(id, OWNER_LANE).free, USD_DEPOSIT / 2, "dollars");
    }

    /// Who sees the permit may send it first: the opening does not fail by it.
    function test_permit_that_was_sent_before_still_opens() public {
        Permit memory permit = permitFor(token, DEPOSIT, block.timestamp);
        token.permit(holder, address(payment), DEPOSIT, permit.deadline, permit.v, permit.r, permit.s);
        OpenTerms memory wanted = terms(1, 1);
        vm.prank(holder);
        session.openWithPermit(wanted, permit);
        assertEq(session.sessionCount(), 1, "opened");
    }

    function test_expired_permit_is_refused() public {
        refused(permitFor(token, DEPOSIT, block.timestamp - 1));
    }

    function testFuzz_permit_for_less_is_refused(uint256 amount) public {
        refused(permitFor(token, bound(amount, 0, DEPOSIT - 1), block.timestamp));
    }

    function test_permit_of_another_is_refused() public {
        Permit memory permit = permitFor(token, DEPOSIT, block.timestamp);
        permit.s = bytes32(uint256(permit.s) ^ 1);
        refused(permit);
    }

    function refused(Permit memory permit) internal {
        OpenTerms memory wanted = terms(1, 1);
        vm.prank(holder);
        vm.expectRevert();
        session.openWithPermit(wanted, permit);
        assertEq(session.sessionCount(), 0, "nothing opened");
        assertEq(token.balanceOf(holder), DEPOSIT, "nothing paid");
    }

    function test_permit_of_an_unknown_asset_is_refused() public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.asset = AssetId.wrap(2);
        vm.expectRevert(abi.encodeWithSelector(ISessionPayment.SessionPayment_UnknownAsset.selector, 2));
        session.openWithPermit(wanted, Permit(0, 0, 0, 0));
    }
}
