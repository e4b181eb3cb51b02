// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeState} from "../../../src/interfaces/INodePool.sol";
import {Evidence, ISessionPayment, Rule} from "../../../src/interfaces/ISessionPayment.sol";
import {Terms} from "../../../src/interfaces/IParameters.sol";
import {ISessionQueue, Precommit, Task} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId, TaskId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// `settle` and `reportEquivocation`.
contract EndsTest is QueueBase {
    function committed(uint64 nonce) internal returns (Task memory task) {
        task = submit(wanted(nonce));
        return commit(task, answer(task.parts[0].nodeId, 90, 150));
    }

    /// [L7, T6]
    function test_settle_at_the_exact_second() public {
        Task memory task = committed(0);
        uint40 until = untilOf(task);
        vm.warp(until - 1);
        assertEq(settle(task), 0, "early");
        vm.warp(until);
        assertEq(settle(task), 1, "in time");
        assertEq(settle(task), 0, "twice");
        assertEq(tipsOf(keeper), TIP, "one tip");
    }

    /// [M5]
    function test_settle_twice_in_one_call() public {
        Task memory task = committed(0);
        skipTime(SETTLE_DELAY);
        Task[] memory twice = new Task[](2);
        (twice[0], twice[1]) = (task, task);
        assertEq(queue.settle(twice), 1, "once");
    }

    function test_settle_skips_what_is_stale_or_open() public {
        Task memory open = submit(wanted(0));
        Task memory done = committed(1);
        skipTime(SETTLE_DELAY);
        ++done.parts[0].fee;
        Task[] memory both = new Task[](2);
        (both[0], both[1]) = (open, done);
        assertEq(queue.settle(both), 0, "none");
        --done.parts[0].fee;
        assertEq(queue.settle(both), 1, "one");
    }

    /// [G2]
    function test_settle_takes_64() public {
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_TooMany.selector, 65, 64));
        queue.settle(new Task[](65));
        assertEq(queue.settle(new Task[](64)), 0, "unknown tasks");
    }

    /// [M4]
    function testFuzz_shares(uint32 prompt, uint32 output) public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        task = commit(task, answer(nodeId, uint32(bound(prompt, 1, 100)), uint32(bound(output, 1, 200))));
        skipTime(SETTLE_DELAY);
        uint256 supply = token.totalSupply();
        settle(task);
        uint256 paid = task.parts[0].fee;
        uint256 miner = payment.balanceOf(payoutOf(NodeId.unwrap(nodeId)), COR);
        assertEq(miner, paid * MINER_BPS / 10_000, "miner");
        uint256 others = payment.balanceOf(router, COR) + payment.balanceOf(publisher, COR) + tipsOf(keeper);
        assertEq(miner + others + supply - token.totalSupply(), paid, "all of it");
        assertEq(free(ROUTER_LANE), ALLOTMENT - paid, "the rest is free");
    }

    // ---------------------------------------------------------------- evidence

    function two(Task memory task, NodeId nodeId) internal view returns (Precommit memory one, Precommit memory other) {
        return (signed(task, answer(nodeId, 90, 150)), signed(task, answer(nodeId, 90, 151)));
    }

    /// [P1, P2]
    function test_equivocation_costs_stake_once() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        (Precommit memory one, Precommit memory other) = two(task, nodeId);
        uint256 stake = payment.stakeOf(nodeId);
        TaskId taskId = idOf(task);
        vm.prank(keeper);
        queue.reportEquivocation(taskId, one, other);
        uint256 taken = stake * SLASH_BPS / 10_000;
        assertEq(payment.stakeOf(nodeId), stake - taken, "stake");
        assertEq(tipsOf(keeper), taken * REPORTER_BPS / 10_000, "reward");
        assertEq(uint8(pool.nodeOf(nodeId).state), uint8(NodeState.Jailed), "jailed");
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_AlreadyPunished.selector, taskId, nodeId));
        queue.reportEquivocation(taskId, other, one);
    }

    /// [P2, E1] With nothing left to take, the event still tells for which task the node was punished.
    function test_equivocation_without_stake_is_told() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        (Precommit memory one, Precommit memory other) = two(task, nodeId);
        TaskId taskId = idOf(task);
        uint256 stake = payment.stakeOf(nodeId);
        vm.prank(address(queue));
        payment.slash(nodeId, Evidence(taskId, Rule.Equivocation, 2, 1), stake, keeper, 0);
        vm.expectEmit();
        emit ISessionPayment.Slashed(nodeId, taskId, Rule.Equivocation, 2, 1, 0, keeper, 0);
        vm.prank(keeper);
        queue.reportEquivocation(taskId, one, other);
        assertEq(uint8(pool.nodeOf(nodeId).state), uint8(NodeState.Jailed), "jailed");
        assertEq(tipsOf(keeper), 0, "no reward");
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_AlreadyPunished.selector, taskId, nodeId));
        queue.reportEquivocation(taskId, one, other);
    }

    /// [X3] A node loses what the terms of its registration say.
    function testFuzz_equivocation_costs_what_the_nodes_own_terms_say(uint16 slashBps, uint16 reporterBps) public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        (Precommit memory one, Precommit memory other) = two(task, nodeId);
        Terms memory next = firstTerms();
        next.node.slashBps = uint16(bound(slashBps, 1, 10_000));
        next.node.reporterBps = uint16(bound(reporterBps, 0, 5000));
        vm.prank(governor);
        parameters.propose(next);
        skipTime(PARAMETERS_DELAY);
        assertEq(parameters.currentVersion(), 2, "other terms hold by now");
        uint256 stake = payment.stakeOf(nodeId);
        TaskId taskId = idOf(task);
        vm.prank(keeper);
        queue.reportEquivocation(taskId, one, other);
        uint256 taken = stake * SLASH_BPS / 10_000;
        assertEq(payment.stakeOf(nodeId), stake - taken, "stake");
        assertEq(tipsOf(keeper), taken * REPORTER_BPS / 10_000, "reward");
    }

    /// [P1]
    function test_what_is_no_equivocation() public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        (Precommit memory one, Precommit memory other) = two(task, nodeId);
        TaskId taskId = idOf(task);
        bytes memory why = abi.encodeWithSelector(ISessionQueue.SessionQueue_NotEquivocal.selector, taskId, nodeId);
        vm.expectRevert(why);
        queue.reportEquivocation(taskId, one, one);
        (Precommit memory alien,) = two(task, outsider(task));
        vm.expectRevert(why);
        queue.reportEquivocation(taskId, one, alien);
        Precommit memory unsigned = Precommit(nodeId, other.commitment, "");
        vm.expectRevert(why);
        queue.reportEquivocation(taskId, one, unsigned);
        Task memory second = submit(wanted(1));
        (Precommit memory elsewhere,) = two(second, nodeId);
        vm.expectRevert(why);
        queue.reportEquivocation(taskId, one, elsewhere);
        TaskId none = TaskId.wrap(bytes32(uint256(1)));
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_UnknownTask.selector, none));
        queue.reportEquivocation(none, one, other);
    }
}
