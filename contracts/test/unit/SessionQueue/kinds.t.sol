// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Series} from "../../../src/interfaces/INodeStats.sol";
import {OpenTerms, SessionInfo} from "../../../src/interfaces/ISession.sol";
import {
    Answer,
    ISessionQueue,
    PartState,
    Precommit,
    Task,
    TaskRequest,
    TaskState
} from "../../../src/interfaces/ISessionQueue.sol";
import {AnswerBook} from "../../../src/periphery/AnswerBook.sol";
import {NodeId, TaskId} from "../../../src/types/Ids.sol";
import {Consumer} from "../../mocks/Consumers.sol";
import {QueueBase} from "./QueueBase.sol";

/// Tasks of other kinds of sessions: in dollars, with named nodes, with a contract as router; after a rotation; of
/// nodes that were jailed.
contract KindsTest is QueueBase {
    address internal constant DEAD = 0x000000000000000000000000000000000000dEaD;

    /// A session like that of all tests, on other terms.
    function with(OpenTerms memory given) internal {
        id = activeWith(given);
        recordTasks();
    }

    function done(uint64 nonce) internal returns (Task memory task) {
        task = submit(wanted(nonce));
        return commit(task, answer(task.parts[0].nodeId, 90, 150));
    }

    // ---------------------------------------------------------------- assets

    /// [M4] Nothing of a fee in dollars is lost, and what is burnt is the dead address's.
    function testFuzz_settlement_in_dollars(uint32 prompt, uint32 output) public {
        with(termsInUsd(4, 4));
        // More tokens: a hundred cost less than a tip.
        TaskRequest memory given = wanted(0);
        (given.maxPrompt, given.maxOutput) = (200_000, 200_000);
        Task memory task = submit(given);
        NodeId nodeId = task.parts[0].nodeId;
        task = commit(task, answer(nodeId, uint32(bound(prompt, 1, 200_000)), uint32(bound(output, 1, 200_000))));
        skipTime(SETTLE_DELAY);
        settle(task);
        uint256 paid = task.parts[0].fee;
        uint256 miner = payment.balanceOf(payoutOf(NodeId.unwrap(nodeId)), USD);
        assertEq(miner, paid * MINER_BPS / 10_000, "miner");
        assertEq(payment.balanceOf(router, USD), paid * ROUTER_BPS / 10_000, "router");
        assertEq(payment.balanceOf(publisher, USD), paid * ROYALTY_BPS / 10_000, "publisher");
        uint256 rest = paid - miner - payment.balanceOf(router, USD) - payment.balanceOf(publisher, USD);
        uint256 tip = payment.balanceOf(keeper, USD);
        assertEq(tip, rest < USD_TIP ? rest : USD_TIP, "tip");
        assertEq(payment.balanceOf(DEAD, USD), rest - tip, "burnt");
        assertEq(free(ROUTER_LANE), USD_DEPOSIT / 2 - paid, "the rest is free");
        assertEq(payment.totalAccounts(USD), usd.balanceOf(address(payment)), "backed");
    }

    /// [M1, M4] One call settles tasks of both assets and of two lanes; no asset pays for the other.
    function test_two_assets_and_two_lanes_in_one_settlement() public {
        Task[] memory tasks = new Task[](4);
        tasks[0] = done(0);
        TaskRequest memory owners = request(id, OWNER_LANE, 0, ANY_NODE);
        tasks[1] = submit(owners);
        tasks[1] = commit(tasks[1], answer(tasks[1].parts[0].nodeId, 90, 150));
        with(termsInUsd(4, 4));
        TaskRequest memory large = wanted(0);
        (large.maxPrompt, large.maxOutput) = (200_000, 200_000);
        tasks[2] = submit(large);
        tasks[2] = commit(tasks[2], answer(tasks[2].parts[0].nodeId, 100_000, 100_000));
        large.nonce = 1;
        tasks[3] = submit(large);
        tasks[3] = commit(tasks[3], answer(tasks[3].parts[0].nodeId, 100_000, 100_000));
        skipTime(SETTLE_DELAY);
        uint256 cor = payment.totalAccounts(COR);
        uint256 supply = token.totalSupply();
        vm.prank(keeper);
        assertEq(queue.settle(tasks), 4, "all");
        assertEq(tipsOf(keeper), 2 * TIP, "tips");
        assertEq(payment.balanceOf(keeper, USD), 2 * USD_TIP, "tips in dollars");
        // The owner's lane has no router: only one of the two tasks in COR pays one.
        assertEq(payment.balanceOf(router, COR), uint256(tasks[0].parts[0].fee) * ROUTER_BPS / 10_000, "router");
        assertEq(cor - payment.totalAccounts(COR), supply - token.totalSupply(), "burnt of COR");
        assertEq(payment.totalAccounts(COR), token.balanceOf(address(payment)), "COR is backed");
        assertEq(payment.totalAccounts(USD), usd.balanceOf(address(payment)), "dollars are backed");
    }

    // ---------------------------------------------------------------- tip farming

    /// [M4, L7] A client, its router, its own node and its own keeper together get back less than they paid, however
    /// small the task: a tip is never more than what the fee leaves.
    function testFuzz_tip_farming_with_own_tasks_loses(uint32 prompt, uint32 output, bool owners) public {
        TaskRequest memory given = owners ? request(id, OWNER_LANE, 0, ANY_NODE) : wanted(0);
        Task memory task = submit(given);
        NodeId nodeId = task.parts[0].nodeId;
        task = commit(task, answer(nodeId, uint32(bound(prompt, 1, 100)), uint32(bound(output, 1, 200))));
        skipTime(SETTLE_DELAY);
        settle(task);
        uint256 paid = task.parts[0].fee;
        uint256 back = payment.balanceOf(payoutOf(NodeId.unwrap(nodeId)), COR) + payment.balanceOf(router, COR);
        assertTrue(back + tipsOf(keeper) < paid, "less than was paid");
        assertEq(payment.balanceOf(publisher, COR), paid * ROYALTY_BPS / 10_000, "the royalty at least");
    }

    /// [L7] Tasks that nobody answers give a keeper no more than their client pays.
    function test_tip_farming_with_silence_only_moves_money() public {
        Task memory task = submit(wanted(0));
        vm.warp(untilOf(task) + 1);
        advance(task);
        assertEq(tipsOf(keeper), TIP, "earned");
        assertEq(free(ROUTER_LANE), ALLOTMENT - TIP, "paid");
    }

    // ---------------------------------------------------------------- holders that are contracts

    /// A contract is the router of a lane: what it accepts by EIP-1271 is taken, and nobody else's signature.
    function test_a_router_that_is_a_contract() public {
        Consumer holder = new Consumer(queue);
        OpenTerms memory given = terms(4, 4);
        given.lanes[0].holder = address(holder);
        with(given);
        TaskRequest memory asked = wanted(0);
        queue.submitSigned(asked, hex"01");
        assertState(lastTask(), TaskState.Assigned);
        asked = wanted(1);
        bytes memory why =
            abi.encodeWithSelector(ISessionQueue.SessionQueue_BadSignature.selector, id, ROUTER_LANE, address(holder));
        bytes memory signature = sign(ROUTER_KEY, asked);
        vm.expectRevert(why);
        queue.submitSigned(asked, signature);
        vm.expectRevert(why);
        queue.submitSigned(asked, hex"02");
        asked.nodeId = firstNode(id);
        Answer memory answered = answer(asked.nodeId, 90, 150);
        vm.prank(operatorOf(asked.nodeId));
        queue.submitAndCommit(asked, hex"01", answered);
        Task memory task = afterCommit(lastTask(), 0, answered);
        skipTime(SETTLE_DELAY);
        settle(task);
        assertEq(payment.balanceOf(address(holder), COR), uint256(task.parts[0].fee) * ROUTER_BPS / 10_000, "its share");
        holder.submit(wanted(2));
        assertState(lastTask(), TaskState.Assigned);
    }

    // ---------------------------------------------------------------- carried precommitments

    /// The precommitments of all nodes, or of some, come with the request.
    function test_precommitments_are_carried_with_the_request() public {
        for (uint64 nonce; nonce < 2; ++nonce) {
            TaskRequest memory given = redundant(nonce, 3, 1);
            bytes memory signature = sign(ROUTER_KEY, given);
            Precommit[] memory all = promised(given);
            Precommit[] memory some = new Precommit[](2);
            (some[0], some[1]) = (all[0], all[2]);
            vm.prank(keeper);
            queue.submitAndPrecommit(given, signature, nonce == 0 ? all : some);
            Task memory task = lastTask();
            if (nonce == 1) {
                (task.parts[0].state, task.parts[0].commitment) = (PartState.Precommitted, all[0].commitment);
                (task.parts[2].state, task.parts[2].commitment) = (PartState.Precommitted, all[2].commitment);
                assertState(task, TaskState.Assigned);
                queue.precommit(task, only(all[1]));
                task = lastTask();
            }
            assertState(task, TaskState.Precommitted);
            assertEq(untilOf(task), block.timestamp + REVEAL_TIME, "openings");
            queue.commit(task, answers(task));
            assertState(lastTask(), TaskState.Committed);
        }
    }

    /// What the nodes of a request would sign. Who they are follows from the seed, which is known.
    function promised(TaskRequest memory given) internal returns (Precommit[] memory list) {
        uint256 before = vm.snapshotState();
        list = precommits(submit(given));
        vm.revertToState(before);
    }

    // ---------------------------------------------------------------- named nodes

    /// [P3] Work of named nodes counts in its own series, and in no draw.
    function test_named_nodes_serve_and_count_apart() public {
        NodeId named = newDedicated(5, 2, client);
        skipTime(ACTIVATION_DELAY + 1);
        with(termsNaming(only(named), 1, 1));
        SessionInfo memory info = session.sessionOf(id);
        assertEq(NodeId.unwrap(info.current.nodes[0]), NodeId.unwrap(named), "named first");
        TaskRequest memory given = redundant(0, 2, 1);
        given.nodeId = named;
        Task memory task = submit(given);
        assertTrue(task.parts[0].dedicated && !task.parts[1].dedicated, "series");
        task = precommitAll(task);
        queue.commit(task, answers(task));
        task = lastTask();
        skipTime(SETTLE_DELAY);
        settle(task);
        assertEq(stats.recordOf(named, Series.Dedicated).settled, 1, "in the series of named nodes");
        assertEq(stats.recordOf(named, Series.Drawn).settled, 0, "in no other");
        assertEq(stats.recordOf(task.parts[1].nodeId, Series.Drawn).settled, 1, "the drawn one");
        assertEq(payment.balanceOf(payoutOf(5), COR), uint256(task.parts[0].fee) * MINER_BPS / 10_000, "paid");
    }

    function test_a_session_of_named_nodes_alone() public {
        NodeId named = newDedicated(5, 2, client);
        skipTime(ACTIVATION_DELAY + 1);
        with(termsNaming(only(named), 0, 0));
        Task memory task = submit(wanted(0));
        assertEq(NodeId.unwrap(task.parts[0].nodeId), NodeId.unwrap(named), "the only one");
        vm.warp(untilOf(task) + 1);
        advance(task);
        assertEq(stats.recordOf(named, Series.Dedicated).silent, 1, "silence counts there too");
    }

    // ---------------------------------------------------------------- reservations

    /// [L2] Nobody takes over from a reservation that is over: the client has its money back instead.
    function test_no_take_over_once_the_reservation_is_over() public {
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        drawNodes(id);
        SessionInfo memory info = session.sessionOf(id);
        uint40 last = info.previous.until;
        for (uint64 nonce; nonce < 2; ++nonce) {
            // At the last second that the reservation before is served, and one deadline earlier.
            vm.warp(nonce == 0 ? last - ATTEMPT_TIME - 1 : last);
            TaskRequest memory given = redundant(nonce, 1, 2);
            (given.seedRound, given.deadline) = (info.previous.seedRound, uint64(block.timestamp) + ATTEMPT_TIME);
            Task memory task = submit(given);
            NodeId first = task.parts[0].nodeId;
            vm.warp(untilOf(task) + 1);
            task = advance(task);
            assertState(task, nonce == 0 ? TaskState.Assigned : TaskState.Refunded);
            bool another = NodeId.unwrap(task.parts[0].nodeId) != NodeId.unwrap(first);
            assertTrue(another == (nonce == 0), "another node while the reservation is served");
            assertTrue(block.timestamp + ATTEMPT_TIME <= task.finalBy, "there was time");
        }
    }

    // ---------------------------------------------------------------- jailed nodes

    /// A jailed node keeps its place until the rotation: tasks may still name it, it may still answer, and its silence
    /// is followed like any other's. The next reservation is without it.
    function test_a_jailed_node_serves_until_the_rotation() public {
        with(terms(1, 3));
        TaskRequest memory given = redundant(0, 1, 2);
        given.nodeId = firstNode(id);
        Task memory task = submit(given);
        jail(given.nodeId, task);
        NodeId jailed = given.nodeId;
        task = commit(task, answer(jailed, 90, 150));
        skipTime(SETTLE_DELAY);
        assertEq(settle(task), 1, "paid for what it answers");
        given.nonce = 1;
        task = submit(given);
        assertEq(NodeId.unwrap(task.parts[0].nodeId), NodeId.unwrap(jailed), "asked");
        vm.warp(untilOf(task) + 1);
        task = advance(task);
        assertTrue(NodeId.unwrap(task.parts[0].nodeId) != NodeId.unwrap(jailed), "followed");
        vm.warp(session.sessionOf(id).rotatesAt);
        session.rotate(id, OWNER_LANE);
        drawNodes(id);
        SessionInfo memory info = session.sessionOf(id);
        assertEq(info.reservations, 2, "rotated");
        NodeId[] memory nodes = info.current.nodes;
        for (uint256 i; i < nodes.length; ++i) {
            assertTrue(NodeId.unwrap(nodes[i]) != NodeId.unwrap(jailed), "without it");
        }
    }

    function jail(NodeId nodeId, Task memory task) internal {
        Precommit memory one = signed(task, answer(nodeId, 90, 150));
        Precommit memory other = signed(task, answer(nodeId, 90, 151));
        queue.reportEquivocation(idOf(task), one, other);
    }

    // ---------------------------------------------------------------- the example

    /// Of a task that nobody answered the book says so, and does not wait.
    function test_the_answer_book_without_an_answer() public {
        AnswerBook book = new AnswerBook(client, queue);
        vm.prank(client);
        token.approve(address(book), DEPOSIT);
        OpenTerms memory given = terms(4, 4);
        delete given.lanes;
        vm.prank(client);
        id = book.open(given);
        drawNodes(id);
        reveal(session.sessionOf(id).current.seedRound);
        TaskRequest memory asked = request(id, OWNER_LANE, 0, ANY_NODE);
        vm.prank(client);
        TaskId taskId = book.ask(asked);
        Task memory task = lastTask();
        assertEq(uint8(book.entryOf(taskId).page), uint8(AnswerBook.Page.Asked), "asked");
        vm.warp(untilOf(task) + 1);
        task = advance(task);
        Answer memory none;
        queue.deliver(task, none);
        AnswerBook.Entry memory entry = book.entryOf(taskId);
        assertEq(uint8(entry.page), uint8(AnswerBook.Page.Unanswered), "unanswered");
        assertEq(entry.outputDigest, bytes32(0), "no digest");
        assertEq(NodeId.unwrap(entry.nodeId), 0, "no node");
    }
}
