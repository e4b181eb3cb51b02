// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionQueue} from "../../src/SessionQueue.sol";
import {ISession} from "../../src/interfaces/ISession.sol";
import {ISessionPayment} from "../../src/interfaces/ISessionPayment.sol";
import {Commit, ISessionQueue, Task, TaskRequest, TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {Lane, NodeId, NumericClass, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

contract SessionQueueTest is Base {
    uint256 internal constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    SessionId internal id;
    NodeId internal nodeId;

    function setUp() public override {
        super.setUp();
        newNodes(2, 4);
        id = activeSession(1, 1);
        nodeId = session.sessionOf(id).nodes[0];
    }

    function wanted(uint64 nonce) internal view returns (TaskRequest memory) {
        return request(id, ROUTER_LANE, nonce, nodeId);
    }

    function submit(uint64 nonce) internal returns (TaskId) {
        TaskRequest memory task = wanted(nonce);
        vm.prank(router);
        return queue.submit(task);
    }

    function commit(TaskId taskId, Commit memory given) internal {
        vm.prank(operatorOf(nodeId));
        queue.commit(taskId, given);
    }

    function folded(TaskRequest memory task, uint256 key, Commit memory given) internal returns (TaskId) {
        bytes memory signature = sign(key, task);
        vm.prank(operatorOf(nodeId));
        return queue.submitAndCommit(task, signature, given);
    }

    function refused(TaskRequest memory task, bytes memory why) internal {
        vm.expectRevert(why);
        vm.prank(router);
        queue.submit(task);
    }

    function refused(TaskId taskId, Commit memory given, bytes memory why) internal {
        address operator = operatorOf(nodeId);
        vm.expectRevert(why);
        vm.prank(operator);
        queue.commit(taskId, given);
    }

    function assertState(TaskId taskId, TaskState state) internal view {
        assertEq(uint8(queue.taskOf(taskId).state), uint8(state), "state");
    }

    function assertHeld(uint256 held) internal view {
        (uint128 free, uint128 held_) = payment.sessionFunds(id);
        assertEq(held_, held, "held");
        assertEq(free, DEPOSIT - held, "free");
    }

    function commitmentOf(TaskId taskId, Commit memory given) internal view returns (bytes32) {
        bytes32 h1 = keccak256(
            abi.encode(
                keccak256("assay.commit.tokens.v1"),
                block.chainid,
                address(queue),
                taskId,
                nodeId,
                given.outputDigest,
                given.promptHash,
                given.promptTokens,
                given.outputTokens,
                given.numericClass,
                given.endReason,
                given.salt
            )
        );
        return keccak256(abi.encode(h1, given.proofSeal));
    }

    function test_constructor_checks() public {
        SessionQueue.Wiring memory wiring =
            SessionQueue.Wiring(address(session), address(pool), address(models), address(payment));
        SessionQueue.Config memory config = SessionQueue.Config(NOTICE, 1, MINER_BPS, ROUTER_BPS, TIP);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_DeadlineTooLong.selector, NOTICE, NOTICE));
        new SessionQueue(wiring, config);
        (config.maxDeadline, config.minerBps) = (MAX_DEADLINE, 9201);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_SharesTooHigh.selector, 10_001, 10_000));
        new SessionQueue(wiring, config);
        wiring.payment = address(0);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_ZeroAddress.selector));
        new SessionQueue(wiring, config);
    }

    function test_submit_holds_the_largest_fee() public {
        TaskRequest memory task = wanted(0);
        TaskId taskId = queue.taskIdOf(id, ROUTER_LANE, 0);
        assertTrue(!queue.nonceUsed(id, ROUTER_LANE, 0), "nonce is free");
        vm.expectEmit();
        emit ISessionQueue.TaskSubmitted(
            taskId, id, nodeId, ROUTER_LANE, 0, task.requestDigest, 100, 200, fee(100, 200), task.deadline
        );
        vm.prank(router);
        assertEq(TaskId.unwrap(queue.submit(task)), TaskId.unwrap(taskId), "id");
        assertEq(TaskId.unwrap(taskId), keccak256(abi.encode(address(queue), id, ROUTER_LANE, uint64(0))), "id");
        Task memory stored = queue.taskOf(taskId);
        assertState(taskId, TaskState.Assigned);
        assertEq(SessionId.unwrap(stored.sessionId), SessionId.unwrap(id), "session");
        assertEq(Lane.unwrap(stored.lane), 1, "lane");
        assertEq(NodeId.unwrap(stored.nodeId), NodeId.unwrap(nodeId), "node");
        assertEq(stored.maxPrompt, 100, "prompt");
        assertEq(stored.maxOutput, 200, "output");
        assertEq(stored.until, task.deadline, "deadline");
        assertEq(stored.amount, fee(100, 200), "amount");
        assertEq(stored.commitment, 0, "no commitment");
        assertHeld(fee(100, 200));
        assertEq(session.laneOf(id, ROUTER_LANE).used, fee(100, 200), "lane");
        assertTrue(queue.nonceUsed(id, ROUTER_LANE, 0), "nonce is used");
    }

    function test_submit_signed_may_be_carried_by_anybody() public {
        TaskRequest memory task = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, task);
        vm.prank(keeper);
        TaskId taskId = queue.submitSigned(task, signature);
        assertState(taskId, TaskState.Assigned);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NonceUsed.selector, id, ROUTER_LANE, 0));
        queue.submitSigned(task, signature);
    }

    function test_signatures_of_others_and_malleable_ones_are_refused() public {
        bytes4 notHolder = ISessionQueue.SessionQueue_NotHolder.selector;
        TaskRequest memory task = wanted(0);
        bytes memory signature = sign(CLIENT_KEY, task);
        vm.expectRevert(abi.encodeWithSelector(notHolder, id, ROUTER_LANE, client));
        queue.submitSigned(task, signature);
        (uint8 v, bytes32 r, bytes32 s) = split(sign(ROUTER_KEY, task));
        signature = abi.encodePacked(r, bytes32(CURVE_ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        vm.expectRevert(abi.encodeWithSelector(notHolder, id, ROUTER_LANE, address(0)));
        queue.submitSigned(task, signature);
        vm.expectRevert(abi.encodeWithSelector(notHolder, id, ROUTER_LANE, address(0)));
        queue.submitSigned(task, "short");
        // A lane that does not exist has no holder, whoever signs.
        task.lane = Lane.wrap(7);
        vm.expectRevert(abi.encodeWithSelector(notHolder, id, Lane.wrap(7), address(0)));
        queue.submitSigned(task, "short");
        vm.expectRevert(abi.encodeWithSelector(notHolder, id, Lane.wrap(7), router));
        vm.prank(router);
        queue.submit(task);
    }

    function split(bytes memory signature) internal pure returns (uint8 v, bytes32 r, bytes32 s) {
        assembly {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
            v := byte(0, mload(add(signature, 96)))
        }
    }

    function test_owner_serves_himself_in_lane_0() public {
        TaskRequest memory task = request(id, OWNER_LANE, 0, NodeId.wrap(0));
        vm.prank(client);
        TaskId taskId = queue.submit(task);
        assertEq(NodeId.unwrap(queue.taskOf(taskId).nodeId), NodeId.unwrap(nodeId), "the only node");
        task.nonce = 1;
        refused(task, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHolder.selector, id, OWNER_LANE, router));
    }

    function test_nonces_may_land_out_of_order_within_a_window() public {
        bytes4 tooFar = ISessionQueue.SessionQueue_NonceTooFarAhead.selector;
        refused(wanted(256), abi.encodeWithSelector(tooFar, id, ROUTER_LANE, 256, 255));
        submit(255);
        submit(3);
        refused(wanted(512), abi.encodeWithSelector(tooFar, id, ROUTER_LANE, 512, 511));
        submit(511);
        bytes4 used = ISessionQueue.SessionQueue_NonceUsed.selector;
        refused(wanted(3), abi.encodeWithSelector(used, id, ROUTER_LANE, 3));
        refused(wanted(255), abi.encodeWithSelector(used, id, ROUTER_LANE, 255));
        uint64 most = type(uint64).max;
        refused(wanted(most), abi.encodeWithSelector(tooFar, id, ROUTER_LANE, most, 767));
    }

    function test_submit_checks_tokens_fee_and_digest() public {
        bytes4 bounds = ISessionQueue.SessionQueue_TokensOutOfBounds.selector;
        TaskRequest memory task = wanted(0);
        task.maxPrompt = 0;
        refused(task, abi.encodeWithSelector(bounds, 0, 200));
        task = wanted(0);
        task.maxOutput = 0;
        refused(task, abi.encodeWithSelector(bounds, 100, 0));
        task = wanted(0);
        task.requestDigest = 0;
        refused(task, abi.encodeWithSelector(ISessionQueue.SessionQueue_EmptyDigest.selector));
        task = wanted(0);
        task.feeCap = fee(100, 200) - 1;
        refused(
            task, abi.encodeWithSelector(ISessionQueue.SessionQueue_FeeAboveCap.selector, fee(100, 200), task.feeCap)
        );
        task = wanted(0);
        (task.maxPrompt, task.maxOutput) = (1, 2);
        refused(task, abi.encodeWithSelector(ISessionQueue.SessionQueue_FeeBelowTip.selector, fee(1, 2), TIP));
        (task.maxPrompt, task.maxOutput) = (1, 3);
        vm.prank(router);
        queue.submit(task);
    }

    function test_submit_needs_allotment_and_deposit() public {
        TaskRequest memory task = wanted(0);
        (task.maxPrompt, task.feeCap) = (type(uint32).max, type(uint128).max);
        uint128 most = fee(type(uint32).max, 200);
        refused(
            task, abi.encodeWithSelector(ISession.Session_AllotmentExceeded.selector, id, ROUTER_LANE, most, ALLOTMENT)
        );
        task.lane = OWNER_LANE;
        bytes4 insufficient = ISessionPayment.SessionPayment_InsufficientDeposit.selector;
        vm.expectRevert(abi.encodeWithSelector(insufficient, id, most, DEPOSIT));
        vm.prank(client);
        queue.submit(task);
    }

    function test_submit_checks_the_deadline() public {
        bytes4 bounds = ISessionQueue.SessionQueue_DeadlineOutOfBounds.selector;
        uint64 now_ = uint64(block.timestamp);
        TaskRequest memory task = wanted(0);
        task.deadline = now_;
        refused(task, abi.encodeWithSelector(bounds, now_, now_ + 1, now_ + MAX_DEADLINE));
        task.deadline = now_ + MAX_DEADLINE + 1;
        refused(task, abi.encodeWithSelector(bounds, task.deadline, now_ + 1, now_ + MAX_DEADLINE));
        task.deadline = now_ + MAX_DEADLINE;
        vm.prank(router);
        queue.submit(task);
        task = wanted(1);
        task.deadline = now_ + 1;
        vm.prank(router);
        queue.submit(task);
    }

    function test_submit_needs_a_living_session_with_a_seed() public {
        SessionId fresh = openSession(1, 1);
        TaskRequest memory task = request(fresh, ROUTER_LANE, 0, nodeId);
        bytes memory inactive = abi.encodeWithSelector(ISessionQueue.SessionQueue_SessionNotActive.selector, fresh);
        refused(task, inactive);
        reveal(session.sessionOf(fresh).drawRound);
        session.activate(fresh);
        task = request(fresh, ROUTER_LANE, 0, session.sessionOf(fresh).nodes[0]);
        refused(task, abi.encodeWithSelector(ISessionQueue.SessionQueue_SeedUnknown.selector, fresh));
        SessionId unknown = SessionId.wrap(99);
        task = request(unknown, ROUTER_LANE, 0, nodeId);
        refused(task, abi.encodeWithSelector(ISessionQueue.SessionQueue_SessionNotActive.selector, unknown));
    }

    function test_named_node_must_be_reserved() public {
        NodeId other = NodeId.wrap(3 - NodeId.unwrap(nodeId));
        TaskRequest memory task = request(id, ROUTER_LANE, 0, other);
        refused(task, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotReserved.selector, id, other));
    }

    function test_unnamed_node_follows_from_seed_and_nonce() public {
        SessionId two = activeSession(2, 2);
        NodeId[] memory nodes = session.sessionOf(two).nodes;
        bytes32 seed = session.seedOf(two);
        uint256[3] memory hits;
        for (uint64 nonce; nonce < 16; ++nonce) {
            TaskRequest memory task = request(two, ROUTER_LANE, nonce, NodeId.wrap(0));
            vm.prank(router);
            TaskId taskId = queue.submit(task);
            NodeId expected = nodes[uint256(keccak256(abi.encode(seed, ROUTER_LANE, nonce))) % 2];
            assertEq(NodeId.unwrap(queue.taskOf(taskId).nodeId), NodeId.unwrap(expected), "node");
            ++hits[NodeId.unwrap(expected)];
        }
        assertTrue(hits[1] > 0 && hits[2] > 0, "both nodes serve");
    }

    function test_draining_takes_lanes_at_work_until_the_end() public {
        TaskId before = submit(0);
        vm.prank(client);
        session.close(id);
        uint40 endsAt = session.sessionOf(id).endsAt;
        TaskRequest memory task = request(id, OWNER_LANE, 0, nodeId);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_SessionNotActive.selector, id));
        vm.prank(client);
        queue.submit(task);
        skipTime(NOTICE - 10);
        task = wanted(1);
        uint256 now_ = block.timestamp;
        bytes4 bounds = ISessionQueue.SessionQueue_DeadlineOutOfBounds.selector;
        task.deadline = endsAt + 1;
        refused(task, abi.encodeWithSelector(bounds, endsAt + 1, now_ + 1, endsAt));
        task.deadline = endsAt;
        TaskId taskId = folded(task, ROUTER_KEY, answer(1, 1));
        assertState(taskId, TaskState.Committed);
        skipTime(10);
        task = wanted(2);
        task.deadline = endsAt;
        folded(task, ROUTER_KEY, answer(1, 1));
        queue.advance(before);
        skipTime(SETTLE_DELAY);
        TaskId[] memory both = new TaskId[](2);
        (both[0], both[1]) = (taskId, queue.taskIdOf(id, ROUTER_LANE, 2));
        assertEq(queue.settle(both), 2, "settled");
        session.finish(id);
        task = wanted(3);
        task.deadline = uint64(block.timestamp);
        bytes memory signature = sign(ROUTER_KEY, task);
        address operator = operatorOf(nodeId);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_SessionNotActive.selector, id));
        vm.prank(operator);
        queue.submitAndCommit(task, signature, answer(1, 1));
    }

    function test_commit_seals_frees_and_tells() public {
        TaskId taskId = submit(0);
        Commit memory given = answer(90, 150);
        vm.warp(queue.taskOf(taskId).until);
        vm.expectEmit();
        emit ISessionQueue.TaskCommitted(
            taskId,
            id,
            nodeId,
            given.outputDigest,
            given.promptHash,
            90,
            150,
            CLASS,
            1,
            given.salt,
            given.proofSeal,
            fee(90, 150),
            uint40(block.timestamp) + SETTLE_DELAY
        );
        commit(taskId, given);
        Task memory task = queue.taskOf(taskId);
        assertState(taskId, TaskState.Committed);
        assertEq(task.commitment, commitmentOf(taskId, given), "commitment");
        assertEq(task.until, block.timestamp + SETTLE_DELAY, "settles");
        assertEq(task.amount, fee(90, 150), "fee");
        assertEq(task.maxPrompt + task.maxOutput, 0, "bounds are gone");
        assertHeld(fee(90, 150));
        assertEq(session.laneOf(id, ROUTER_LANE).used, fee(90, 150), "lane");
    }

    function test_commit_is_the_operators_in_time_and_once() public {
        TaskId taskId = submit(0);
        Commit memory given = answer(90, 150);
        vm.expectRevert(
            abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOperator.selector, nodeId, address(this))
        );
        queue.commit(taskId, given);
        TaskId unknown = TaskId.wrap("?");
        refused(unknown, given, abi.encodeWithSelector(ISessionQueue.SessionQueue_UnknownTask.selector, unknown));
        commit(taskId, given);
        bytes4 wrong = ISessionQueue.SessionQueue_WrongState.selector;
        refused(taskId, given, abi.encodeWithSelector(wrong, taskId, TaskState.Committed));
        taskId = submit(1);
        uint40 deadline = queue.taskOf(taskId).until;
        vm.warp(deadline + 1);
        bytes4 passed = ISessionQueue.SessionQueue_DeadlinePassed.selector;
        refused(taskId, given, abi.encodeWithSelector(passed, taskId, deadline));
    }

    function test_commit_checks_the_answer() public {
        TaskId taskId = submit(0);
        bytes4 tokens = ISessionQueue.SessionQueue_TooManyTokens.selector;
        refused(taskId, answer(101, 200), abi.encodeWithSelector(tokens, 101, 100, 200, 200));
        refused(taskId, answer(100, 201), abi.encodeWithSelector(tokens, 100, 100, 201, 200));
        refused(taskId, answer(0, 1), abi.encodeWithSelector(tokens, 0, 100, 1, 200));
        refused(taskId, answer(1, 0), abi.encodeWithSelector(tokens, 1, 100, 0, 200));
        Commit memory given = answer(1, 1);
        given.numericClass = NumericClass.wrap("cuda-bf16");
        bytes4 class = ISessionQueue.SessionQueue_WrongClass.selector;
        refused(taskId, given, abi.encodeWithSelector(class, nodeId, given.numericClass, CLASS));
        bytes4 reason = ISessionQueue.SessionQueue_BadEndReason.selector;
        for (uint8 bad; bad < 6; bad = bad == 0 ? 4 : bad + 1) {
            given = answer(1, 1);
            given.endReason = bad;
            refused(taskId, given, abi.encodeWithSelector(reason, bad));
        }
        bytes memory empty = abi.encodeWithSelector(ISessionQueue.SessionQueue_EmptyDigest.selector);
        given = answer(1, 1);
        given.outputDigest = 0;
        refused(taskId, given, empty);
        given = answer(1, 1);
        given.promptHash = 0;
        refused(taskId, given, empty);
        given = answer(1, 1);
        given.proofSeal = 0;
        refused(taskId, given, empty);
    }

    function test_submit_and_commit_in_one_transaction() public {
        TaskRequest memory task = wanted(0);
        task.deadline = uint64(block.timestamp);
        Commit memory given = answer(90, 150);
        bytes memory signature = sign(ROUTER_KEY, task);
        TaskId taskId = queue.taskIdOf(id, ROUTER_LANE, 0);
        vm.expectEmit();
        emit ISessionQueue.TaskSubmitted(
            taskId, id, nodeId, ROUTER_LANE, 0, task.requestDigest, 100, 200, fee(90, 150), task.deadline
        );
        vm.prank(operatorOf(nodeId));
        queue.submitAndCommit(task, signature, given);
        Task memory stored = queue.taskOf(taskId);
        assertState(taskId, TaskState.Committed);
        assertEq(stored.commitment, commitmentOf(taskId, given), "commitment");
        assertEq(stored.amount, fee(90, 150), "fee");
        assertHeld(fee(90, 150));
        assertEq(session.laneOf(id, ROUTER_LANE).used, fee(90, 150), "lane");
        bytes4 used = ISessionQueue.SessionQueue_NonceUsed.selector;
        address operator = operatorOf(nodeId);
        vm.expectRevert(abi.encodeWithSelector(used, id, ROUTER_LANE, 0));
        vm.prank(operator);
        queue.submitAndCommit(task, signature, given);
    }

    function test_submit_and_commit_checks_as_its_parts_do() public {
        TaskRequest memory task = wanted(0);
        bytes memory signature = sign(ROUTER_KEY, task);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOperator.selector, nodeId, keeper));
        vm.prank(keeper);
        queue.submitAndCommit(task, signature, answer(1, 1));
        vm.expectRevert(
            abi.encodeWithSelector(ISessionQueue.SessionQueue_TooManyTokens.selector, 101, 100, 1, 200)
        );
        queue.submitAndCommit(task, signature, answer(101, 1));
        uint64 now_ = uint64(block.timestamp);
        task.deadline = now_ - 1;
        signature = sign(ROUTER_KEY, task);
        vm.expectRevert(
            abi.encodeWithSelector(
                ISessionQueue.SessionQueue_DeadlineOutOfBounds.selector, now_ - 1, now_, now_ + MAX_DEADLINE
            )
        );
        queue.submitAndCommit(task, signature, answer(1, 1));
    }

    function test_settle_pays_everybody_and_skips_what_is_not_ready() public {
        TaskId first = folded(wanted(0), ROUTER_KEY, answer(90, 150));
        TaskId second = folded(request(id, OWNER_LANE, 0, nodeId), CLIENT_KEY, answer(90, 150));
        TaskId open_ = submit(1);
        TaskId[] memory taskIds = new TaskId[](5);
        (taskIds[0], taskIds[1], taskIds[2], taskIds[3], taskIds[4]) =
            (first, open_, TaskId.wrap("?"), second, first);
        vm.prank(keeper);
        assertEq(queue.settle(taskIds), 0, "too early");
        skipTime(SETTLE_DELAY);
        uint256 supply = token.totalSupply();
        uint128 whole = fee(90, 150);
        (uint128 miner, uint128 toRouter, uint128 royalty) = (whole * 9 / 10, whole / 20, whole / 50);
        uint128 rest = whole - miner - toRouter - royalty;
        uint128 tip = TIP;
        assertTrue(rest > tip, "something is burnt");
        address node = payoutOf(NodeId.unwrap(nodeId));
        vm.expectEmit();
        emit ISessionQueue.TaskSettled(first, id, nodeId, whole, miner, toRouter, royalty, tip, rest - tip);
        vm.expectEmit();
        emit ISessionQueue.TaskSettled(second, id, nodeId, whole, miner + toRouter, 0, royalty, tip, rest - tip);
        vm.prank(keeper);
        assertEq(queue.settle(taskIds), 2, "settled");
        assertState(first, TaskState.Settled);
        assertState(second, TaskState.Settled);
        assertState(open_, TaskState.Assigned);
        assertEq(payment.balanceOf(node), miner * 2 + toRouter, "miner");
        assertEq(payment.balanceOf(router), toRouter, "router of lane 1 only");
        assertEq(payment.balanceOf(publisher), royalty * 2, "publisher");
        assertEq(payment.balanceOf(keeper), tip * 2, "keeper");
        assertEq(supply - token.totalSupply(), (rest - tip) * 2, "burnt");
        assertEq(payment.totalAccounts(), token.balanceOf(address(payment)), "backed");
        vm.prank(keeper);
        assertEq(queue.settle(taskIds), 0, "once only");
    }

    function test_settle_takes_64_at_most() public {
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_TooMany.selector, 65, 64));
        queue.settle(new TaskId[](65));
        assertEq(queue.settle(new TaskId[](64)), 0, "nothing there");
    }

    function test_advance_refunds_after_the_deadline() public {
        TaskId taskId = submit(0);
        uint40 deadline = queue.taskOf(taskId).until;
        vm.warp(deadline);
        bytes4 early = ISessionQueue.SessionQueue_DeadlineNotPassed.selector;
        vm.expectRevert(abi.encodeWithSelector(early, taskId, deadline));
        queue.advance(taskId);
        vm.warp(deadline + 1);
        vm.expectEmit();
        emit ISessionQueue.TaskRefunded(taskId, id, nodeId, fee(100, 200) - TIP, TIP);
        vm.prank(keeper);
        queue.advance(taskId);
        Task memory task = queue.taskOf(taskId);
        assertState(taskId, TaskState.Refunded);
        assertEq(task.maxOutput, 200, "bounds stay");
        assertEq(task.commitment, 0, "never committed");
        assertEq(payment.balanceOf(keeper), TIP, "tip");
        (uint128 free, uint128 held) = payment.sessionFunds(id);
        assertEq(free, DEPOSIT - TIP, "free");
        assertEq(held, 0, "held");
        assertEq(session.laneOf(id, ROUTER_LANE).used, TIP, "allotment is back but for the tip");
        vm.expectRevert(
            abi.encodeWithSelector(ISessionQueue.SessionQueue_WrongState.selector, taskId, TaskState.Refunded)
        );
        queue.advance(taskId);
        TaskId unknown = TaskId.wrap("?");
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_UnknownTask.selector, unknown));
        queue.advance(unknown);
    }

    function test_an_exiting_node_still_serves_its_session() public {
        vm.prank(ownerOf(NodeId.unwrap(nodeId)));
        pool.exit(nodeId);
        TaskId taskId = folded(wanted(0), ROUTER_KEY, answer(1, 1));
        assertState(taskId, TaskState.Committed);
    }
}
