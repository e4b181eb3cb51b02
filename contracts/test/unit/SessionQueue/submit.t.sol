// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {ISessionQueue, Task, TaskRequest, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId, TaskId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

contract SubmitTest is QueueBase {
    /// Order of the curve secp256k1.
    uint256 internal constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    function testFuzz_holds_the_maximum(uint8 redundancy, uint32 maxPrompt, uint32 maxOutput) public {
        TaskRequest memory given = redundant(0, uint8(bound(redundancy, 1, 4)), 2);
        (given.maxPrompt, given.maxOutput) = (uint32(bound(maxPrompt, 100, 1e5)), uint32(bound(maxOutput, 1, 1e5)));
        given.feeCap = type(uint96).max;
        Task memory task = submit(given);
        assertEq(task.held, given.redundancy * uint256(fee(id, given.maxPrompt, given.maxOutput)), "held");
        assertEq(held(ROUTER_LANE), task.held, "held");
        assertEq(free(ROUTER_LANE), ALLOTMENT - task.held, "free");
        assertEq(task.finalBy, given.deadline + 2 * ATTEMPT_TIME, "finalBy");
        assertEq(task.parts.length, given.redundancy, "parts");
        assertState(task, TaskState.Assigned);
    }

    /// Nodes follow from seed, lane and nonce, and each is another one.
    function testFuzz_assigns_by_the_seed(uint64 nonce, uint8 redundancy) public {
        TaskRequest memory given = redundant(uint64(bound(nonce, 0, 255)), uint8(bound(redundancy, 1, 4)), 1);
        Task memory task = submit(given);
        NodeId[] memory nodes = session.sessionOf(id).current.nodes;
        bytes32 seed = beacon.valueOf(task.seedRound);
        uint256 start = uint256(keccak256(abi.encode(seed, given.lane, given.nonce))) % nodes.length;
        for (uint256 i; i < given.redundancy; ++i) {
            assertEq(NodeId.unwrap(task.parts[i].nodeId), NodeId.unwrap(nodes[(start + i) % nodes.length]), "node");
            assertTrue(task.tried >> ((start + i) % nodes.length) & 1 == 1, "tried");
        }
    }

    function testFuzz_a_named_node_is_first(uint8 index, uint8 redundancy) public {
        NodeId[] memory nodes = session.sessionOf(id).current.nodes;
        TaskRequest memory given = redundant(0, uint8(bound(redundancy, 1, 4)), 1);
        given.nodeId = nodes[bound(index, 0, 3)];
        Task memory task = submit(given);
        assertEq(NodeId.unwrap(task.parts[0].nodeId), NodeId.unwrap(given.nodeId), "first");
        for (uint256 i; i < task.parts.length; ++i) {
            for (uint256 k; k < i; ++k) {
                assertTrue(NodeId.unwrap(task.parts[i].nodeId) != NodeId.unwrap(task.parts[k].nodeId), "different");
            }
        }
    }

    function test_a_named_node_needs_no_seed() public {
        SessionId fresh = openSession(1, 1);
        drawNodes(fresh);
        TaskRequest memory given = request(fresh, ROUTER_LANE, 0, firstNode(fresh));
        vm.prank(router);
        queue.submit(given);
        given.nodeId = ANY_NODE;
        given.nonce = 1;
        uint64 round = session.sessionOf(fresh).current.seedRound;
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_SeedUnknown.selector, fresh, round));
    }

    /// [B2]
    function test_only_the_holder() public {
        TaskRequest memory given = wanted(0);
        address[2] memory others = [client, keeper];
        for (uint256 i; i < 2; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHolder.selector, id, ROUTER_LANE, others[i])
            );
            vm.prank(others[i]);
            queue.submit(given);
        }
    }

    function test_an_unknown_lane_or_session() public {
        TaskRequest memory given = wanted(0);
        given.lane = Lane.wrap(9);
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHolder.selector, id, given.lane, router));
        SessionId none = SessionId.wrap(77);
        given.sessionId = none;
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHolder.selector, none, given.lane, router));
    }

    /// [B3]
    function test_a_nonce_twice() public {
        submit(wanted(3));
        refused(
            wanted(3), abi.encodeWithSelector(ISessionQueue.SessionQueue_NonceUsed.selector, id, ROUTER_LANE, uint64(3))
        );
    }

    function test_a_nonce_too_far_ahead() public {
        refused(
            wanted(256),
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_NonceTooFarAhead.selector, id, ROUTER_LANE, uint64(256), uint64(255)
            )
        );
        submit(wanted(255));
    }

    function test_more_than_the_lane_has() public {
        TaskRequest memory given = wanted(0);
        (given.maxOutput, given.feeCap) = (10_000_000, type(uint96).max);
        uint96 cost = fee(id, given.maxPrompt, given.maxOutput);
        refused(
            given,
            abi.encodeWithSelector(
                ISessionPayment.SessionPayment_InsufficientDeposit.selector, id, ROUTER_LANE, cost, ALLOTMENT
            )
        );
    }

    function test_tokens_digest_and_cap() public {
        TaskRequest memory given = wanted(0);
        given.maxPrompt = 0;
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_TokensOutOfBounds.selector, 0, 200));
        (given.maxPrompt, given.maxOutput) = (100, 0);
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_TokensOutOfBounds.selector, 100, 0));
        given = wanted(0);
        given.requestDigest = 0;
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_EmptyDigest.selector));
        given = wanted(0);
        uint96 cost = fee(id, 100, 200);
        given.feeCap = cost - 1;
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_FeeAboveCap.selector, cost, cost - 1));
        given = wanted(0);
        (given.maxPrompt, given.maxOutput) = (1, 1);
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_FeeBelowTip.selector, fee(id, 1, 1), TIP));
    }

    function test_redundancy_and_attempts() public {
        bytes4 parts = ISessionQueue.SessionQueue_RedundancyOutOfBounds.selector;
        refused(redundant(0, 0, 1), abi.encodeWithSelector(parts, 0, 4));
        refused(redundant(0, 5, 1), abi.encodeWithSelector(parts, 5, 4));
        refused(redundant(0, 255, 1), abi.encodeWithSelector(parts, 255, 4));
        bytes4 attempts = ISessionQueue.SessionQueue_AttemptsOutOfBounds.selector;
        refused(redundant(0, 1, 0), abi.encodeWithSelector(attempts, 0, MAX_ATTEMPTS));
        refused(redundant(0, 1, MAX_ATTEMPTS + 1), abi.encodeWithSelector(attempts, MAX_ATTEMPTS + 1, MAX_ATTEMPTS));
        submit(redundant(0, 4, MAX_ATTEMPTS));
    }

    function test_the_deadline_to_the_second() public {
        TaskRequest memory given = wanted(0);
        bytes4 why = ISessionQueue.SessionQueue_DeadlineOutOfBounds.selector;
        (uint256 first, uint256 last) = (block.timestamp + 1, block.timestamp + MAX_DEADLINE);
        given.deadline = uint64(first - 1);
        refused(given, abi.encodeWithSelector(why, given.deadline, first, last));
        given.deadline = uint64(last + 1);
        refused(given, abi.encodeWithSelector(why, given.deadline, first, last));
        given.deadline = type(uint64).max;
        refused(given, abi.encodeWithSelector(why, given.deadline, first, last));
        given.deadline = uint64(first);
        submit(given);
        (given.nonce, given.deadline) = (1, uint64(last));
        submit(given);
    }

    /// [B2] The owner's lane is shut at once; a router's takes what can end within the notice, its openings included.
    function test_while_the_session_drains() public {
        vm.prank(client);
        session.close(id);
        TaskRequest memory given = request(id, OWNER_LANE, 0, ANY_NODE);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_SessionNotActive.selector, id));
        vm.prank(client);
        queue.submit(given);
        uint256 endsAt = block.timestamp + NOTICE;
        skipTime(NOTICE - 300);
        given = redundant(0, 1, 2);
        uint256 last = endsAt - 2 * ATTEMPT_TIME - REVEAL_TIME;
        given.deadline = uint64(last + 1);
        bytes4 why = ISessionQueue.SessionQueue_DeadlineOutOfBounds.selector;
        refused(given, abi.encodeWithSelector(why, last + 1, block.timestamp + 1, last));
        given.deadline = uint64(last);
        submit(given);
    }

    function test_a_reservation_that_is_not_served() public {
        TaskRequest memory given = wanted(0);
        given.seedRound = 7;
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotServed.selector, id, uint64(7)));
        given.seedRound = session.sessionOf(id).current.seedRound;
        submit(given);
    }

    function test_a_node_that_is_not_reserved() public {
        TaskRequest memory given = wanted(0);
        given.nodeId = NodeId.wrap(99);
        refused(given, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotReserved.selector, id, given.nodeId));
    }

    function test_pull_takes_one() public {
        TaskRequest memory given = pulled(0, 1);
        given.redundancy = 2;
        bytes4 why = ISessionQueue.SessionQueue_PullTakesOne.selector;
        refused(given, abi.encodeWithSelector(why, 2, ANY_NODE));
        given = pulled(0, 1);
        given.nodeId = firstNode(id);
        refused(given, abi.encodeWithSelector(why, 1, given.nodeId));
    }

    /// [G2]
    function test_a_full_queue() public {
        for (uint64 nonce; nonce < 64; ++nonce) {
            submit(pulled(nonce, 1));
        }
        refused(pulled(64, 1), abi.encodeWithSelector(ISessionQueue.SessionQueue_QueueFull.selector, id, 64));
    }

    function test_callbacks_are_the_owners_and_bounded() public {
        TaskRequest memory given = wanted(0);
        given.callbackGas = 1;
        bytes4 why = ISessionQueue.SessionQueue_CallbackNotAllowed.selector;
        refused(given, abi.encodeWithSelector(why, ROUTER_LANE, 1, 500_000));
        given = calling(0, 500_001);
        vm.expectRevert(abi.encodeWithSelector(why, OWNER_LANE, 500_001, 500_000));
        vm.prank(client);
        queue.submit(given);
        Task memory task = submit(calling(0, 500_000));
        assertEq(task.held, uint256(fee(id, 100, 200)) + TIP, "a tip more");
    }

    // ---------------------------------------------------------------- signed requests

    function test_anyone_carries_a_signed_request() public {
        TaskRequest memory given = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, given);
        vm.prank(keeper);
        queue.submitSigned(given, signature);
        assertState(lastTask(), TaskState.Assigned);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionQueue.SessionQueue_NonceUsed.selector, id, ROUTER_LANE, uint64(0))
        );
        queue.submitSigned(given, signature);
    }

    function carriedRefused(TaskRequest memory given, bytes memory signature, address holder) internal {
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionQueue.SessionQueue_BadSignature.selector, given.sessionId, given.lane, holder
            )
        );
        queue.submitSigned(given, signature);
    }

    /// [B2]
    function test_replay_in_another_session_lane_or_nonce() public {
        TaskRequest memory given = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, given);
        given.nonce = 1;
        carriedRefused(given, signature, router);
        (given.nonce, given.lane) = (0, OWNER_LANE);
        carriedRefused(given, signature, client);
        SessionId other = activeSession(1, 1);
        (given.lane, given.sessionId) = (ROUTER_LANE, other);
        carriedRefused(given, signature, router);
    }

    /// [B2]
    function test_replay_on_another_chain() public {
        TaskRequest memory given = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, given);
        uint256 chain = block.chainid;
        vm.chainId(chain + 1);
        carriedRefused(given, signature, router);
        vm.chainId(chain);
        queue.submitSigned(given, signature);
    }

    /// [B2]
    function test_replay_at_another_contract() public {
        TaskRequest memory given = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, given);
        address other = address(0xC0FFEE);
        vm.etch(other, address(queue).code);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionQueue.SessionQueue_BadSignature.selector, id, ROUTER_LANE, router)
        );
        ISessionQueue(other).submitSigned(given, signature);
    }

    /// [B5]
    function test_malleable_and_malformed_signatures() public {
        TaskRequest memory given = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, given);
        (bytes32 r, bytes32 s) = abi.decode(signature, (bytes32, bytes32));
        uint8 v = uint8(signature[64]);
        bytes memory high = abi.encodePacked(r, bytes32(CURVE_ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        carriedRefused(given, high, router);
        carriedRefused(given, "", router);
        carriedRefused(given, new bytes(65), router);
        carriedRefused(given, bytes.concat(signature, hex"00"), router);
        carriedRefused(given, sign(CLIENT_KEY, given), router);
    }

    /// [B2]
    function testFuzz_every_member_is_signed(uint8 which, uint256 seed) public {
        TaskRequest memory given = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, given);
        uint32 more = uint32(bound(seed, 1, 10));
        which = uint8(bound(which, 0, 5));
        if (which == 0) given.maxPrompt += more;
        if (which == 1) given.maxOutput += more;
        if (which == 2) given.feeCap += more;
        if (which == 3) given.deadline += more;
        if (which == 4) given.requestDigest = keccak256(abi.encode(more));
        if (which == 5) given.nodeId = firstNode(id);
        carriedRefused(given, signature, router);
    }
}
