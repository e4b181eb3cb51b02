// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Reservation, SessionInfo, SessionState} from "../../src/interfaces/ISession.sol";
import {Answer, Dispatch, ISessionQueue, Precommit, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Clients} from "./Clients.sol";

/// Those who ask, in their lanes: pushed and pulled, of one node and of several, for the current reservation and for
/// the one before, by a transaction of their own or signed and carried, with answers or without.
abstract contract Routers is Clients {
    uint256 internal constant MAX_OPEN = 24;

    function submit(uint256 random) external step {
        random = mix(random);
        TaskRequest memory wanted = anyRequest(random);
        vm.prank(session.laneOf(wanted.sessionId, wanted.lane).holder);
        queue.submit(wanted);
    }

    function submitSigned(uint256 random) external step {
        random = mix(random);
        TaskRequest memory wanted = anyRequest(random);
        bytes memory signature = consent(wanted);
        vm.prank(keeper);
        queue.submitSigned(wanted, signature);
        // [B3]
        refused(
            keeper,
            address(queue),
            abi.encodeCall(queue.submitSigned, (wanted, signature)),
            ISessionQueue.SessionQueue_NonceUsed.selector
        );
    }

    function submitAndCommit(uint256 random) external step {
        random = mix(random);
        TaskRequest memory wanted = anyRequest(random);
        if (wanted.dispatch == Dispatch.Pull) giveUp();
        wanted.redundancy = 1;
        wanted.nodeId = anyNodeOf(wanted, random >> 128);
        Answer memory given = answerOf(wanted.nodeId, taskIdOf(wanted));
        if (!mayCommit(wanted.sessionId, given)) giveUp();
        bytes memory signature = consent(wanted);
        vm.prank(operatorOf(wanted.nodeId));
        queue.submitAndCommit(wanted, signature, given);
    }

    function submitAndPrecommit(uint256 random) external step {
        random = mix(random);
        TaskRequest memory wanted = anyRequest(random);
        SessionInfo memory info = session.sessionOf(wanted.sessionId);
        bool current = wanted.seedRound == info.current.seedRound;
        uint256 count = current ? info.current.nodes.length : info.previous.nodes.length;
        if (count == 1 || !knows(wanted.seedRound) || block.timestamp > wanted.deadline) giveUp();
        if (wanted.redundancy == 1) wanted.redundancy = 2;
        wanted.dispatch = Dispatch.Push;
        affordable(wanted);
        wanted.nodeId = anyNodeOf(wanted, random >> 128);
        TaskId taskId = taskIdOf(wanted);
        bytes32 commitment = commitmentOf(taskId, answerOf(wanted.nodeId, taskId));
        Precommit[] memory list = only(
            Precommit(wanted.nodeId, commitment, signPrecommit(keyOf[wanted.nodeId], taskId, wanted.nodeId, commitment))
        );
        bytes memory signature = consent(wanted);
        vm.prank(keeper);
        queue.submitAndPrecommit(wanted, signature, list);
    }

    /// A lane's authority ends where the lane does.
    function submitWrongly(uint256 random) external step {
        random = mix(random);
        TaskRequest memory wanted = anyRequest(random);
        bytes memory data = abi.encodeCall(queue.submit, (wanted));
        refused(keeper, address(queue), data, ISessionQueue.SessionQueue_NotHolder.selector);
        data = abi.encodeCall(queue.submitSigned, (wanted, sign(0xBAD, wanted)));
        refused(keeper, address(queue), data, ISessionQueue.SessionQueue_BadSignature.selector);
        address holder = session.laneOf(wanted.sessionId, wanted.lane).holder;
        wanted.maxOutput = type(uint32).max;
        wanted.feeCap = type(uint96).max;
        data = abi.encodeCall(queue.submit, (wanted));
        // [M2] More than the lane has.
        refused(holder, address(queue), data);
    }

    // ---------------------------------------------------------------- requests

    /// A request that the queue takes now.
    function anyRequest(uint256 random) internal returns (TaskRequest memory wanted) {
        if (open.length >= MAX_OPEN) giveUp();
        (SessionId id, Lane lane) = anyOpenLane(random);
        wanted = request(id, lane, payment.fundsOf(id, lane).nextNonce + uint64(random >> 60) % 2, ANY_NODE);
        random >>= 64;
        (wanted.attempts, wanted.redundancy) = (uint8(random % 3 + 1), uint8(random >> 8) % 3 + 1);
        SessionInfo memory info = session.sessionOf(id);
        Reservation memory serving = info.current;
        if (info.previous.until >= block.timestamp && random >> 16 & 1 == 1) serving = info.previous;
        wanted.seedRound = serving.seedRound;
        if (wanted.redundancy > serving.nodes.length) wanted.redundancy = 1;
        if (Lane.unwrap(lane) == 0 && random >> 17 & 1 == 1) wanted.callbackGas = 100_000;
        if (random >> 18 & 3 == 0) {
            (wanted.dispatch, wanted.redundancy) = (Dispatch.Pull, 1);
            (uint64 next, uint64 head) = queue.ticketsOf(id);
            if (next - head >= 64) giveUp();
        } else if (!knows(serving.seedRound)) {
            (wanted.redundancy, wanted.nodeId) = (1, serving.nodes[(random >> 20) % serving.nodes.length]);
        }
        wanted.deadline = deadlineFor(wanted, info, random >> 32);
        affordable(wanted);
    }

    function anyOpenLane(uint256 random) internal view returns (SessionId id, Lane lane) {
        for (uint256 i; i < live.length; ++i) {
            id = live[(uint64(random) % live.length + i) % live.length];
            lane = anyLane(id, random >> 32);
            bool draining = sessionStates[id] == SessionState.Draining && Lane.unwrap(lane) != 0;
            if (sessionStates[id] == SessionState.Active || draining) return (id, lane);
        }
        giveUp();
    }

    /// Within the lane's time.
    function deadlineFor(TaskRequest memory wanted, SessionInfo memory info, uint256 random)
        internal
        view
        returns (uint64)
    {
        uint256 latest = block.timestamp + 60;
        uint256 tail = (wanted.attempts == 1 ? 0 : uint256(wanted.attempts) * 20) + 10;
        uint256 endsAt = session.laneOf(wanted.sessionId, wanted.lane).reclaimAt;
        if (info.endsAt != 0 && (endsAt == 0 || info.endsAt < endsAt)) endsAt = info.endsAt;
        if (endsAt != 0 && endsAt < latest + tail) latest = endsAt - tail;
        if (latest <= block.timestamp) giveUp();
        return uint64(bound(random, block.timestamp + 1, latest));
    }

    function affordable(TaskRequest memory wanted) internal view {
        uint256 cost = uint256(fee(wanted.sessionId, wanted.maxPrompt, wanted.maxOutput)) * wanted.redundancy
            + session.payeesOf(wanted.sessionId, wanted.lane).tip;
        if (payment.fundsOf(wanted.sessionId, wanted.lane).free < cost) giveUp();
    }

    /// The holder's signature; that of a contract is what it makes of it.
    function consent(TaskRequest memory wanted) internal view returns (bytes memory) {
        address holder = session.laneOf(wanted.sessionId, wanted.lane).holder;
        if (holder == client) return sign(CLIENT_KEY, wanted);
        if (holder == other) return sign(OTHER_KEY, wanted);
        if (holder == router) return sign(ROUTER_KEY, wanted);
        if (holder == secondRouter) return sign(SECOND_ROUTER_KEY, wanted);
        if (holder != address(consumer) || uint256(consumer.manner()) % 4 != 0) giveUp();
        return hex"01";
    }

    function anyNodeOf(TaskRequest memory wanted, uint256 random) internal view returns (NodeId) {
        if (NodeId.unwrap(wanted.nodeId) != 0) return wanted.nodeId;
        SessionInfo memory info = session.sessionOf(wanted.sessionId);
        Reservation memory serving = wanted.seedRound == info.current.seedRound ? info.current : info.previous;
        return serving.nodes[random % serving.nodes.length];
    }

    function taskIdOf(TaskRequest memory wanted) internal view returns (TaskId) {
        return queue.taskIdOf(wanted.sessionId, wanted.lane, wanted.nonce);
    }

    /// What a node answers to a task, always the same.
    function answerOf(NodeId nodeId, TaskId taskId) internal view virtual returns (Answer memory) {
        uint256 random = uint256(keccak256(abi.encode(nodeId, taskId)));
        return answer(nodeId, uint32(random % 100 + 1), uint32((random >> 32) % 200 + 1));
    }

    /// Whether an answer is taken: a proven one only if an audit could keep its node honest.
    function mayCommit(SessionId, Answer memory) internal view virtual returns (bool) {
        return true;
    }
}
