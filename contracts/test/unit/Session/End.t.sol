// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {ISession, SessionInfo, SessionState} from "../../../src/interfaces/ISession.sol";
import {Lane, NodeId, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

/// expire, close, finish.
contract SessionEndTest is Base {
    function setUp() public override {
        super.setUp();
        newNodes(3, 4);
    }

    // ---- expire

    /// [L3] [T2] [T6] Everything comes back, less one tip.
    function test_expire_refunds_at_its_exact_second() public {
        SessionId id = openSession(1, 1);
        uint40 until = session.sessionOf(id).drawUntil;
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_DrawNotExpired.selector, id, until));
        session.expire(id);
        vm.warp(until + 1);
        vm.prank(keeper);
        session.expire(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Closed), "closed");
        assertEq(info.endsAt, block.timestamp, "end");
        assertEq(info.drawRound, 0, "no draw waits");
        assertEq(payment.balanceOf(client, COR), DEPOSIT - TIP, "all lanes come back");
        assertEq(payment.balanceOf(keeper, COR), TIP, "tip");
        (uint40 next, uint40 head) = pool.ticketsOf(MODEL_INDEX);
        assertEq(next, head, "the ticket is through");
        assertEq(uint256(session.admissionOf(id, OWNER_LANE, 0).state), uint256(SessionState.Closed), "admission");
    }

    function test_expire_once_the_round_is_missed() public {
        SessionId id = openSession(1, 1);
        SessionInfo memory info = session.sessionOf(id);
        vm.roll(uint256(info.drawRound) + 256);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_DrawNotExpired.selector, id, info.drawUntil));
        session.expire(id);
        vm.roll(uint256(info.drawRound) + 257);
        session.expire(id);
        assertEq(uint256(session.sessionOf(id).state), uint256(SessionState.Closed), "closed");
    }

    function test_expire_frees_named_nodes() public {
        NodeId named = newDedicated(9, 1, client);
        SessionId id = openWith(termsNaming(only(named), 1, 1));
        skipTime(TIMEOUT + 1);
        session.expire(id);
        assertEq(pool.reservationsOf(named), 0, "free");
    }

    function test_expire_keeps_the_order_of_tickets() public {
        openSession(1, 1);
        SessionId id = openSession(1, 1);
        skipTime(TIMEOUT + 1);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_DrawNotNext.selector, MODEL_INDEX, 2, 1));
        session.expire(id);
        session.expire(SessionId.wrap(1));
        session.expire(id);
    }

    /// [L7] Nobody earns by asking for a rotation and letting it lapse.
    function test_lapsed_rotation_costs_nothing() public {
        SessionId id = activeSession(1, 1);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        uint96 before = payment.fundsOf(id, OWNER_LANE).free;
        skipTime(TIMEOUT + 1);
        vm.prank(keeper);
        session.expire(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Active), "active");
        assertEq(info.reservations, 1, "keeps its nodes");
        assertEq(info.drawRound, 0, "no draw waits");
        assertEq(payment.fundsOf(id, OWNER_LANE).free, before, "no tip out of it");
        assertEq(payment.balanceOf(keeper, COR), 0, "no tip");
        session.rotate(id, OWNER_LANE);
    }

    /// [L5] A node that wants to leave is not tied to a session for which the pool has no other.
    function test_lapsed_rotation_of_a_node_that_drains_ends_the_session() public {
        SessionId id = activeSession(1, 1);
        NodeId node = firstNode(id);
        address owner = pool.nodeOf(node).owner;
        vm.prank(owner);
        pool.drain(node);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        skipTime(TIMEOUT + 1);
        session.expire(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Draining), "draining");
        assertEq(info.endsAt, block.timestamp + NOTICE, "notice");
        skipTime(NOTICE + 1);
        session.finish(id);
        vm.prank(owner);
        pool.exit(node);
    }

    function test_expire_refusals() public {
        SessionId unknown = SessionId.wrap(1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, unknown));
        session.expire(unknown);
        SessionId id = activeSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NoDrawWaits.selector, id));
        session.expire(id);
        id = openSession(1, 1);
        skipTime(TIMEOUT + 1);
        session.expire(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Closed));
        session.expire(id);
    }

    // ---- close

    function test_close_gives_the_notice() public {
        SessionId id = activeSession(1, 1);
        vm.prank(client);
        session.close(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Draining), "draining");
        assertEq(info.endsAt, block.timestamp + NOTICE, "end");
        assertEq(session.admissionOf(id, ROUTER_LANE, 0).endsAt, info.endsAt, "requests must end before");
        assertTrue(session.admissionOf(id, ROUTER_LANE, 0).seedRound != 0, "still served");
    }

    /// Of two notices, the one that ends first counts.
    function test_close_after_a_lane_was_reclaimed() public {
        SessionId id = activeSession(1, 1);
        vm.startPrank(client);
        session.reclaimLane(id, ROUTER_LANE);
        vm.warp(block.timestamp + 10);
        session.close(id);
        vm.stopPrank();
        uint40 endsAt = session.sessionOf(id).endsAt;
        assertEq(session.admissionOf(id, ROUTER_LANE, 0).endsAt, endsAt - 10, "the lane's");
        assertEq(session.admissionOf(id, OWNER_LANE, 0).endsAt, endsAt, "the session's");
    }

    /// [T2] [T4] [D1] From each state that does not allow it.
    function test_close_refusals() public {
        SessionId id = openSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotOwner.selector, id, address(this)));
        session.close(id);
        vm.startPrank(client);
        // Whoever knows the seed may not take its draw back.
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Open));
        session.close(id);
        vm.stopPrank();
        drawNodes(id);
        vm.startPrank(client);
        session.close(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Draining));
        session.close(id);
        skipTime(NOTICE + 1);
        session.finish(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Closed));
        session.close(id);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, 9));
        session.close(SessionId.wrap(9));
    }

    // ---- finish

    /// [L4] [T2] [T6] The client's way out needs nobody.
    function test_finish_at_its_exact_second() public {
        SessionId id = activeSession(1, 1);
        NodeId node = firstNode(id);
        vm.prank(client);
        session.close(id);
        uint40 endsAt = session.sessionOf(id).endsAt;
        vm.warp(endsAt);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_StillDraining.selector, id, endsAt));
        session.finish(id);
        vm.warp(endsAt + 1);
        uint256 before = payment.fundsOf(id, OWNER_LANE).free;
        vm.prank(keeper);
        session.finish(id);
        assertEq(uint256(session.sessionOf(id).state), uint256(SessionState.Closed), "closed");
        assertEq(session.sessionOf(id).endsAt, endsAt, "end");
        assertEq(payment.balanceOf(client, COR), before + ALLOTMENT - TIP, "the rest of all lanes");
        assertEq(payment.balanceOf(keeper, COR), TIP, "tip");
        assertEq(pool.reservationsOf(node), 0, "the node is free");
    }

    function testFuzz_finish_waits_for_tasks_of_any_lane(bool ownersLane, uint96 amount) public {
        SessionId id = activeSession(1, 1);
        Lane lane = ownersLane ? OWNER_LANE : ROUTER_LANE;
        amount = uint96(bound(amount, 1, payment.fundsOf(id, lane).free));
        vm.prank(address(queue));
        payment.hold(id, lane, 0, amount);
        vm.prank(client);
        session.close(id);
        skipTime(NOTICE + 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_TasksOpen.selector, id, lane, amount));
        session.finish(id);
    }

    /// [D1] Closing does not take a draw back: it takes place, and its nodes are free at once.
    function test_draw_of_a_closed_session_takes_place_all_the_same() public {
        SessionId id = activeSession(1, 1);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        uint40 until = session.sessionOf(id).drawUntil;
        vm.prank(client);
        session.close(id);
        uint64 round = session.sessionOf(id).drawRound;
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RoundNotReady.selector, id, round));
        session.activate(id);
        reveal(round);
        uint256 balance = payment.balanceOf(keeper, COR);
        vm.prank(keeper);
        session.activate(id);
        assertEq(payment.balanceOf(keeper, COR), balance, "no tip");
        assertEq(session.sessionOf(id).reservations, 1, "no new reservation");
        assertEq(session.sessionOf(id).drawRound, 0, "no draw waits");
        (,, uint32 used) = pool.poolOf(MODEL_INDEX);
        assertEq(used, 1, "what it drew is free");
        assertTrue(block.timestamp <= until, "within its time");
        skipTime(NOTICE + 1);
        session.finish(id);
        (,, used) = pool.poolOf(MODEL_INDEX);
        assertEq(used, 0, "all is free");
    }

    function test_finish_waits_for_a_draw() public {
        SessionId id = activeSession(1, 1);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        uint40 until = session.sessionOf(id).drawUntil;
        vm.prank(client);
        session.close(id);
        skipTime(NOTICE + 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_DrawWaits.selector, id, until));
        session.finish(id);
        session.expire(id);
        session.finish(id);
    }

    /// [T2] [T4] From each state that does not allow it.
    function test_finish_refusals() public {
        SessionId id = openSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Open));
        session.finish(id);
        drawNodes(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Active));
        session.finish(id);
        vm.prank(client);
        session.close(id);
        skipTime(NOTICE + 1);
        session.finish(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Closed));
        session.finish(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, 9));
        session.finish(SessionId.wrap(9));
    }
}
