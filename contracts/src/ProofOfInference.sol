// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {INodePool} from "./interfaces/INodePool.sol";
import {INodeStats} from "./interfaces/INodeStats.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {
    Appeal,
    Audit,
    AuditState,
    Chunk,
    Claim,
    Demand,
    Docket,
    Findings,
    IProofOfInference,
    Party,
    ProofConfig,
    ProofWiring,
    Question,
    Testimony
} from "./interfaces/IProofOfInference.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {ISessionPayment} from "./interfaces/ISessionPayment.sol";
import {Answer} from "./interfaces/ISessionQueue.sol";
import {Answers} from "./libraries/Answers.sol";
import {AuditMemory} from "./libraries/AuditMemory.sol";
import {AuditOdds} from "./libraries/AuditOdds.sol";
import {AuditWords} from "./libraries/AuditWords.sol";
import {Calibration} from "./libraries/Calibrations.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Multiproof} from "./libraries/Multiproof.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Positions} from "./libraries/Positions.sol";
import {ProofBounds} from "./libraries/ProofBounds.sol";
import {Verdicts} from "./libraries/Verdicts.sol";
import {ProofOfInferenceBase} from "./ProofOfInferenceBase.sol";
import {ProofOfInferenceJudgement} from "./ProofOfInferenceJudgement.sol";
import {ProofOfInferencePanel} from "./ProofOfInferencePanel.sol";
import {AssetId, ModelIndex, NodeId, NumericClass, TaskId} from "./types/Ids.sol";

/// Audits of answers: exposure, draws, what validators find, and what follows if it is good. Disputes are the code of
/// `ProofOfInferencePanel` and `ProofOfInferenceJudgement`. What is stored of an answer is one word, see `AuditWords`; once it is audited, whoever moves
/// the audit brings it.
contract ProofOfInference is IProofOfInference, ProofOfInferenceBase {
    using AuditMemory for Audit;
    using AuditWords for uint256;
    using NodeSet for uint256;

    /// A beacon's round, and when it was named.
    struct Named {
        uint64 round;
        uint40 namedAt;
    }

    bytes32 internal constant DOMAIN_DRAW = keccak256("assay.audit.draw.v1");

    /// @inheritdoc IProofOfInference
    uint40 public immutable longestAudit;
    /// Code for disputes and time that has passed, and for how disputes end.
    address internal immutable _panel;
    address internal immutable _judgement;

    mapping(uint40 epoch => Named) internal _rounds;

    /// `parameters`, `stats` and the code for disputes, made for the same contracts and tunables, must be deployed
    /// already.
    constructor(ProofWiring memory wiring, ProofConfig memory config_, address panel, address judgement)
        ProofOfInferenceBase(wiring, config_)
    {
        ProofBounds.checkWiring(wiring);
        longestAudit = ProofBounds.check(config_, IParameters(wiring.parameters).longestAudit(), MAX_VALIDATORS);
        bytes32 wanted = keccak256(abi.encode(wiring, config_));
        if (ProofOfInferencePanel(panel).madeFor() != wanted) revert ProofOfInference_OtherCode(panel);
        if (ProofOfInferenceJudgement(judgement).madeFor() != wanted) revert ProofOfInference_OtherCode(judgement);
        (_panel, _judgement) = (panel, judgement);
    }

    modifier onlyQueue() {
        if (msg.sender != _queue) revert ProofOfInference_NotQueue(msg.sender);
        _;
    }

    // ---------------------------------------------------------------- for the queue

    /// @inheritdoc IProofOfInference
    function expose(TaskId taskId, NodeId nodeId, ModelIndex model, AssetId asset, uint96 fee) external onlyQueue {
        if (_words[taskId][nodeId] != 0) revert ProofOfInference_AlreadyExposed(taskId, nodeId);
        (, NumericClass class_) = _ownerOf(nodeId);
        // Who is of a class that nobody can check against would never be found out.
        if (IModelRegistry(_models).calibrationOf(model, class_, class_) == 0) {
            revert ProofOfInference_NotCalibrated(nodeId, class_);
        }
        uint96 value = _inCor(model, asset, fee);
        uint256 open = _openValue[nodeId] + value;
        uint256 probability = _probability(nodeId, model, value, open);
        if (probability > BPS) {
            revert ProofOfInference_StakeTooSmall(nodeId, open, ISessionPayment(_payment).stakeOf(nodeId));
        }
        (uint32 slots,,) = INodePool(_pool).poolOf(model);
        uint40 now_ = uint40(block.timestamp);
        _openValue[nodeId] = open;
        _words[taskId][nodeId] = AuditWords.exposed(value, now_, slots, probability);
        emit AnswerExposed(taskId, nodeId, value, now_, slots, uint16(probability), open);
    }

    /// @inheritdoc IProofOfInference
    function resolve(Docket calldata docket) external onlyQueue returns (bool ready, uint256 unpaid, uint256 levies) {
        uint256 count = docket.claims.length;
        uint256 fresh;
        uint256 paid;
        ready = true;
        for (uint256 i; i < count; ++i) {
            Claim calldata claim = docket.claims[i];
            uint256 word = _words[docket.taskId][claim.nodeId];
            AuditState state = word.stateOf();
            if (state == AuditState.Exposed) {
                if (_settles(docket, claim, word)) fresh |= 1 << i;
                else ready = false;
            }
            if (state == AuditState.Void || state == AuditState.Disproved) {
                unpaid |= 1 << i;
                continue;
            }
            if (state > AuditState.Cleared && state < AuditState.Passed) ready = false;
            uint256 levy = state >= AuditState.Passed ? uint16(word.untilOf()) : _auditShareBps;
            levies |= levy << (16 * paid++);
        }
        for (uint256 i; i < count; ++i) {
            if (ready) _forget(docket.taskId, docket.claims[i].nodeId);
            else if (fresh >> i & 1 == 1) _words[docket.taskId][docket.claims[i].nodeId] = uint256(AuditState.Cleared);
        }
    }

    /// @inheritdoc IProofOfInference
    function book(ModelIndex model, AssetId asset, uint256 amount) external onlyQueue {
        _setBook(model, asset, _books[model][asset] + amount);
    }

    // ---------------------------------------------------------------- the draw

    /// @inheritdoc IProofOfInference
    function closeEpoch(uint40 epoch) public returns (uint64 round) {
        uint256 endsAt = (uint256(epoch) + 1) * _epochLength;
        if (block.timestamp < endsAt) revert ProofOfInference_EpochOpen(epoch, endsAt);
        if (_rounds[epoch].round != 0) revert ProofOfInference_EpochClosed(epoch, _rounds[epoch].round);
        round = _nextRound();
        _rounds[epoch] = Named(round, uint40(block.timestamp));
        emit EpochClosed(epoch, round);
    }

    /// Draws an answer that waits: true if its fate is settled by that, false if it still waits, or is audited now.
    function _settles(Docket calldata docket, Claim calldata claim, uint256 word) internal returns (bool) {
        uint40 epoch = word.committedAtOf() / _epochLength;
        if (block.timestamp < (uint256(epoch) + 1) * _epochLength) return false;
        Named memory named = _rounds[epoch];
        if (named.round == 0) {
            closeEpoch(epoch);
            return false;
        }
        bytes32 value = IRandomBeacon(_beacon).valueOf(named.round);
        if (value == 0) {
            bool lost = block.timestamp > named.namedAt + _roundTimeout || IRandomBeacon(_beacon).isMissed(named.round);
            if (lost) _clear(docket.taskId, claim.nodeId, word, true);
            return lost;
        }
        uint256 roll = uint256(keccak256(abi.encode(DOMAIN_DRAW, value, docket.taskId, claim.nodeId))) % BPS;
        if (roll >= word.probabilityOf()) {
            _clear(docket.taskId, claim.nodeId, word, false);
            return true;
        }
        Audit memory audit = _auditOf(docket, claim, word, value);
        audit.validator = _draw(audit, false);
        if (NodeId.unwrap(audit.validator) != 0) {
            _enter(audit, AuditState.Drawn, _sealTime);
            return false;
        }
        _openValue[claim.nodeId] -= word.valueOf();
        emit AnswerUnverified(docket.taskId, claim.nodeId);
        return true;
    }

    function _clear(TaskId taskId, NodeId nodeId, uint256 word, bool unaudited) internal {
        _openValue[nodeId] -= word.valueOf();
        emit AnswerCleared(taskId, nodeId, unaudited);
    }

    function _auditOf(Docket calldata docket, Claim calldata claim, uint256 word, bytes32 seed)
        internal
        pure
        returns (Audit memory audit)
    {
        audit = AuditMemory.create();
        (audit.taskId, audit.nodeId, audit.client) = (docket.taskId, claim.nodeId, docket.client);
        (audit.model, audit.asset) = (docket.model, docket.asset);
        (audit.fee, audit.value, audit.root) = (claim.fee, word.valueOf(), claim.commitment);
        (audit.committedAt, audit.slots) = (word.committedAtOf(), word.slotsOf());
        (audit.probabilityBps, audit.seed) = (word.probabilityOf(), seed);
        for (uint256 i; i < docket.claims.length; ++i) {
            audit.nodes |= uint256(NodeId.unwrap(docket.claims[i].nodeId)) << (32 * i);
        }
    }

    /// What is not to be paid for any more leaves nothing behind.
    function _forget(TaskId taskId, NodeId nodeId) internal {
        uint256 word = _words[taskId][nodeId];
        uint40 owed = word.untilOf() & (AuditWords.HAS_EARNERS | AuditWords.HAS_MEMBERS);
        bool owes = word.stateOf() >= AuditState.Passed && owed != 0;
        _words[taskId][nodeId] = owes ? AuditWords.pack(AuditState.Closed, owed, word.digestOf()) : 0;
    }

    // ---------------------------------------------------------------- an audit

    /// @inheritdoc IProofOfInference
    function commitAudit(Audit calldata brought, bytes32 sealed_) external {
        (Audit memory audit, uint40 until) = _take(brought, AuditState.Drawn);
        _checkInTime(audit, until);
        _checkSeal(audit.validator, sealed_);
        audit.validatorRoot = sealed_;
        _enter(audit, AuditState.Sealed, _openTime);
    }

    /// @inheritdoc IProofOfInference
    function openProof(Audit calldata brought, Answer calldata answer, bytes32 root, bytes32 salt, bytes32 proofDigest)
        external
    {
        (Audit memory audit, uint40 until) = _take(brought, AuditState.Sealed);
        _checkInTime(audit, until);
        bytes32 h1 = Commitments.tokenSeal(block.chainid, _queue, audit.taskId, Answers.read(answer));
        bytes32 h2 = Commitments.proofSeal(block.chainid, _queue, audit.taskId, audit.nodeId, root, salt);
        bytes32 commitment = Commitments.commitment(h1, h2);
        if (commitment != audit.root) revert ProofOfInference_WrongOpening(audit.nodeId, audit.root, commitment);
        (audit.root, audit.outputTokens, audit.round) = (root, answer.outputTokens, _nextRound());
        emit ProofOpened(audit.taskId, audit.nodeId, root, proofDigest);
        _enter(audit, AuditState.Opened, _revealTime);
    }

    /// @inheritdoc IProofOfInference
    function reveal(Audit calldata brought, Findings calldata findings) external {
        (Audit memory audit, uint40 until) = _take(brought, AuditState.Opened);
        _checkInTime(audit, until);
        // Which blocks fail, and where a panel looks, was not committed to: nobody else may say it.
        _checkOperator(audit.validator);
        bytes32 seal = _sealOf(audit, audit.validator, findings.root, findings.statistics, findings.salt);
        if (seal != audit.validatorRoot) {
            revert ProofOfInference_WrongOpening(audit.validator, audit.validatorRoot, seal);
        }
        bool unread = Verdicts.flagsOf(findings.statistics) & Verdicts.IDS != 0;
        if (unread && _demands[audit.taskId][audit.nodeId].resumes == AuditState.None) {
            revert ProofOfInference_NotDemanded(audit.taskId, audit.nodeId);
        }
        Calibration memory limits = _limitsOf(audit, audit.validator);
        uint8 reasons = _reasonsOf(audit, findings, limits);
        (audit.validatorRoot, audit.reasons) = (findings.root, reasons);
        _earn(audit, audit.validator);
        emit Verdict(audit.taskId, audit.nodeId, audit.validator, reasons, findings.statistics, findings.failingBlocks);
        if (reasons == 0) {
            _vouch(audit, findings.statistics, limits);
            return _conclude(audit, AuditState.Passed);
        }
        Question question = Verdicts.questionOf(reasons);
        if (question == Question.Weights) audit.named = findings.worstBlock;
        if (question == Question.Sampling) {
            (audit.named, audit.alsoNamed) = (findings.named, findings.alsoNamed);
            uint256[] memory named = Positions.unpack(audit.named, audit.alsoNamed, audit.outputTokens);
            if (named.length == 0) revert ProofOfInference_BadPosition(0, audit.outputTokens);
        }
        audit.round = _nextRound();
        _enter(audit, AuditState.Accused, _roundTimeout);
    }

    /// What a validator's findings come to, once what they stand on is checked.
    function _reasonsOf(Audit memory audit, Findings calldata findings, Calibration memory limits)
        internal
        view
        returns (uint8 reasons)
    {
        uint256 n = audit.outputTokens;
        Verdicts.check(findings.statistics, n);
        if (!Positions.canFail(n, findings.failingBlocks, findings.worstBlock)) {
            revert ProofOfInference_BadBlocks(findings.failingBlocks, findings.worstBlock, Positions.blocksOf(n));
        }
        bytes32 seed = Positions.seedOf(_valueOf(audit.round), audit.taskId, audit.nodeId);
        uint256[] memory positions = Positions.draw(seed, 1, n, Verdicts.SPOTS);
        bytes32[] memory hashes = Multiproof.hashesOf(positions, findings.leaves, limits.contrasts, true);
        _checkRoot(audit.validator, findings.root, Multiproof.rootOf(n, positions, hashes, findings.nodes));
        reasons = Verdicts.reasonsOf(findings.statistics, findings.failingBlocks, limits);
        // Whose leaves cannot be had, or are not those of its root, has to show them itself before a panel.
        if (findings.minerLeaves.length == 0) return reasons | Verdicts.SPOT;
        hashes = Multiproof.hashesOf(positions, findings.minerLeaves, limits.contrasts, false);
        _checkRoot(audit.nodeId, audit.root, Multiproof.rootOf(n, positions, hashes, findings.minerNodes));
        if (!Verdicts.spotAgrees(findings.minerLeaves, findings.leaves, limits)) reasons |= Verdicts.SPOT;
    }

    // ---------------------------------------------------------------- disputes, time that has passed, pay

    /// @inheritdoc IProofOfInference
    function demandData(Audit calldata, Party[] calldata, NodeId) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function publishData(Audit calldata, Chunk calldata) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function convene(Audit calldata) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function commitPanel(Audit calldata, Party[] calldata, NodeId, bytes32) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function testify(Audit calldata, Party[] calldata, NodeId, Testimony calldata) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function judge(Audit calldata, Party[] calldata) external {
        _delegate(_judgement);
    }

    /// @inheritdoc IProofOfInference
    function appeal(Audit calldata, Party[] calldata) external {
        _delegate(_judgement);
    }

    /// @inheritdoc IProofOfInference
    function reconvene(Audit calldata, Party[] calldata) external {
        _delegate(_judgement);
    }

    /// @inheritdoc IProofOfInference
    function advanceAudit(Audit calldata) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function advancePanel(Audit calldata, Party[] calldata) external {
        _delegate(_panel);
    }

    /// @inheritdoc IProofOfInference
    function collect(Audit calldata) external {
        _delegate(_panel);
    }

    /// Ends the call with what the same call of other code does to this contract.
    function _delegate(address code) internal {
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), code, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(done) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }

    // ---------------------------------------------------------------- helpers

    /// A fee in COR, by the model's own floors.
    function _inCor(ModelIndex model, AssetId asset, uint96 fee) internal view returns (uint96) {
        if (AssetId.unwrap(asset) == AssetId.unwrap(COR)) return fee;
        (, uint80 inCor) = IModelRegistry(_models).floorsOf(model, COR);
        (, uint80 inAsset) = IModelRegistry(_models).floorsOf(model, asset);
        uint256 value = (uint256(fee) * inCor + inAsset - 1) / inAsset;
        return value > type(uint96).max ? type(uint96).max : uint96(value);
    }

    function _probability(NodeId nodeId, ModelIndex model, uint256 value, uint256 open)
        internal
        view
        returns (uint256 probability)
    {
        uint256 atRisk = ISessionPayment(_payment).stakeOf(nodeId) * _slashBps / BPS;
        uint256 gain = (open * _gainBps + BPS - 1) / BPS;
        probability = AuditOdds.byExposure(gain, atRisk, _powerBps);
        uint256 byRecord = AuditOdds.byRecord(_records[nodeId][model].passed, value);
        if (byRecord > probability) probability = byRecord;
        if (_minProbabilityBps > probability) probability = _minProbabilityBps;
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IProofOfInference
    function statusOf(TaskId taskId, NodeId nodeId)
        external
        view
        returns (AuditState state, uint40 until, bytes32 digest)
    {
        uint256 word = _words[taskId][nodeId];
        state = word.stateOf();
        if (state > AuditState.Cleared) digest = word.digestOf();
        if (state > AuditState.Cleared && state < AuditState.Passed) until = word.untilOf();
    }

    /// @inheritdoc IProofOfInference
    function digestOf(Audit calldata audit) external pure returns (bytes32) {
        return AuditMemory.read(audit).digest();
    }

    /// @inheritdoc IProofOfInference
    function demandOf(TaskId taskId, NodeId nodeId) external view returns (Demand memory) {
        return _demands[taskId][nodeId];
    }

    /// @inheritdoc IProofOfInference
    function appealOf(TaskId taskId, NodeId nodeId) external view returns (Appeal memory) {
        return _appeals[taskId][nodeId];
    }

    /// @inheritdoc IProofOfInference
    function exposureOf(TaskId taskId, NodeId nodeId) external view returns (uint96, uint40, uint32, uint16) {
        uint256 word = _words[taskId][nodeId];
        if (word.stateOf() != AuditState.Exposed) return (0, 0, 0, 0);
        return (word.valueOf(), word.committedAtOf(), word.slotsOf(), word.probabilityOf());
    }

    /// @inheritdoc IProofOfInference
    function probabilityOf(NodeId nodeId, ModelIndex model, AssetId asset, uint96 fee) external view returns (uint256) {
        uint96 value = _inCor(model, asset, fee);
        return _probability(nodeId, model, value, _openValue[nodeId] + value);
    }

    /// @inheritdoc IProofOfInference
    function openValueOf(NodeId nodeId) external view returns (uint256) {
        return _openValue[nodeId];
    }

    /// @inheritdoc IProofOfInference
    function recordOf(NodeId nodeId, ModelIndex model) external view returns (uint96, uint32) {
        Record memory record = _records[nodeId][model];
        return (record.passed, record.drift);
    }

    /// @inheritdoc IProofOfInference
    function roundOf(uint40 epoch) external view returns (uint64, uint40) {
        return (_rounds[epoch].round, _rounds[epoch].namedAt);
    }

    /// @inheritdoc IProofOfInference
    function bookOf(ModelIndex model, AssetId asset) external view returns (uint256) {
        return _books[model][asset];
    }

    /// @inheritdoc IProofOfInference
    function pausedUntil(NumericClass numericClass) external view returns (uint40) {
        return _failures[numericClass].pausedUntil;
    }

    /// @inheritdoc IProofOfInference
    function config() external view returns (ProofConfig memory) {
        return ProofConfig({
            epochLength: _epochLength,
            roundTimeout: _roundTimeout,
            sealTime: _sealTime,
            openTime: _openTime,
            revealTime: _revealTime,
            appealTime: _appealTime,
            minProbabilityBps: _minProbabilityBps,
            gainBps: _gainBps,
            powerBps: _powerBps,
            auditShareBps: _auditShareBps,
            auditPayBps: _auditPayBps,
            slashBps: _slashBps,
            dutyBps: _dutyBps,
            proverBps: _proverBps,
            clientBps: _clientBps,
            appealBps: _appealBps
        });
    }

    /// @inheritdoc IProofOfInference
    function beacon() external view returns (address) {
        return _beacon;
    }

    /// @inheritdoc IProofOfInference
    function models() external view returns (address) {
        return _models;
    }

    /// @inheritdoc IProofOfInference
    function payment() external view returns (address) {
        return _payment;
    }

    /// @inheritdoc IProofOfInference
    function pool() external view returns (address) {
        return _pool;
    }

    /// @inheritdoc IProofOfInference
    function queue() external view returns (address) {
        return _queue;
    }
}
