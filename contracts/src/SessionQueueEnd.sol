// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAssayConsumer} from "./interfaces/IAssayConsumer.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {INodePool} from "./interfaces/INodePool.sol";
import {Outcome} from "./interfaces/INodeStats.sol";
import {IParameters, NodeTerms} from "./interfaces/IParameters.sol";
import {Claim, Docket, IProofOfInference} from "./interfaces/IProofOfInference.sol";
import {Payees} from "./interfaces/ISession.sol";
import {Evidence, ISessionPayment, Rule} from "./interfaces/ISessionPayment.sol";
import {
    Answer,
    ISessionQueue,
    Part,
    PartEvent,
    PartState,
    Precommit,
    Task,
    TaskState
} from "./interfaces/ISessionQueue.sol";
import {Answers} from "./libraries/Answers.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Fees} from "./libraries/Fees.sol";
import {Move, Phases} from "./libraries/Phases.sol";
import {Settlement} from "./libraries/Settlement.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TaskMemory} from "./libraries/TaskMemory.sol";
import {TaskWords} from "./libraries/TaskWords.sol";
import {QueueWiring, SessionQueueBase} from "./SessionQueueBase.sol";
import {NodeId, TaskId} from "./types/Ids.sol";

/// What happens after a task's answers are in: settlement, callbacks, evidence. `SessionQueue` creates it and runs its
/// code as its own (one contract would exceed the size that the EVM allows); called by anyone else it has no tasks.
contract SessionQueueEnd is SessionQueueBase {
    using Answers for Answer;
    using Phases for Move;
    using Settlement for Settlement.Books;
    using Settlement for Task;
    using TaskMemory for Task;
    using TaskWords for Task;
    using TaskWords for uint256;

    /// What is needed around a callback: an account that was not touched before, and the event.
    uint256 internal constant CALL_OVERHEAD = 10_000;

    constructor(QueueWiring memory wiring) SessionQueueBase(wiring) {}

    /// See `ISessionQueue`.
    function settle(Task[] calldata tasks) external returns (uint256 settled) {
        if (tasks.length > MAX_TASKS) revert ISessionQueue.SessionQueue_TooMany(tasks.length, MAX_TASKS);
        Settlement.Books memory books = Settlement.open(tasks.length, msg.sender, _proof);
        // One after the other lies in the same memory.
        Task memory task = TaskMemory.create(Settlement.MAX_NODES);
        for (uint256 i; i < tasks.length; ++i) {
            Task calldata brought = tasks[i];
            // No stored task has more.
            if (brought.parts.length > Settlement.MAX_NODES) continue;
            task.load(brought);
            TaskId taskId = Commitments.taskIdOf(address(this), task);
            uint256 word = _tasks[taskId];
            if (word.stateOf() != TaskState.Committed || block.timestamp < word.untilOf()) continue;
            bytes32 digest = task.digest();
            if (digest != word.digestOf()) continue;
            if (books.turn(task)) _turn(books, task);
            if (books.payees.isProven) {
                if (!_prove(books, task, taskId)) continue;
                digest = task.digest();
                if (task.indexOfRecord() == task.parts.length) {
                    _giveBack(books, task, taskId, digest);
                    ++settled;
                    continue;
                }
            }
            _tasks[taskId] = TaskWords.pack(TaskState.Settled, uint40(block.timestamp), digest);
            _settle(books, task, taskId);
            ++settled;
        }
        if (settled == 0) return 0;
        _count(books);
        _book(books);
        books.close();
        ISessionPayment(_payment).pay(books.debits, books.credits);
    }

    /// Begins the tasks of another lane.
    function _turn(Settlement.Books memory books, Task memory task) internal {
        _book(books);
        books.payees = _payeesOf(task);
        (books.publisher, books.royaltyBps) = IModelRegistry(_models).royaltyOf(books.payees.model);
        books.begin();
    }

    /// Tells what was put aside for the audits of a model.
    function _book(Settlement.Books memory books) internal {
        if (books.booked == 0) return;
        IProofOfInference(_proof).book(books.payees.model, books.payees.asset, books.booked);
        books.booked = 0;
    }

    /// Whether the proofs of a task's answers are through. Those that are not good fail.
    function _prove(Settlement.Books memory books, Task memory task, TaskId taskId) internal returns (bool) {
        Docket memory docket;
        (docket.taskId, docket.client) = (taskId, books.payees.owner);
        (docket.model, docket.asset) = (books.payees.model, books.payees.asset);
        docket.claims = new Claim[](Settlement.committedOf(task));
        uint256 k;
        for (uint256 i; i < task.parts.length; ++i) {
            Part memory part = task.parts[i];
            if (part.state != PartState.Committed) continue;
            docket.claims[k++] = Claim(part.nodeId, part.fee, part.commitment);
        }
        (bool ready, uint256 unpaid, uint256 levies) = IProofOfInference(_proof).resolve(docket);
        books.levies = 0;
        if (!ready) return false;
        (k, books.levies) = (0, levies);
        for (uint256 i; i < task.parts.length; ++i) {
            Part memory part = task.parts[i];
            if (part.state != PartState.Committed || unpaid >> k++ & 1 == 0) continue;
            part.state = PartState.Failed;
            emit ISessionQueue.PartChanged(taskId, part.nodeId, uint8(i), PartEvent.Disproved);
        }
        return true;
    }

    /// Ends a task none of whose answers is paid.
    function _giveBack(Settlement.Books memory books, Task memory task, TaskId taskId, bytes32 digest) internal {
        _tasks[taskId] = TaskWords.pack(TaskState.Refunded, uint40(block.timestamp), digest);
        Payees memory payees = books.payees;
        uint96 back = task.callbackGas == 0 ? task.held : task.held - payees.tip;
        Move memory move = Move(taskId, TaskState.Refunded, uint40(block.timestamp), task);
        _refund(move, payees.asset, back, payees.tip < back ? payees.tip : back);
    }

    /// Pays each answer its fee; what the task holds beyond them is freed. The tip of a callback stays.
    function _settle(Settlement.Books memory books, Task memory task, TaskId taskId) internal {
        books.debit.taskId = taskId;
        uint96 held = task.callbackGas == 0 ? task.held : task.held - books.payees.tip;
        unchecked {
            // The lane holds as much.
            books.debit.held += held;
        }
        for (uint256 i; i < task.parts.length; ++i) {
            Part memory part = task.parts[i];
            if (part.state == PartState.Committed) books.divide(taskId, part, _tally(books, part));
        }
    }

    /// Counts an answer; tells who is paid for it.
    function _tally(Settlement.Books memory books, Part memory part) internal returns (address payout) {
        uint256 i = books.indexOf(part);
        if (i == Settlement.MAX_NODES) {
            _count(books);
            i = 0;
        }
        Settlement.Tally memory tally = books.tallies[i];
        if (i == books.nodes) {
            ++books.nodes;
            (tally.nodeId, tally.dedicated, tally.times) = (part.nodeId, part.dedicated, 0);
            tally.payout = INodePool(_pool).payoutOf(part.nodeId);
        }
        unchecked {
            // At most 64 times eight.
            ++tally.times;
        }
        return tally.payout;
    }

    /// Writes the tallies, and begins anew.
    function _count(Settlement.Books memory books) internal {
        for (uint256 i; i < books.nodes; ++i) {
            Settlement.Tally memory tally = books.tallies[i];
            _record(tally.nodeId, tally.dedicated, Outcome.Settled, tally.times);
        }
        books.nodes = 0;
    }

    /// See `ISessionQueue`.
    function deliver(Task calldata brought, Answer calldata answer) external {
        Move memory move = _load(brought);
        if (move.state < TaskState.Settled) _wrongState(move);
        uint256 word = _tasks[move.taskId];
        if (move.task.callbackGas == 0 || word.isDelivered()) {
            revert ISessionQueue.SessionQueue_NoCallback(move.taskId);
        }
        _tasks[move.taskId] = word | TaskWords.DELIVERED;
        if (move.state == TaskState.Settled) _checkOfRecord(move, answer);
        Payees memory payees = _payeesOf(move.task);
        _free(move, payees.asset, payees.tip, payees.tip);
        _call(move, payees.owner, answer, move.state == TaskState.Settled);
    }

    /// The answer of record is that of the lowest part that was committed.
    function _checkOfRecord(Move memory move, Answer memory answer) internal view {
        Part memory part = move.task.parts[Settlement.indexOfRecord(move.task)];
        if (NodeId.unwrap(answer.nodeId) != NodeId.unwrap(part.nodeId)) {
            revert ISessionQueue.SessionQueue_NotOnTask(move.taskId, answer.nodeId);
        }
        bytes32 commitment = answer.commitmentOf(move.taskId);
        if (commitment != part.commitment) {
            revert ISessionQueue.SessionQueue_WrongOpening(move.taskId, answer.nodeId, commitment);
        }
    }

    /// Calls with exactly the gas that the request named, and copies nothing of what comes back.
    function _call(Move memory move, address consumer, Answer memory answer, bool answered) internal {
        uint256 limit = move.task.callbackGas;
        bytes memory data = abi.encodeCall(
            IAssayConsumer.onAnswer,
            (
                move.task.sessionId,
                move.taskId,
                answered ? answer.nodeId : NodeId.wrap(0),
                answered ? answer.outputDigest : bytes32(0),
                answered ? answer.outputTokens : 0
            )
        );
        // A call gets 63 parts of 64 of what is left at most: less would reach the consumer without a word.
        uint256 wanted = limit + limit / 63 + CALL_OVERHEAD;
        if (gasleft() < wanted) revert ISessionQueue.SessionQueue_NotEnoughGas(gasleft(), wanted);
        bool success;
        assembly ("memory-safe") {
            success := call(limit, consumer, 0, add(data, 32), mload(data), 0, 0)
        }
        emit ISessionQueue.AnswerDelivered(move.taskId, consumer, success);
    }

    /// See `ISessionQueue`.
    function reportEquivocation(TaskId taskId, Precommit calldata one, Precommit calldata other) external {
        if (_tasks[taskId] == 0) revert ISessionQueue.SessionQueue_UnknownTask(taskId);
        NodeId nodeId = one.nodeId;
        bool equivocal = NodeId.unwrap(nodeId) == NodeId.unwrap(other.nodeId) && one.commitment != other.commitment
            && _isSigned(taskId, one) && _isSigned(taskId, other);
        if (!equivocal) revert ISessionQueue.SessionQueue_NotEquivocal(taskId, nodeId);
        if (_punished[taskId][nodeId]) revert ISessionQueue.SessionQueue_AlreadyPunished(taskId, nodeId);
        _punished[taskId][nodeId] = true;
        INodePool(_pool).jail(nodeId);
        uint16 version = INodePool(_pool).nodeOf(nodeId).termsVersion;
        NodeTerms memory terms = IParameters(_parameters).nodeTermsOf(version);
        uint256 amount = ISessionPayment(_payment).stakeOf(nodeId) * terms.slashBps / Fees.BPS;
        // Two commitments, where there may be one.
        Evidence memory evidence = Evidence({taskId: taskId, rule: Rule.Equivocation, measured: 2, bound: 1});
        uint256 reward = amount * terms.reporterBps / Fees.BPS;
        ISessionPayment(_payment).slash(nodeId, evidence, amount, msg.sender, reward);
    }

    function _isSigned(TaskId taskId, Precommit memory given) internal view returns (bool) {
        bytes32 hash = Commitments.precommitHash(taskId, given.nodeId, given.commitment);
        address signer = Signatures.signerOf(_typed(hash), given.signature);
        return signer != address(0) && INodePool(_pool).answersFor(given.nodeId, signer);
    }
}
