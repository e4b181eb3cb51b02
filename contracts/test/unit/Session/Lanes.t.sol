// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISession, LaneTerms, SessionState} from "../../../src/interfaces/ISession.sol";
import {ISessionPayment, LaneFunds} from "../../../src/interfaces/ISessionPayment.sol";
import {Lane, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

/// topUp, addLane, reclaimLane, finishReclaim.
contract SessionLanesTest is Base {
    SessionId internal id;
    Lane internal constant UNKNOWN = Lane.wrap(2);
    SessionId internal constant NOBODYS = SessionId.wrap(9);

    function setUp() public override {
        super.setUp();
        newNodes(2, 8);
        id = activeSession(1, 1);
    }

    function held(uint64 nonce, uint96 amount) internal {
        vm.prank(address(queue));
        payment.hold(id, ROUTER_LANE, nonce, amount);
    }

    function expired() internal returns (SessionId closed) {
        closed = openSession(8, 8);
        skipTime(TIMEOUT + 1);
        session.expire(closed);
    }

    // ---- topUp

    function testFuzz_top_up_by_anyone(uint96 amount, bool ownersLane) public {
        amount = uint96(bound(amount, 1, 1_000_000e18));
        Lane lane = ownersLane ? OWNER_LANE : ROUTER_LANE;
        uint96 before = payment.fundsOf(id, lane).free;
        fund(keeper, amount);
        vm.prank(keeper);
        session.topUp(id, lane, amount);
        assertEq(payment.fundsOf(id, lane).free, before + amount, "free");
        assertEq(token.balanceOf(keeper), 0, "paid");
    }

    function test_top_up_refusals() public {
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_ZeroAmount.selector));
        session.topUp(id, OWNER_LANE, 0);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownLane.selector, id, UNKNOWN));
        session.topUp(id, UNKNOWN, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, NOBODYS));
        session.topUp(NOBODYS, OWNER_LANE, 1);
        session.reclaimLane(id, ROUTER_LANE);
        uint40 reclaimAt = session.laneOf(id, ROUTER_LANE).reclaimAt;
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_LaneReclaimed.selector, id, ROUTER_LANE, reclaimAt));
        session.topUp(id, ROUTER_LANE, 1);
        vm.stopPrank();
        SessionId closed = expired();
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, closed, SessionState.Closed));
        session.topUp(closed, OWNER_LANE, 1);
    }

    // ---- addLane

    function testFuzz_add_lane_moves_out_of_lane_0(uint96 allotment) public {
        uint96 before = payment.fundsOf(id, OWNER_LANE).free;
        allotment = uint96(bound(allotment, 0, before));
        vm.prank(client);
        Lane lane = session.addLane(id, LaneTerms(keeper, allotment));
        assertEq(Lane.unwrap(lane), 2, "next lane");
        assertEq(session.laneOf(id, lane).holder, keeper, "holder");
        assertEq(payment.fundsOf(id, lane).free, allotment, "allotment");
        assertEq(payment.fundsOf(id, OWNER_LANE).free, before - allotment, "out of lane 0");
        assertEq(session.laneCount(id), 3, "lanes");
    }

    function test_add_lane_up_to_eight() public {
        vm.startPrank(client);
        for (uint256 i; i < 7; ++i) {
            session.addLane(id, LaneTerms(keeper, 0));
        }
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_TooManyLanes.selector, 9, 8));
        session.addLane(id, LaneTerms(keeper, 0));
    }

    function test_add_lane_refusals() public {
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotOwner.selector, id, address(this)));
        session.addLane(id, LaneTerms(keeper, 0));
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, NOBODYS));
        session.addLane(NOBODYS, LaneTerms(keeper, 0));
        uint96 free = payment.fundsOf(id, OWNER_LANE).free;
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_ZeroHolder.selector, 2));
        session.addLane(id, LaneTerms(address(0), 0));
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_InsufficientDeposit.selector, id, OWNER_LANE, free + 1, free
            )
        );
        session.addLane(id, LaneTerms(keeper, free + 1));
        session.close(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Draining));
        session.addLane(id, LaneTerms(keeper, 0));
        vm.stopPrank();
        SessionId closed = expired();
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, closed, SessionState.Closed));
        session.addLane(closed, LaneTerms(keeper, 0));
    }

    // ---- reclaimLane, finishReclaim

    function test_reclaim_gives_the_notice() public {
        vm.prank(client);
        session.reclaimLane(id, ROUTER_LANE);
        uint40 reclaimAt = session.laneOf(id, ROUTER_LANE).reclaimAt;
        assertEq(reclaimAt, block.timestamp + NOTICE, "notice");
        assertEq(session.admissionOf(id, ROUTER_LANE, 0).endsAt, reclaimAt, "requests must end before");
        assertEq(session.admissionOf(id, OWNER_LANE, 0).endsAt, 0, "the owner's lane is open");
        assertEq(payment.fundsOf(id, ROUTER_LANE).free, ALLOTMENT, "the router still has it");
    }

    function test_reclaim_refusals() public {
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotOwner.selector, id, address(this)));
        session.reclaimLane(id, ROUTER_LANE);
        vm.startPrank(client);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownLane.selector, id, UNKNOWN));
        session.reclaimLane(id, UNKNOWN);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotReclaimable.selector, id, OWNER_LANE, 0));
        session.reclaimLane(id, OWNER_LANE);
        session.reclaimLane(id, ROUTER_LANE);
        uint40 reclaimAt = session.laneOf(id, ROUTER_LANE).reclaimAt;
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_LaneReclaimed.selector, id, ROUTER_LANE, reclaimAt));
        session.reclaimLane(id, ROUTER_LANE);
        vm.stopPrank();
        SessionId closed = expired();
        vm.prank(client);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, closed, SessionState.Closed));
        session.reclaimLane(closed, ROUTER_LANE);
    }

    /// At the last second of the notice it is too early, at the next anyone may.
    function test_finish_reclaim_at_its_exact_second() public {
        vm.prank(client);
        session.reclaimLane(id, ROUTER_LANE);
        uint40 reclaimAt = session.laneOf(id, ROUTER_LANE).reclaimAt;
        vm.warp(reclaimAt);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotReclaimable.selector, id, ROUTER_LANE, reclaimAt));
        session.finishReclaim(id, ROUTER_LANE);
        vm.warp(reclaimAt + 1);
        LaneFunds memory before = payment.fundsOf(id, OWNER_LANE);
        session.finishReclaim(id, ROUTER_LANE);
        assertEq(payment.fundsOf(id, OWNER_LANE).free, before.free + ALLOTMENT, "back in lane 0");
        assertEq(payment.fundsOf(id, ROUTER_LANE).free, 0, "nothing left");
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_ZeroAmount.selector));
        session.finishReclaim(id, ROUTER_LANE);
    }

    function test_finish_reclaim_waits_for_tasks() public {
        held(0, 1e18);
        vm.prank(client);
        session.reclaimLane(id, ROUTER_LANE);
        skipTime(NOTICE + 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_TasksOpen.selector, id, ROUTER_LANE, 1e18));
        session.finishReclaim(id, ROUTER_LANE);
    }

    function test_finish_reclaim_refusals() public {
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotReclaimable.selector, id, ROUTER_LANE, 0));
        session.finishReclaim(id, ROUTER_LANE);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotReclaimable.selector, id, OWNER_LANE, 0));
        session.finishReclaim(id, OWNER_LANE);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownLane.selector, id, UNKNOWN));
        session.finishReclaim(id, UNKNOWN);
        SessionId closed = expired();
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, closed, SessionState.Closed));
        session.finishReclaim(closed, ROUTER_LANE);
    }
}
