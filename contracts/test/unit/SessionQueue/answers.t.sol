// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    Answer,
    ISessionQueue,
    PartState,
    Precommit,
    Task,
    TaskRequest,
    TaskState
} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// `precommit` and `commit`.
contract AnswersTest is QueueBase {
    function commitRefused(Task memory task, Answer memory given, bytes memory why) internal {
        address operator = operatorOf(given.nodeId);
        vm.expectRevert(why);
        vm.prank(operator);
        queue.commit(task, only(given));
    }

    /// [T6]
    function test_commit_at_the_deadline_and_one_second_after() public {
        Task memory task = submit(wanted(0));
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        uint40 until = untilOf(task);
        vm.warp(until + 1);
        commitRefused(
            task, given, abi.encodeWithSelector(ISessionQueue.SessionQueue_DeadlinePassed.selector, idOf(task), until)
        );
        vm.warp(until);
        assertState(commit(task, given), TaskState.Committed);
    }

    function test_commit_twice_and_stale() public {
        Task memory task = submit(wanted(0));
        bytes memory copy = abi.encode(task);
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        Task memory done = commit(task, given);
        commitRefused(done, given, wrongState(done, TaskState.Committed));
        Task memory old = abi.decode(copy, (Task));
        commitRefused(old, given, stale(old));
    }

    /// [T5]
    function testFuzz_a_changed_task_is_stale(uint8 which) public {
        Task memory task = submit(wanted(0));
        which = uint8(bound(which, 0, 5));
        if (which == 0) ++task.held;
        if (which == 1) ++task.maxOutput;
        if (which == 2) ++task.finalBy;
        if (which == 3) ++task.attemptsLeft;
        if (which == 4) task.parts[0].nodeId = outsider(task);
        if (which == 5) task.parts[0].dedicated = true;
        commitRefused(task, answer(task.parts[0].nodeId, 90, 150), stale(task));
    }

    function test_an_unknown_task() public {
        Task memory task = submit(wanted(0));
        task.nonce = 9;
        bytes memory why = abi.encodeWithSelector(ISessionQueue.SessionQueue_UnknownTask.selector, idOf(task));
        commitRefused(task, answer(task.parts[0].nodeId, 90, 150), why);
    }

    /// [B1, B6]
    function test_a_copied_commitment_by_another_node() public {
        Task memory task = submit(wanted(0));
        NodeId other = outsider(task);
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        Answer memory stolen = answer(task.parts[0].nodeId, 90, 150);
        stolen.nodeId = other;
        commitRefused(
            task, stolen, abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOnTask.selector, idOf(task), other)
        );
        address thief = operatorOf(other);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOperator.selector, given.nodeId, thief));
        vm.prank(thief);
        queue.commit(task, only(given));
    }

    function test_a_signed_answer_is_carried_by_anyone() public {
        Task memory task = submit(wanted(0));
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        given.signature = signed(task, given).signature;
        vm.prank(keeper);
        queue.commit(task, only(given));
        assertState(afterCommit(task, 0, given), TaskState.Committed);
    }

    function testFuzz_bad_answers(uint32 prompt, uint32 output) public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        if (prompt != 0 && prompt <= 100 && output != 0 && output <= 200) prompt = 101;
        bytes4 many = ISessionQueue.SessionQueue_TooManyTokens.selector;
        commitRefused(task, answer(nodeId, prompt, output), abi.encodeWithSelector(many, prompt, 100, output, 200));
        Answer memory given = answer(nodeId, 90, 150);
        given.endReason = output == 0 ? 0 : 4;
        commitRefused(
            task, given, abi.encodeWithSelector(ISessionQueue.SessionQueue_BadEndReason.selector, given.endReason)
        );
        given = answer(nodeId, 90, 150);
        given.numericClass = NumericClass.wrap("cuda-bf16");
        commitRefused(
            task,
            given,
            abi.encodeWithSelector(ISessionQueue.SessionQueue_WrongClass.selector, nodeId, given.numericClass, CLASS)
        );
        bytes memory empty = abi.encodeWithSelector(ISessionQueue.SessionQueue_EmptyDigest.selector);
        given = answer(nodeId, 90, 150);
        given.outputDigest = 0;
        commitRefused(task, given, empty);
        given = answer(nodeId, 90, 150);
        given.promptHash = 0;
        commitRefused(task, given, empty);
        given = answer(nodeId, 90, 150);
        given.proofSeal = 0;
        commitRefused(task, given, empty);
    }

    // ---------------------------------------------------------------- several miners

    function precommitRefused(Task memory task, Precommit memory given, bytes memory why) internal {
        vm.expectRevert(why);
        queue.precommit(task, only(given));
    }

    function test_the_last_precommitment_opens_the_next_phase() public {
        Task memory task = submit(redundant(0, 3, 1));
        Precommit[] memory all = precommits(task);
        for (uint256 i; i < 3; ++i) {
            queue.precommit(task, only(all[i]));
            (task.parts[i].state, task.parts[i].commitment) = (PartState.Precommitted, all[i].commitment);
            assertState(task, i < 2 ? TaskState.Assigned : TaskState.Precommitted);
        }
        assertEq(untilOf(task), block.timestamp + REVEAL_TIME, "until");
    }

    /// [B1]
    function test_precommit_replayed_for_another_task_or_node() public {
        Task memory one = submit(redundant(0, 3, 1));
        Task memory two = submit(redundant(1, 3, 1));
        Precommit memory given = signed(one, answer(one.parts[0].nodeId, 90, 150));
        vm.expectPartialRevert(ISessionQueue.SessionQueue_NotOperator.selector);
        queue.precommit(two, only(Precommit(two.parts[0].nodeId, given.commitment, given.signature)));
        vm.expectPartialRevert(ISessionQueue.SessionQueue_NotOperator.selector);
        queue.precommit(one, only(Precommit(one.parts[1].nodeId, given.commitment, given.signature)));
    }

    /// [B6]
    function test_precommit_refusals() public {
        Task memory single = submit(wanted(0));
        Precommit memory alone = signed(single, answer(single.parts[0].nodeId, 90, 150));
        precommitRefused(
            single, alone, abi.encodeWithSelector(ISessionQueue.SessionQueue_RedundancyOutOfBounds.selector, 1, 1)
        );
        Task memory task = submit(redundant(1, 3, 1));
        Precommit memory given = signed(task, answer(task.parts[0].nodeId, 90, 150));
        NodeId other = outsider(task);
        precommitRefused(
            task,
            Precommit(other, given.commitment, given.signature),
            abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOnTask.selector, idOf(task), other)
        );
        precommitRefused(
            task,
            Precommit(given.nodeId, 0, ""),
            abi.encodeWithSelector(ISessionQueue.SessionQueue_EmptyDigest.selector)
        );
        Precommit[] memory twice = new Precommit[](2);
        (twice[0], twice[1]) = (given, given);
        bytes memory why = abi.encodeWithSelector(
            ISessionQueue.SessionQueue_WrongPartState.selector, idOf(task), given.nodeId, PartState.Precommitted
        );
        vm.expectRevert(why);
        queue.precommit(task, twice);
        vm.warp(untilOf(task) + 1);
        precommitRefused(
            task,
            given,
            abi.encodeWithSelector(ISessionQueue.SessionQueue_DeadlinePassed.selector, idOf(task), untilOf(task))
        );
    }

    /// [B4]
    function test_openings_must_match() public {
        Task memory task = precommitAll(submit(redundant(0, 3, 1)));
        Answer memory other = answer(task.parts[0].nodeId, 90, 149);
        bytes memory why = abi.encodeWithSelector(
            ISessionQueue.SessionQueue_WrongOpening.selector, idOf(task), other.nodeId, commitmentOf(idOf(task), other)
        );
        vm.expectRevert(why);
        queue.commit(task, only(other));
    }

    /// [B4]
    function test_no_opening_before_all_have_precommitted() public {
        Task memory task = submit(redundant(0, 3, 1));
        commitRefused(task, answer(task.parts[0].nodeId, 90, 150), wrongState(task, TaskState.Assigned));
    }

    function test_everything_carried_in_one_transaction() public {
        TaskRequest memory given = redundant(0, 3, 1);
        Task memory task = submit(given);
        given.nonce = 1;
        // The order turns with the nonce: the commitments of the second task are of its own nodes.
        bytes memory signature = sign(ROUTER_KEY, given);
        queue.submitAndPrecommit(given, signature, new Precommit[](0));
        Task memory second = lastTask();
        assertState(second, TaskState.Assigned);
        assertState(precommitAll(second), TaskState.Precommitted);
        assertState(task, TaskState.Assigned);
    }

    function test_carried_forms_take_their_own_redundancy() public {
        TaskRequest memory given = redundant(0, 3, 1);
        bytes memory signature = sign(ROUTER_KEY, given);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_RedundancyOutOfBounds.selector, 3, 1));
        queue.submitAndCommit(given, signature, answer(NodeId.wrap(1), 90, 150));
        given = wanted(0);
        signature = sign(ROUTER_KEY, given);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_RedundancyOutOfBounds.selector, 1, 1));
        queue.submitAndPrecommit(given, signature, new Precommit[](0));
        given = pulled(0, 1);
        signature = sign(ROUTER_KEY, given);
        vm.expectPartialRevert(ISessionQueue.SessionQueue_WrongState.selector);
        queue.submitAndCommit(given, signature, answer(NodeId.wrap(1), 90, 150));
    }

    function test_a_carried_answer_at_the_very_deadline() public {
        TaskRequest memory given = wanted(0);
        given.nodeId = firstNode(id);
        given.deadline = uint64(block.timestamp);
        bytes memory signature = sign(ROUTER_KEY, given);
        address operator = operatorOf(given.nodeId);
        vm.prank(operator);
        queue.submitAndCommit(given, signature, answer(given.nodeId, 90, 150));
    }
}
