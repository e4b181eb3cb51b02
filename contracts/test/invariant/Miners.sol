// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration, NodeState} from "../../src/interfaces/INodePool.sol";
import {
    Answer,
    Dispatch,
    ISessionQueue,
    Part,
    PartState,
    Precommit,
    Task,
    TaskState
} from "../../src/interfaces/ISessionQueue.sol";
import {NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Routers} from "./Routers.sol";

/// Nodes: honest ones, and late, wrong, lying, leaving ones. A silent one is a task that `Clock` lets run out. Every
/// owner has two nodes, and the first client's friends serve him alone.
abstract contract Miners is Routers {
    uint256 internal constant MAX_NODES = 24;
    /// Nobody leaves if fewer are there.
    uint256 internal constant FEW_NODES = 6;

    /// Numbers of operators' keys so far.
    uint256 internal keys;
    /// Unix seconds.
    mapping(NodeId => uint256) internal drainedAt;
    mapping(TaskId => mapping(NodeId => bool)) internal punished;

    function setUpMiners() internal virtual {
        for (uint256 i; i < 8; ++i) {
            joinAs(uint8(i % 4 + 1), address(0));
        }
        joinAs(2, client);
        joinAs(3, client);
        skipTime(ACTIVATION_DELAY + 1);
    }

    function joinAs(uint8 capacity, address dedicatedTo) internal virtual {
        uint256 key = ++keys;
        uint256 owner = (key + 1) / 2;
        NodeRegistration memory wanted = registration(key, capacity);
        wanted.dedicatedTo = dedicatedTo;
        keyOf[register(owner, wanted)] = key;
        accounts.push(payoutOf(key));
        if (key % 2 == 1) accounts.push(ownerOf(owner));
    }

    // ---------------------------------------------------------------- work

    /// The first answer, precommitment or opening that is due of some task.
    function serve(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < open.length; ++i) {
            TaskId taskId = open[(random % open.length + i) % open.length];
            TaskState state = known[taskId].state;
            if (state != TaskState.Assigned && state != TaskState.Precommitted) continue;
            if (block.timestamp > untilOf(taskId)) continue;
            Task memory task = taskOf(taskId);
            PartState due = state == TaskState.Assigned ? PartState.Waiting : PartState.Precommitted;
            NodeId nodeId = anyPart(task, due, random >> 64).nodeId;
            if (due == PartState.Waiting && task.parts.length > 1) precommit(task, taskId, nodeId);
            else commit(task, taskId, nodeId, random >> 128);
            return;
        }
        giveUp();
    }

    function precommit(Task memory task, TaskId taskId, NodeId nodeId) internal {
        bytes32 commitment = commitmentOf(taskId, answerOf(nodeId, taskId));
        bytes memory signature = signPrecommit(keyOf[nodeId], taskId, nodeId, commitment);
        vm.prank(keeper);
        queue.precommit(task, only(Precommit(nodeId, commitment, signature)));
    }

    /// By the operator, or carried with its signature.
    function commit(Task memory task, TaskId taskId, NodeId nodeId, uint256 random) internal virtual {
        Answer memory given = answerOf(nodeId, taskId);
        if (random & 1 == 0) {
            given.signature = signPrecommit(keyOf[nodeId], taskId, nodeId, commitmentOf(taskId, given));
            vm.prank(keeper);
        } else {
            vm.prank(operatorOf(nodeId));
        }
        queue.commit(task, only(given));
    }

    /// The first task of a queue that is still there.
    function claim(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < live.length; ++i) {
            SessionId id = live[(random % live.length + i) % live.length];
            (uint64 next, uint64 head) = queue.ticketsOf(id);
            uint64 ticket = head;
            while (ticket < next && known[byTicket[id][ticket]].state == TaskState.Refunded) ++ticket;
            if (ticket == next) continue;
            TaskId taskId = byTicket[id][ticket];
            if (block.timestamp > untilOf(taskId)) continue;
            Task memory task = taskOf(taskId);
            NodeId nodeId = claimerOf(task);
            if (NodeId.unwrap(nodeId) == 0) continue;
            Task[] memory gone = new Task[](ticket - head);
            for (uint64 k = head; k < ticket; ++k) {
                gone[k - head] = taskOf(byTicket[id][k]);
            }
            vm.prank(operatorOf(nodeId));
            queue.claim(task, nodeId, gone);
            return;
        }
        giveUp();
    }

    function claimerOf(Task memory task) internal view returns (NodeId) {
        (uint256 set,) = session.nodesOf(task.sessionId, task.reservation);
        for (uint256 i; i < 8; ++i) {
            NodeId nodeId = NodeId.wrap(uint32(set >> (32 * i)));
            bool tried = task.tried >> i & 1 == 1;
            if (NodeId.unwrap(nodeId) != 0 && !tried && queue.claimsOf(nodeId) < 2) return nodeId;
        }
        return NodeId.wrap(0);
    }

    function decline(uint256 random) external step {
        random = mix(random);
        (Task memory task, TaskId taskId) = anyAssigned(random);
        NodeId nodeId = anyPart(task, PartState.Waiting, random >> 64).nodeId;
        bytes memory signature = signDecline(keyOf[nodeId], taskId, nodeId);
        vm.prank(keeper);
        queue.decline(task, nodeId, signature);
    }

    // ---------------------------------------------------------------- what is refused

    /// [B4, B6, T6] Too late, another's answer, another answer than was precommitted.
    function answerWrongly(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < open.length; ++i) {
            TaskId taskId = open[(random % open.length + i) % open.length];
            TaskState state = known[taskId].state;
            if (state != TaskState.Assigned && state != TaskState.Precommitted) continue;
            Task memory task = taskOf(taskId);
            PartState due = state == TaskState.Assigned ? PartState.Waiting : PartState.Precommitted;
            NodeId nodeId = anyPart(task, due, random >> 64).nodeId;
            if (block.timestamp > untilOf(taskId)) answerLate(task, answerOf(nodeId, taskId));
            else if (due == PartState.Precommitted) openWrongly(task, answerOf(nodeId, taskId));
            else answerForAnother(task, answerOf(nodeId, taskId));
            return;
        }
        giveUp();
    }

    function answerLate(Task memory task, Answer memory given) internal {
        bool precommits = task.parts.length > 1 && known[taskIdOf(task)].state == TaskState.Assigned;
        bytes memory data = precommits
            ? abi.encodeCall(queue.precommit, (task, new Precommit[](0)))
            : abi.encodeCall(queue.commit, (task, only(given)));
        refused(operatorOf(given.nodeId), address(queue), data, ISessionQueue.SessionQueue_DeadlinePassed.selector);
    }

    function openWrongly(Task memory task, Answer memory given) internal {
        given.outputDigest = keccak256("something else");
        bytes memory data = abi.encodeCall(queue.commit, (task, only(given)));
        refused(operatorOf(given.nodeId), address(queue), data, ISessionQueue.SessionQueue_WrongOpening.selector);
    }

    function answerForAnother(Task memory task, Answer memory given) internal {
        bytes memory data = abi.encodeCall(queue.commit, (task, only(given)));
        if (task.parts.length > 1) {
            // Not before everybody has precommitted.
            refused(operatorOf(given.nodeId), address(queue), data, ISessionQueue.SessionQueue_WrongState.selector);
            return;
        }
        refused(keeper, address(queue), data, ISessionQueue.SessionQueue_NotOperator.selector);
        given.nodeId = NodeId.wrap(type(uint32).max);
        data = abi.encodeCall(queue.commit, (task, only(given)));
        refused(keeper, address(queue), data, ISessionQueue.SessionQueue_NotOnTask.selector);
    }

    function taskIdOf(Task memory task) internal view returns (TaskId) {
        return queue.taskIdOf(task.sessionId, task.lane, task.nonce);
    }

    /// [T5]
    function bringAnother(uint256 random) external step {
        random = mix(random);
        if (open.length == 0) giveUp();
        Task memory task = taskOf(open[random % open.length]);
        ++task.held;
        bytes4 why = ISessionQueue.SessionQueue_StaleTask.selector;
        refused(keeper, address(queue), abi.encodeCall(queue.advance, (task)), why);
        assertEq(queue.settle(only(task)), 0, "[T5] not settled");
    }

    /// [P1, P2] A node that signs two answers loses a part of its stake, once; and it is jailed.
    function lie(uint256 random) external step {
        random = mix(random);
        if (open.length == 0 || takingPart() < FEW_NODES) giveUp();
        NodeId nodeId = nodes[uint64(random) % nodes.length];
        if (nodeStates[nodeId] == NodeState.Exited || nodeStates[nodeId] == NodeState.Jailed) giveUp();
        TaskId taskId = open[uint64(random >> 64) % open.length];
        if (punished[taskId][nodeId]) giveUp();
        punished[taskId][nodeId] = true;
        bytes memory data = abi.encodeCall(
            queue.reportEquivocation, (taskId, pledge(taskId, nodeId, "one"), pledge(taskId, nodeId, "other"))
        );
        uint256 stake = payment.stakeOf(nodeId);
        vm.prank(keeper);
        (bool done,) = address(queue).call(data);
        assertTrue(done, "[P1] evidence counts");
        uint256 slashBps = parameters.nodeTermsOf(pool.nodeOf(nodeId).termsVersion).slashBps;
        assertEq(payment.stakeOf(nodeId), stake - stake * slashBps / 10_000, "[P2] what is left");
        refused(keeper, address(queue), data, ISessionQueue.SessionQueue_AlreadyPunished.selector);
    }

    function pledge(TaskId taskId, NodeId nodeId, bytes32 commitment) internal view returns (Precommit memory) {
        return Precommit(nodeId, commitment, signPrecommit(keyOf[nodeId], taskId, nodeId, commitment));
    }

    // ---------------------------------------------------------------- coming and going

    function join(uint256 random) external step {
        random = mix(random);
        if (nodes.length >= MAX_NODES || takingPart() > 12) giveUp();
        joinAs(uint8(random % 4 + 1), random >> 8 & 3 == 0 ? client : address(0));
    }

    function drain(uint256 random) external step {
        random = mix(random);
        if (takingPart() < FEW_NODES) giveUp();
        NodeId nodeId = nodes[uint64(random) % nodes.length];
        if (nodeStates[nodeId] != NodeState.Ephemeral && nodeStates[nodeId] != NodeState.Dedicated) giveUp();
        asOwner(nodeId);
        pool.drain(nodeId);
    }

    function resume(uint256 random) external step {
        random = mix(random);
        NodeId nodeId = leaving(random, true);
        asOwner(nodeId);
        pool.resume(nodeId);
    }

    function exit(uint256 random) external step {
        random = mix(random);
        NodeId nodeId = leaving(random, false);
        asOwner(nodeId);
        pool.exit(nodeId);
    }

    function releaseStake(uint256 random) external step {
        random = mix(random);
        NodeId nodeId = anyIn(random, NodeState.Exiting);
        if (NodeId.unwrap(nodeId) == 0) giveUp();
        patient(random, pool.nodeOf(nodeId).exitAt);
        vm.prank(keeper);
        pool.releaseStake(nodeId);
    }

    /// A node that drains, and that no draw which waits can find.
    function leaving(uint256 random, bool resumes) internal returns (NodeId nodeId) {
        nodeId = anyIn(random, NodeState.Draining);
        if (NodeId.unwrap(nodeId) == 0 && !resumes) nodeId = anyIn(random, NodeState.Jailed);
        if (NodeId.unwrap(nodeId) == 0 || (!resumes && reservedBy[nodeId] != 0)) giveUp();
        patient(random, drainedAt[nodeId] + REUSE_DELAY + 1);
    }

    function asOwner(NodeId nodeId) internal {
        drainedAt[nodeId] = block.timestamp;
        vm.prank(pool.nodeOf(nodeId).owner);
    }

    // ---------------------------------------------------------------- what there is

    function takingPart() internal view returns (uint256 count) {
        for (uint256 i; i < nodes.length; ++i) {
            if (nodeStates[nodes[i]] == NodeState.Ephemeral) ++count;
        }
    }

    function anyIn(uint256 random, NodeState state) internal view returns (NodeId) {
        for (uint256 i; i < nodes.length; ++i) {
            NodeId nodeId = nodes[(random % nodes.length + i) % nodes.length];
            if (nodeStates[nodeId] == state) return nodeId;
        }
        return NodeId.wrap(0);
    }

    function untilOf(TaskId taskId) internal view returns (uint40 until) {
        (, until,) = queue.statusOf(taskId);
    }

    function anyAssigned(uint256 random) internal view returns (Task memory, TaskId) {
        for (uint256 i; i < open.length; ++i) {
            TaskId taskId = open[(random % open.length + i) % open.length];
            if (known[taskId].state != TaskState.Assigned || block.timestamp > untilOf(taskId)) continue;
            return (taskOf(taskId), taskId);
        }
        giveUp();
        revert();
    }

    function anyPart(Task memory task, PartState state, uint256 random) internal pure returns (Part memory) {
        for (uint256 i; i < task.parts.length; ++i) {
            Part memory part = task.parts[(random % task.parts.length + i) % task.parts.length];
            if (part.state == state) return part;
        }
        revert("no such part");
    }
}
