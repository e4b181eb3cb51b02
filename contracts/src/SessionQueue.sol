// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {INodePool} from "./interfaces/INodePool.sol";
import {Outcome} from "./interfaces/INodeStats.sol";
import {Admission, ISession, Payees, Progress} from "./interfaces/ISession.sol";
import {IProofOfInference} from "./interfaces/IProofOfInference.sol";
import {ISessionPayment} from "./interfaces/ISessionPayment.sol";
import {
    Answer,
    Dispatch,
    ISessionQueue,
    Part,
    PartEvent,
    PartState,
    Precommit,
    Task,
    TaskRequest,
    TaskState
} from "./interfaces/ISessionQueue.sol";
import {Admissions} from "./libraries/Admissions.sol";
import {Answers} from "./libraries/Answers.sol";
import {Assignment} from "./libraries/Assignment.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Fees} from "./libraries/Fees.sol";
import {Move, Phases} from "./libraries/Phases.sol";
import {Multiproof} from "./libraries/Multiproof.sol";
import {Signatures} from "./libraries/Signatures.sol";
import {TaskMemory} from "./libraries/TaskMemory.sol";
import {TaskWords} from "./libraries/TaskWords.sol";
import {Tickets} from "./libraries/Tickets.sol";
import {QueueWiring, SessionQueueBase} from "./SessionQueueBase.sol";
import {SessionQueueEnd} from "./SessionQueueEnd.sol";
import {Lane, NodeId, NumericClass, SessionId, TaskId} from "./types/Ids.sol";

/// Tasks of sessions. What is stored of a task is one word, see `TaskWords`; what is known of it is brought by whoever
/// moves it. Tasks of redundancy 1 go from Assigned straight to Committed.
contract SessionQueue is ISessionQueue, SessionQueueBase {
    using Answers for Answer;
    using Assignment for Assignment.Ring;
    using Phases for Move;
    using Phases for Task;
    using TaskMemory for Task;
    using TaskWords for Task;
    using TaskWords for uint256;
    using Tickets for Tickets.Line;

    struct Wiring {
        address beacon;
        address models;
        address parameters;
        address payment;
        address pool;
        address proof;
        address session;
        address stats;
    }

    /// A node cannot sit on a queue: claims that it has not answered.
    uint8 internal constant MAX_CLAIMS = 2;

    /// Code for what happens after a task's answers are in.
    address internal immutable _end;

    constructor(Wiring memory wiring) SessionQueueBase(_shared(wiring)) {
        _end = address(new SessionQueueEnd(_shared(wiring)));
    }

    function _shared(Wiring memory wiring) internal view returns (QueueWiring memory) {
        return QueueWiring({
            queue: address(this),
            beacon: wiring.beacon,
            models: wiring.models,
            parameters: wiring.parameters,
            payment: wiring.payment,
            pool: wiring.pool,
            proof: wiring.proof,
            session: wiring.session,
            stats: wiring.stats
        });
    }

    // ---------------------------------------------------------------- submission

    /// @inheritdoc ISessionQueue
    function submit(TaskRequest memory request) public returns (TaskId) {
        Admission memory admission = _admissionOf(request);
        _checkHolder(request.sessionId, request.lane, admission.holder);
        return _submit(request, admission);
    }

    /// @inheritdoc ISessionQueue
    function submitSigned(TaskRequest memory request, bytes memory signature) public returns (TaskId) {
        return _submit(request, _consented(request, signature));
    }

    /// @inheritdoc ISessionQueue
    function submitAndCommit(TaskRequest memory request, bytes memory signature, Answer calldata answer)
        external
        returns (TaskId)
    {
        if (request.redundancy != 1) revert SessionQueue_RedundancyOutOfBounds(request.redundancy, 1);
        Answer memory given = Answers.read(answer);
        Admission memory admission = _consented(request, signature);
        Move memory move = _admit(request, admission, block.timestamp);
        _expect(move, TaskState.Assigned);
        Progress memory progress = _progressOf(admission);
        uint96 fee = _feeOf(given, progress);
        move.task.held = fee + Admissions.tipOfCallback(request, admission);
        _tellSubmitted(move, request);
        _answer(move, given, progress);
        _store(move);
        _hold(move);
        if (progress.isProven) _expose(move, given.nodeId);
        return move.taskId;
    }

    /// @inheritdoc ISessionQueue
    function submitAndPrecommit(TaskRequest memory request, bytes memory signature, Precommit[] calldata precommits)
        external
        returns (TaskId)
    {
        Admission memory admission = _consented(request, signature);
        Move memory move = _admit(request, admission, block.timestamp);
        _expect(move, TaskState.Assigned);
        _tellSubmitted(move, request);
        _precommit(move, precommits);
        if (move.proceed(_progressOf(admission))) _tellMoved(move);
        _store(move);
        _hold(move);
        return move.taskId;
    }

    function _submit(TaskRequest memory request, Admission memory admission) internal returns (TaskId) {
        Move memory move = _admit(request, admission, block.timestamp + 1);
        _store(move);
        _tellSubmitted(move, request);
        _hold(move);
        return move.taskId;
    }

    function _admissionOf(TaskRequest memory request) internal view returns (Admission memory admission) {
        uint256 into;
        assembly ("memory-safe") {
            into := admission
        }
        _ask(abi.encodeCall(ISession.admissionOf, (request.sessionId, request.lane, request.seedRound)), into, 512);
    }

    /// What an admission ends with, where it lies.
    function _progressOf(Admission memory admission) internal pure returns (Progress memory progress) {
        assembly ("memory-safe") {
            progress := add(admission, 288)
        }
    }

    /// The admission of a request that its lane's holder signed.
    function _consented(TaskRequest memory request, bytes memory signature)
        internal
        view
        returns (Admission memory admission)
    {
        admission = _admissionOf(request);
        bytes32 digest = _typed(Commitments.requestHash(request));
        if (!Signatures.isBy(admission.holder, digest, signature)) {
            revert SessionQueue_BadSignature(request.sessionId, request.lane, admission.holder);
        }
    }

    /// The task of a request that may be taken.
    function _admit(TaskRequest memory request, Admission memory admission, uint256 earliest)
        internal
        returns (Move memory move)
    {
        Admissions.check(request, admission, earliest);
        Task memory task = TaskMemory.create(request.dispatch == Dispatch.Pull ? 0 : request.redundancy);
        (task.sessionId, task.lane, task.nonce) = (request.sessionId, request.lane, request.nonce);
        (move.taskId, move.task) = (Commitments.taskIdOf(address(this), task), task);
        if (_tasks[move.taskId] != 0) {
            revert SessionQueue_NonceUsed(request.sessionId, request.lane, request.nonce);
        }
        move.until = uint40(request.deadline);
        task.reservation = admission.seedRound;
        (task.maxPrompt, task.maxOutput) = (request.maxPrompt, request.maxOutput);
        task.held = Admissions.heldFor(request, admission);
        task.attemptsLeft = request.attempts - 1;
        task.finalBy = uint40(request.deadline + Admissions.timeOfFollowers(request, admission));
        (task.dispatch, task.callbackGas) = (request.dispatch, request.callbackGas);
        if (request.dispatch == Dispatch.Pull) {
            move.state = TaskState.Queued;
            task.ticket = _lines[request.sessionId].enter(request.sessionId);
        } else {
            move.state = TaskState.Assigned;
            task.seedRound = admission.seedRound;
            _assign(task, request, admission);
        }
    }

    /// Names the nodes of a new task. The seed is not asked if the request leaves nothing to it.
    function _assign(Task memory task, TaskRequest memory request, Admission memory admission) internal view {
        Assignment.Ring memory ring = Assignment.ringOf(admission.nodes, admission.dedicated);
        uint256 given;
        if (NodeId.unwrap(request.nodeId) != 0) {
            uint256 index = ring.indexOf(request.nodeId);
            if (index == ring.length) revert SessionQueue_NotReserved(request.sessionId, request.nodeId);
            task.give(given++, ring, index);
            if (request.redundancy == 1) return;
        }
        bytes32 seed = _seedOf(admission.seedRound);
        if (seed == 0) revert SessionQueue_SeedUnknown(request.sessionId, admission.seedRound);
        ring.turn(seed, task.lane, task.nonce);
        // Not more than there are nodes.
        for (; given < request.redundancy; ++given) {
            task.passOn(given, ring);
        }
    }

    function _hold(Move memory move) internal {
        Task memory task = move.task;
        ISessionPayment(_payment).hold(task.sessionId, task.lane, task.nonce, task.held);
    }

    function _tellSubmitted(Move memory move, TaskRequest memory request) internal {
        Task memory task = move.task;
        NodeId first = task.parts.length == 0 ? NodeId.wrap(0) : task.parts[0].nodeId;
        uint256[2] memory times = [uint256(request.deadline), move.until];
        task.tellSubmitted(move.taskId, first, request.requestDigest, times);
    }

    // ---------------------------------------------------------------- the queue of a session

    /// @inheritdoc ISessionQueue
    function claim(Task calldata task, NodeId nodeId, Task[] calldata gone) external {
        if (gone.length > MAX_TASKS) revert SessionQueue_TooMany(gone.length, MAX_TASKS);
        Move memory move = _load(task);
        _expect(move, TaskState.Queued);
        _checkInTime(move);
        Task memory current = move.task;
        _checkSigner(nodeId, _operatorOf(nodeId), msg.sender);
        if (_claims[nodeId] >= MAX_CLAIMS) revert SessionQueue_TooManyClaims(nodeId, MAX_CLAIMS);
        Assignment.Ring memory ring = _ringOf(current);
        uint256 index = ring.indexOf(nodeId);
        if (index == ring.length) revert SessionQueue_NotReserved(current.sessionId, nodeId);
        if (current.tried >> index & 1 != 0) revert SessionQueue_NotOnTask(move.taskId, nodeId);

        Tickets.Line storage line = _lines[current.sessionId];
        for (uint256 i; i < gone.length; ++i) {
            _passGone(line, _load(gone[i]), current.sessionId);
        }
        line.pass(move.taskId, current.ticket);
        ++_claims[nodeId];
        // One who follows another has a whole attempt: `_requeue` left the time for it.
        uint24 attemptTime = _progressOf(move).attemptTime;
        if (current.tried != 0) move.until = uint40(block.timestamp) + attemptTime;
        move.state = TaskState.Assigned;
        move.task = current = current.withParts(1);
        current.give(0, ring, index);
        current.seedRound = IRandomBeacon(_beacon).nextRound();
        _store(move);
        emit PartChanged(move.taskId, nodeId, 0, PartEvent.Claimed);
        _tellMoved(move);
    }

    /// @inheritdoc ISessionQueue
    function cancel(Task calldata task) external {
        Move memory move = _load(task);
        Payees memory payees = _payeesOf(move.task);
        _checkHolder(move.task.sessionId, move.task.lane, payees.holder);
        _expect(move, TaskState.Queued);
        move.enter(TaskState.Refunded, 0);
        // Whoever cancels needs no callback that tells it.
        _tasks[move.taskId] = TaskWords.pack(move.state, move.until, move.task.digest()) | TaskWords.DELIVERED;
        _refund(move, payees.asset, move.task.held, 0);
    }

    /// Takes a task that has ended off the head.
    function _passGone(Tickets.Line storage line, Move memory move, SessionId sessionId) internal {
        _expect(move, TaskState.Refunded);
        // A ticket of another session's queue says nothing.
        uint64 ticket = SessionId.unwrap(move.task.sessionId) == SessionId.unwrap(sessionId) ? move.task.ticket : 0;
        line.pass(move.taskId, ticket);
    }

    // ---------------------------------------------------------------- answers

    /// @inheritdoc ISessionQueue
    function precommit(Task calldata task, Precommit[] calldata precommits) external {
        Move memory move = _load(task);
        _expect(move, TaskState.Assigned);
        _checkInTime(move);
        _precommit(move, precommits);
        if (move.proceed(_progressOf(move))) _tellMoved(move);
        _store(move);
    }

    /// @inheritdoc ISessionQueue
    function commit(Task calldata task, Answer[] calldata answers) external {
        Move memory move = _load(task);
        bool single = move.task.parts.length == 1;
        _expect(move, single ? TaskState.Assigned : TaskState.Precommitted);
        _checkInTime(move);
        Progress memory progress = _progressOf(move);
        for (uint256 i; i < answers.length; ++i) {
            _answer(move, Answers.read(answers[i]), progress);
        }
        _store(move);
        if (!single && move.state == TaskState.Committed) _tellMoved(move);
        if (!progress.isProven) return;
        for (uint256 i; i < answers.length; ++i) {
            _expose(move, answers[i].nodeId);
        }
    }

    /// @inheritdoc ISessionQueue
    function decline(Task calldata task, NodeId nodeId, bytes calldata signature) external {
        Move memory move = _load(task);
        _expect(move, TaskState.Assigned);
        _checkInTime(move);
        Part memory part = move.partOf(nodeId, PartState.Waiting);
        _checkOperator(nodeId, _operatorOf(nodeId), Commitments.declineHash(move.taskId, nodeId), signature);
        Progress memory progress = _progressOf(move);
        uint40 until = move.until;
        _leave(move, move.indexOf(nodeId), PartEvent.Declined);
        part.state = PartState.Failed;
        _continue(move, progress, 1 << move.indexOf(nodeId));
        // The others keep the time that they were given.
        if (move.state == TaskState.Assigned && move.until < until) move.until = until;
        // Who hands a task back earns no tip by it.
        _finishMove(move, 0);
    }

    function _precommit(Move memory move, Precommit[] calldata precommits) internal {
        uint256 parts = move.task.parts.length;
        if (parts == 1) revert SessionQueue_RedundancyOutOfBounds(1, 1);
        for (uint256 i; i < precommits.length; ++i) {
            (NodeId nodeId, bytes32 commitment) = (precommits[i].nodeId, precommits[i].commitment);
            if (commitment == 0) revert SessionQueue_EmptyDigest();
            Part memory part = move.partOf(nodeId, PartState.Waiting);
            bytes32 hash = Commitments.precommitHash(move.taskId, nodeId, commitment);
            _checkOperator(nodeId, _operatorOf(nodeId), hash, precommits[i].signature);
            (part.state, part.commitment) = (PartState.Precommitted, commitment);
            emit TaskPrecommitted(move.taskId, nodeId, commitment);
        }
    }

    /// One answer, or the opening of one; ends the phase if it is the last.
    function _answer(Move memory move, Answer memory answer, Progress memory progress) internal {
        bool opening = move.state == TaskState.Precommitted;
        Part memory part = move.partOf(answer.nodeId, opening ? PartState.Precommitted : PartState.Waiting);
        bytes32 commitment;
        if (opening) {
            answer.check(move.task, _classOf(answer.nodeId));
            commitment = answer.commitmentOf(move.taskId);
            if (commitment != part.commitment) {
                revert SessionQueue_WrongOpening(move.taskId, answer.nodeId, commitment);
            }
        } else {
            (address operator, NumericClass declared) = INodePool(_pool).committerOf(answer.nodeId);
            answer.check(move.task, declared);
            commitment = answer.commitmentOf(move.taskId);
            bytes32 hash = Commitments.precommitHash(move.taskId, answer.nodeId, commitment);
            _checkOperator(answer.nodeId, operator, hash, answer.signature);
            part.commitment = commitment;
            if (move.task.dispatch == Dispatch.Pull) --_claims[answer.nodeId];
        }
        part.state = PartState.Committed;
        // Not above what is held: no more tokens, at the same prices.
        part.fee = _feeOf(answer, progress);
        uint40 settleAt = move.proceed(progress) ? move.until : 0;
        answer.tellCommitted(move.taskId, move.task.sessionId, part.fee, settleAt);
    }

    /// Fixes what the proof of an answer depends on.
    function _expose(Move memory move, NodeId nodeId) internal {
        Task memory task = move.task;
        if (task.maxOutput > Multiproof.MAX_TOKENS) {
            revert SessionQueue_TokensOutOfBounds(task.maxPrompt, task.maxOutput);
        }
        Payees memory payees = _payeesOf(task);
        uint96 fee = task.parts[move.indexOf(nodeId)].fee;
        IProofOfInference(_proof).expose(move.taskId, nodeId, payees.model, payees.asset, fee);
    }

    function _feeOf(Answer memory answer, Progress memory progress) internal pure returns (uint96) {
        uint256 fee = Fees.feeUp(answer.promptTokens, answer.outputTokens, progress.priceIn, progress.priceOut);
        // 2^113 over a million at most.
        return uint96(fee);
    }

    /// By the operator itself, or with its signature.
    function _checkOperator(NodeId nodeId, address operator, bytes32 structHash, bytes memory signature) internal view {
        address signer = signature.length == 0 ? msg.sender : Signatures.signerOf(_typed(structHash), signature);
        _checkSigner(nodeId, operator, signer);
    }

    function _checkSigner(NodeId nodeId, address operator, address signer) internal pure {
        if (signer == address(0) || signer != operator) revert SessionQueue_NotOperator(nodeId, signer);
    }

    // ---------------------------------------------------------------- deadlines

    /// @inheritdoc ISessionQueue
    function advance(Task calldata task) external {
        Move memory move = _load(task);
        Task memory current = move.task;
        if (move.state == TaskState.Refunded && current.ticket != 0) {
            _passGone(_lines[current.sessionId], move, current.sessionId);
            _tellMoved(move);
            return;
        }
        if (move.state > TaskState.Precommitted) _wrongState(move);
        if (block.timestamp <= move.until) revert SessionQueue_DeadlineNotPassed(move.taskId, move.until);
        Progress memory progress = _progressOf(move);
        PartState due = move.state == TaskState.Assigned ? PartState.Waiting : PartState.Precommitted;
        uint256 late;
        for (uint256 i; i < current.parts.length; ++i) {
            if (current.parts[i].state != due) continue;
            late |= 1 << i;
            _leave(move, i, due == PartState.Waiting ? PartEvent.Silent : PartEvent.Unrevealed);
            current.parts[i].state = PartState.Failed;
        }
        _continue(move, progress, due == PartState.Waiting ? late : 0);
        _finishMove(move, progress.tip);
    }

    /// Counts what a node did not do.
    function _leave(Move memory move, uint256 i, PartEvent why) internal {
        Part memory part = move.task.parts[i];
        emit PartChanged(move.taskId, part.nodeId, uint8(i), why);
        if (move.task.dispatch == Dispatch.Pull) --_claims[part.nodeId];
        Outcome outcome = why == PartEvent.Declined
            ? Outcome.Declined
            : why == PartEvent.Silent ? Outcome.Silent : Outcome.Unrevealed;
        _record(part.nodeId, part.dedicated, outcome, 1);
    }

    /// Finds followers for the parts in the bits of `open`, all of which failed, and goes on to the next phase if there
    /// are none.
    function _continue(Move memory move, Progress memory progress, uint256 open) internal {
        Task memory task = move.task;
        if (open != 0 && task.hasAttempt(progress)) {
            if (task.dispatch == Dispatch.Pull ? _requeue(move, progress) : _passOn(move, open)) {
                --task.attemptsLeft;
                if (move.state == TaskState.Assigned) move.enter(TaskState.Assigned, progress.attemptTime);
                return;
            }
        }
        move.proceed(progress);
    }

    /// Asks the next nodes. There are none if the reservation is over, or if nobody has revealed its seed by now: a
    /// task must not wait for that.
    function _passOn(Move memory move, uint256 open) internal returns (bool passed) {
        Task memory task = move.task;
        Assignment.Ring memory ring = _ringOf(task);
        bytes32 seed = _seedOf(task.reservation);
        if (ring.length == 0 || seed == 0) return false;
        ring.turn(seed, task.lane, task.nonce);
        for (uint256 i; i < task.parts.length; ++i) {
            if (open >> i & 1 == 0 || !task.passOn(i, ring)) continue;
            passed = true;
            emit PartChanged(move.taskId, task.parts[i].nodeId, uint8(i), PartEvent.TookOver);
        }
    }

    /// Puts a claimed task to the tail, if there is a node that it was not claimed by and room.
    function _requeue(Move memory move, Progress memory progress) internal returns (bool) {
        Task memory task = move.task;
        Assignment.Ring memory ring = _ringOf(task);
        Tickets.Line storage line = _lines[task.sessionId];
        if (ring.next(task.tried) == ring.length || line.isFull()) return false;
        task.ticket = line.enter(task.sessionId);
        task.seedRound = 0;
        task.parts = new Part[](0);
        (move.state, move.until) = (TaskState.Queued, task.finalBy - progress.attemptTime);
        return true;
    }

    /// Stores and tells how a task goes on, or gives the money back.
    function _finishMove(Move memory move, uint96 tip) internal {
        _store(move);
        _tellMoved(move);
        if (move.state != TaskState.Refunded) return;
        Payees memory payees = _payeesOf(move.task);
        uint96 back = move.task.held;
        if (move.task.callbackGas != 0) back -= payees.tip;
        _refund(move, payees.asset, back, tip);
    }

    // ---------------------------------------------------------------- the end of a task

    /// @inheritdoc ISessionQueue
    function settle(Task[] calldata tasks) external returns (uint256 settled) {
        _delegate();
    }

    /// @inheritdoc ISessionQueue
    function deliver(Task calldata task, Answer calldata answer) external {
        _delegate();
    }

    /// @inheritdoc ISessionQueue
    function reportEquivocation(TaskId taskId, Precommit calldata one, Precommit calldata other) external {
        _delegate();
    }

    /// Ends the call with what the same call of `SessionQueueEnd`'s code does to this contract.
    function _delegate() internal {
        address end = _end;
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), end, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(done) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc ISessionQueue
    function statusOf(TaskId taskId) external view returns (TaskState state, uint40 until, bytes32 digest) {
        uint256 word = _tasks[taskId];
        return (word.stateOf(), word.untilOf(), word.digestOf());
    }

    /// @inheritdoc ISessionQueue
    function digestOf(Task calldata task) external pure returns (bytes32) {
        return TaskMemory.read(task).digest();
    }

    /// @inheritdoc ISessionQueue
    function taskIdOf(SessionId sessionId, Lane lane, uint64 nonce) external view returns (TaskId) {
        return Commitments.taskId(address(this), sessionId, lane, nonce);
    }

    /// @inheritdoc ISessionQueue
    function ticketsOf(SessionId sessionId) external view returns (uint64 next, uint64 head) {
        Tickets.Line memory line = _lines[sessionId];
        return (line.given + 1, line.passed + 1);
    }

    /// @inheritdoc ISessionQueue
    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _separator();
    }

    /// @inheritdoc ISessionQueue
    function claimsOf(NodeId nodeId) external view returns (uint8) {
        return _claims[nodeId];
    }

    /// @inheritdoc ISessionQueue
    function beacon() external view returns (address) {
        return _beacon;
    }

    /// @inheritdoc ISessionQueue
    function models() external view returns (address) {
        return _models;
    }

    /// @inheritdoc ISessionQueue
    function parameters() external view returns (address) {
        return _parameters;
    }

    /// @inheritdoc ISessionQueue
    function payment() external view returns (address) {
        return _payment;
    }

    /// @inheritdoc ISessionQueue
    function pool() external view returns (address) {
        return _pool;
    }

    /// @inheritdoc ISessionQueue
    function proof() external view returns (address) {
        return _proof;
    }

    /// @inheritdoc ISessionQueue
    function session() external view returns (address) {
        return _session;
    }

    /// @inheritdoc ISessionQueue
    function stats() external view returns (address) {
        return _stats;
    }
}
