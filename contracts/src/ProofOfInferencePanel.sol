// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool} from "./interfaces/INodePool.sol";
import {
    Audit,
    AuditState,
    IProofOfInference,
    Leaf,
    Party,
    ProofConfig,
    ProofWiring,
    Question,
    Testimony
} from "./interfaces/IProofOfInference.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Evidence, ISessionPayment, Rule} from "./interfaces/ISessionPayment.sol";
import {Calibration} from "./libraries/Calibrations.sol";
import {Clusters} from "./libraries/Clusters.sol";
import {Hearings, Ruling} from "./libraries/Hearings.sol";
import {Jury} from "./libraries/Jury.sol";
import {Multiproof} from "./libraries/Multiproof.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Positions} from "./libraries/Positions.sol";
import {Verdicts} from "./libraries/Verdicts.sol";
import {ProofOfInferenceBase} from "./ProofOfInferenceBase.sol";
import {NodeId, NumericClass} from "./types/Ids.sol";

/// Disputes over an answer that its validator found false, and what validators are paid. `ProofOfInference` runs its code as its own (one contract would
/// exceed the size that the EVM allows); called by anyone else it has no audits.
contract ProofOfInferencePanel is ProofOfInferenceBase {
    using NodeSet for uint256;

    /// Members of a panel: with the first validator, one more than the quorum.
    uint256 internal constant MEMBERS = 3;
    /// Owners of one class that fail in one epoch, from which on it is no fraud but a fault of what they run.
    uint256 internal constant PAUSING_OWNERS = 5;

    /// keccak256(abi.encode(wiring, config)): who runs this code must have the same.
    bytes32 public immutable madeFor;

    constructor(ProofWiring memory wiring, ProofConfig memory config_) ProofOfInferenceBase(wiring, config_) {
        madeFor = keccak256(abi.encode(wiring, config_));
    }

    // ---------------------------------------------------------------- the panel

    /// See `IProofOfInference`.
    function convene(Audit calldata brought) external {
        (Audit memory audit, uint40 until) = _take(brought, AuditState.Accused);
        _checkInTime(audit, until);
        (audit.seed, audit.tries) = (_valueOf(audit.round), 0);
        Party[] memory parties = new Party[](Hearings.FIRST_MEMBER + MEMBERS);
        (parties[Hearings.MINER].nodeId, parties[Hearings.MINER].root) = (audit.nodeId, audit.root);
        (parties[Hearings.ACCUSER].nodeId, parties[Hearings.ACCUSER].root) = (audit.validator, audit.validatorRoot);
        (parties[Hearings.MINER].isSealed, parties[Hearings.ACCUSER].isSealed) = (true, true);
        for (uint256 i = Hearings.FIRST_MEMBER; i < parties.length; ++i) {
            // One of them runs what the miner runs.
            parties[i].nodeId = _draw(audit, i == Hearings.FIRST_MEMBER);
            if (NodeId.unwrap(parties[i].nodeId) == 0) return _conclude(audit, AuditState.Void);
        }
        _keep(audit, parties);
        _enter(audit, AuditState.Convened, _sealTime);
    }

    /// See `IProofOfInference`.
    function commitPanel(Audit calldata brought, Party[] memory parties, NodeId nodeId, bytes32 sealed_) external {
        (Audit memory audit, uint40 until) = _takeWith(brought, parties, AuditState.Convened);
        _checkInTime(audit, until);
        Party memory party = parties[_partyOf(audit, parties, nodeId)];
        if (party.isSealed) revert IProofOfInference.ProofOfInference_AlreadySealed(nodeId);
        _checkSeal(nodeId, sealed_);
        (party.isSealed, party.root) = (true, sealed_);
        _keep(audit, parties);
        for (uint256 k; k < parties.length; ++k) {
            if (!parties[k].isSealed) return _enter(audit, AuditState.Convened, until - block.timestamp);
        }
        _hear(audit);
    }

    /// See `IProofOfInference`.
    function advancePanel(Audit calldata brought, Party[] memory parties) external {
        (Audit memory audit, uint40 until) = _takeWith(brought, parties, AuditState.Convened);
        _checkLate(audit, until);
        uint256 members;
        for (uint256 i = Hearings.FIRST_MEMBER; i < parties.length; ++i) {
            if (parties[i].isSealed) ++members;
        }
        // With the accuser, as many as a quorum needs.
        if (members + 1 < Clusters.QUORUM) _conclude(audit, AuditState.Void);
        else _hear(audit);
        for (uint256 i = Hearings.FIRST_MEMBER; i < parties.length; ++i) {
            if (!parties[i].isSealed) _slashIdle(audit, parties[i].nodeId, until);
        }
    }

    function _hear(Audit memory audit) internal {
        audit.round = _nextRound();
        _enter(audit, AuditState.Hearing, _revealTime);
    }

    /// The stored audit and its parties, which must be those that were brought.
    function _takeWith(Audit calldata brought, Party[] memory parties, AuditState wanted)
        internal
        view
        returns (Audit memory audit, uint40 until)
    {
        (audit, until) = _take(brought, wanted);
        bytes32 digest = keccak256(abi.encode(parties));
        if (digest != audit.parties) {
            revert IProofOfInference.ProofOfInference_StaleParties(audit.taskId, audit.nodeId, audit.parties, digest);
        }
    }

    function _keep(Audit memory audit, Party[] memory parties) internal {
        audit.parties = keccak256(abi.encode(parties));
        emit IProofOfInference.PanelMoved(audit.taskId, audit.nodeId, parties);
    }

    // ---------------------------------------------------------------- the hearing

    /// See `IProofOfInference`.
    function testify(Audit calldata brought, Party[] memory parties, NodeId nodeId, Testimony calldata testimony)
        external
    {
        (Audit memory audit, uint40 until) = _takeWith(brought, parties, AuditState.Hearing);
        _checkInTime(audit, until);
        uint256 i = _partyOf(audit, parties, nodeId);
        _hearParty(audit, parties[i], i, testimony);
        if (i >= Hearings.FIRST_MEMBER) _earn(audit, nodeId);
        _keep(audit, parties);
        _enter(audit, AuditState.Hearing, until - block.timestamp);
    }

    function _hearParty(Audit memory audit, Party memory party, uint256 i, Testimony calldata testimony) internal {
        NodeId nodeId = party.nodeId;
        if (!party.isSealed) revert IProofOfInference.ProofOfInference_NotSealed(nodeId);
        if (party.isOpen) revert IProofOfInference.ProofOfInference_AlreadyOpen(nodeId);
        Question question = Verdicts.questionOf(audit.reasons);
        if (i >= Hearings.FIRST_MEMBER) _openSeal(audit, party, testimony);
        else if (question != Question.Weights) revert IProofOfInference.ProofOfInference_AlreadyOpen(nodeId);
        party.isOpen = true;
        if (question == Question.Content) return;
        uint256[] memory positions = _positionsOf(audit, question);
        bool isMiner = i == Hearings.MINER;
        uint256 contrasts = _limitsOf(audit, isMiner ? audit.validator : nodeId).contrasts;
        bytes32[] memory hashes = Multiproof.hashesOf(positions, testimony.leaves, contrasts, !isMiner);
        _checkRoot(nodeId, party.root, Multiproof.rootOf(audit.outputTokens, positions, hashes, testimony.nodes));
        Hearings.keep(party, testimony.leaves, question == Question.Sampling);
    }

    /// What a member committed to.
    function _openSeal(Audit memory audit, Party memory party, Testimony calldata testimony) internal {
        bytes32 seal = _sealOf(audit, party.nodeId, testimony.root, testimony.statistics, testimony.salt);
        if (seal != party.root) {
            revert IProofOfInference.ProofOfInference_WrongOpening(party.nodeId, party.root, seal);
        }
        Verdicts.check(testimony.statistics, audit.outputTokens);
        (party.root, party.statistics) = (testimony.root, testimony.statistics);
        uint8 reasons = Verdicts.reasonsOf(testimony.statistics, 0, _limitsOf(audit, party.nodeId));
        emit IProofOfInference.Verdict(audit.taskId, audit.nodeId, party.nodeId, reasons, testimony.statistics, 0);
    }

    /// The positions that are compared: drawn out of the block that the accuser named, or named themselves.
    function _positionsOf(Audit memory audit, Question question) internal view returns (uint256[] memory) {
        if (question == Question.Sampling) return Positions.unpack(audit.named, audit.alsoNamed, audit.outputTokens);
        bytes32 seed = Positions.seedOf(_valueOf(audit.round), audit.taskId, audit.nodeId);
        (uint256 first, uint256 count) = Positions.windowOf(audit.outputTokens, audit.named);
        return Positions.draw(seed, first, count, Multiproof.MAX_POSITIONS);
    }

    /// See `IProofOfInference`.
    function judge(Audit calldata brought, Party[] memory parties) external {
        (Audit memory audit, uint40 until) = _takeWith(brought, parties, AuditState.Hearing);
        Question question = Verdicts.questionOf(audit.reasons);
        uint256 missing = Hearings.missingOf(parties, question);
        if (missing != 0) _checkLate(audit, until);
        // Nobody could open what needs a round that is not there.
        if (question == Question.Weights && IRandomBeacon(_beacon).valueOf(audit.round) == 0) {
            return _conclude(audit, AuditState.Void);
        }
        Ruling memory ruling;
        ruling.question = question;
        bool hides = missing >> Hearings.MINER & 1 == 1;
        if (hides) ruling.failing = Hearings.openOf(parties);
        else _decide(audit, parties, ruling);
        _execute(audit, parties, ruling, hides ? until : 0);
        _punishSilence(audit, Hearings.nodesOf(parties, missing & ~(uint256(1) << Hearings.MINER)), until);
    }

    /// Who is right, by what was opened.
    function _decide(Audit memory audit, Party[] memory parties, Ruling memory ruling) internal view {
        // Those of the pair that the accusation was made in.
        Calibration memory limits = _limitsOf(audit, audit.validator);
        if (ruling.question == Question.Weights) {
            Jury.Contracts memory contracts = Jury.Contracts(INodePool(_pool), IModelRegistry(_models));
            Hearings.compare(audit, parties, ruling, contracts);
            // Good weights make neither tokens nor text good.
            bool cleared = ruling.decided && !ruling.guilty;
            if (cleared) Hearings.uphold(parties, audit.reasons & ~Verdicts.WEIGHTS, ruling, limits);
            return;
        }
        uint256 open = Hearings.openOf(parties);
        // With the accuser, as many as a quorum needs.
        if (Clusters.sizeOf(open) + 1 < Clusters.QUORUM) return;
        if (ruling.question == Question.Content) {
            Hearings.poll(parties, audit.reasons, ruling, limits);
            return;
        }
        uint256 positions = Positions.unpack(audit.named, audit.alsoNamed, audit.outputTokens).length;
        Hearings.weigh(parties, ruling, positions, audit.reasons, limits);
    }

    /// The consequences for the miner, which had until `hidUntil` if it shows nothing, and for those whom a quorum
    /// contradicts.
    function _execute(Audit memory audit, Party[] memory parties, Ruling memory ruling, uint40 hidUntil) internal {
        Evidence memory evidence = Evidence(audit.taskId, Hearings.ruleOf(ruling.question), 0, Clusters.QUORUM);
        NodeId[] memory provers = Hearings.nodesOf(parties, ruling.failing);
        bool slashed = hidUntil != 0;
        if (slashed) {
            evidence = Evidence(audit.taskId, Rule.Unopened, block.timestamp, hidUntil);
        } else if (ruling.guilty) {
            evidence.measured = _witnessesOf(audit, provers);
            slashed = evidence.measured >= Clusters.QUORUM && !ruling.isOnlyUnread && !_pauses(audit);
        }
        AuditState outcome = AuditState.Void;
        if (slashed) outcome = AuditState.Disproved;
        else if (ruling.decided && !ruling.guilty) outcome = AuditState.Passed;
        if (outcome == AuditState.Passed) {
            // What the accuser measured counts neither for nor against the node. It was wrong, and is not paid for that.
            _vouch(audit, 0, _limitsOf(audit, audit.validator));
            audit.earners &= ~NodeSet.bitOf(audit.drawn, audit.validator);
        }
        NodeId[] memory losers = Hearings.nodesOf(parties, ruling.losers);
        for (uint256 i; i < losers.length; ++i) {
            audit.earners &= ~NodeSet.bitOf(audit.drawn, losers[i]);
        }
        emit IProofOfInference.Judged(
            audit.taskId, audit.nodeId, ruling.question, ruling.failing, slashed || ruling.guilty, slashed
        );
        _conclude(audit, outcome);
        if (slashed) _slashLiar(audit, audit.nodeId, evidence, provers);
        _punishLosers(audit, losers, Hearings.nodesOf(parties, ruling.against));
    }

    /// Different owners whose word against the miner counts, if one of them runs what it runs; else none.
    function _witnessesOf(Audit memory audit, NodeId[] memory provers) internal view returns (uint256) {
        (, NumericClass minerClass) = _ownerOf(audit.nodeId);
        address[] memory owners = new address[](provers.length);
        uint256 counted;
        bool sameClass;
        for (uint256 i; i < provers.length; ++i) {
            NumericClass class_;
            (owners[i], class_) = _ownerOf(provers[i]);
            if (!IModelRegistry(_models).isSlashable(audit.model, minerClass, class_)) continue;
            counted |= 1 << i;
            if (NumericClass.unwrap(class_) == NumericClass.unwrap(minerClass)) sameClass = true;
        }
        return sameClass ? Clusters.ownersOf(counted, owners) : 0;
    }

    /// Counts a failure of the miner's class; whether so many of it fail that it is no fraud.
    function _pauses(Audit memory audit) internal returns (bool) {
        (address owner, NumericClass class_) = _ownerOf(audit.nodeId);
        Failures memory failures = _failures[class_];
        uint40 epoch = uint40(block.timestamp) / _failureEpoch;
        if (failures.epoch != epoch) (failures.epoch, failures.owners) = (epoch, 0);
        if (!_failedIn[class_][epoch][owner]) {
            _failedIn[class_][epoch][owner] = true;
            ++failures.owners;
        }
        uint40 pausedUntil = (epoch + 2) * _failureEpoch;
        if (failures.owners >= PAUSING_OWNERS && failures.pausedUntil != pausedUntil) {
            failures.pausedUntil = pausedUntil;
            emit IProofOfInference.ClassPaused(class_, pausedUntil);
        }
        _failures[class_] = failures;
        return block.timestamp < failures.pausedUntil;
    }

    /// Those whom a quorum contradicts: one that could cost the miner its stake, and of a class that is held to it.
    function _punishLosers(Audit memory audit, NodeId[] memory losers, NodeId[] memory provers) internal {
        if (losers.length == 0 || _witnessesOf(audit, provers) < Clusters.QUORUM) return;
        Evidence memory evidence = Evidence(audit.taskId, Rule.Contradicted, provers.length, Clusters.QUORUM);
        (, NumericClass minerClass) = _ownerOf(audit.nodeId);
        for (uint256 i; i < losers.length; ++i) {
            (, NumericClass class_) = _ownerOf(losers[i]);
            bool excused = !IModelRegistry(_models).isSlashable(audit.model, minerClass, class_);
            if (excused || block.timestamp < _failures[class_].pausedUntil) continue;
            _slashLiar(audit, losers[i], evidence, provers);
        }
    }

    /// Those who committed to something and did not show it.
    function _punishSilence(Audit memory audit, NodeId[] memory silent, uint40 until) internal {
        Evidence memory evidence = Evidence(audit.taskId, Rule.Withheld, block.timestamp, until);
        for (uint256 i; i < silent.length; ++i) {
            _slashLiar(audit, silent[i], evidence, new NodeId[](0));
        }
    }

    // ---------------------------------------------------------------- pay

    /// See `IProofOfInference`.
    function collect(Audit calldata brought) external {
        (Audit memory audit,) = _take(brought, AuditState.Closed);
        uint256 pay = uint256(audit.fee) * _auditPayBps / BPS;
        uint256 booked = _books[audit.model][audit.asset];
        delete _words[audit.taskId][audit.nodeId];
        uint256 wanted;
        for (uint256 i; i < NodeSet.MAX; ++i) {
            if (audit.earners >> i & 1 == 1) wanted += pay;
        }
        if (wanted > booked) revert IProofOfInference.ProofOfInference_BookTooSmall(wanted, booked);
        _setBook(audit.model, audit.asset, booked - wanted);
        emit IProofOfInference.AuditCollected(audit.taskId, audit.nodeId, wanted);
        for (uint256 i; i < NodeSet.MAX; ++i) {
            if (audit.earners >> i & 1 == 0) continue;
            ISessionPayment(_payment).give(audit.asset, INodePool(_pool).payoutOf(audit.drawn.nodeAt(i)), pay);
        }
    }

    function _partyOf(Audit memory audit, Party[] memory parties, NodeId nodeId) internal pure returns (uint256) {
        for (uint256 i; i < parties.length; ++i) {
            if (NodeId.unwrap(parties[i].nodeId) == NodeId.unwrap(nodeId)) return i;
        }
        revert IProofOfInference.ProofOfInference_NotParty(audit.taskId, audit.nodeId, nodeId);
    }
}
