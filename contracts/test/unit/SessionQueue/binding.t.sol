// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Outcome, Record, Series} from "../../../src/interfaces/INodeStats.sol";
import {Answer, ISessionQueue, Precommit, Task} from "../../../src/interfaces/ISessionQueue.sol";
import {Commitments} from "../../../src/libraries/Commitments.sol";
import {NodeId, TaskId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// What a node is bound to by its word, and what it loses by silence and by lies.
contract BindingTest is QueueBase {
    /// [B1] A node that promised the answer of another chain, contract, task or node opens nothing here with it.
    function testFuzz_a_commitment_for_elsewhere_opens_nothing(uint8 which) public {
        Task memory task = submit(redundant(0, 2, 1));
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        bytes32 right = commitmentFor(block.chainid, address(queue), idOf(task), given);
        assertEq(right, commitmentOf(idOf(task), given), "the commitment of this task");
        bytes32 wrong;
        if (which % 4 == 0) wrong = commitmentFor(block.chainid + 1, address(queue), idOf(task), given);
        if (which % 4 == 1) wrong = commitmentFor(block.chainid, address(pool), idOf(task), given);
        if (which % 4 == 2) wrong = commitmentFor(block.chainid, address(queue), TaskId.wrap("other"), given);
        if (which % 4 == 3) {
            given.nodeId = task.parts[1].nodeId;
            wrong = commitmentFor(block.chainid, address(queue), idOf(task), given);
            given.nodeId = task.parts[0].nodeId;
        }
        Precommit[] memory list = precommits(task);
        list[0].commitment = wrong;
        list[0].signature = signPrecommit(NodeId.unwrap(given.nodeId), idOf(task), given.nodeId, wrong);
        queue.precommit(task, list);
        task = lastTask();
        bytes4 why = ISessionQueue.SessionQueue_WrongOpening.selector;
        vm.expectRevert(abi.encodeWithSelector(why, idOf(task), given.nodeId, right));
        queue.commit(task, only(given));
    }

    function commitmentFor(uint256 chain, address target, TaskId taskId, Answer memory given)
        internal
        pure
        returns (bytes32)
    {
        return Commitments.commitment(Commitments.tokenSeal(chain, target, taskId, given), given.proofSeal);
    }

    /// [P3] Silence costs two levels and a count, and no stake.
    function test_silence_costs_levels_and_no_stake() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        proven(nodeId);
        uint256 stake = payment.stakeOf(nodeId);
        vm.warp(untilOf(task) + 1);
        advance(task);
        Record memory record = stats.recordOf(nodeId, Series.Drawn);
        assertEq(record.silent, 1, "silent");
        assertEq(record.level, 1, "two levels less");
        assertEq(payment.stakeOf(nodeId), stake, "stake");
    }

    /// [P3] Handing a task back costs a count.
    function test_declining_costs_a_count_alone() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        proven(nodeId);
        uint256 stake = payment.stakeOf(nodeId);
        vm.prank(operatorOf(nodeId));
        queue.decline(task, nodeId, "");
        Record memory record = stats.recordOf(nodeId, Series.Drawn);
        assertEq(record.declined, 1, "declined");
        assertEq(record.level, 3, "level");
        assertEq(payment.stakeOf(nodeId), stake, "stake");
    }

    /// Level 3.
    function proven(NodeId nodeId) internal {
        vm.prank(address(queue));
        stats.count(nodeId, Series.Drawn, Outcome.Settled, 7);
    }

    /// [P5] Who reports himself loses more than he earns, whatever stands in the terms.
    function test_reporting_oneself_never_pays() public {
        TaskId taskId = idOf(submit(wanted(0)));
        NodeId nodeId = NodeId.wrap(1);
        address owner = pool.nodeOf(nodeId).owner;
        uint256 stake = payment.stakeOf(nodeId);
        bytes memory one = signPrecommit(1, taskId, nodeId, "one");
        bytes memory other = signPrecommit(1, taskId, nodeId, "other");
        vm.prank(owner);
        queue.reportEquivocation(taskId, Precommit(nodeId, "one", one), Precommit(nodeId, "other", other));
        uint256 lost = stake - payment.stakeOf(nodeId);
        assertEq(lost, stake * SLASH_BPS / 10_000, "lost");
        assertEq(payment.balanceOf(owner, COR), lost * REPORTER_BPS / 10_000, "earned");
        // `Parameters` never allows a reward above half of a slash.
        assertTrue(payment.balanceOf(owner, COR) * 2 <= lost, "half at most");
    }
}
