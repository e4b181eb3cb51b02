// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Answer, Task, TaskRequest, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// Whole lives of tasks.
contract LifeTest is QueueBase {
    /// [T1]
    function test_one_miner() public {
        Task memory task = submit(wanted(0));
        assertState(task, TaskState.Assigned);
        task = commit(task, answer(task.parts[0].nodeId, 90, 150));
        assertState(task, TaskState.Committed);
        skipTime(SETTLE_DELAY);
        assertEq(settle(task), 1, "settled");
        assertState(task, TaskState.Settled);
        assertEq(held(ROUTER_LANE), 0, "held");
        assertEq(free(ROUTER_LANE), ALLOTMENT - task.parts[0].fee, "free");
    }

    function test_one_miner_folded() public {
        TaskRequest memory given = wanted(0);
        uint256 before = free(ROUTER_LANE);
        given.nodeId = NodeId.wrap(2);
        Answer memory answer_ = answer(given.nodeId, 90, 150);
        bytes memory signature = sign(ROUTER_KEY, given);
        vm.prank(operatorOf(given.nodeId));
        queue.submitAndCommit(given, signature, answer_);
        Task memory task = lastTask();
        assertEq(task.held, fee(id, 90, 150), "holds the fee alone");
        task = afterCommit(task, 0, answer_);
        assertState(task, TaskState.Committed);
        assertEq(before - free(ROUTER_LANE), task.held, "held");
    }

    /// [T1]
    function test_three_miners() public {
        Task memory task = submit(redundant(0, 3, 1));
        task = precommitAll(task);
        assertState(task, TaskState.Precommitted);
        queue.commit(task, answers(task));
        task = lastTask();
        assertState(task, TaskState.Committed);
        skipTime(SETTLE_DELAY);
        settle(task);
        assertState(task, TaskState.Settled);
        assertEq(held(ROUTER_LANE), 0, "held");
        assertEq(free(ROUTER_LANE), ALLOTMENT - 3 * uint256(task.parts[0].fee), "free");
    }

    /// [T1]
    function test_pulled() public {
        Task memory task = submit(pulled(0, 2));
        assertState(task, TaskState.Queued);
        task = claim(task, NodeId.wrap(3));
        assertState(task, TaskState.Assigned);
        assertEq(queue.claimsOf(NodeId.wrap(3)), 1, "claims");
        task = commit(task, answer(NodeId.wrap(3), 90, 150));
        assertState(task, TaskState.Committed);
        assertEq(queue.claimsOf(NodeId.wrap(3)), 0, "claims");
    }
}
