// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Session} from "../../src/Session.sol";
import {IModelRegistry} from "../../src/interfaces/IModelRegistry.sol";
import {INodePool, NodeState} from "../../src/interfaces/INodePool.sol";
import {ISession, LaneInfo, LaneTerms, OpenTerms, Permit, SessionInfo, SessionState} from "../../src/interfaces/ISession.sol";
import {TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {Lane, ModelId, NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

contract SessionTest is Base {
    function assertState(SessionId id, SessionState state) internal view {
        assertEq(uint8(session.sessionOf(id).state), uint8(state), "state");
    }

    function wrongState(SessionId id, SessionState state) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(ISession.Session_WrongState.selector, id, state);
    }

    function free(SessionId id) internal view returns (uint128 amount) {
        (amount,) = payment.sessionFunds(id);
    }

    function config() internal view returns (Session.Wiring memory) {
        return Session.Wiring(address(models), address(pool), address(queue), address(payment), address(beacon));
    }

    function test_constructor_checks() public {
        Session.Wiring memory wiring = config();
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_TimeoutTooLong.selector, REUSE_DELAY + 1, REUSE_DELAY));
        new Session(wiring, Session.Config(REUSE_DELAY + 1, NOTICE, 1));
        wiring.beacon = address(0);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_ZeroAddress.selector));
        new Session(wiring, Session.Config(TIMEOUT, NOTICE, 1));
    }

    function test_open_takes_the_deposit_and_tells() public {
        OpenTerms memory wanted = terms(1, 3);
        SessionId expected = SessionId.wrap(1);
        vm.expectEmit();
        emit ISession.SessionOpened(
            expected, client, MODEL, 1, 3, PRICE_IN, PRICE_OUT, DEPOSIT, uint64(block.number) + 1
        );
        vm.expectEmit();
        emit ISession.LaneAdded(expected, ROUTER_LANE, router, ALLOTMENT);
        vm.prank(client);
        SessionId id = session.open(wanted);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(info.owner, client, "owner");
        assertEq(info.minNodes, 1, "min");
        assertEq(info.maxNodes, 3, "max");
        assertEq(info.openedAt, block.timestamp, "opened");
        assertEq(info.endsAt, 0, "no end");
        assertEq(info.drawRound, block.number + 1, "draw round");
        assertEq(info.seedRound, 0, "no seed round");
        assertEq(ModelId.unwrap(info.modelId), ModelId.unwrap(MODEL), "model");
        assertEq(info.priceIn, PRICE_IN, "price in");
        assertEq(info.priceOut, PRICE_OUT, "price out");
        assertEq(info.nodes.length, 0, "no nodes");
        assertState(id, SessionState.Open);
        assertEq(free(id), DEPOSIT, "free");
        assertEq(session.sessionCount(), 1, "count");
        LaneInfo memory lane = session.laneOf(id, ROUTER_LANE);
        assertEq(lane.holder, router, "holder");
        assertEq(lane.allotment, ALLOTMENT, "allotment");
        assertEq(session.laneOf(id, OWNER_LANE).holder, client, "lane 0 is the owner's");
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownLane.selector, id, Lane.wrap(2)));
        session.laneOf(id, Lane.wrap(2));
        (uint96 priceIn, uint96 priceOut) = session.pricesOf(id);
        assertEq(priceIn + priceOut, PRICE_IN + PRICE_OUT, "prices");
    }

    function test_open_caps_an_allotment_at_96_bits() public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.lanes[0].allotment = type(uint128).max;
        vm.prank(client);
        SessionId id = session.open(wanted);
        assertEq(session.laneOf(id, ROUTER_LANE).allotment, type(uint96).max, "allotment");
    }

    function test_open_checks_its_terms() public {
        bytes4 nodes = ISession.Session_NodesOutOfBounds.selector;
        OpenTerms memory wanted = terms(0, 1);
        refused(wanted, abi.encodeWithSelector(nodes, 0, 1, 8));
        wanted = terms(3, 2);
        refused(wanted, abi.encodeWithSelector(nodes, 3, 2, 8));
        wanted = terms(1, 9);
        refused(wanted, abi.encodeWithSelector(nodes, 1, 9, 8));
        wanted = terms(1, 1);
        wanted.maxPriceIn = PRICE_IN - 1;
        refused(wanted, abi.encodeWithSelector(ISession.Session_PriceAboveCap.selector, PRICE_IN, PRICE_IN - 1));
        wanted = terms(1, 1);
        wanted.maxPriceOut = PRICE_OUT - 1;
        refused(wanted, abi.encodeWithSelector(ISession.Session_PriceAboveCap.selector, PRICE_OUT, PRICE_OUT - 1));
        wanted = terms(1, 1);
        wanted.deposit = 1e18 - 1;
        refused(wanted, abi.encodeWithSelector(ISession.Session_DepositTooSmall.selector, 1e18 - 1, 1e18));
        wanted = terms(1, 1);
        wanted.lanes = new LaneTerms[](9);
        refused(wanted, abi.encodeWithSelector(ISession.Session_TooManyLanes.selector, 9, 8));
        wanted.lanes = new LaneTerms[](2);
        wanted.lanes[0].holder = router;
        refused(wanted, abi.encodeWithSelector(ISession.Session_ZeroHolder.selector, 2));
        wanted = terms(1, 1);
        wanted.modelId = ModelId.wrap("nothing");
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, wanted.modelId));
    }

    function refused(OpenTerms memory wanted, bytes memory why) internal {
        vm.expectRevert(why);
        vm.prank(client);
        session.open(wanted);
    }

    function permitOf(uint256 key, uint256 value) internal view returns (Permit memory) {
        bytes32 typehash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        address owner = vm.addr(key);
        bytes32 hash = keccak256(
            abi.encode(typehash, owner, address(payment), value, token.nonces(owner), block.timestamp)
        );
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), hash)));
        return Permit(block.timestamp, v, r, s);
    }

    function test_open_with_permit_needs_no_approval() public {
        OpenTerms memory wanted = terms(1, 1);
        vm.prank(client);
        token.approve(address(payment), 0);
        Permit memory permit = permitOf(CLIENT_KEY, DEPOSIT);
        vm.prank(client);
        SessionId id = session.openWithPermit(wanted, permit);
        assertEq(free(id), DEPOSIT, "free");
        // A permit of somebody else is worth nothing: the transfer finds no allowance.
        permit = permitOf(ROUTER_KEY, DEPOSIT);
        vm.expectRevert();
        vm.prank(client);
        session.openWithPermit(wanted, permit);
    }

    function test_open_with_permit_that_was_sent_before() public {
        OpenTerms memory wanted = terms(1, 1);
        vm.prank(client);
        token.approve(address(payment), 0);
        Permit memory permit = permitOf(CLIENT_KEY, DEPOSIT);
        token.permit(client, address(payment), DEPOSIT, permit.deadline, permit.v, permit.r, permit.s);
        vm.prank(client);
        session.openWithPermit(wanted, permit);
    }

    function test_top_up_by_anybody_until_the_end() public {
        SessionId id = openSession(1, 1);
        fund(router, 5e18);
        vm.expectEmit();
        emit ISession.SessionToppedUp(id, router, 5e18);
        vm.prank(router);
        session.topUp(id, 5e18);
        assertEq(free(id), DEPOSIT + 5e18, "free");
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_ZeroAmount.selector));
        session.topUp(id, 0);
        vm.prank(client);
        session.close(id);
        vm.expectRevert(wrongState(id, SessionState.Closed));
        session.topUp(id, 1);
        SessionId unknown = SessionId.wrap(9);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, unknown));
        session.topUp(unknown, 1);
    }

    function test_activate_draws_nodes_and_names_the_seeds_round() public {
        newNodes(3, 1);
        SessionId id = openSession(2, 3);
        uint64 round = session.sessionOf(id).drawRound;
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RoundNotReady.selector, id, round));
        session.activate(id);
        reveal(round);
        session.activate(id);
        SessionInfo memory info = session.sessionOf(id);
        assertState(id, SessionState.Active);
        assertEq(info.nodes.length, 3, "nodes");
        assertEq(info.seedRound, block.number + 1, "seed round");
        assertEq(session.seedOf(id), bytes32(0), "seed unknown");
        reveal(info.seedRound);
        assertEq(session.seedOf(id), beacon.valueOf(info.seedRound), "seed");
        assertEq(session.admissionOf(id, ROUTER_LANE).seed, beacon.valueOf(info.seedRound), "seed");
        vm.expectRevert(wrongState(id, SessionState.Active));
        session.activate(id);
    }

    function test_activate_without_enough_nodes_can_be_tried_again() public {
        newNodes(2, 1);
        SessionId first = openSession(1, 2);
        uint64 round = session.sessionOf(first).drawRound;
        reveal(round);
        session.activate(first);
        // One block later the same two nodes are wanted again.
        nextBlock();
        SessionId second = openSession(2, 2);
        reveal(session.sessionOf(second).drawRound);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NoEligible.selector, MODEL, 0, 2));
        session.activate(second);
        assertState(second, SessionState.Open);
        // The first loses its seed and ends: its nodes are free.
        vm.roll(session.sessionOf(first).seedRound + 257);
        session.expire(first);
        session.activate(second);
        assertState(second, SessionState.Active);
    }

    function test_activate_after_the_timeout_is_refused_and_expire_refunds() public {
        newNodes(1, 1);
        SessionId id = openSession(1, 1);
        reveal(session.sessionOf(id).drawRound);
        uint40 expiresAt = session.sessionOf(id).openedAt + TIMEOUT;
        vm.warp(expiresAt);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotExpired.selector, id, expiresAt));
        session.expire(id);
        vm.warp(expiresAt + 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_Expired.selector, id, expiresAt));
        session.activate(id);
        vm.expectEmit();
        emit ISession.SessionClosed(id, DEPOSIT);
        vm.prank(keeper);
        session.expire(id);
        assertState(id, SessionState.Closed);
        assertEq(payment.balanceOf(client), DEPOSIT, "refund");
        vm.expectRevert(wrongState(id, SessionState.Closed));
        session.expire(id);
    }

    function test_expire_once_the_draw_round_is_missed() public {
        SessionId id = openSession(1, 1);
        vm.roll(session.sessionOf(id).drawRound + 257);
        session.expire(id);
        assertEq(payment.balanceOf(client), DEPOSIT, "refund");
    }

    function test_expire_of_a_living_session_is_refused() public {
        newNodes(1, 1);
        SessionId id = activeSession(1, 1);
        vm.expectRevert(wrongState(id, SessionState.Active));
        session.expire(id);
    }

    function test_session_without_a_seed_closes_at_once() public {
        newNodes(1, 1);
        SessionId id = openSession(1, 1);
        reveal(session.sessionOf(id).drawRound);
        session.activate(id);
        vm.roll(session.sessionOf(id).seedRound + 257);
        vm.prank(client);
        session.close(id);
        assertState(id, SessionState.Closed);
        assertEq(payment.balanceOf(client), DEPOSIT, "refund");
        assertEq(uint8(pool.nodeOf(NodeId.wrap(1)).state), uint8(NodeState.Ephemeral), "node is free");
    }

    function test_close_of_an_open_session_returns_everything() public {
        SessionId id = openSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_NotOwner.selector, id, address(this)));
        session.close(id);
        vm.prank(client);
        session.close(id);
        assertState(id, SessionState.Closed);
        assertEq(payment.balanceOf(client), DEPOSIT, "refund");
        vm.prank(client);
        vm.expectRevert(wrongState(id, SessionState.Closed));
        session.close(id);
    }

    function test_close_drains_and_finish_frees_nodes_and_money() public {
        newNodes(2, 1);
        SessionId id = activeSession(2, 2);
        vm.expectRevert(wrongState(id, SessionState.Active));
        session.finish(id);
        uint40 endsAt = uint40(block.timestamp) + NOTICE;
        vm.expectEmit();
        emit ISession.SessionDraining(id, endsAt);
        vm.prank(client);
        session.close(id);
        assertState(id, SessionState.Draining);
        assertEq(session.sessionOf(id).endsAt, endsAt, "ends at");
        vm.prank(client);
        vm.expectRevert(wrongState(id, SessionState.Draining));
        session.close(id);
        vm.warp(endsAt);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_StillDraining.selector, id, endsAt));
        session.finish(id);
        vm.warp(endsAt + 1);
        vm.prank(keeper);
        session.finish(id);
        assertState(id, SessionState.Closed);
        assertEq(session.sessionOf(id).endsAt, endsAt + 1, "ended at");
        assertEq(payment.balanceOf(client), DEPOSIT, "rest");
        assertEq(uint8(pool.nodeOf(NodeId.wrap(1)).state), uint8(NodeState.Ephemeral), "node 1 is free");
        assertEq(uint8(pool.nodeOf(NodeId.wrap(2)).state), uint8(NodeState.Ephemeral), "node 2 is free");
    }

    function test_finish_waits_for_the_last_task() public {
        newNodes(1, 1);
        SessionId id = activeSession(1, 1);
        TaskRequest memory wanted = request(id, ROUTER_LANE, 0, NodeId.wrap(0));
        vm.prank(router);
        TaskId taskId = queue.submit(wanted);
        vm.prank(client);
        session.close(id);
        skipTime(NOTICE + 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_TasksOpen.selector, id, fee(100, 200)));
        session.finish(id);
        queue.advance(taskId);
        session.finish(id);
        assertEq(payment.balanceOf(client), DEPOSIT - TIP, "rest");
    }

    function test_lanes_are_used_by_the_queue_alone() public {
        SessionId id = openSession(1, 1);
        bytes memory refused_ = abi.encodeWithSelector(ISession.Session_NotQueue.selector, address(this));
        vm.expectRevert(refused_);
        session.useLane(id, ROUTER_LANE, 0, 1);
        vm.expectRevert(refused_);
        session.restoreLane(id, ROUTER_LANE, 1);
        vm.startPrank(address(queue));
        session.useLane(id, ROUTER_LANE, 5, ALLOTMENT - 10);
        vm.expectRevert(
            abi.encodeWithSelector(ISession.Session_AllotmentExceeded.selector, id, ROUTER_LANE, 11, 10)
        );
        session.useLane(id, ROUTER_LANE, 6, 11);
        session.restoreLane(id, ROUTER_LANE, 1);
        session.useLane(id, ROUTER_LANE, 3, 11);
        LaneInfo memory lane = session.laneOf(id, ROUTER_LANE);
        assertEq(lane.used, ALLOTMENT, "used");
        assertEq(lane.nextNonce, 6, "a smaller nonce changes nothing");
        // The owner's lane is bounded by the deposit alone.
        session.useLane(id, OWNER_LANE, 0, type(uint128).max);
        vm.stopPrank();
    }
}
