// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {INodePool} from "./interfaces/INodePool.sol";
import {
    Appeal,
    Audit,
    AuditState,
    Demand,
    IProofOfInference,
    Party,
    ProofConfig,
    ProofWiring
} from "./interfaces/IProofOfInference.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {Evidence, ISessionPayment, Rule} from "./interfaces/ISessionPayment.sol";
import {AuditMemory} from "./libraries/AuditMemory.sol";
import {AuditWords} from "./libraries/AuditWords.sol";
import {Calibration, Calibrations} from "./libraries/Calibrations.sol";
import {Clusters} from "./libraries/Clusters.sol";
import {Jury} from "./libraries/Jury.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {ProofBounds} from "./libraries/ProofBounds.sol";
import {Verdicts} from "./libraries/Verdicts.sol";
import {AssetId, ModelIndex, NodeId, NumericClass, TaskId} from "./types/Ids.sol";

/// What `ProofOfInference`, `ProofOfInferencePanel` and `ProofOfInferenceJudgement` share: the contracts that they call,
/// what is stored, how an audit is read and written, and what its end brings.
abstract contract ProofOfInferenceBase {
    using AuditMemory for Audit;
    using AuditWords for uint256;
    using NodeSet for uint256;

    /// What vouches for a node with a model. One word.
    struct Record {
        uint96 passed;
        uint32 drift;
    }

    /// Owners of a class that failed in one epoch. One word.
    struct Failures {
        uint40 epoch;
        uint8 owners;
        uint40 pausedUntil;
    }

    AssetId internal constant COR = AssetId.wrap(0);
    uint256 internal constant BPS = 10_000;
    bytes32 internal constant DOMAIN_AUDIT = keccak256("assay.commit.audit.v1");
    /// From this probability on a node pays its audits itself: its record does not vouch for it.
    uint256 internal constant OWN_COST_BPS = 5000;
    /// Validators that are asked one after the other before an answer stays unverified.
    uint256 internal constant MAX_VALIDATORS = 3;
    /// Where in `earners` those stand who demanded the data.
    uint256 internal constant WAIVED = 8;
    /// What whoever moves on an audit gets of what the one at fault loses.
    uint256 internal constant KEEPER_BPS = 1000;

    address internal immutable _beacon;
    address internal immutable _models;
    address internal immutable _payment;
    address internal immutable _pool;
    address internal immutable _queue;
    /// Seconds; in so many the failures of a class are counted.
    uint40 internal immutable _failureEpoch;

    // `ProofConfig`.
    uint40 internal immutable _epochLength;
    uint40 internal immutable _roundTimeout;
    uint40 internal immutable _sealTime;
    uint40 internal immutable _openTime;
    uint40 internal immutable _revealTime;
    uint40 internal immutable _appealTime;
    uint16 internal immutable _minProbabilityBps;
    uint16 internal immutable _gainBps;
    uint16 internal immutable _powerBps;
    uint16 internal immutable _auditShareBps;
    uint16 internal immutable _auditPayBps;
    uint16 internal immutable _slashBps;
    uint16 internal immutable _dutyBps;
    uint16 internal immutable _proverBps;
    uint16 internal immutable _clientBps;
    uint16 internal immutable _appealBps;

    /// See `AuditWords`.
    mapping(TaskId => mapping(NodeId => uint256 word)) internal _words;
    mapping(NodeId => uint256) internal _openValue;
    mapping(NodeId => mapping(ModelIndex => Record)) internal _records;
    mapping(ModelIndex => mapping(AssetId => uint256)) internal _books;
    mapping(NumericClass => Failures) internal _failures;
    mapping(NumericClass => mapping(uint40 epoch => mapping(address owner => bool))) internal _failedIn;
    mapping(TaskId => mapping(NodeId => Demand)) internal _demands;
    mapping(TaskId => mapping(NodeId => Appeal)) internal _appeals;

    constructor(ProofWiring memory wiring, ProofConfig memory config_) {
        (_beacon, _models, _payment) = (wiring.beacon, wiring.models, wiring.payment);
        (_pool, _queue, _failureEpoch) = (wiring.pool, wiring.queue, ProofBounds.failureEpochOf(wiring.stats));
        (_epochLength, _roundTimeout, _sealTime) = (config_.epochLength, config_.roundTimeout, config_.sealTime);
        (_openTime, _revealTime, _appealTime) = (config_.openTime, config_.revealTime, config_.appealTime);
        (_minProbabilityBps, _gainBps, _powerBps) = (config_.minProbabilityBps, config_.gainBps, config_.powerBps);
        (_auditShareBps, _auditPayBps) = (config_.auditShareBps, config_.auditPayBps);
        (_slashBps, _dutyBps) = (config_.slashBps, config_.dutyBps);
        (_proverBps, _clientBps, _appealBps) = (config_.proverBps, config_.clientBps, config_.appealBps);
    }

    // ---------------------------------------------------------------- reading and writing

    /// The stored audit, which must be the one that was brought, and in `wanted`.
    function _take(Audit calldata brought, AuditState wanted) internal view returns (Audit memory audit, uint40 until) {
        AuditState state;
        (audit, state, until) = _load(brought);
        if (state != wanted) revert IProofOfInference.ProofOfInference_WrongState(audit.taskId, audit.nodeId, state);
    }

    function _load(Audit calldata brought) internal view returns (Audit memory audit, AuditState state, uint40 until) {
        audit = AuditMemory.read(brought);
        uint256 word = _words[audit.taskId][audit.nodeId];
        (state, until) = (word.stateOf(), word.untilOf());
        if (state <= AuditState.Cleared) {
            revert IProofOfInference.ProofOfInference_WrongState(audit.taskId, audit.nodeId, state);
        }
        (bytes32 stored, bytes32 digest) = (word.digestOf(), audit.digest());
        if (stored != digest) {
            revert IProofOfInference.ProofOfInference_StaleAudit(audit.taskId, audit.nodeId, stored, digest);
        }
    }

    /// The stored audit and its parties, which must be those that were brought.
    function _loadWith(Audit calldata brought, Party[] memory parties)
        internal
        view
        returns (Audit memory audit, AuditState state, uint40 until)
    {
        (audit, state, until) = _load(brought);
        _checkParties(audit, parties);
    }

    function _takeWith(Audit calldata brought, Party[] memory parties, AuditState wanted)
        internal
        view
        returns (Audit memory audit, uint40 until)
    {
        (audit, until) = _take(brought, wanted);
        _checkParties(audit, parties);
    }

    function _checkParties(Audit memory audit, Party[] memory parties) internal pure {
        bytes32 digest = keccak256(abi.encode(parties));
        if (digest != audit.parties) {
            revert IProofOfInference.ProofOfInference_StaleParties(audit.taskId, audit.nodeId, audit.parties, digest);
        }
    }

    function _keep(Audit memory audit, Party[] memory parties) internal {
        audit.parties = keccak256(abi.encode(parties));
        emit IProofOfInference.PanelMoved(audit.taskId, audit.nodeId, parties);
    }

    /// Stores and tells how an audit goes on, for so many seconds.
    function _enter(Audit memory audit, AuditState state, uint256 seconds_) internal {
        _write(audit, state, uint40(block.timestamp + seconds_));
    }

    function _write(Audit memory audit, AuditState state, uint40 until) private {
        _words[audit.taskId][audit.nodeId] = AuditWords.pack(state, until, audit.digest());
        audit.tellMoved(state, until);
    }

    function _checkLate(Audit memory audit, uint40 until) internal view {
        if (block.timestamp <= until) {
            revert IProofOfInference.ProofOfInference_TooEarly(audit.taskId, audit.nodeId, until);
        }
    }

    function _checkOperator(NodeId nodeId) internal view {
        if (INodePool(_pool).operatorOf(nodeId) != msg.sender) {
            revert IProofOfInference.ProofOfInference_NotOperator(nodeId, msg.sender);
        }
    }

    /// What a validator commits to, by its operator.
    function _checkSeal(NodeId nodeId, bytes32 sealed_) internal view {
        _checkOperator(nodeId);
        if (sealed_ == 0) revert IProofOfInference.ProofOfInference_EmptySeal();
    }

    function _checkInTime(Audit memory audit, uint40 until) internal view {
        if (block.timestamp > until) {
            revert IProofOfInference.ProofOfInference_TooLate(audit.taskId, audit.nodeId, until);
        }
    }

    /// The value of the round that an audit waits for.
    function _valueOf(uint64 round) internal view returns (bytes32 value) {
        value = IRandomBeacon(_beacon).valueOf(round);
        if (value == 0) revert IProofOfInference.ProofOfInference_RoundNotReady(round);
    }

    function _nextRound() internal view returns (uint64) {
        return IRandomBeacon(_beacon).nextRound();
    }

    // ---------------------------------------------------------------- nodes and their classes

    function _ownerOf(NodeId nodeId) internal view returns (address owner, NumericClass class_) {
        return INodePool(_pool).ownerOf(nodeId);
    }

    /// What a miner and a validator may differ by.
    function _limitsOf(Audit memory audit, NodeId validator) internal view returns (Calibration memory) {
        (, NumericClass minerClass) = _ownerOf(audit.nodeId);
        (, NumericClass class_) = _ownerOf(validator);
        return Calibrations.unpack(IModelRegistry(_models).calibrationOf(audit.model, minerClass, class_));
    }

    /// The next validator, which joins `audit.drawn`; 0 if there is none.
    function _draw(Audit memory audit, bool sameClass) internal view returns (NodeId found) {
        found = Jury.draw(audit, _contracts(), 0, sameClass);
        audit.drawn |= uint256(NodeId.unwrap(found)) << (32 * audit.drawn.length());
    }

    function _contracts() internal view returns (Jury.Contracts memory) {
        return Jury.Contracts({pool: INodePool(_pool), models: IModelRegistry(_models)});
    }

    /// keccak256 of what a validator commits to.
    function _sealOf(Audit memory audit, NodeId validator, bytes32 root, uint256 statistics, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                DOMAIN_AUDIT,
                block.chainid,
                _queue,
                audit.taskId,
                NodeId.unwrap(validator),
                NodeId.unwrap(audit.nodeId),
                root,
                statistics,
                salt
            )
        );
    }

    function _checkRoot(NodeId nodeId, bytes32 expected, bytes32 given) internal pure {
        if (expected != given) revert IProofOfInference.ProofOfInference_WrongRoot(nodeId, expected, given);
    }

    /// Notes that a validator has done its duty. One that demanded the data is not paid for it.
    function _earn(Audit memory audit, NodeId validator) internal pure {
        uint256 bit = NodeSet.bitOf(audit.drawn, validator);
        if (audit.earners >> WAIVED & bit == 0) audit.earners |= uint16(bit);
    }

    function _forfeit(Audit memory audit, NodeId validator) internal pure {
        audit.earners &= ~uint16(NodeSet.bitOf(audit.drawn, validator));
    }

    // ---------------------------------------------------------------- the end of an audit

    /// The audit is over: the answer's value is no longer at stake, and what was found counts for or against its node.
    function _conclude(Audit memory audit, AuditState outcome) internal {
        _conclude(audit, outcome, 0);
    }

    /// `owed`: `AuditWords.HAS_MEMBERS` if there are members of an appeal to be paid.
    function _conclude(Audit memory audit, AuditState outcome, uint40 owed) internal {
        _openValue[audit.nodeId] -= audit.value;
        if (outcome == AuditState.Disproved) _setRecord(audit, 0, 0);
        uint256 levy = _auditShareBps;
        if (audit.probabilityBps >= OWN_COST_BPS) levy += _auditPayBps;
        uint40 told = uint40(levy) | owed;
        if (uint8(audit.earners) != 0) told |= AuditWords.HAS_EARNERS;
        _write(audit, outcome, told);
    }

    /// A true answer vouches for its node, unless its margins over many answers have drifted off: `statistics` are what
    /// was found this time, 0 if that counts neither for nor against the node.
    function _vouch(Audit memory audit, uint256 statistics, Calibration memory limits) internal {
        Record memory record = _records[audit.nodeId][audit.model];
        (uint32 drift, bool alarm) = Verdicts.drifted(record.drift, statistics, limits);
        if (alarm) return _setRecord(audit, 0, 0);
        uint256 passed = uint256(record.passed) + audit.value;
        _setRecord(audit, passed > type(uint96).max ? type(uint96).max : uint96(passed), drift);
    }

    /// An appeal that came to nothing: its bond goes back.
    function _returnBond(Audit memory audit) internal {
        _giveBack(audit, _takeBond(audit));
    }

    /// Ends what is stored of an appeal.
    function _takeBond(Audit memory audit) internal returns (uint256 bond) {
        bond = _appeals[audit.taskId][audit.nodeId].bond;
        delete _appeals[audit.taskId][audit.nodeId];
    }

    function _giveBack(Audit memory audit, uint256 bond) internal {
        (address owner,) = _ownerOf(audit.nodeId);
        ISessionPayment(_payment).give(COR, owner, bond);
    }

    /// The bond of an appeal that failed goes to the members that did their duty, and the client; otherwise back.
    function _settleBond(Audit memory audit, Appeal memory appealed, bool failed) internal {
        uint256 rest = appealed.bond;
        if (!failed) return _giveBack(audit, rest);
        uint256 earners = Clusters.sizeOf(appealed.earners);
        uint256 share = earners == 0 ? 0 : rest / earners;
        _giveEach(COR, appealed.members, appealed.earners, share);
        rest -= earners * share;
        ISessionPayment(_payment).give(COR, audit.client, rest);
    }

    /// The same to each node of a set whose bit is there.
    function _giveEach(AssetId asset, uint256 nodes, uint256 bits, uint256 amount) internal {
        for (; bits != 0; (bits, nodes) = (bits >> 1, nodes >> 32)) {
            if (bits & 1 == 0) continue;
            ISessionPayment(_payment).give(asset, INodePool(_pool).payoutOf(nodes.nodeAt(0)), amount);
        }
    }

    function _setBook(ModelIndex model, AssetId asset, uint256 amount) internal {
        _books[model][asset] = amount;
        emit IProofOfInference.BookChanged(model, asset, amount);
    }

    function _setRecord(Audit memory audit, uint96 passed, uint32 drift) private {
        _records[audit.nodeId][audit.model] = Record(passed, drift);
        emit IProofOfInference.RecordChanged(audit.nodeId, audit.model, passed, drift);
    }

    // ---------------------------------------------------------------- penalties

    /// A duty that was not done costs a little.
    function _slashIdle(Audit memory audit, NodeId nodeId, uint40 until) internal {
        uint256 amount = ISessionPayment(_payment).stakeOf(nodeId) * _dutyBps / BPS;
        Evidence memory evidence = Evidence(audit.taskId, Rule.Idle, block.timestamp, until);
        ISessionPayment(_payment).slash(nodeId, evidence, amount, msg.sender, amount * KEEPER_BPS / BPS);
    }

    /// A lie, or what would hide one, costs the bond: some of it goes to those who proved it and to the client.
    function _slashLiar(Audit memory audit, NodeId nodeId, Evidence memory evidence, NodeId[] memory provers) internal {
        uint256 amount = ISessionPayment(_payment).stakeOf(nodeId) * _slashBps / BPS;
        uint256 toProvers = provers.length == 0 ? 0 : amount * _proverBps / BPS / provers.length;
        uint256 toClient = amount * _clientBps / BPS;
        // One who exited cannot be jailed; nothing is left of it.
        if (amount != 0) INodePool(_pool).jail(nodeId);
        ISessionPayment(_payment).slash(nodeId, evidence, amount, address(this), toProvers * provers.length + toClient);
        if (amount == 0) return;
        for (uint256 i; i < provers.length; ++i) {
            ISessionPayment(_payment).give(COR, INodePool(_pool).payoutOf(provers[i]), toProvers);
        }
        ISessionPayment(_payment).give(COR, audit.client, toClient);
    }

    function _only(NodeId nodeId) internal pure returns (NodeId[] memory list) {
        list = new NodeId[](1);
        list[0] = nodeId;
    }
}
