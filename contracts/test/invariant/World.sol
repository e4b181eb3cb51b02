// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, NodeState} from "../../src/interfaces/INodePool.sol";
import {SessionTerms, Terms} from "../../src/interfaces/IParameters.sol";
import {ISession, Payees, SessionState} from "../../src/interfaces/ISession.sol";
import {ISessionPayment} from "../../src/interfaces/ISessionPayment.sol";
import {
    Answer,
    Dispatch,
    ISessionQueue,
    Part,
    PartEvent,
    PartState,
    Task,
    TaskState
} from "../../src/interfaces/ISessionQueue.sol";
import {AssetId, Lane, NodeId, NumericClass, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";
import {Log} from "../IVm.sol";

/// What a network should be, told by its events alone. Every step of every actor is folded into it; `Checks` compares
/// it with what the contracts store. An event that tells of a step that is not allowed fails the step.
abstract contract World is Base {
    struct Known {
        TaskState state;
        bool refunded;
        bool delivered;
        uint96 held;
        /// abi.encode(Task).
        bytes task;
    }

    address internal constant DEAD = 0x000000000000000000000000000000000000dEaD;

    // ---------------------------------------------------------------- money
    mapping(SessionId => mapping(Lane => uint256)) internal moneyOf;
    mapping(SessionId => mapping(Lane => uint256)) internal heldOf;
    mapping(address => mapping(AssetId => uint256)) internal creditOf;
    mapping(NodeId => uint256) internal stakeTold;
    mapping(TaskId => mapping(NodeId => bool)) internal paid;

    // ---------------------------------------------------------------- sessions
    SessionId[] internal live;
    mapping(SessionId => SessionState) internal sessionStates;
    mapping(SessionId => AssetId) internal assetOf;
    mapping(SessionId => address) internal openedBy;
    mapping(SessionId => uint16) internal versionOf;

    // ---------------------------------------------------------------- tasks
    TaskId[] internal open;
    TaskId[] internal ended;
    mapping(TaskId => Known) internal known;
    mapping(SessionId => mapping(uint64 ticket => TaskId)) internal byTicket;

    // ---------------------------------------------------------------- nodes
    NodeId[] internal nodes;
    mapping(NodeId => NodeState) internal nodeStates;
    /// Places that a session has of a node.
    mapping(NodeId => mapping(SessionId => uint256)) internal reserves;
    mapping(NodeId => uint256) internal reservedBy;
    /// Number of the operator's key.
    mapping(NodeId => uint256) internal keyOf;
    /// Everybody who may have a balance.
    address[] internal accounts;

    /// Short, so that whole lives fit a run.
    function firstTerms() internal pure virtual override returns (Terms memory result) {
        result = Base.firstTerms();
        SessionTerms memory terms_ = result.session;
        (terms_.maxDeadline, terms_.attemptTime, terms_.revealTime) = (60, 20, 10);
        (terms_.noticePeriod, terms_.reservePeriod, terms_.maxTasks) = (200, 60, 8);
        result.node.unbondingPeriod = 1 hours;
    }

    /// A step of an actor: what it tells becomes known.
    modifier step() {
        vm.recordLogs();
        _;
        fold();
    }

    function fold() internal {
        Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            Log memory entry = logs[i];
            if (entry.emitter == address(payment)) foldMoney(entry);
            else if (entry.emitter == address(queue)) foldTask(entry);
            else if (entry.emitter == address(session)) foldSession(entry);
            else if (entry.emitter == address(pool)) foldNode(entry);
            else if (entry.emitter == address(proof)) foldProof(entry);
        }
        folded();
    }

    /// Sessions are proven only where these say what that means.
    function foldProof(Log memory) internal virtual {}

    /// After each step.
    function folded() internal virtual {}

    /// Whether answers may be found false.
    function isProven() internal pure virtual returns (bool) {
        return false;
    }

    // ---------------------------------------------------------------- money

    function foldMoney(Log memory entry) internal {
        bytes32 what = entry.topics[0];
        if (what == ISessionPayment.Deposited.selector) {
            moneyOf[sessionIn(entry, 1)][laneIn(entry, 2)] += amountIn(entry);
        } else if (what == ISessionPayment.FundsMoved.selector) {
            moneyOf[sessionIn(entry, 1)][laneIn(entry, 2)] -= amountIn(entry);
            moneyOf[sessionIn(entry, 1)][laneIn(entry, 3)] += amountIn(entry);
        } else if (what == ISessionPayment.SessionReturned.selector) {
            SessionId id = sessionIn(entry, 1);
            moneyOf[id][laneIn(entry, 2)] -= amountIn(entry);
            assertEq(accountIn(entry, 3), openedBy[id], "[M2] the rest is the owner's");
            creditOf[accountIn(entry, 3)][assetOf[id]] += amountIn(entry);
        } else if (what == ISessionPayment.TipPaid.selector) {
            moneyOf[sessionIn(entry, 1)][OWNER_LANE] -= amountIn(entry);
            creditOf[accountIn(entry, 2)][assetIn(entry, 3)] += amountIn(entry);
        } else if (what == ISessionPayment.Credited.selector) {
            creditOf[accountIn(entry, 1)][assetIn(entry, 2)] += amountIn(entry);
        } else if (what == ISessionPayment.Withdrawn.selector) {
            creditOf[accountIn(entry, 1)][assetIn(entry, 2)] -= amountIn(entry);
        } else if (what == ISessionPayment.Burnt.selector) {
            if (AssetId.unwrap(assetIn(entry, 1)) != 0) creditOf[DEAD][assetIn(entry, 1)] += amountIn(entry);
        } else {
            foldStake(entry, what);
        }
    }

    function foldStake(Log memory entry, bytes32 what) internal {
        NodeId nodeId = NodeId.wrap(uint32(uint256(entry.topics[1])));
        if (what == ISessionPayment.Staked.selector) {
            stakeTold[nodeId] += amountIn(entry);
        } else if (what == ISessionPayment.StakeReleased.selector) {
            assertEq(amountIn(entry), stakeTold[nodeId], "[M8] all that is left");
            stakeTold[nodeId] = 0;
            creditOf[accountIn(entry, 2)][COR] += amountIn(entry);
        } else {
            assertTrue(what == ISessionPayment.Slashed.selector, "an event of money that nobody knows");
            foldSlashed(entry, nodeId);
        }
    }

    function foldSlashed(Log memory entry, NodeId nodeId) internal virtual {
        (uint256 measured, uint256 bound_, uint256 amount,,) =
            abi.decode(entry.data, (uint256, uint256, uint256, address, uint256));
        assertTrue(measured > bound_, "[P1] a bound was broken");
        stakeTold[nodeId] -= amount;
    }

    // ---------------------------------------------------------------- tasks

    function foldTask(Log memory entry) internal {
        bytes32 what = entry.topics[0];
        TaskId taskId = TaskId.wrap(entry.topics[1]);
        if (what == ISessionQueue.TaskSubmitted.selector) {
            (,,, Task memory task) = abi.decode(entry.data, (bytes32, uint64, uint40, Task));
            enter(taskId, task.parts.length == 0 ? TaskState.Queued : TaskState.Assigned, task.dispatch);
            open.push(taskId);
            known[taskId].held = task.held;
            heldOf[task.sessionId][task.lane] += task.held;
            keep(taskId, task);
        } else if (what == ISessionQueue.TaskMoved.selector) {
            (, Task memory task) = abi.decode(entry.data, (uint40, Task));
            enter(taskId, TaskState(uint256(entry.topics[2])), task.dispatch);
            keep(taskId, task);
        } else if (what == ISessionQueue.TaskPrecommitted.selector) {
            Task memory task = taskOf(taskId);
            Part memory part = partOf(task, NodeId.wrap(uint32(uint256(entry.topics[2]))));
            (part.state, part.commitment) = (PartState.Precommitted, abi.decode(entry.data, (bytes32)));
            keep(taskId, task);
        } else if (what == ISessionQueue.TaskCommitted.selector) {
            foldCommitted(entry, taskId);
        } else if (what == ISessionQueue.TaskSettled.selector) {
            foldSettled(entry, taskId);
        } else if (what == ISessionQueue.PartChanged.selector) {
            (, PartEvent change) = abi.decode(entry.data, (uint8, PartEvent));
            if (change == PartEvent.Disproved) foldDisproved(taskId, NodeId.wrap(uint32(uint256(entry.topics[2]))));
        } else if (what == ISessionQueue.TaskRefunded.selector) {
            foldRefunded(entry, taskId);
        } else if (what == ISessionQueue.AnswerDelivered.selector) {
            foldDelivered(taskId);
        }
    }

    /// [T1, T4]
    function enter(TaskId taskId, TaskState next, Dispatch dispatch) internal {
        TaskState now_ = known[taskId].state;
        known[taskId].state = next;
        if (now_ == next && now_ != TaskState.None) return;
        bool legal;
        if (now_ == TaskState.None) {
            legal = next == TaskState.Queued || next == TaskState.Assigned;
        } else if (now_ == TaskState.Queued) {
            legal = next == TaskState.Assigned || next == TaskState.Refunded;
        } else if (now_ == TaskState.Assigned) {
            legal = next > TaskState.Assigned && next != TaskState.Settled;
        } else if (now_ == TaskState.Precommitted) {
            legal = next == TaskState.Committed || next == TaskState.Refunded;
        } else if (now_ == TaskState.Committed) {
            legal = next == TaskState.Settled || (isProven() && next == TaskState.Refunded);
        }
        if (now_ == TaskState.Assigned && next == TaskState.Queued) legal = dispatch == Dispatch.Pull;
        assertTrue(legal, string.concat("[T1] ", vm.toString(uint256(now_)), " to ", vm.toString(uint256(next))));
    }

    function foldCommitted(Log memory entry, TaskId taskId) internal {
        Task memory task = taskOf(taskId);
        Answer memory given;
        uint96 fee_;
        uint40 settleAt;
        (given, fee_, settleAt) = answerIn(entry);
        Part memory part = partOf(task, given.nodeId);
        bytes32 commitment = commitmentOf(taskId, given);
        if (task.parts.length > 1) {
            assertTrue(part.state == PartState.Precommitted, "[B4] was precommitted");
            assertEq(part.commitment, commitment, "[B4] is what was precommitted");
        }
        assertEq(fee_, fee(task.sessionId, given.promptTokens, given.outputTokens), "[M3] fee");
        (part.state, part.fee, part.commitment) = (PartState.Committed, fee_, commitment);
        if (settleAt != 0) enter(taskId, TaskState.Committed, task.dispatch);
        keep(taskId, task);
    }

    function answerIn(Log memory entry) internal pure returns (Answer memory given, uint96 fee_, uint40 settleAt) {
        given.nodeId = NodeId.wrap(uint32(uint256(entry.topics[3])));
        bytes memory data = entry.data;
        uint256[9] memory words;
        for (uint256 i; i < 9; ++i) {
            uint256 word;
            assembly ("memory-safe") {
                word := mload(add(data, mul(32, add(i, 1))))
            }
            words[i] = word;
        }
        (given.outputDigest, given.promptHash) = (bytes32(words[0]), bytes32(words[1]));
        (given.promptTokens, given.outputTokens) = (uint32(words[2]), uint32(words[3]));
        (given.numericClass, given.endReason) = (NumericClass.wrap(bytes32(words[4])), uint8(words[5]));
        (given.salt, given.proofSeal) = (bytes32(words[6]), bytes32(words[7]));
        fee_ = uint96(words[8]);
        assembly ("memory-safe") {
            settleAt := mload(add(data, 320))
        }
    }

    function foldSettled(Log memory entry, TaskId taskId) internal {
        Task memory task = taskOf(taskId);
        NodeId nodeId = NodeId.wrap(uint32(uint256(entry.topics[3])));
        assertTrue(!paid[taskId][nodeId] && !known[taskId].refunded, "[M5] paid once, and not refunded");
        paid[taskId][nodeId] = true;
        if (known[taskId].state != TaskState.Settled) {
            enter(taskId, TaskState.Settled, task.dispatch);
            heldOf[task.sessionId][task.lane] -= task.held - callbackTipOf(task);
        }
        uint96[6] memory shares = abi.decode(entry.data, (uint96[6]));
        uint256 sum = uint256(shares[1]) + shares[2] + shares[3] + shares[4] + shares[5];
        assertEq(shares[0], sum + foldPaid(taskId, nodeId, shares), "[M4] shares");
        assertEq(shares[0], partOf(task, nodeId).fee, "[M3] what was committed");
        moneyOf[task.sessionId][task.lane] -= shares[0];
        // A callback's tip stays held until it is delivered.
        if (task.callbackGas == 0) close(taskId);
    }

    /// What a paid answer gives for audits.
    function foldPaid(TaskId, NodeId, uint96[6] memory) internal virtual returns (uint256) {
        return 0;
    }

    /// [V18] An answer that is not paid.
    function foldDisproved(TaskId taskId, NodeId nodeId) internal virtual {
        assertTrue(isProven(), "[M5] only proofs take an answer's fee");
        Task memory task = taskOf(taskId);
        partOf(task, nodeId).state = PartState.Failed;
        keep(taskId, task);
    }

    function foldRefunded(Log memory entry, TaskId taskId) internal {
        Task memory task = taskOf(taskId);
        (uint96 refund, uint96 tip) = abi.decode(entry.data, (uint96, uint96));
        assertTrue(!known[taskId].refunded, "[M5] refunded once");
        known[taskId].refunded = true;
        bool cancelled = known[taskId].state == TaskState.Queued;
        enter(taskId, TaskState.Refunded, task.dispatch);
        assertTrue(tip <= session.payeesOf(task.sessionId, task.lane).tip, "[M6] one tip");
        assertEq(uint256(refund) + tip, task.held - (cancelled ? 0 : callbackTipOf(task)), "all of it");
        heldOf[task.sessionId][task.lane] -= uint256(refund) + tip;
        moneyOf[task.sessionId][task.lane] -= tip;
        if (cancelled || task.callbackGas == 0) close(taskId);
    }

    function foldDelivered(TaskId taskId) internal {
        Task memory task = taskOf(taskId);
        assertTrue(!known[taskId].delivered, "[M5] delivered once");
        known[taskId].delivered = true;
        uint256 tip = callbackTipOf(task);
        heldOf[task.sessionId][task.lane] -= tip;
        moneyOf[task.sessionId][task.lane] -= tip;
        close(taskId);
    }

    function callbackTipOf(Task memory task) internal view returns (uint96) {
        return task.callbackGas == 0 ? 0 : session.payeesOf(task.sessionId, task.lane).tip;
    }

    /// Nothing moves the task any more. It may be told again, once for each answer.
    function close(TaskId taskId) internal {
        for (uint256 i; i < open.length; ++i) {
            if (TaskId.unwrap(open[i]) != TaskId.unwrap(taskId)) continue;
            open[i] = open[open.length - 1];
            open.pop();
            ended.push(taskId);
            return;
        }
    }

    function keep(TaskId taskId, Task memory task) internal {
        known[taskId].task = abi.encode(task);
        if (task.ticket != 0) byTicket[task.sessionId][task.ticket] = taskId;
    }

    function taskOf(TaskId taskId) internal view returns (Task memory) {
        return abi.decode(known[taskId].task, (Task));
    }

    function partOf(Task memory task, NodeId nodeId) internal pure returns (Part memory) {
        for (uint256 i; i < task.parts.length; ++i) {
            if (NodeId.unwrap(task.parts[i].nodeId) == NodeId.unwrap(nodeId)) return task.parts[i];
        }
        revert("[B6] an answer of a node that the task was not given to");
    }

    // ---------------------------------------------------------------- sessions

    function foldSession(Log memory entry) internal {
        bytes32 what = entry.topics[0];
        SessionId id = sessionIn(entry, 1);
        SessionState now_ = sessionStates[id];
        if (what == ISession.SessionOpened.selector) {
            assertTrue(now_ == SessionState.None, "[T2] opened once");
            sessionStates[id] = SessionState.Open;
            openedBy[id] = accountIn(entry, 2);
            (AssetId asset, uint16 version) = abi.decode(entry.data, (AssetId, uint16));
            (assetOf[id], versionOf[id]) = (asset, version);
            live.push(id);
        } else if (what == ISession.SessionActivated.selector) {
            assertTrue(now_ == SessionState.Open || now_ == SessionState.Active, "[T2] to Active");
            sessionStates[id] = SessionState.Active;
            (NodeId[] memory serving, uint8 dedicated) = abi.decode(entry.data, (NodeId[], uint8));
            checkOwners(serving, dedicated);
            for (uint256 i; i < serving.length; ++i) {
                assertEq(reserves[serving[i]][id], 1, "[D5] one place of a node");
            }
        } else if (what == ISession.SessionDraining.selector) {
            assertTrue(now_ == SessionState.Active, "[T2] to Draining");
            sessionStates[id] = SessionState.Draining;
        } else if (what == ISession.SessionClosed.selector) {
            assertTrue(now_ == SessionState.Open || now_ == SessionState.Draining, "[T2] to Closed");
            sessionStates[id] = SessionState.Closed;
            checkTerms(id);
            forget(id);
        }
    }

    /// [D3]
    function checkOwners(NodeId[] memory serving, uint256 dedicated) internal view {
        for (uint256 i = dedicated; i < serving.length; ++i) {
            for (uint256 k; k < i; ++k) {
                assertTrue(pool.nodeOf(serving[i]).owner != pool.nodeOf(serving[k]).owner, "[D3] one owner twice");
            }
        }
    }

    /// [X3] Whatever holds now.
    function checkTerms(SessionId id) internal view {
        Payees memory payees = session.payeesOf(id, OWNER_LANE);
        assertEq(payees.tip, parameters.assetTermsOf(versionOf[id], assetOf[id]).tip, "[X3] tip");
        assertEq(payees.minerBps, parameters.sessionTermsOf(versionOf[id]).minerBps, "[X3] shares");
        assertEq(session.sessionOf(id).termsVersion, versionOf[id], "[X3] version");
    }

    function forget(SessionId id) internal {
        for (uint256 i; i < live.length; ++i) {
            if (SessionId.unwrap(live[i]) != SessionId.unwrap(id)) continue;
            live[i] = live[live.length - 1];
            live.pop();
            return;
        }
    }

    // ---------------------------------------------------------------- nodes

    function foldNode(Log memory entry) internal {
        bytes32 what = entry.topics[0];
        NodeId nodeId = NodeId.wrap(uint32(uint256(entry.topics[1])));
        if (what == INodePool.NodeRegistered.selector) {
            nodes.push(nodeId);
        } else if (what == INodePool.NodeStateChanged.selector) {
            (NodeState from, NodeState to) = abi.decode(entry.data, (NodeState, NodeState));
            assertTrue(from == nodeStates[nodeId] && isLegal(from, to), "[T3] state of a node");
            nodeStates[nodeId] = to;
        } else if (what == INodePool.NodeReserved.selector) {
            ++reserves[nodeId][sessionIn(entry, 2)];
            ++reservedBy[nodeId];
        } else if (what == INodePool.NodeReleased.selector) {
            --reserves[nodeId][sessionIn(entry, 2)];
            --reservedBy[nodeId];
        }
    }

    function isLegal(NodeState from, NodeState to) internal pure returns (bool) {
        if (to == NodeState.Jailed) return from != NodeState.None && from != NodeState.Exited;
        if (from == NodeState.None) return to == NodeState.Ephemeral || to == NodeState.Dedicated;
        if (from == NodeState.Ephemeral || from == NodeState.Dedicated) return to == NodeState.Draining;
        if (from == NodeState.Draining) return to != NodeState.None && to != NodeState.Exited;
        if (from == NodeState.Jailed) return to == NodeState.Exiting;
        return from == NodeState.Exiting && to == NodeState.Exited;
    }

    // ---------------------------------------------------------------- reading events

    function sessionIn(Log memory entry, uint256 i) internal pure returns (SessionId) {
        return SessionId.wrap(uint64(uint256(entry.topics[i])));
    }

    function laneIn(Log memory entry, uint256 i) internal pure returns (Lane) {
        return Lane.wrap(uint32(uint256(entry.topics[i])));
    }

    function assetIn(Log memory entry, uint256 i) internal pure returns (AssetId) {
        return AssetId.wrap(uint8(uint256(entry.topics[i])));
    }

    function accountIn(Log memory entry, uint256 i) internal pure returns (address) {
        return address(uint160(uint256(entry.topics[i])));
    }

    function amountIn(Log memory entry) internal pure returns (uint256) {
        return abi.decode(entry.data, (uint256));
    }

    // ---------------------------------------------------------------- what actors need

    /// The step does not count: nothing that it could do is there.
    function giveUp() internal pure {
        vm.assume(false);
    }

    /// An actor that has time waits until `time`, now and then; another comes back later.
    function patient(uint256 random, uint256 time) internal {
        if (block.timestamp >= time) return;
        if (random >> 252 > 2) giveUp();
        skipTime(time - block.timestamp);
    }

    /// The fuzzer likes small numbers; actors want all bits.
    function mix(uint256 random) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(random)));
    }

    /// Calls as `caller`, and insists on this refusal.
    function refused(address caller, address target, bytes memory data, bytes4 why) internal {
        assertEq(bytes32(refused(caller, target, data)), bytes32(why), "was refused for another reason");
    }

    /// Calls as `caller`, insists on a refusal, and returns its selector.
    function refused(address caller, address target, bytes memory data) internal returns (bytes4) {
        fold();
        vm.prank(caller);
        (bool done, bytes memory result) = target.call(data);
        assertTrue(!done, "was not refused");
        // The recorder also keeps what was reverted.
        vm.getRecordedLogs();
        return bytes4(result);
    }

    /// Waits for a round and reveals it, if it can be had.
    function knows(uint64 round) internal returns (bool) {
        if (round == 0 || beacon.isMissed(round)) return false;
        reveal(round);
        return true;
    }
}
