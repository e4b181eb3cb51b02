// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Lane, NodeId, NumericClass, SessionId, TaskId} from "../types/Ids.sol";

enum TaskState {
    None,
    /// Paid for; any node of the reservation may claim it.
    Queued,
    /// Given to its nodes; answers (or, of several, precommitments) are due by `until`.
    Assigned,
    /// Every node has precommitted or failed; commitments are to be opened by `until`.
    Precommitted,
    /// Answered; settles at `until`.
    Committed,
    /// Paid.
    Settled,
    /// Ended without an answer; the client has its money back.
    Refunded
}

enum Dispatch {
    /// Nodes are assigned at submission.
    Push,
    /// Nodes claim from the head of the session's queue.
    Pull
}

/// What the lane's holder signs (EIP-712, domain "Assay" version "1") or sends.
struct TaskRequest {
    SessionId sessionId;
    Lane lane;
    /// Names the task within its lane: at most `nonceWindow` ahead of the largest used, each once.
    uint64 nonce;
    /// The reservation that shall serve it, by its seed round; 0 for whichever is current when the request lands.
    uint64 seedRound;
    /// sha-256 of the request block.
    bytes32 requestDigest;
    uint32 maxPrompt;
    uint32 maxOutput;
    /// The largest fee of one answer may not be higher.
    uint96 feeCap;
    /// Unix seconds; the last second of the first attempt.
    uint64 deadline;
    /// The node that shall serve it, of several the first; 0 lets the seed and the nonce choose.
    NodeId nodeId;
    /// Answers wanted: 1 to 8, each by another node, each paid.
    uint8 redundancy;
    /// Nodes that may be asked one after the other for an answer: 1 to the session's `maxAttempts`.
    uint8 attempts;
    Dispatch dispatch;
    /// Gas of the call that tells the answer to the session's owner, see `IAssayConsumer`; 0 for none. Lane 0 alone.
    uint32 callbackGas;
}

enum PartState {
    /// Its answer, or its precommitment, is due.
    Waiting,
    Precommitted,
    /// Answered; is paid when the task settles.
    Committed,
    /// Silent, or its precommitment was never opened, and no other node was left to ask; or its answer was not proven.
    Failed
}

/// One answer of a task.
struct Part {
    NodeId nodeId;
    PartState state;
    /// Named rather than drawn: counts in another series.
    bool dedicated;
    /// Once committed.
    uint96 fee;
    /// keccak256(abi.encode(H1, H2)) once precommitted or committed.
    bytes32 commitment;
}

/// A task as its events tell it. The queue stores its hash: whoever moves a task brings it.
struct Task {
    SessionId sessionId;
    Lane lane;
    uint64 nonce;
    /// Beacon round whose value seeds the task; for a claimed task a round after the claim. 0 while queued.
    uint64 seedRound;
    /// The reservation that its nodes are of.
    uint64 reservation;
    uint32 maxPrompt;
    uint32 maxOutput;
    /// What the lane holds for it.
    uint96 held;
    /// Unix seconds; no attempt may end later: the deadline, and, if there may be several attempts, as many times the
    /// session's `attemptTime`.
    uint40 finalBy;
    /// Attempts left after this one.
    uint8 attemptsLeft;
    /// One bit for each node of the reservation that was asked, the first lowest.
    uint8 tried;
    Dispatch dispatch;
    /// Place in the session's queue; 0 for a task that was pushed.
    uint64 ticket;
    uint32 callbackGas;
    /// As many as the redundancy; none while queued.
    Part[] parts;
}

/// What a node promises before it opens its answer.
struct Precommit {
    NodeId nodeId;
    bytes32 commitment;
    /// EIP-712 `Precommit(bytes32 taskId,uint32 nodeId,bytes32 commitment)` by the node's operator; empty if the operator
    /// sends it.
    bytes signature;
}

/// H1 opened, H2 still sealed.
struct Answer {
    NodeId nodeId;
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
    /// The operator's signature of the answer's commitment, as in `Precommit`; empty if the operator sends it, or if
    /// the commitment stands on chain already.
    bytes signature;
}

/// Why a node is no longer, or not yet, on a task.
enum PartEvent {
    /// Took the task from the queue.
    Claimed,
    /// Follows one that was silent or declined.
    TookOver,
    /// Handed the task back: no fault.
    Declined,
    /// Did not answer, or precommit, in time.
    Silent,
    /// Did not open its precommitment in time.
    Unrevealed,
    /// Its answer did not come from the model, or nobody could tell: `ProofOfInference` says which. It is not paid.
    Disproved
}

/// Tasks of sessions: submission, dispatch, precommit, commit, deadlines, settlement.
///
/// What a task holds is `redundancy` times its largest fee, and one tip more with a callback. The carried form of a
/// request holds the fee alone.
interface ISessionQueue {
    /// `task` is the whole task as submitted, before what the same call carried; `until` the end of its first phase.
    /// `nodeId` is the first node; 0 while queued.
    event TaskSubmitted(
        TaskId indexed taskId,
        SessionId indexed sessionId,
        NodeId indexed nodeId,
        bytes32 requestDigest,
        uint64 deadline,
        uint40 until,
        Task task
    );
    /// Part `part` changed hands.
    event PartChanged(TaskId indexed taskId, NodeId indexed nodeId, uint8 part, PartEvent what);
    event TaskPrecommitted(TaskId indexed taskId, NodeId indexed nodeId, bytes32 commitment);
    /// `settleAt` (unix seconds) is 0 while other answers are due.
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
        uint96 fee,
        uint40 settleAt
    );
    /// The task as it stands after `claim`, `decline`, `advance`, or a call that ended a phase of a redundant task.
    event TaskMoved(TaskId indexed taskId, TaskState indexed state, uint40 until, Task task);
    /// One for each answer that is paid.
    event TaskSettled(
        TaskId indexed taskId,
        SessionId indexed sessionId,
        NodeId indexed nodeId,
        uint96 fee,
        uint96 minerShare,
        uint96 routerShare,
        uint96 royalty,
        uint96 tip,
        uint96 burnt
    );
    event TaskRefunded(TaskId indexed taskId, SessionId indexed sessionId, uint96 refund, uint96 tip);
    event AnswerDelivered(TaskId indexed taskId, address indexed consumer, bool success);

    error SessionQueue_UnknownTask(TaskId taskId);
    /// The task that was brought is not the one that is stored: its events tell how it stands.
    error SessionQueue_StaleTask(TaskId taskId, bytes32 stored, bytes32 brought);
    error SessionQueue_WrongState(TaskId taskId, TaskState state);
    error SessionQueue_SessionNotActive(SessionId sessionId);
    error SessionQueue_NotServed(SessionId sessionId, uint64 seedRound);
    error SessionQueue_SeedUnknown(SessionId sessionId, uint64 seedRound);
    error SessionQueue_NotHolder(SessionId sessionId, Lane lane, address caller);
    error SessionQueue_BadSignature(SessionId sessionId, Lane lane, address holder);
    error SessionQueue_NonceUsed(SessionId sessionId, Lane lane, uint64 nonce);
    error SessionQueue_TokensOutOfBounds(uint32 maxPrompt, uint32 maxOutput);
    error SessionQueue_FeeAboveCap(uint256 fee, uint96 cap);
    error SessionQueue_FeeBelowTip(uint256 fee, uint96 tip);
    error SessionQueue_DeadlineOutOfBounds(uint64 deadline, uint256 earliest, uint256 latest);
    error SessionQueue_DeadlinePassed(TaskId taskId, uint40 deadline);
    error SessionQueue_DeadlineNotPassed(TaskId taskId, uint40 deadline);
    error SessionQueue_RedundancyOutOfBounds(uint8 redundancy, uint256 max);
    error SessionQueue_AttemptsOutOfBounds(uint8 attempts, uint8 max);
    error SessionQueue_PullTakesOne(uint8 redundancy, NodeId nodeId);
    error SessionQueue_CallbackNotAllowed(Lane lane, uint32 callbackGas, uint32 max);
    error SessionQueue_NotReserved(SessionId sessionId, NodeId nodeId);
    error SessionQueue_NotOnTask(TaskId taskId, NodeId nodeId);
    error SessionQueue_NotOperator(NodeId nodeId, address caller);
    error SessionQueue_WrongPartState(TaskId taskId, NodeId nodeId, PartState state);
    error SessionQueue_WrongOpening(TaskId taskId, NodeId nodeId, bytes32 commitment);
    error SessionQueue_TooManyTokens(uint32 promptTokens, uint32 maxPrompt, uint32 outputTokens, uint32 maxOutput);
    error SessionQueue_WrongClass(NodeId nodeId, NumericClass claimed, NumericClass declared);
    error SessionQueue_BadEndReason(uint8 endReason);
    error SessionQueue_EmptyDigest();
    error SessionQueue_ZeroAddress();
    error SessionQueue_TooMany(uint256 tasks, uint256 limit);
    error SessionQueue_QueueFull(SessionId sessionId, uint256 limit);
    error SessionQueue_NotHead(TaskId taskId, uint64 ticket, uint64 head);
    error SessionQueue_TooManyClaims(NodeId nodeId, uint256 limit);
    error SessionQueue_NoCallback(TaskId taskId);
    error SessionQueue_NotEnoughGas(uint256 gasLeft, uint256 wanted);
    error SessionQueue_NotEquivocal(TaskId taskId, NodeId nodeId);
    error SessionQueue_AlreadyPunished(TaskId taskId, NodeId nodeId);

    /// Submits a task; only the lane's holder.
    function submit(TaskRequest calldata request) external returns (TaskId taskId);

    /// Submits a task that the lane's holder signed (EIP-1271 if it is a contract); anyone may carry it.
    function submitSigned(TaskRequest calldata request, bytes calldata signature) external returns (TaskId taskId);

    /// A signed request of redundancy 1 and its answer in one transaction; anyone may carry it if the answer is signed,
    /// else the node's operator. Holds the fee alone, not the maximum.
    function submitAndCommit(TaskRequest calldata request, bytes calldata signature, Answer calldata answer)
        external
        returns (TaskId taskId);

    /// A signed request and the precommitments of all or some of its nodes in one transaction.
    function submitAndPrecommit(TaskRequest calldata request, bytes calldata signature, Precommit[] calldata precommits)
        external
        returns (TaskId taskId);

    /// Any node of the reservation takes the head of the session's queue. `gone` are the tasks at the head that were
    /// cancelled or ran out of time, in their order.
    function claim(Task calldata task, NodeId nodeId, Task[] calldata gone) external;

    /// The lane's holder takes back what is still queued, all of its money; there is no callback.
    function cancel(Task calldata task) external;

    /// A node hands its part back before the deadline: the next one is asked, or the part fails. By its operator, or
    /// with its signature of EIP-712 `Decline(bytes32 taskId,uint32 nodeId)`.
    function decline(Task calldata task, NodeId nodeId, bytes calldata signature) external;

    /// Precommitments of redundant nodes. The last one opens the next phase.
    function precommit(Task calldata task, Precommit[] calldata precommits) external;

    /// Answers: of a task with one node its answer, of a redundant one openings, which anyone may carry. The last one
    /// ends the phase.
    function commit(Task calldata task, Answer[] calldata answers) external;

    /// Moves a task on whose deadline has passed: asks the next nodes, opens the next phase, or refunds. Anyone may,
    /// and earns the tip if the task ends by it. Takes a refunded task that is at the head of a queue off it.
    function advance(Task calldata task) external;

    /// Pays committed tasks whose time has come; anyone may, and earns the tip of each. At most 64 a call; a task
    /// that cannot be settled now is skipped.
    function settle(Task[] calldata tasks) external returns (uint256 settled);

    /// Tells the owner the answer of record of a task that asked for it, the lowest part that was committed, or that
    /// there is none. Anyone may, and earns the tip. `answer` is empty for a refunded task.
    function deliver(Task calldata task, Answer calldata answer) external;

    /// Proves that a node signed two different commitments for one task: it is slashed and jailed, and the caller earns
    /// the reporter's share.
    function reportEquivocation(TaskId taskId, Precommit calldata one, Precommit calldata other) external;

    /// How a task stands: its state, the time that the state ends or ended at (unix seconds), and the hash of the rest.
    function statusOf(TaskId taskId) external view returns (TaskState state, uint40 until, bytes32 digest);

    /// What `statusOf` must tell of `task`.
    function digestOf(Task calldata task) external view returns (bytes32);

    function taskIdOf(SessionId sessionId, Lane lane, uint64 nonce) external view returns (TaskId);

    /// The queue of a session: the next ticket to be given and the one at the head; equal if it is empty.
    function ticketsOf(SessionId sessionId) external view returns (uint64 next, uint64 head);

    /// Open claims of a node.
    function claimsOf(NodeId nodeId) external view returns (uint8);

    function session() external view returns (address);

    function proof() external view returns (address);

    function pool() external view returns (address);

    function models() external view returns (address);

    function payment() external view returns (address);

    function beacon() external view returns (address);

    function stats() external view returns (address);

    function parameters() external view returns (address);

    /// EIP-712 domain separator.
    function DOMAIN_SEPARATOR() external view returns (bytes32);
}
