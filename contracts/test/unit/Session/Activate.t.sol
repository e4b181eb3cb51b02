// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, NodeRegistration} from "../../../src/interfaces/INodePool.sol";
import {ISession, OpenTerms, SessionInfo, SessionState} from "../../../src/interfaces/ISession.sol";
import {NodeId, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

contract SessionActivateTest is Base {
    function test_activate_draws_and_pays_the_tip() public {
        newNodes(3, 1);
        SessionId id = openSession(2, 3);
        uint96 before = payment.fundsOf(id, OWNER_LANE).free;
        reveal(session.sessionOf(id).drawRound);
        vm.prank(keeper);
        session.activate(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Active), "active");
        assertTrue(info.current.nodes.length >= 2 && info.current.nodes.length <= 3, "count");
        assertEq(info.current.dedicated, 0, "none named");
        assertEq(info.current.seedRound, beacon.nextRound(), "a later round");
        assertEq(info.current.until, 0, "until it ends");
        assertEq(info.reservations, 1, "first");
        assertEq(info.rotatesAt, block.timestamp + RESERVE_PERIOD, "rotates");
        assertEq(info.drawRound, 0, "no draw waits");
        assertEq(info.drawTicket, 0, "no ticket");
        assertEq(info.drawUntil, 0, "no time limit");
        assertEq(payment.balanceOf(keeper, COR), TIP, "tip");
        assertEq(payment.fundsOf(id, OWNER_LANE).free, before - TIP, "out of lane 0");
    }

    function test_activate_joins_named_and_drawn_nodes() public {
        newNodes(2, 1);
        NodeId named = newDedicated(3, 1, client);
        SessionId id = activeWith(termsNaming(only(named), 1, 2));
        SessionInfo memory info = session.sessionOf(id);
        assertTrue(info.current.nodes.length >= 2, "both");
        assertEq(info.current.dedicated, 1, "one named");
        assertEq(NodeId.unwrap(info.current.nodes[0]), NodeId.unwrap(named), "named first");
        (uint256 nodes, uint8 dedicated) = session.nodesOf(id, 0);
        assertEq(uint32(nodes), NodeId.unwrap(named), "lowest 32 bits");
        assertEq(dedicated, 1, "one named");
    }

    /// [D3] Of one owner, a named node and a drawn one would be one party twice.
    function test_activate_never_draws_an_owner_who_is_named() public {
        newNodes(1, 1);
        NodeId named = register(1, dedicatedOf(1));
        SessionId id = openWith(termsNaming(only(named), 1, 1));
        drawNodes(id);
        assertEq(uint256(session.sessionOf(id).state), uint256(SessionState.Open), "found nobody else");
    }

    function dedicatedOf(uint256 i) internal view returns (NodeRegistration memory wanted) {
        wanted = registration(i, 1);
        wanted.operator = address(0x5EC0);
        wanted.dedicatedTo = client;
    }

    function test_activate_that_finds_too_few_enters_the_next_draw() public {
        newNodes(1, 1);
        SessionId id = openSession(2, 2);
        SessionInfo memory info = session.sessionOf(id);
        reveal(info.drawRound);
        vm.prank(keeper);
        session.activate(id);
        SessionInfo memory next = session.sessionOf(id);
        assertEq(uint256(next.state), uint256(SessionState.Open), "still open");
        assertEq(next.drawTicket, info.drawTicket + 1, "a new ticket");
        assertEq(next.drawRound, beacon.nextRound(), "a new round");
        assertEq(next.drawUntil, info.drawUntil, "the same time limit");
        assertEq(next.priceIn, info.priceIn, "the same price");
        assertEq(payment.balanceOf(keeper, COR), 0, "no tip");
        newNode(2, 8);
        newNode(3, 8);
        skipTime(ACTIVATION_DELAY + 1);
        // Nodes that came later are in a later draw.
        drawNodes(id);
        drawNodes(id);
        assertEq(uint256(session.sessionOf(id).state), uint256(SessionState.Active), "active");
    }

    /// [T6]
    function test_activate_at_its_exact_second() public {
        newNodes(2, 8);
        SessionId id = openSession(1, 1);
        SessionInfo memory info = session.sessionOf(id);
        reveal(info.drawRound);
        vm.warp(info.drawUntil + 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_DrawExpired.selector, id, info.drawUntil));
        session.activate(id);
        vm.warp(info.drawUntil);
        session.activate(id);
        assertEq(session.sessionOf(id).reservations, 1, "in time");
    }

    function test_activate_waits_for_the_round() public {
        newNodes(2, 8);
        SessionId id = openSession(1, 1);
        uint64 round = session.sessionOf(id).drawRound;
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RoundNotReady.selector, id, round));
        session.activate(id);
    }

    /// [D2]
    function test_activate_waits_for_earlier_tickets() public {
        newNodes(2, 8);
        openSession(1, 1);
        SessionId id = openSession(1, 1);
        reveal(session.sessionOf(id).drawRound);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_DrawNotNext.selector, MODEL_INDEX, 2, 1));
        session.activate(id);
    }

    function test_activate_refuses_wrong_states() public {
        newNodes(2, 8);
        SessionId unknown = SessionId.wrap(1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, unknown));
        session.activate(unknown);
        SessionId id = activeSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NoDrawWaits.selector, id));
        session.activate(id);
        vm.prank(client);
        session.close(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NoDrawWaits.selector, id));
        session.activate(id);
        skipTime(NOTICE + 1);
        session.finish(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Closed));
        session.activate(id);
    }

    /// As much as there is: an empty lane 0 does not stop a session.
    function test_activate_pays_what_lane_0_has() public {
        newNodes(2, 8);
        OpenTerms memory wanted = terms(1, 1);
        wanted.lanes[0].allotment = wanted.deposit - TIP / 2;
        SessionId id = openWith(wanted);
        reveal(session.sessionOf(id).drawRound);
        vm.prank(keeper);
        session.activate(id);
        assertEq(payment.balanceOf(keeper, COR), TIP / 2, "tip");
        assertEq(payment.fundsOf(id, OWNER_LANE).free, 0, "lane 0");
    }
}
