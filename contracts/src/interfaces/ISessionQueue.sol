// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Lane, NodeId, NumericClass, SessionId, TaskId} from "../types/Ids.sol";

enum TaskState {
    None,
    /// Paid for and given to a node; ends by its commit or its deadline.
    Assigned,
    /// Answered; settles at `settleAt`.
    Committed,
    Settled,
    Refunded
}

/// What the lane's holder signs (EIP-712, domain "Assay" version "1") or sends.
struct TaskRequest {
    SessionId sessionId;
    Lane lane;
    uint64 nonce;
    /// sha-256 of the request block.
    bytes32 requestDigest;
    uint32 maxPrompt;
    uint32 maxOutput;
    /// The task's largest fee may not be higher.
    uint128 feeCap;
    /// Unix seconds; the last second in which a commit is taken.
    uint64 deadline;
    /// The node that shall serve it; 0 lets the session's seed and the nonce choose.
    NodeId nodeId;
}

/// H1 opened, H2 still sealed.
struct Commit {
    bytes32 outputDigest;
    bytes32 promptHash;
    uint32 promptTokens;
    uint32 outputTokens;
    NumericClass numericClass;
    /// 1 eos, 2 stop, 3 max.
    uint8 endReason;
    bytes32 salt;
    /// H2.
    bytes32 proofSeal;
}

struct Task {
    TaskState state;
    SessionId sessionId;
    Lane lane;
    NodeId nodeId;
    /// Zero once committed.
    uint32 maxPrompt;
    uint32 maxOutput;
    /// Unix seconds: deadline while assigned, `settleAt` once committed.
    uint40 until;
    /// Held: the largest possible fee while open, the fee once committed. What it paid or gave back later.
    uint128 amount;
    /// keccak256(abi.encode(H1, H2)) once committed: binds the digests that the events carry.
    bytes32 commitment;
}

/// Tasks of sessions: submission, commit, deadlines, settlement.
interface ISessionQueue {
    event TaskSubmitted(
        TaskId indexed taskId,
        SessionId indexed sessionId,
        NodeId indexed nodeId,
        Lane lane,
        uint64 nonce,
        bytes32 requestDigest,
        uint32 maxPrompt,
        uint32 maxOutput,
        uint128 held,
        uint64 deadline
    );
    event TaskCommitted(
        TaskId indexed taskId,
        SessionId indexed sessionId,
        NodeId indexed nodeId,
        bytes32 outputDigest,
        bytes32 promptHash,
        uint32 promptTokens,
        uint32 outputTokens,
        NumericClass numericClass,
        uint8 endReason,
        bytes32 salt,
        bytes32 proofSeal,
        uint128 fee,
        uint40 settleAt
    );
    event TaskSettled(
        TaskId indexed taskId,
        SessionId indexed sessionId,
        NodeId indexed nodeId,
        uint128 fee,
        uint128 minerShare,
        uint128 routerShare,
        uint128 royalty,
        uint128 tip,
        uint128 burnt
    );
    event TaskRefunded(
        TaskId indexed taskId, SessionId indexed sessionId, NodeId indexed nodeId, uint128 refund, uint128 tip
    );

    error SessionQueue_UnknownTask(TaskId taskId);
    error SessionQueue_WrongState(TaskId taskId, TaskState state);
    error SessionQueue_SessionNotActive(SessionId sessionId);
    error SessionQueue_SeedUnknown(SessionId sessionId);
    error SessionQueue_NotHolder(SessionId sessionId, Lane lane, address signer);
    error SessionQueue_NonceUsed(SessionId sessionId, Lane lane, uint64 nonce);
    error SessionQueue_NonceTooFarAhead(SessionId sessionId, Lane lane, uint64 nonce, uint64 limit);
    error SessionQueue_TokensOutOfBounds(uint32 maxPrompt, uint32 maxOutput);
    error SessionQueue_FeeAboveCap(uint256 fee, uint128 cap);
    error SessionQueue_FeeBelowTip(uint256 fee, uint128 tip);
    error SessionQueue_DeadlineOutOfBounds(uint64 deadline, uint256 earliest, uint256 latest);
    error SessionQueue_DeadlinePassed(TaskId taskId, uint40 deadline);
    error SessionQueue_DeadlineNotPassed(TaskId taskId, uint40 deadline);
    error SessionQueue_NotReserved(SessionId sessionId, NodeId nodeId);
    error SessionQueue_NotOperator(NodeId nodeId, address caller);
    error SessionQueue_TooManyTokens(uint32 promptTokens, uint32 maxPrompt, uint32 outputTokens, uint32 maxOutput);
    error SessionQueue_WrongClass(NodeId nodeId, NumericClass claimed, NumericClass declared);
    error SessionQueue_BadEndReason(uint8 endReason);
    error SessionQueue_EmptyDigest();
    error SessionQueue_ZeroAddress();
    error SessionQueue_SharesTooHigh(uint256 bps, uint256 max);
    error SessionQueue_DeadlineTooLong(uint40 maxDeadline, uint40 noticePeriod);
    error SessionQueue_TooMany(uint256 tasks, uint256 limit);

    /// Submits a task; only the lane's holder.
    function submit(TaskRequest calldata request) external returns (TaskId taskId);

    /// Submits a task that the lane's holder signed; anyone may carry it.
    function submitSigned(TaskRequest calldata request, bytes calldata signature) external returns (TaskId taskId);

    /// The assigned node's operator answers. What was held beyond the fee is free again.
    function commit(TaskId taskId, Commit calldata answer) external;

    /// Submission of a signed request and its answer in one transaction, by the operator of the node that it names or
    /// that is drawn. Holds the fee alone, not the maximum.
    function submitAndCommit(TaskRequest calldata request, bytes calldata signature, Commit calldata answer)
        external
        returns (TaskId taskId);

    /// Pays committed tasks whose time has come; anyone may, and earns the tip of each. At most 64 a call; a task
    /// that cannot be settled now is skipped.
    function settle(TaskId[] calldata taskIds) external returns (uint256 settled);

    /// Refunds an assigned task whose deadline has passed; anyone may, and earns the tip.
    function advance(TaskId taskId) external;

    /// The task; state `None` if there is none.
    function taskOf(TaskId taskId) external view returns (Task memory);

    function taskIdOf(SessionId sessionId, Lane lane, uint64 nonce) external view returns (TaskId);

    /// True if a task was submitted under this nonce.
    function nonceUsed(SessionId sessionId, Lane lane, uint64 nonce) external view returns (bool);

    /// Seconds that a request's deadline may lie ahead at most.
    function maxDeadline() external view returns (uint40);

    /// Seconds from a commit to its settlement.
    function settleDelay() external view returns (uint40);

    /// What whoever settles or advances a task earns at most, minor units of COR.
    function tip() external view returns (uint128);

    function minerBps() external view returns (uint16);

    /// Share of the lane's holder; the miner's in lane 0.
    function routerBps() external view returns (uint16);

    function session() external view returns (address);

    function pool() external view returns (address);

    function models() external view returns (address);

    function payment() external view returns (address);

    /// EIP-712 domain separator.
    function DOMAIN_SEPARATOR() external view returns (bytes32);
}
