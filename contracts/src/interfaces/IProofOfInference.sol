// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetId, ModelIndex, NodeId, NumericClass, TaskId} from "../types/Ids.sol";
import {Answer} from "./ISessionQueue.sol";

/// Where the proof of an answer stands.
enum AuditState {
    None,
    /// Committed; waits for the draw of its epoch.
    Exposed,
    /// Not drawn, or the draw had no randomness: paid once the other answers of its task are through.
    Cleared,
    /// The drawn validator is to commit to what it finds, by `until`.
    Drawn,
    /// The miner is to open its proof, by `until`.
    Sealed,
    /// The validator is to open what it committed to, with the leaves that `round` draws, by `until`.
    Opened,
    /// The validator found the answer false: `round` draws a panel.
    Accused,
    /// The panel is to commit, by `until`.
    Convened,
    /// The panel, and where contrasts are compared the miner and the validator, are to open, by `until`.
    Hearing,
    /// The miner is to publish request and answer, by `until`.
    Demanded,
    /// A panel found it false: the owner of the miner may appeal until `until`; then it is executed.
    Condemned,
    /// `round` draws a second panel.
    Appealed,
    /// Found true. The answer is paid.
    Passed,
    /// Nobody was there to look. The answer is paid, and vouches for nothing.
    Unverified,
    /// Found false by fewer than it takes, or by nobody: the client has the fee back, and nobody is slashed.
    Void,
    /// Proven false, or not opened: the client has the fee back, and the miner is slashed.
    Disproved,
    /// The task has ended; its validators are to be paid.
    Closed
}

/// What a panel decides.
enum Question {
    None,
    /// Whose contrasts are those of the weights.
    Weights,
    /// Whether the tokens follow from them.
    Sampling,
    /// Whether end, text, prompt and ids are what they should be.
    Content
}

/// One who has a word in a dispute. The first two are the miner and the validator.
struct Party {
    NodeId nodeId;
    /// Has committed; has opened.
    bool isSealed;
    bool isOpen;
    /// H' until it is opened, then the root of what it recorded.
    bytes32 root;
    /// See `Verdicts`.
    uint256 statistics;
    /// keccak256 of the ids at the positions compared, 4 bytes each.
    bytes32 ids;
    /// Packed contrasts, or margins, at the positions compared, in their order, the first highest: contrasts 64 bits each,
    /// margins 32.
    uint256[4] values;
}

/// The proof of one answer, once a validator is drawn. The contract stores its hash: whoever moves it brings it. All of
/// its members are one word, see `AuditMemory`.
struct Audit {
    TaskId taskId;
    /// Whose answer it is.
    NodeId nodeId;
    ModelIndex model;
    AssetId asset;
    /// The answer's fee, and the same in COR by the model's own floors: what is open of the node as long as this is.
    uint96 fee;
    uint96 value;
    /// The session's owner.
    address client;
    /// Unix seconds; when it was committed, and the places of the model's pool then.
    uint40 committedAt;
    uint32 slots;
    uint16 probabilityBps;
    /// keccak256(abi.encode(H1, H2)) until the miner opens it, then the root of what it recorded.
    bytes32 root;
    /// The value that draws, and the try that comes next.
    bytes32 seed;
    uint32 tries;
    /// Nodes of the task with an answer, and validators drawn so far, see `NodeSet`: their owners are not drawn any more.
    uint256 nodes;
    uint256 drawn;
    NodeId validator;
    /// H' until it is opened, then the root of what the validator recorded.
    bytes32 validatorRoot;
    /// Known once the miner has opened.
    uint32 outputTokens;
    /// The round that is waited for; see `AuditState`.
    uint64 round;
    /// What the validator found, see `Verdicts`.
    uint8 reasons;
    /// Where the panel looks. Weights: the block, counted from 0. Sampling: up to 16 positions, ascending, 32 bits each, the
    /// first highest, zeros behind the last.
    uint256 named;
    uint256 alsoNamed;
    /// keccak256(abi.encode(parties)) of a dispute.
    bytes32 parties;
    /// One bit for each place in `drawn`. Low byte: has done its duty. High byte: demanded the data, and is not paid.
    uint16 earners;
}

/// Data that were demanded.
struct Demand {
    /// What the audit goes back to; None: nothing was demanded.
    AuditState resumes;
    /// The request's block; it and the answer's; what of both is published.
    uint32 requestBytes;
    uint32 totalBytes;
    uint32 publishedBytes;
}

/// A piece of the data: the request's block and the answer's behind it, in their canonical form.
struct Chunk {
    uint32 requestBytes;
    uint32 totalBytes;
    /// What was published before.
    uint32 offset;
    bytes data;
}

/// An appeal; zeros: there is none, or nothing is open of it.
struct Appeal {
    /// COR.
    uint96 bond;
    /// Who found the answer false, see `NodeSet`; and who was contradicted by them, 0 for nobody.
    uint128 accusers;
    NodeId dissenter;
    /// The second panel, see `NodeSet`. Its members in the order of the parties, one bit each: who has done its duty,
    /// and who demanded the data and is not paid.
    uint224 members;
    uint8 earners;
    uint8 waived;
}

/// A leaf of a miner's tree, or, with the margin, of a validator's.
struct Leaf {
    uint32 id;
    /// int16 each in units of 1/256 nat, the first highest; two of them are the lowest 32 bits.
    uint64 contrasts;
    /// 1/65536 nat; 0 in a miner's.
    uint32 margin;
}

/// What a validator opens.
struct Findings {
    bytes32 root;
    /// See `Verdicts`.
    uint256 statistics;
    bytes32 salt;
    /// Blocks of 32 positions whose median contrast is off, and the worst of them, counted from 0.
    uint16 failingBlocks;
    uint16 worstBlock;
    /// Of a validator that accuses the sampling: positions as in `Audit`.
    uint256 named;
    uint256 alsoNamed;
    /// Leaves at the drawn positions and the nodes beside their paths, of the miner and of the validator.
    Leaf[] minerLeaves;
    bytes32[] minerNodes;
    Leaf[] leaves;
    bytes32[] nodes;
}

/// What a party of a dispute opens.
struct Testimony {
    /// Of a member of the panel: what H' is made of.
    bytes32 root;
    uint256 statistics;
    bytes32 salt;
    Leaf[] leaves;
    bytes32[] nodes;
}

/// An answer whose task is to be settled.
struct Claim {
    NodeId nodeId;
    uint96 fee;
    bytes32 commitment;
}

struct Docket {
    TaskId taskId;
    ModelIndex model;
    AssetId asset;
    address client;
    /// One for each answer that was committed.
    Claim[] claims;
}

/// Audits of answers: what is drawn, found, disputed and paid for it. Hashes and words are those of `PROTOCOL.md`.
interface IProofOfInference {
    /// The answer is audited with this probability, in the draw of the epoch of `committedAt`.
    event AnswerExposed(
        TaskId indexed taskId,
        NodeId indexed nodeId,
        uint96 value,
        uint40 committedAt,
        uint32 slots,
        uint16 probabilityBps,
        uint256 openValue
    );
    /// `round` draws the answers of `epoch`.
    event EpochClosed(uint40 indexed epoch, uint64 indexed round);
    /// The answer was not drawn, or its draw had no randomness in time.
    event AnswerCleared(TaskId indexed taskId, NodeId indexed nodeId, bool unaudited);
    /// Nobody was there to audit the answer.
    event AnswerUnverified(TaskId indexed taskId, NodeId indexed nodeId);
    /// The audit as it stands now.
    event AuditMoved(TaskId indexed taskId, NodeId indexed nodeId, AuditState indexed state, uint40 until, Audit audit);
    /// The parties of a dispute as they stand now.
    event PanelMoved(TaskId indexed taskId, NodeId indexed nodeId, Party[] parties);
    /// The miner published its contrasts under this digest (sha-256).
    event ProofOpened(TaskId indexed taskId, NodeId indexed nodeId, bytes32 root, bytes32 proofDigest);
    /// What a validator or a member of the panel found; reasons 0: the answer is true.
    event Verdict(
        TaskId indexed taskId,
        NodeId indexed nodeId,
        NodeId indexed validator,
        uint8 reasons,
        uint256 statistics,
        uint16 failingBlocks
    );
    /// Who is to look at the answer cannot read it, or its request: the miner has to publish both.
    event DataDemanded(TaskId indexed taskId, NodeId indexed nodeId, NodeId indexed validator);
    /// A piece of them, see `Chunk`.
    event DataPublished(
        TaskId indexed taskId, NodeId indexed nodeId, uint32 offset, uint32 requestBytes, uint32 totalBytes, bytes data
    );
    /// The miner's owner contests what a panel found, see `Appeal`.
    event Appealed(
        TaskId indexed taskId, NodeId indexed nodeId, uint96 bond, uint128 accusers, NodeId indexed dissenter
    );
    /// How the dispute ended, once that is final: the parties that found the answer false, one bit each in their order, whether it is false,
    /// and whether stake was taken for it.
    event Judged(
        TaskId indexed taskId, NodeId indexed nodeId, Question question, uint256 failing, bool guilty, bool slashed
    );
    /// What vouches for a node: audited value in COR, and the sum of its margins (1/65536 nat) over many answers.
    event RecordChanged(NodeId indexed nodeId, ModelIndex indexed model, uint96 passed, uint32 drift);
    /// Too many owners of the class failed in one epoch: nobody of it is slashed until then (unix seconds).
    event ClassPaused(NumericClass indexed numericClass, uint40 until);
    /// The share of settled answers for their audits was put aside, or taken out for a validator.
    event BookChanged(ModelIndex indexed model, AssetId indexed asset, uint256 amount);

    /// The validators of the answer were paid so much together.
    event AuditCollected(TaskId indexed taskId, NodeId indexed nodeId, uint256 amount);

    error ProofOfInference_ZeroAddress();
    error ProofOfInference_OutOfBounds(bytes32 name, uint256 value, uint256 min, uint256 max);
    /// It is made for other contracts or tunables.
    error ProofOfInference_OtherCode(address code);
    error ProofOfInference_NotQueue(address caller);
    /// Nobody could check what the node computes.
    error ProofOfInference_NotCalibrated(NodeId nodeId, NumericClass numericClass);
    error ProofOfInference_AlreadyExposed(TaskId taskId, NodeId nodeId);
    /// No audit could keep the node from lying: too much is open for its stake.
    error ProofOfInference_StakeTooSmall(NodeId nodeId, uint256 value, uint256 stake);
    error ProofOfInference_EpochOpen(uint40 epoch, uint256 endsAt);
    error ProofOfInference_EpochClosed(uint40 epoch, uint64 round);
    error ProofOfInference_WrongState(TaskId taskId, NodeId nodeId, AuditState state);
    error ProofOfInference_StaleAudit(TaskId taskId, NodeId nodeId, bytes32 stored, bytes32 brought);
    error ProofOfInference_StaleParties(TaskId taskId, NodeId nodeId, bytes32 stored, bytes32 brought);
    error ProofOfInference_TooLate(TaskId taskId, NodeId nodeId, uint40 until);
    error ProofOfInference_TooEarly(TaskId taskId, NodeId nodeId, uint40 until);
    error ProofOfInference_NotOperator(NodeId nodeId, address caller);
    error ProofOfInference_NotParty(TaskId taskId, NodeId nodeId, NodeId party);
    error ProofOfInference_AlreadySealed(NodeId party);
    error ProofOfInference_AlreadyOpen(NodeId party);
    error ProofOfInference_NotSealed(NodeId party);
    error ProofOfInference_EmptySeal();
    error ProofOfInference_WrongOpening(NodeId nodeId, bytes32 expected, bytes32 given);
    error ProofOfInference_RoundNotReady(uint64 round);
    error ProofOfInference_BadProof(uint256 nodes);
    error ProofOfInference_WrongRoot(NodeId nodeId, bytes32 expected, bytes32 given);
    error ProofOfInference_LeafCount(uint256 leaves, uint256 wanted);
    error ProofOfInference_BadLeaf(uint256 position);
    error ProofOfInference_BadPosition(uint256 position, uint256 tokens);
    error ProofOfInference_BadStatistics(uint256 word, uint256 tokens);
    error ProofOfInference_BadBlocks(uint256 failing, uint256 worst, uint256 blocks);
    error ProofOfInference_BookTooSmall(uint256 wanted, uint256 booked);
    error ProofOfInference_AlreadyDemanded(TaskId taskId, NodeId nodeId);
    /// Who cannot read an answer has to demand it first.
    error ProofOfInference_NotDemanded(TaskId taskId, NodeId nodeId);
    error ProofOfInference_DataSize(uint32 requestBytes, uint32 totalBytes, uint256 limit);
    error ProofOfInference_ChunkSize(uint256 size, uint256 limit);
    error ProofOfInference_WrongOffset(uint32 offset, uint32 wanted);
    /// The data are of other lengths than those that the first chunk told.
    error ProofOfInference_OtherSizes(uint32 requestBytes, uint32 totalBytes);
    error ProofOfInference_NotOwner(NodeId nodeId, address caller);
    /// There is nothing of the stake left that the judgement would take.
    error ProofOfInference_NothingAtStake(NodeId nodeId);

    /// Only `SessionQueue`: an answer was committed. Fixes the probability of its audit and what its draw may find.
    function expose(TaskId taskId, NodeId nodeId, ModelIndex model, AssetId asset, uint96 fee) external;

    /// Only `SessionQueue`: whether the answers of a task are through, which of them are not paid (one bit for each
    /// claim), and which share of its fee each of the others gives for audits (16 bits each, hundredths of a percent,
    /// the first lowest). Draws what is to be drawn; not ready until the audits it opens have ended. Forgets the answers
    /// once it is ready.
    function resolve(Docket calldata docket) external returns (bool ready, uint256 unpaid, uint256 levies);

    /// Only `SessionQueue`: so much was paid to this contract for audits of a model.
    function book(ModelIndex model, AssetId asset, uint256 amount) external;

    /// Names the round that draws the answers of an epoch that is over. Anyone may.
    function closeEpoch(uint40 epoch) external returns (uint64 round);

    /// The drawn validator's, by its operator: H' of what it found.
    function commitAudit(Audit calldata audit, bytes32 sealed_) external;

    /// Once the validator has committed: the miner's proof, H2 opened. `answer` opens H1 again. Anyone who has them may.
    function openProof(Audit calldata audit, Answer calldata answer, bytes32 root, bytes32 salt, bytes32 proofDigest)
        external;

    /// The validator's opening, by its operator, with the leaves at the positions that the round draws. All good: the answer
    /// passes; else a panel is drawn.
    function reveal(Audit calldata audit, Findings calldata findings) external;

    /// Of one who cannot read the answer or its request, by its operator: the drawn validator before it commits (`parties`
    /// is not read then), or a member of a panel before it does. Once for each answer. Whoever demands is not paid.
    function demandData(Audit calldata audit, Party[] calldata parties, NodeId validator) external;

    /// The miner's, by its operator: the next piece of what was demanded. With the last one the audit goes on, and what was
    /// published is what counts.
    function publishData(Audit calldata audit, Chunk calldata chunk) external;

    /// Draws the panel of an accused answer, once the round has its value. Anyone may.
    function convene(Audit calldata audit) external;

    /// A member's of the panel, by its operator: H' of what it found. The last one begins the hearing.
    function commitPanel(Audit calldata audit, Party[] calldata parties, NodeId member, bytes32 sealed_) external;

    /// The opening of a party of a hearing. Anyone who has it may.
    function testify(Audit calldata audit, Party[] calldata parties, NodeId party, Testimony calldata testimony)
        external;

    /// Decides, once everybody has opened, or after `until`; what would cost the miner its stake by a first panel is
    /// executed by a second call, after the time to appeal. Anyone may.
    function judge(Audit calldata audit, Party[] calldata parties) external;

    /// Contests, before `until`, a judgement that would cost the miner its stake. By the owner of its node, whose bond is
    /// pulled: `appealBps` of what would be taken.
    function appeal(Audit calldata audit, Party[] calldata parties) external;

    /// Draws the second panel, once the round has its value; if there are too few, the judgement is executed. Anyone may.
    function reconvene(Audit calldata audit, Party[] calldata parties) external;

    /// Moves an audit on whose time has passed. Anyone may.
    function advanceAudit(Audit calldata audit) external;

    /// The same of a panel that has not committed.
    function advancePanel(Audit calldata audit, Party[] calldata parties) external;

    /// Pays the validators of an answer whose task has ended. Anyone may.
    function collect(Audit calldata audit) external;

    /// How the proof of an answer stands; `digest` is that of the `Audit`, or zero before one is opened.
    function statusOf(TaskId taskId, NodeId nodeId)
        external
        view
        returns (AuditState state, uint40 until, bytes32 digest);

    /// What `statusOf` must tell of `audit`.
    function digestOf(Audit calldata audit) external pure returns (bytes32);

    /// What was demanded of an answer; zeros if nothing was.
    function demandOf(TaskId taskId, NodeId nodeId) external view returns (Demand memory);

    /// The appeal over an answer; zeros if there is none, or nothing is open of it.
    function appealOf(TaskId taskId, NodeId nodeId) external view returns (Appeal memory);

    /// What `AnswerExposed` told of an answer that waits for its draw; zeros otherwise.
    function exposureOf(TaskId taskId, NodeId nodeId)
        external
        view
        returns (uint96 value, uint40 committedAt, uint32 slots, uint16 probabilityBps);

    /// The probability of an answer's audit if it were committed now, hundredths of a percent; above 10,000 it would be
    /// refused.
    function probabilityOf(NodeId nodeId, ModelIndex model, AssetId asset, uint96 fee) external view returns (uint256);

    /// Fees of the node that are at stake, in COR.
    function openValueOf(NodeId nodeId) external view returns (uint256);

    /// See `RecordChanged`.
    function recordOf(NodeId nodeId, ModelIndex model) external view returns (uint96 passed, uint32 drift);

    /// The round that draws an epoch, and when it was named; zeros while it is not.
    function roundOf(uint40 epoch) external view returns (uint64 round, uint40 namedAt);

    /// What is put aside for audits of a model.
    function bookOf(ModelIndex model, AssetId asset) external view returns (uint256);

    /// Unix seconds; nobody of the class is slashed before.
    function pausedUntil(NumericClass numericClass) external view returns (uint40);

    /// The longest that audits may take once a task could be settled, seconds.
    function longestAudit() external view returns (uint40);

    /// The tunables, see `ProofConfig`.
    function config() external view returns (ProofConfig memory);

    function beacon() external view returns (address);

    function models() external view returns (address);

    function payment() external view returns (address);

    function pool() external view returns (address);

    function queue() external view returns (address);
}

/// The proof's own tunables, fixed for ever. Times in seconds, shares in hundredths of a percent.
struct ProofConfig {
    /// Answers of one epoch share a round.
    uint40 epochLength;
    /// What a round may take from being named to having its value.
    uint40 roundTimeout;
    /// What validators have to commit, miners to open, and both to open what is compared.
    uint40 sealTime;
    uint40 openTime;
    uint40 revealTime;
    /// What the owner of a miner has to appeal.
    uint40 appealTime;
    /// The smallest probability of an audit.
    uint16 minProbabilityBps;
    /// What a lie gains, of a fee; and how likely an audit finds it.
    uint16 gainBps;
    uint16 powerBps;
    /// What every proven answer gives for audits, of its fee, out of the miner's share; and what an audit pays.
    uint16 auditShareBps;
    uint16 auditPayBps;
    /// What is taken of a stake: for a lie, and for a duty that was not done.
    uint16 slashBps;
    uint16 dutyBps;
    /// Of what is taken for a lie: to those who proved it, and to the client. The rest is burnt.
    uint16 proverBps;
    uint16 clientBps;
    /// The bond of an appeal, of what it would save; 0: none.
    uint16 appealBps;
}

/// The contracts that a proof calls.
struct ProofWiring {
    address beacon;
    address models;
    address parameters;
    address payment;
    address pool;
    address queue;
    address stats;
}
