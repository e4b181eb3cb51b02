// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {
    Appeal,
    Audit,
    AuditState,
    IProofOfInference,
    Party,
    ProofConfig,
    ProofWiring,
    Question
} from "./interfaces/IProofOfInference.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {Evidence, ISessionPayment, Rule} from "./interfaces/ISessionPayment.sol";
import {AuditWords} from "./libraries/AuditWords.sol";
import {Calibration} from "./libraries/Calibrations.sol";
import {Clusters} from "./libraries/Clusters.sol";
import {Hearings, Ruling} from "./libraries/Hearings.sol";
import {Jury} from "./libraries/Jury.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Positions} from "./libraries/Positions.sol";
import {Verdicts} from "./libraries/Verdicts.sol";
import {ProofOfInferenceBase} from "./ProofOfInferenceBase.sol";
import {NodeId, NumericClass} from "./types/Ids.sol";

/// How a dispute ends: what a panel's openings come to, whom that costs what, and the appeal against it.
/// `ProofOfInference` runs its code as its own; called by anyone else it has no audits.
contract ProofOfInferenceJudgement is ProofOfInferenceBase {
    using NodeSet for uint256;

    /// What a ruling comes to, for whom.
    struct Sentence {
        AuditState outcome;
        Evidence evidence;
        NodeId[] provers;
        NodeId[] losers;
        NodeId[] against;
    }

    /// Owners of one class that fail in one epoch, from which on it is no fraud but a fault of what they run.
    uint256 internal constant PAUSING_OWNERS = 5;

    /// keccak256(abi.encode(wiring, config)): who runs this code must have the same.
    bytes32 public immutable madeFor;

    constructor(ProofWiring memory wiring, ProofConfig memory config_) ProofOfInferenceBase(wiring, config_) {
        madeFor = keccak256(abi.encode(wiring, config_));
    }

    // ---------------------------------------------------------------- the judgement

    /// See `IProofOfInference`.
    function judge(Audit calldata brought, Party[] memory parties) external {
        (Audit memory audit, AuditState state, uint40 until) = _loadWith(brought, parties);
        if (state == AuditState.Condemned) {
            _checkLate(audit, until);
            return _carryOut(audit, parties);
        }
        if (state != AuditState.Hearing) {
            revert IProofOfInference.ProofOfInference_WrongState(audit.taskId, audit.nodeId, state);
        }
        Question question = Verdicts.questionOf(audit.reasons);
        uint256 missing = Hearings.missingOf(parties, question);
        if (missing != 0) _checkLate(audit, until);
        // Nobody could open what needs a round that is not there.
        if (question == Question.Weights && IRandomBeacon(_beacon).valueOf(audit.round) == 0) {
            _conclude(audit, AuditState.Void);
            if (Hearings.isAppeal(parties)) _returnBond(audit);
            return;
        }
        if (missing >> Hearings.MINER & 1 == 1) _convictHidden(audit, parties, until);
        else _decide(audit, parties);
        _punishSilence(audit, Hearings.nodesOf(parties, missing & ~(uint256(1) << Hearings.MINER)), until);
    }

    /// A miner that does not show what is compared loses at once: that is no matter of opinion.
    function _convictHidden(Audit memory audit, Party[] memory parties, uint40 until) internal {
        Ruling memory ruling;
        (ruling.question, ruling.failing) = (Question.Weights, Hearings.openOf(parties));
        _execute(audit, parties, ruling, Evidence(audit.taskId, Rule.Unopened, block.timestamp, until), true);
    }

    /// What a first panel would take stake for waits for an appeal; everything else is executed at once.
    function _decide(Audit memory audit, Party[] memory parties) internal {
        Ruling memory ruling = _rulingOf(audit, parties);
        (Evidence memory evidence, bool slashed) = _evidenceOf(audit, parties, ruling);
        if (slashed && !Hearings.isAppeal(parties)) {
            // Asked once: a class that fails later does not save those who were condemned before.
            if (!_pauses(audit)) return _enter(audit, AuditState.Condemned, _appealTime);
            slashed = false;
        }
        _execute(audit, parties, ruling, evidence, slashed);
    }

    /// Executes what a first panel found.
    function _carryOut(Audit memory audit, Party[] memory parties) internal {
        Ruling memory ruling = _rulingOf(audit, parties);
        (Evidence memory evidence, bool slashed) = _evidenceOf(audit, parties, ruling);
        _execute(audit, parties, ruling, evidence, slashed);
    }

    /// Who is right, by what was opened. Nothing that happens afterwards changes it.
    function _rulingOf(Audit memory audit, Party[] memory parties) internal view returns (Ruling memory ruling) {
        ruling.question = Verdicts.questionOf(audit.reasons);
        // Those of the pair that the accusation was made in.
        Calibration memory limits = _limitsOf(audit, audit.validator);
        if (ruling.question == Question.Weights) {
            Hearings.compare(audit, parties, ruling, _contracts());
            // Good weights make neither tokens nor text good.
            bool cleared = ruling.decided && !ruling.guilty;
            if (cleared) Hearings.uphold(parties, audit.reasons & ~Verdicts.WEIGHTS, ruling, limits);
            return ruling;
        }
        uint256 open = Hearings.openOf(parties);
        // With the accuser, as many as a quorum needs.
        if (Clusters.sizeOf(open) + 1 < Clusters.QUORUM) return ruling;
        if (ruling.question == Question.Content) {
            Hearings.poll(parties, audit.reasons, ruling, limits);
            return ruling;
        }
        uint256 positions = Positions.unpack(audit.named, audit.alsoNamed, audit.outputTokens).length;
        Hearings.weigh(parties, ruling, positions, audit.reasons, limits);
    }

    /// What a ruling stands on, and whether that may cost the miner its stake.
    function _evidenceOf(Audit memory audit, Party[] memory parties, Ruling memory ruling)
        internal
        view
        returns (Evidence memory evidence, bool slashes)
    {
        evidence = Evidence(audit.taskId, Hearings.ruleOf(ruling.question), 0, Clusters.QUORUM);
        if (!ruling.guilty) return (evidence, false);
        evidence.measured = _witnessesOf(audit, Hearings.nodesOf(parties, ruling.failing));
        slashes = evidence.measured >= Clusters.QUORUM;
    }

    /// The consequences for the miner, and for those whom a quorum contradicts.
    function _execute(
        Audit memory audit,
        Party[] memory parties,
        Ruling memory ruling,
        Evidence memory evidence,
        bool slashed
    ) internal {
        Sentence memory sentence = _sentenceOf(parties, ruling, slashed);
        sentence.evidence = evidence;
        if (sentence.outcome == AuditState.Passed) {
            // What the accuser measured counts neither for nor against the node. It was wrong, and is not paid for that.
            _vouch(audit, 0, _limitsOf(audit, audit.validator));
            _forfeit(audit, audit.validator);
        }
        emit IProofOfInference.Judged(
            audit.taskId, audit.nodeId, ruling.question, ruling.failing, slashed || ruling.guilty, slashed
        );
        Appeal memory appealed;
        if (Hearings.isAppeal(parties)) {
            appealed = _appeals[audit.taskId][audit.nodeId];
            bool contradicted = ruling.losers >> Hearings.ACCUSER & 1 == 1;
            if (contradicted && sentence.outcome == AuditState.Passed) _joinAccusers(audit, sentence, appealed);
        }
        _end(audit, sentence, appealed);
        if (slashed) _slashLiar(audit, audit.nodeId, evidence, sentence.provers);
        if (appealed.members != 0) _settleBond(audit, appealed, slashed);
        _punishLosers(audit, sentence.losers, sentence.against);
        // The second panel bears the first one out.
        bool dissented = slashed && NodeId.unwrap(appealed.dissenter) != 0;
        if (dissented) _punishLosers(audit, _only(appealed.dissenter), uint256(appealed.accusers).unpack());
    }

    function _sentenceOf(Party[] memory parties, Ruling memory ruling, bool slashed)
        internal
        pure
        returns (Sentence memory sentence)
    {
        sentence.outcome = AuditState.Void;
        if (slashed) sentence.outcome = AuditState.Disproved;
        else if (ruling.decided && !ruling.guilty) sentence.outcome = AuditState.Passed;
        sentence.provers = Hearings.nodesOf(parties, ruling.failing);
        sentence.losers = Hearings.nodesOf(parties, ruling.losers);
        sentence.against = Hearings.nodesOf(parties, ruling.against);
    }

    /// Those of a first panel who found with the accuser what a quorum of the second one contradicts.
    function _joinAccusers(Audit memory audit, Sentence memory sentence, Appeal memory appealed) internal pure {
        uint256 accusers = appealed.accusers;
        if (!accusers.contains(audit.validator)) return;
        uint256 known = uint256(NodeId.unwrap(audit.validator));
        sentence.losers = NodeSet.joined(sentence.losers, accusers.without(known));
    }

    /// Ends the audit, and what was stored of an appeal but whom it owes. Who loses is not paid.
    function _end(Audit memory audit, Sentence memory sentence, Appeal memory appealed) internal {
        bool slashed = sentence.outcome == AuditState.Disproved;
        for (uint256 i; i < sentence.losers.length; ++i) {
            _forfeit(audit, sentence.losers[i]);
            appealed.earners &= ~uint8(uint256(appealed.members).bitOf(sentence.losers[i]));
        }
        if (slashed) _forfeit(audit, appealed.dissenter);
        if (appealed.members == 0) return _conclude(audit, sentence.outcome);
        delete _appeals[audit.taskId][audit.nodeId];
        // Of an appeal that failed they are paid out of its bond.
        if (slashed || appealed.earners == 0) return _conclude(audit, sentence.outcome);
        Appeal storage owed = _appeals[audit.taskId][audit.nodeId];
        (owed.members, owed.earners) = (appealed.members, appealed.earners);
        _conclude(audit, sentence.outcome, AuditWords.HAS_MEMBERS);
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

    // ---------------------------------------------------------------- the appeal

    /// See `IProofOfInference`.
    function appeal(Audit calldata brought, Party[] memory parties) external {
        (Audit memory audit, uint40 until) = _takeWith(brought, parties, AuditState.Condemned);
        _checkInTime(audit, until);
        (address owner,) = _ownerOf(audit.nodeId);
        if (owner != msg.sender) revert IProofOfInference.ProofOfInference_NotOwner(audit.nodeId, msg.sender);
        uint256 atStake = ISessionPayment(_payment).stakeOf(audit.nodeId) * _slashBps / BPS;
        if (atStake == 0) revert IProofOfInference.ProofOfInference_NothingAtStake(audit.nodeId);
        uint256 bond = atStake * _appealBps / BPS;
        if (bond > type(uint96).max) bond = type(uint96).max;
        Ruling memory ruling = _rulingOf(audit, parties);
        // The accuser is heard again. Beside it and those that found with it, at most one is left to be contradicted.
        NodeId[] memory dissenters = Hearings.nodesOf(parties, ruling.losers & ~(uint256(1) << Hearings.ACCUSER));
        Appeal storage stored = _appeals[audit.taskId][audit.nodeId];
        stored.bond = uint96(bond);
        stored.accusers = uint128(NodeSet.pack(Hearings.nodesOf(parties, ruling.failing)));
        if (dissenters.length != 0) stored.dissenter = dissenters[0];
        audit.round = _nextRound();
        emit IProofOfInference.Appealed(audit.taskId, audit.nodeId, stored.bond, stored.accusers, stored.dissenter);
        _enter(audit, AuditState.Appealed, _roundTimeout);
        if (bond != 0) ISessionPayment(_payment).fund(COR, msg.sender, bond);
    }

    /// See `IProofOfInference`.
    function reconvene(Audit calldata brought, Party[] memory first) external {
        (Audit memory audit, uint40 until) = _takeWith(brought, first, AuditState.Appealed);
        _checkInTime(audit, until);
        (audit.seed, audit.tries) = (_valueOf(audit.round), 0);
        Party[] memory parties = Hearings.partiesOf(audit, Hearings.APPEAL_MEMBERS);
        // One that has not opened before the first panel has lost for it, and is not asked again.
        bool silent = Verdicts.questionOf(audit.reasons) == Question.Weights && !first[Hearings.ACCUSER].isOpen;
        if (silent) parties[Hearings.ACCUSER].isSealed = false;
        uint256 members;
        for (uint256 i; i < Hearings.APPEAL_MEMBERS; ++i) {
            NodeId found = Jury.draw(audit, _contracts(), members, i == 0);
            if (NodeId.unwrap(found) == 0) {
                // There is nobody who could know better.
                uint256 bond = _takeBond(audit);
                _carryOut(audit, first);
                return _giveBack(audit, bond);
            }
            parties[Hearings.FIRST_MEMBER + i].nodeId = found;
            members |= uint256(NodeId.unwrap(found)) << (32 * i);
        }
        _appeals[audit.taskId][audit.nodeId].members = uint224(members);
        _keep(audit, parties);
        _enter(audit, AuditState.Convened, _sealTime);
    }
}
