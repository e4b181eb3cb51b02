// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Answer, ISessionQueue, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// `claim` and `cancel`.
contract QueueTest is QueueBase {
    NodeId internal constant ONE = NodeId.wrap(1);
    NodeId internal constant TWO = NodeId.wrap(2);

    function cancel(Task memory task) internal {
        vm.prank(router);
        queue.cancel(task);
    }

    function claimRefused(Task memory task, NodeId nodeId, Task[] memory gone, bytes memory why) internal {
        address operator = operatorOf(nodeId);
        vm.expectRevert(why);
        vm.prank(operator);
        queue.claim(task, nodeId, gone);
    }

    function test_cancel_gives_everything_back() public {
        Task memory task = submit(pulled(0, 1));
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHolder.selector, id, ROUTER_LANE, client));
        vm.prank(client);
        queue.cancel(task);
        cancel(task);
        assertState2(task, TaskState.Refunded);
        assertEq(free(ROUTER_LANE), ALLOTMENT, "free");
        vm.expectRevert(wrongState(task, TaskState.Refunded));
        vm.prank(router);
        queue.cancel(task);
    }

    function assertState2(Task memory task, TaskState state) internal view {
        assertEq(uint8(stateOf(task)), uint8(state), "state");
    }

    /// [B7] Otherwise the text would be free.
    function test_cancel_after_the_stream_has_begun() public {
        Task memory task = claim(submit(pulled(0, 1)), ONE);
        vm.expectRevert(wrongState(task, TaskState.Assigned));
        vm.prank(router);
        queue.cancel(task);
        Task memory pushed = submit(wanted(1));
        vm.expectRevert(wrongState(pushed, TaskState.Assigned));
        vm.prank(router);
        queue.cancel(pushed);
    }

    function test_only_the_head_is_claimed() public {
        Task memory one = submit(pulled(0, 1));
        Task memory two = submit(pulled(1, 1));
        bytes memory why = abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHead.selector, idOf(two), 2, 1);
        claimRefused(two, ONE, new Task[](0), why);
        claimRefused(two, ONE, only(one), wrongState(one, TaskState.Queued));
        cancel(one);
        address operator = operatorOf(ONE);
        vm.prank(operator);
        queue.claim(two, ONE, only(one));
        (uint64 next, uint64 head) = queue.ticketsOf(id);
        assertEq(next, 3, "next");
        assertEq(head, 3, "head");
    }

    function test_claim_refusals() public {
        Task memory task = submit(pulled(0, 1));
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOperator.selector, ONE, keeper));
        vm.prank(keeper);
        queue.claim(task, ONE, new Task[](0));
        NodeId stranger = newNode(9, 1);
        claimRefused(
            task,
            stranger,
            new Task[](0),
            abi.encodeWithSelector(ISessionQueue.SessionQueue_NotReserved.selector, id, stranger)
        );
        claimRefused(
            task, ONE, new Task[](65), abi.encodeWithSelector(ISessionQueue.SessionQueue_TooMany.selector, 65, 64)
        );
        uint40 until = untilOf(task);
        vm.warp(until + 1);
        bytes memory why = abi.encodeWithSelector(ISessionQueue.SessionQueue_DeadlinePassed.selector, idOf(task), until);
        claimRefused(task, ONE, new Task[](0), why);
    }

    /// [G2]
    function test_two_open_claims_a_node() public {
        claim(submit(pulled(0, 1)), ONE);
        claim(submit(pulled(1, 1)), ONE);
        Task memory third = submit(pulled(2, 1));
        claimRefused(
            third, ONE, new Task[](0), abi.encodeWithSelector(ISessionQueue.SessionQueue_TooManyClaims.selector, ONE, 2)
        );
        claim(third, TWO);
    }

    /// [T1]
    function test_a_silent_claim_goes_to_the_tail() public {
        Task memory task = claim(submit(pulled(0, 2)), ONE);
        vm.warp(untilOf(task));
        Task memory other = submit(pulled(1, 1));
        // The latest second in which a follower has a whole attempt is the deadline itself: decline in time.
        address operator = operatorOf(ONE);
        vm.prank(operator);
        queue.decline(task, ONE, "");
        task = lastTask();
        assertState(task, TaskState.Queued);
        assertEq(task.ticket, 3, "behind the other");
        assertEq(queue.claimsOf(ONE), 0, "claims");
        claim(other, TWO);
        claimRefused(
            task,
            ONE,
            new Task[](0),
            abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOnTask.selector, idOf(task), ONE)
        );
        task = claim(task, TWO);
        assertEq(untilOf(task), block.timestamp + ATTEMPT_TIME, "a whole attempt");
    }

    /// A queue full of tasks that have ended is not stuck.
    function test_ended_tasks_leave_the_head() public {
        Task[] memory tasks = new Task[](64);
        for (uint64 i; i < 64; ++i) {
            tasks[i] = submit(pulled(i, 1));
        }
        for (uint256 i; i < 64; ++i) {
            cancel(tasks[i]);
        }
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotHead.selector, idOf(tasks[1]), 2, 1));
        queue.advance(tasks[1]);
        queue.advance(tasks[0]);
        assertEq(free(ROUTER_LANE), ALLOTMENT, "nothing paid");
        submit(pulled(64, 1));
    }

    function test_a_task_that_nobody_claims() public {
        Task memory task = submit(pulled(0, 2));
        vm.warp(untilOf(task) + 1);
        assertState(advance(task), TaskState.Refunded);
        assertEq(free(ROUTER_LANE), ALLOTMENT - TIP, "all but the tip");
        assertEq(tipsOf(keeper), TIP, "tip");
    }
}
