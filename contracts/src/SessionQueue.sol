// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {INodePool} from "./interfaces/INodePool.sol";
import {Admission, ISession, SessionState} from "./interfaces/ISession.sol";
import {ISessionPayment, Payout} from "./interfaces/ISessionPayment.sol";
import {Commit, ISessionQueue, Task, TaskRequest, TaskState} from "./interfaces/ISessionQueue.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Fees, Shares} from "./libraries/Fees.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Lane, ModelId, NodeId, NumericClass, SessionId, TaskId} from "./types/Ids.sol";

/// Tasks of sessions: submission, commit, deadlines, settlement.
contract SessionQueue is ISessionQueue, EIP712 {
    using NodeSet for uint256;
    using SafeCast for uint256;

    struct Wiring {
        address session;
        address pool;
        address models;
        address payment;
    }

    struct Config {
        uint40 maxDeadline;
        uint40 settleDelay;
        uint16 minerBps;
        uint16 routerBps;
        uint128 tip;
    }

    /// Two words.
    struct Stored {
        TaskState state;
        uint16 lane;
        NodeId nodeId;
        uint40 until;
        SessionId sessionId;
        /// Held while open; the fee once committed. The supply of COR is below 2^96.
        uint96 amount;
        // New word: `maxPrompt << 32 | maxOutput` while assigned, the commitment afterwards.
        bytes32 sealedOrBounds;
    }

    /// A request that was let in.
    struct Admitted {
        TaskId taskId;
        NodeId nodeId;
        uint128 maxFee;
        uint96 priceIn;
        uint96 priceOut;
    }

    /// What consecutive tasks of a settlement share, so that it is read once.
    struct Payees {
        uint64 sessionId;
        uint32 lane;
        uint32 nodeId;
        address miner;
        address router;
        address publisher;
        uint16 royaltyBps;
    }

    /// A nonce may be this far ahead of the largest used: tasks land out of order, and nobody picks the one whose id
    /// suits him out of many.
    uint64 internal constant NONCE_WINDOW = 256;
    /// Tasks that one settlement takes: bounds its gas.
    uint256 internal constant MAX_SETTLE = 64;
    uint8 internal constant LAST_END_REASON = 3;

    /// @inheritdoc ISessionQueue
    address public immutable session;
    /// @inheritdoc ISessionQueue
    address public immutable pool;
    /// @inheritdoc ISessionQueue
    address public immutable models;
    /// @inheritdoc ISessionQueue
    address public immutable payment;
    /// @inheritdoc ISessionQueue
    uint40 public immutable maxDeadline;
    /// @inheritdoc ISessionQueue
    uint40 public immutable settleDelay;
    /// @inheritdoc ISessionQueue
    uint16 public immutable minerBps;
    /// @inheritdoc ISessionQueue
    uint16 public immutable routerBps;
    /// @inheritdoc ISessionQueue
    uint128 public immutable tip;

    mapping(TaskId => Stored) internal _tasks;

    constructor(Wiring memory wiring, Config memory config) EIP712("Assay", "1") {
        if (
            wiring.session == address(0) || wiring.pool == address(0) || wiring.models == address(0)
                || wiring.payment == address(0)
        ) revert SessionQueue_ZeroAddress();
        uint256 bps = uint256(config.minerBps) + config.routerBps + IModelRegistry(wiring.models).maxRoyaltyBps();
        if (bps > Fees.BPS) revert SessionQueue_SharesTooHigh(bps, Fees.BPS);
        // A request signed before `close` must be able to end before `finish`.
        uint40 noticePeriod = ISession(wiring.session).noticePeriod();
        if (config.maxDeadline >= noticePeriod) revert SessionQueue_DeadlineTooLong(config.maxDeadline, noticePeriod);
        (session, pool, models, payment) = (wiring.session, wiring.pool, wiring.models, wiring.payment);
        (maxDeadline, settleDelay) = (config.maxDeadline, config.settleDelay);
        (minerBps, routerBps, tip) = (config.minerBps, config.routerBps, config.tip);
    }

    /// @inheritdoc ISessionQueue
    function submit(TaskRequest calldata request) external returns (TaskId taskId) {
        return _submit(request, msg.sender);
    }

    /// @inheritdoc ISessionQueue
    function submitSigned(TaskRequest calldata request, bytes calldata signature) external returns (TaskId taskId) {
        return _submit(request, _signer(request, signature));
    }

    /// @inheritdoc ISessionQueue
    function commit(TaskId taskId, Commit calldata answer) external {
        Stored storage task = _known(taskId);
        if (task.state != TaskState.Assigned) revert SessionQueue_WrongState(taskId, task.state);
        if (block.timestamp > task.until) revert SessionQueue_DeadlinePassed(taskId, task.until);
        uint256 bounds = uint256(task.sealedOrBounds);
        _checkAnswer(answer, uint32(bounds >> 32), uint32(bounds));
        _checkCommitter(task.nodeId, answer.numericClass);
        (SessionId sessionId, Lane lane) = (task.sessionId, Lane.wrap(task.lane));
        (uint96 priceIn, uint96 priceOut) = ISession(session).pricesOf(sessionId);
        // Not above what is held: no more tokens, at the same prices.
        uint96 fee = Fees.feeOf(answer.promptTokens, answer.outputTokens, priceIn, priceOut).toUint96();
        uint128 rest = task.amount - fee;
        task.state = TaskState.Committed;
        task.amount = fee;
        task.until = uint40(block.timestamp) + settleDelay;
        _seal(task, taskId, answer);
        if (rest == 0) return;
        ISession(session).restoreLane(sessionId, lane, rest);
        ISessionPayment(payment).free(sessionId, taskId, rest);
    }

    /// @inheritdoc ISessionQueue
    function submitAndCommit(TaskRequest calldata request, bytes calldata signature, Commit calldata answer)
        external
        returns (TaskId taskId)
    {
        Admitted memory admitted = _admit(request, _signer(request, signature), block.timestamp);
        taskId = admitted.taskId;
        _checkAnswer(answer, request.maxPrompt, request.maxOutput);
        _checkCommitter(admitted.nodeId, answer.numericClass);
        uint128 fee =
            uint128(Fees.feeOf(answer.promptTokens, answer.outputTokens, admitted.priceIn, admitted.priceOut));
        Stored storage task = _tasks[taskId];
        _store(task, request, admitted.nodeId, TaskState.Committed, uint40(block.timestamp) + settleDelay, fee);
        _emitSubmitted(request, admitted, fee);
        _seal(task, taskId, answer);
        _takeMoney(request, fee);
    }

    /// @inheritdoc ISessionQueue
    function settle(TaskId[] calldata taskIds) external returns (uint256 settled) {
        if (taskIds.length > MAX_SETTLE) revert SessionQueue_TooMany(taskIds.length, MAX_SETTLE);
        Payout[] memory payouts = new Payout[](taskIds.length);
        Payees memory payees;
        for (uint256 i; i < taskIds.length; ++i) {
            Stored storage task = _tasks[taskIds[i]];
            if (task.state != TaskState.Committed || block.timestamp < task.until) continue;
            task.state = TaskState.Settled;
            _findPayees(payees, task);
            payouts[settled++] = _payoutOf(taskIds[i], task, payees);
        }
        if (settled == 0) return 0;
        assembly ("memory-safe") {
            mstore(payouts, settled)
        }
        ISessionPayment(payment).pay(payouts, msg.sender);
    }

    /// @inheritdoc ISessionQueue
    function advance(TaskId taskId) external {
        Stored storage task = _known(taskId);
        if (task.state != TaskState.Assigned) revert SessionQueue_WrongState(taskId, task.state);
        if (block.timestamp <= task.until) revert SessionQueue_DeadlineNotPassed(taskId, task.until);
        task.state = TaskState.Refunded;
        SessionId sessionId = task.sessionId;
        // `_submit` held no less than the tip.
        uint128 back = task.amount - tip;
        emit TaskRefunded(taskId, sessionId, task.nodeId, back, tip);
        ISession(session).restoreLane(sessionId, Lane.wrap(task.lane), back);
        ISessionPayment(payment).refund(sessionId, taskId, back, msg.sender, tip);
    }

    /// @inheritdoc ISessionQueue
    function taskOf(TaskId taskId) external view returns (Task memory) {
        Stored storage task = _tasks[taskId];
        TaskState state = task.state;
        // A task that was refunded never had a commitment.
        bool open = state == TaskState.Assigned || state == TaskState.Refunded;
        bytes32 second = task.sealedOrBounds;
        return Task({
            state: state,
            sessionId: task.sessionId,
            lane: Lane.wrap(task.lane),
            nodeId: task.nodeId,
            maxPrompt: open ? uint32(uint256(second) >> 32) : 0,
            maxOutput: open ? uint32(uint256(second)) : 0,
            until: task.until,
            amount: task.amount,
            commitment: open ? bytes32(0) : second
        });
    }

    /// @inheritdoc ISessionQueue
    function taskIdOf(SessionId sessionId, Lane lane, uint64 nonce) external view returns (TaskId) {
        return Commitments.taskId(address(this), sessionId, lane, nonce);
    }

    /// @inheritdoc ISessionQueue
    function nonceUsed(SessionId sessionId, Lane lane, uint64 nonce) external view returns (bool) {
        return _tasks[Commitments.taskId(address(this), sessionId, lane, nonce)].state != TaskState.None;
    }

    /// @inheritdoc ISessionQueue
    function DOMAIN_SEPARATOR() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    function _submit(TaskRequest calldata request, address holder) internal returns (TaskId taskId) {
        Admitted memory admitted = _admit(request, holder, block.timestamp + 1);
        taskId = admitted.taskId;
        Stored storage task = _tasks[taskId];
        uint40 deadline = uint40(request.deadline);
        _store(task, request, admitted.nodeId, TaskState.Assigned, deadline, admitted.maxFee);
        task.sealedOrBounds = bytes32(uint256(request.maxPrompt) << 32 | request.maxOutput);
        _emitSubmitted(request, admitted, admitted.maxFee);
        _takeMoney(request, admitted.maxFee);
    }

    /// Everything that a request must satisfy, apart from its money being there.
    function _admit(TaskRequest calldata request, address holder, uint256 earliest)
        internal
        view
        returns (Admitted memory admitted)
    {
        (SessionId sessionId, Lane lane) = (request.sessionId, request.lane);
        Admission memory admission = ISession(session).admissionOf(sessionId, lane);
        uint256 latest = block.timestamp + maxDeadline;
        if (admission.state == SessionState.Draining && Lane.unwrap(lane) != 0) {
            if (latest > admission.endsAt) latest = admission.endsAt;
        } else if (admission.state != SessionState.Active) {
            revert SessionQueue_SessionNotActive(sessionId);
        }
        if (admission.seed == 0) revert SessionQueue_SeedUnknown(sessionId);
        if (holder == address(0) || holder != admission.holder) {
            revert SessionQueue_NotHolder(sessionId, lane, holder);
        }
        if (request.deadline < earliest || request.deadline > latest) {
            revert SessionQueue_DeadlineOutOfBounds(request.deadline, earliest, latest);
        }
        _checkNonce(request, admission.nextNonce);
        admitted.taskId = Commitments.taskId(address(this), sessionId, lane, request.nonce);
        if (_tasks[admitted.taskId].state != TaskState.None) {
            revert SessionQueue_NonceUsed(sessionId, lane, request.nonce);
        }
        admitted.nodeId = _nodeFor(request, admission);
        admitted.maxFee = _maxFee(request, admission);
        (admitted.priceIn, admitted.priceOut) = (admission.priceIn, admission.priceOut);
    }

    function _checkNonce(TaskRequest calldata request, uint64 nextNonce) internal pure {
        uint64 limit = nextNonce + NONCE_WINDOW - 1;
        if (request.nonce > limit) {
            revert SessionQueue_NonceTooFarAhead(request.sessionId, request.lane, request.nonce, limit);
        }
    }

    function _maxFee(TaskRequest calldata request, Admission memory admission) internal view returns (uint128) {
        (uint32 maxPrompt, uint32 maxOutput) = (request.maxPrompt, request.maxOutput);
        if (maxPrompt == 0 || maxOutput == 0) revert SessionQueue_TokensOutOfBounds(maxPrompt, maxOutput);
        if (request.requestDigest == 0) revert SessionQueue_EmptyDigest();
        uint256 fee = Fees.feeOf(maxPrompt, maxOutput, admission.priceIn, admission.priceOut);
        if (fee > request.feeCap) revert SessionQueue_FeeAboveCap(fee, request.feeCap);
        if (fee < tip) revert SessionQueue_FeeBelowTip(fee, tip);
        return uint128(fee);
    }

    /// The named node, or the one that the session's seed gives to this nonce.
    function _nodeFor(TaskRequest calldata request, Admission memory admission) internal pure returns (NodeId) {
        uint256 nodes = admission.nodes;
        if (NodeId.unwrap(request.nodeId) == 0) {
            bytes32 drawn = keccak256(abi.encode(admission.seed, request.lane, request.nonce));
            return nodes.nodeAt(uint256(drawn) % nodes.length());
        }
        if (!nodes.contains(request.nodeId)) revert SessionQueue_NotReserved(request.sessionId, request.nodeId);
        return request.nodeId;
    }

    function _checkAnswer(Commit calldata answer, uint32 maxPrompt, uint32 maxOutput) internal pure {
        if (
            answer.promptTokens == 0 || answer.promptTokens > maxPrompt || answer.outputTokens == 0
                || answer.outputTokens > maxOutput
        ) {
            revert SessionQueue_TooManyTokens(answer.promptTokens, maxPrompt, answer.outputTokens, maxOutput);
        }
        if (answer.endReason == 0 || answer.endReason > LAST_END_REASON) {
            revert SessionQueue_BadEndReason(answer.endReason);
        }
        if (answer.outputDigest == 0 || answer.promptHash == 0 || answer.proofSeal == 0) {
            revert SessionQueue_EmptyDigest();
        }
    }

    function _checkCommitter(NodeId nodeId, NumericClass claimed) internal view {
        (address operator, NumericClass declared) = INodePool(pool).committerOf(nodeId);
        if (msg.sender != operator) revert SessionQueue_NotOperator(nodeId, msg.sender);
        if (NumericClass.unwrap(claimed) != NumericClass.unwrap(declared)) {
            revert SessionQueue_WrongClass(nodeId, claimed, declared);
        }
    }

    function _store(
        Stored storage task,
        TaskRequest calldata request,
        NodeId nodeId,
        TaskState state,
        uint40 until,
        uint128 amount
    ) internal {
        task.state = state;
        // `Session` has no lanes above 8.
        task.lane = uint16(Lane.unwrap(request.lane));
        task.nodeId = nodeId;
        task.until = until;
        task.sessionId = request.sessionId;
        task.amount = uint256(amount).toUint96();
    }

    /// Stores the commitment and tells the answer.
    function _seal(Stored storage task, TaskId taskId, Commit calldata answer) internal {
        NodeId nodeId = task.nodeId;
        bytes32 h1 = Commitments.tokenSeal(block.chainid, address(this), taskId, nodeId, answer);
        task.sealedOrBounds = Commitments.commitment(h1, answer.proofSeal);
        // The members of `answer` in their order, then fee and time: `emit` has more arguments than the stack holds.
        bytes memory data = abi.encode(answer, task.amount, task.until);
        bytes32 topic = TaskCommitted.selector;
        uint256 sessionId = SessionId.unwrap(task.sessionId);
        assembly ("memory-safe") {
            log4(add(data, 32), mload(data), topic, taskId, sessionId, nodeId)
        }
    }

    function _emitSubmitted(TaskRequest calldata request, Admitted memory admitted, uint128 held) internal {
        emit TaskSubmitted(
            admitted.taskId,
            request.sessionId,
            admitted.nodeId,
            request.lane,
            request.nonce,
            request.requestDigest,
            request.maxPrompt,
            request.maxOutput,
            held,
            request.deadline
        );
    }

    function _takeMoney(TaskRequest calldata request, uint128 amount) internal {
        ISession(session).useLane(request.sessionId, request.lane, request.nonce, amount);
        ISessionPayment(payment).hold(request.sessionId, amount);
    }

    /// Looks up who is paid for `task`, unless `payees` already says so.
    function _findPayees(Payees memory payees, Stored storage task) internal view {
        uint64 sessionId = SessionId.unwrap(task.sessionId);
        uint32 lane = task.lane;
        if (payees.sessionId != sessionId || payees.lane != lane) {
            (ModelId modelId, address holder) = ISession(session).payeesOf(task.sessionId, Lane.wrap(lane));
            (payees.publisher, payees.royaltyBps) = IModelRegistry(models).royaltyOf(modelId);
            (payees.sessionId, payees.lane, payees.router) = (sessionId, lane, holder);
        }
        uint32 nodeId = NodeId.unwrap(task.nodeId);
        if (payees.nodeId != nodeId) {
            (payees.nodeId, payees.miner) = (nodeId, INodePool(pool).payoutOf(task.nodeId));
        }
    }

    /// Divides the fee of a task that is settled now.
    function _payoutOf(TaskId taskId, Stored storage task, Payees memory payees)
        internal
        returns (Payout memory payout)
    {
        uint128 fee = task.amount;
        Shares memory shares = Fees.splitDown(fee, minerBps, routerBps, payees.royaltyBps, tip);
        if (payees.lane == 0) (shares.miner, shares.router) = (shares.miner + shares.router, 0);
        payout.sessionId = task.sessionId;
        payout.taskId = taskId;
        (payout.miner, payout.minerShare) = (payees.miner, shares.miner);
        (payout.router, payout.routerShare) = (payees.router, shares.router);
        (payout.publisher, payout.royalty) = (payees.publisher, shares.royalty);
        (payout.tip, payout.burnt) = (shares.tip, shares.burnt);
        emit TaskSettled(
            taskId,
            payout.sessionId,
            task.nodeId,
            fee,
            shares.miner,
            shares.router,
            shares.royalty,
            shares.tip,
            shares.burnt
        );
    }

    /// Who signed the request; zero if nobody can be told from the signature. A high `s` is refused.
    function _signer(TaskRequest calldata request, bytes calldata signature) internal view returns (address signer) {
        bytes32 digest = _hashTypedDataV4(Commitments.requestHash(request));
        (signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
    }

    function _known(TaskId taskId) internal view returns (Stored storage task) {
        task = _tasks[taskId];
        if (task.state == TaskState.None) revert SessionQueue_UnknownTask(taskId);
    }
}
