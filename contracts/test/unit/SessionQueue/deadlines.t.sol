// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Series} from "../../../src/interfaces/INodeStats.sol";
import {Answer, ISessionQueue, PartState, Precommit, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// `advance` and `decline`.
contract DeadlinesTest is QueueBase {
    function late(Task memory task) internal {
        vm.warp(untilOf(task) + 1);
    }

    /// [L1, L6, T6]
    function test_advance_at_the_deadline_and_one_second_after() public {
        Task memory task = submit(wanted(0));
        vm.warp(untilOf(task));
        vm.expectRevert(
            abi.encodeWithSelector(ISessionQueue.SessionQueue_DeadlineNotPassed.selector, idOf(task), untilOf(task))
        );
        queue.advance(task);
        late(task);
        NodeId silent = task.parts[0].nodeId;
        task = advance(task);
        assertState(task, TaskState.Refunded);
        assertEq(free(ROUTER_LANE), ALLOTMENT - TIP, "all but the tip");
        assertEq(held(ROUTER_LANE), 0, "held");
        assertEq(tipsOf(keeper), TIP, "tip");
        assertEq(stats.recordOf(silent, Series.Drawn).silent, 1, "silent");
        vm.expectPartialRevert(ISessionQueue.SessionQueue_WrongState.selector);
        queue.advance(task);
    }

    function test_another_node_takes_over() public {
        Task memory task = submit(redundant(0, 1, 2));
        NodeId first = task.parts[0].nodeId;
        late(task);
        task = advance(task);
        assertState(task, TaskState.Assigned);
        assertTrue(NodeId.unwrap(task.parts[0].nodeId) != NodeId.unwrap(first), "another");
        assertEq(untilOf(task), block.timestamp + ATTEMPT_TIME, "until");
    }

    /// [L2]
    function test_no_take_over_after_the_final_time() public {
        Task memory task = submit(redundant(0, 1, 2));
        vm.warp(task.finalBy - ATTEMPT_TIME + 1);
        assertState(advance(task), TaskState.Refunded);
    }

    /// [L7, P3]
    function test_declined_tasks_earn_no_tip() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        address operator = operatorOf(nodeId);
        vm.prank(operator);
        queue.decline(task, nodeId, "");
        task = lastTask();
        assertState(task, TaskState.Refunded);
        assertEq(free(ROUTER_LANE), ALLOTMENT, "all of it");
        assertEq(tipsOf(operator), 0, "no tip");
        assertEq(stats.recordOf(nodeId, Series.Drawn).declined, 1, "declined");
        assertEq(stats.recordOf(nodeId, Series.Drawn).silent, 0, "no fault");
    }

    function test_a_node_that_declined_is_not_asked_again() public {
        Task memory task = submit(redundant(0, 1, 3));
        uint8 tried = task.tried;
        for (uint256 i; i < 2; ++i) {
            NodeId nodeId = task.parts[0].nodeId;
            bytes memory signature = signDecline(NodeId.unwrap(nodeId), idOf(task), nodeId);
            vm.prank(keeper);
            queue.decline(task, nodeId, signature);
            task = lastTask();
            assertState(task, TaskState.Assigned);
            assertTrue(task.tried != tried && task.tried & tried == tried, "one more");
            tried = task.tried;
        }
        assertEq(task.attemptsLeft, 0, "none left");
    }

    function test_decline_refusals() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOperator.selector, nodeId, keeper));
        vm.prank(keeper);
        queue.decline(task, nodeId, "");
        NodeId other = outsider(task);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOnTask.selector, idOf(task), other));
        queue.decline(task, other, "");
        Task memory second = submit(wanted(1));
        bytes memory replayed = signDecline(NodeId.unwrap(second.parts[0].nodeId), idOf(task), second.parts[0].nodeId);
        vm.expectPartialRevert(ISessionQueue.SessionQueue_NotOperator.selector);
        queue.decline(second, second.parts[0].nodeId, replayed);
        uint40 until = untilOf(task);
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_DeadlinePassed.selector, idOf(task), until));
        queue.decline(task, nodeId, "");
    }

    function test_some_precommit_and_some_are_silent() public {
        Task memory task = submit(redundant(0, 3, 1));
        Precommit[] memory all = precommits(task);
        queue.precommit(task, only(all[1]));
        (task.parts[1].state, task.parts[1].commitment) = (PartState.Precommitted, all[1].commitment);
        late(task);
        task = advance(task);
        assertState(task, TaskState.Precommitted);
        assertEq(tipsOf(keeper), 0, "no tip before the end");
        queue.commit(task, only(answer(task.parts[1].nodeId, 90, 150)));
        task = lastTask();
        assertState(task, TaskState.Committed);
        skipTime(SETTLE_DELAY);
        settle(task);
        assertEq(held(ROUTER_LANE), 0, "held");
        assertEq(free(ROUTER_LANE), ALLOTMENT - fee(id, 90, 150), "one answer is paid");
    }

    function test_an_opening_that_never_comes() public {
        Task memory task = precommitAll(submit(redundant(0, 2, 1)));
        late(task);
        NodeId hidden = task.parts[0].nodeId;
        task = advance(task);
        assertState(task, TaskState.Refunded);
        assertEq(stats.recordOf(hidden, Series.Drawn).unrevealed, 1, "unrevealed");
        assertEq(free(ROUTER_LANE), ALLOTMENT - TIP, "all but the tip");
    }
}
