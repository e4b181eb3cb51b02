// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration} from "../../../src/interfaces/INodePool.sol";
import {ISession, OpenTerms, SessionInfo, SessionState} from "../../../src/interfaces/ISession.sol";
import {Lane, NodeId, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

contract SessionRotateTest is Base {
    uint256 internal constant GRACE = uint256(MAX_DEADLINE) + uint256(MAX_ATTEMPTS) * ATTEMPT_TIME + REVEAL_TIME;

    function setUp() public override {
        super.setUp();
        newNodes(6, 4);
    }

    /// Makes the lane's next nonce `next`, in steps that the window allows.
    function useNonces(SessionId id, Lane lane, uint64 next) internal {
        for (uint64 nonce = payment.fundsOf(id, lane).nextNonce; nonce < next; ++nonce) {
            vm.prank(address(queue));
            payment.hold(id, lane, nonce, 0);
        }
    }

    function test_rotation_by_period_at_its_exact_second() public {
        SessionId id = activeSession(2, 2);
        SessionInfo memory info = session.sessionOf(id);
        vm.warp(info.rotatesAt - 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RotationNotDue.selector, id, info.rotatesAt, 0));
        session.rotate(id, OWNER_LANE);
        vm.warp(info.rotatesAt);
        session.rotate(id, OWNER_LANE);
        SessionInfo memory asked = session.sessionOf(id);
        assertEq(uint256(asked.state), uint256(SessionState.Active), "still active");
        assertEq(asked.drawRound, beacon.nextRound(), "round");
        assertEq(asked.drawUntil, block.timestamp + TIMEOUT, "time limit");
        assertEq(asked.current.seedRound, info.current.seedRound, "the old nodes still serve");
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_DrawWaits.selector, id, asked.drawUntil));
        session.rotate(id, OWNER_LANE);

        vm.roll(asked.drawRound + 1);
        beacon.reveal(asked.drawRound, "");
        vm.prank(keeper);
        session.activate(id);
        SessionInfo memory next = session.sessionOf(id);
        assertEq(next.reservations, 2, "second");
        assertEq(next.priceIn, info.priceIn, "the price of the opening");
        assertEq(session.admissionOf(id, OWNER_LANE, 0).priceIn, info.priceIn, "what tasks pay");
        assertEq(next.current.seedRound, beacon.nextRound(), "new seed");
        assertEq(next.previous.seedRound, info.current.seedRound, "previous");
        assertEq(next.previous.until, block.timestamp + GRACE, "answers what was signed for it");
        assertEq(next.previous.nodes.length, info.current.nodes.length, "its nodes");
        assertEq(next.rotatesAt, block.timestamp + RESERVE_PERIOD, "again");
        assertEq(payment.balanceOf(keeper, COR), TIP, "tip");
        uint256 reserved;
        for (uint32 i = 1; i <= 6; ++i) {
            reserved += pool.reservationsOf(NodeId.wrap(i));
        }
        assertEq(reserved, next.current.nodes.length, "the old ones are free");
    }

    /// A request names its reservation by the seed round, for as long as the old one answers.
    function test_previous_reservation_serves_until_its_exact_second() public {
        SessionId id = rotated();
        SessionInfo memory info = session.sessionOf(id);
        uint64 old = info.previous.seedRound;
        vm.warp(info.previous.until);
        assertEq(session.admissionOf(id, OWNER_LANE, old).seedRound, old, "served");
        (uint256 nodes,) = session.nodesOf(id, old);
        assertEq(uint32(nodes), NodeId.unwrap(info.previous.nodes[0]), "its nodes");
        vm.warp(info.previous.until + 1);
        assertEq(session.admissionOf(id, OWNER_LANE, old).seedRound, 0, "no longer");
        (nodes,) = session.nodesOf(id, old);
        assertEq(nodes, 0, "no nodes");
        uint64 current = info.current.seedRound;
        assertEq(session.admissionOf(id, OWNER_LANE, current).seedRound, current, "by name");
        assertEq(session.admissionOf(id, OWNER_LANE, 0).seedRound, current, "by default");
        assertEq(session.admissionOf(id, OWNER_LANE, current + 1).seedRound, 0, "no such reservation");
    }

    function rotated() internal returns (SessionId id) {
        id = activeSession(2, 2);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        drawNodes(id);
    }

    /// The price is fixed at opening, however full the pool is when nodes are replaced.
    function test_rotation_leaves_the_price() public {
        SessionId id = activeSession(1, 1);
        for (uint256 i; i < 5; ++i) {
            activeSession(1, 2);
        }
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        assertEq(session.sessionOf(id).priceIn, PRICE_IN, "while it draws");
        drawNodes(id);
        assertEq(session.sessionOf(id).priceIn, PRICE_IN, "afterwards");
    }

    function test_rotation_by_tasks_of_one_lane() public {
        SessionId id = activeSession(1, 1);
        uint40 rotatesAt = session.sessionOf(id).rotatesAt;
        useNonces(id, ROUTER_LANE, MAX_TASKS - 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RotationNotDue.selector, id, rotatesAt, MAX_TASKS - 1));
        session.rotate(id, ROUTER_LANE);
        useNonces(id, ROUTER_LANE, MAX_TASKS);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RotationNotDue.selector, id, rotatesAt, 0));
        session.rotate(id, OWNER_LANE);
        session.rotate(id, ROUTER_LANE);
        drawNodes(id);
        assertEq(session.sessionOf(id).reservations, 2, "rotated");
        // The next one needs twice as many nonces.
        vm.warp(block.timestamp + GRACE + 1);
        rotatesAt = session.sessionOf(id).rotatesAt;
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_RotationNotDue.selector, id, rotatesAt, MAX_TASKS));
        session.rotate(id, ROUTER_LANE);
    }

    /// Two rotations in a row would leave requests without their nodes.
    function test_no_rotation_while_the_previous_reservation_serves() public {
        SessionId id = activeSession(1, 1);
        useNonces(id, ROUTER_LANE, 2 * MAX_TASKS);
        session.rotate(id, ROUTER_LANE);
        drawNodes(id);
        SessionInfo memory info = session.sessionOf(id);
        vm.warp(info.previous.until);
        vm.expectRevert(
            abi.encodeWithSelector(ISession.Session_RotationNotDue.selector, id, info.rotatesAt, uint64(2 * MAX_TASKS))
        );
        session.rotate(id, ROUTER_LANE);
        vm.warp(info.previous.until + 1);
        session.rotate(id, ROUTER_LANE);
    }

    function test_missed_seed_rotates_at_once_and_leaves_the_previous_reservation() public {
        SessionId id = rotated();
        SessionInfo memory info = session.sessionOf(id);
        vm.roll(uint256(info.current.seedRound) + 257);
        session.rotate(id, OWNER_LANE);
        drawNodes(id);
        SessionInfo memory next = session.sessionOf(id);
        assertEq(next.reservations, 3, "third");
        assertEq(next.previous.seedRound, info.previous.seedRound, "what it signed is still served");
        assertEq(next.previous.until, info.previous.until, "as long as before");
    }

    function test_dedicated_session_begins_its_next_reservation_at_once() public {
        SessionId id = activeWith(termsNaming(named(2), 0, 0));
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(info.reservations, 2, "second");
        assertEq(info.current.nodes.length, 2, "the same nodes");
        assertEq(info.current.dedicated, 2, "named");
        assertEq(pool.reservationsOf(info.current.nodes[0]), 1, "still reserved");
    }

    function test_named_nodes_that_drain_are_left_out() public {
        NodeId[] memory two = named(2);
        SessionId id = activeWith(termsNaming(two, 1, 1));
        vm.prank(ownerOf(11));
        pool.drain(two[0]);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        drawNodes(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(info.current.dedicated, 1, "one stays");
        assertEq(NodeId.unwrap(info.current.nodes[0]), NodeId.unwrap(two[1]), "the other");
        assertEq(pool.reservationsOf(two[0]), 0, "free to exit");
        assertEq(pool.reservationsOf(two[1]), 1, "serves on");
        assertEq(info.previous.dedicated, 2, "both answer what was signed before");
    }

    /// [D1] The owner of a named node has nodes in the draws, too. That the named one drains once the seed is known does
    /// not let the draw find them: for every seed it finds what it would have found.
    function testFuzz_named_node_that_drains_moves_no_waiting_draw(bytes32 seed) public {
        NodeId namedNode = newDedicated(11, 1, client);
        NodeRegistration memory wanted = registration(12, 8);
        NodeId twin = register(11, wanted);
        skipTime(ACTIVATION_DELAY + 1);
        SessionId id = activeWith(termsNaming(only(namedNode), 1, 2));
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        uint64 round = session.sessionOf(id).drawRound;
        vm.roll(uint256(round) + 1);
        vm.setBlockhash(round, seed == 0 ? bytes32(uint256(1)) : seed);
        beacon.reveal(round, "");
        uint256 state = vm.snapshotState();
        session.activate(id);
        NodeId[] memory before = session.sessionOf(id).current.nodes;
        vm.revertToState(state);
        vm.prank(ownerOf(11));
        pool.drain(namedNode);
        session.activate(id);
        NodeId[] memory drawn = session.sessionOf(id).current.nodes;
        assertEq(drawn.length + 1, before.length, "the draw is the same, without the named node");
        for (uint256 i; i < drawn.length; ++i) {
            assertEq(NodeId.unwrap(drawn[i]), NodeId.unwrap(before[i + 1]), "node");
            assertTrue(NodeId.unwrap(drawn[i]) != NodeId.unwrap(twin), "of the named node's owner");
        }
    }

    /// Without anybody left the session ends as if its owner had closed it: no stake is tied to it for ever.
    function test_dedicated_session_whose_nodes_all_drain_ends() public {
        NodeId[] memory one = named(1);
        SessionId id = activeWith(termsNaming(one, 0, 0));
        vm.prank(ownerOf(11));
        pool.drain(one[0]);
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Draining), "draining");
        assertEq(info.endsAt, block.timestamp + NOTICE, "notice");
        skipTime(NOTICE + 1);
        session.finish(id);
        assertEq(pool.reservationsOf(one[0]), 0, "free to exit");
    }

    function named(uint32 n) internal returns (NodeId[] memory list) {
        list = new NodeId[](n);
        for (uint32 i; i < n; ++i) {
            list[i] = newDedicated(11 + i, 1, client);
        }
    }

    function test_rotation_that_finds_too_few_draws_again() public {
        SessionId id = activeSession(6, 6);
        SessionInfo memory info = session.sessionOf(id);
        for (uint32 i = 1; i <= 6; ++i) {
            vm.prank(ownerOf(i));
            pool.drain(NodeId.wrap(i));
        }
        vm.warp(info.rotatesAt);
        session.rotate(id, OWNER_LANE);
        uint40 until = session.sessionOf(id).drawUntil;
        drawNodes(id);
        SessionInfo memory again = session.sessionOf(id);
        assertEq(again.reservations, 1, "not yet");
        assertEq(again.drawUntil, until, "the same time limit");
        assertEq(again.current.seedRound, info.current.seedRound, "serves on");
    }

    function test_rotate_refusals() public {
        SessionId unknown = SessionId.wrap(1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, unknown));
        session.rotate(unknown, OWNER_LANE);
        SessionId id = openSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Open));
        session.rotate(id, OWNER_LANE);
        drawNodes(id);
        Lane lane = Lane.wrap(2);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownLane.selector, id, lane));
        session.rotate(id, lane);
        vm.prank(client);
        session.close(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Draining));
        session.rotate(id, OWNER_LANE);
        skipTime(NOTICE + 1);
        session.finish(id);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_WrongState.selector, id, SessionState.Closed));
        session.rotate(id, OWNER_LANE);
    }
}
