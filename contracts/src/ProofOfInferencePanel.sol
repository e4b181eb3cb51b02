// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    Appeal,
    Audit,
    AuditState,
    Chunk,
    Demand,
    IProofOfInference,
    Party,
    ProofConfig,
    ProofWiring,
    Question,
    Testimony
} from "./interfaces/IProofOfInference.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {Evidence, Rule} from "./interfaces/ISessionPayment.sol";
import {AuditWords} from "./libraries/AuditWords.sol";
import {Clusters} from "./libraries/Clusters.sol";
import {Hearings} from "./libraries/Hearings.sol";
import {Multiproof} from "./libraries/Multiproof.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Positions} from "./libraries/Positions.sol";
import {Verdicts} from "./libraries/Verdicts.sol";
import {ProofOfInferenceBase} from "./ProofOfInferenceBase.sol";
import {NodeId} from "./types/Ids.sol";

/// What leads to the end of a dispute over an answer that its validator found false: panels, what they commit to and
/// open, and data that nobody could fetch; what follows for those who let their time pass; and what validators are paid.
/// `ProofOfInference` runs its code as its own (one
/// contract would exceed the size that the EVM allows); called by anyone else it has no audits.
contract ProofOfInferencePanel is ProofOfInferenceBase {
    using NodeSet for uint256;

    /// Bytes of a published chunk: a transaction with more would not fit what nodes pass on.
    uint256 internal constant MAX_CHUNK = 32 * 1024;
    /// Bytes of both blocks: each has 1 MiB at most.
    uint256 internal constant MAX_DATA = 2 * 1024 * 1024;

    /// keccak256(abi.encode(wiring, config)): who runs this code must have the same.
    bytes32 public immutable madeFor;

    constructor(ProofWiring memory wiring, ProofConfig memory config_) ProofOfInferenceBase(wiring, config_) {
        madeFor = keccak256(abi.encode(wiring, config_));
    }

    // ---------------------------------------------------------------- data on demand

    /// See `IProofOfInference`.
    function demandData(Audit calldata brought, Party[] memory parties, NodeId validator) external {
        (Audit memory audit, AuditState state, uint40 until) = _load(brought);
        uint256 member;
        if (state == AuditState.Convened) {
            _checkParties(audit, parties);
            member = _unsealedOf(audit, parties, validator);
        } else if (state != AuditState.Drawn) {
            revert IProofOfInference.ProofOfInference_WrongState(audit.taskId, audit.nodeId, state);
        } else if (NodeId.unwrap(validator) != NodeId.unwrap(audit.validator)) {
            revert IProofOfInference.ProofOfInference_NotParty(audit.taskId, audit.nodeId, validator);
        }
        _checkInTime(audit, until);
        _checkOperator(validator);
        Demand storage demand = _demands[audit.taskId][audit.nodeId];
        // Once: with what is published everybody sees the same.
        if (demand.resumes != AuditState.None) {
            revert IProofOfInference.ProofOfInference_AlreadyDemanded(audit.taskId, audit.nodeId);
        }
        demand.resumes = state;
        // A demand that cost nothing would be made of every answer.
        uint16 place = NodeSet.bitOf(audit.drawn, validator);
        if (place != 0) audit.earners |= place << uint16(WAIVED);
        else _appeals[audit.taskId][audit.nodeId].waived = uint8(1 << (member - Hearings.FIRST_MEMBER));
        emit IProofOfInference.DataDemanded(audit.taskId, audit.nodeId, validator);
        _enter(audit, AuditState.Demanded, _openTime);
    }

    /// See `IProofOfInference`. The bytes are not hashed here, for sha-256 of a block is not taken in pieces: whether they
    /// are what was asked and answered is for the validators, who all see the same. That is why nobody else may publish.
    function publishData(Audit calldata brought, Chunk calldata chunk) external {
        (Audit memory audit, uint40 until) = _take(brought, AuditState.Demanded);
        _checkInTime(audit, until);
        _checkOperator(audit.nodeId);
        Demand memory demand = _demands[audit.taskId][audit.nodeId];
        if (demand.publishedBytes == 0) {
            if (chunk.requestBytes > chunk.totalBytes || chunk.totalBytes > MAX_DATA) {
                revert IProofOfInference.ProofOfInference_DataSize(chunk.requestBytes, chunk.totalBytes, MAX_DATA);
            }
            (demand.requestBytes, demand.totalBytes) = (chunk.requestBytes, chunk.totalBytes);
        } else if (chunk.requestBytes != demand.requestBytes || chunk.totalBytes != demand.totalBytes) {
            revert IProofOfInference.ProofOfInference_OtherSizes(demand.requestBytes, demand.totalBytes);
        }
        if (chunk.offset != demand.publishedBytes) {
            revert IProofOfInference.ProofOfInference_WrongOffset(chunk.offset, demand.publishedBytes);
        }
        uint256 limit = demand.totalBytes - demand.publishedBytes;
        if (limit > MAX_CHUNK) limit = MAX_CHUNK;
        if (chunk.data.length == 0 || chunk.data.length > limit) {
            revert IProofOfInference.ProofOfInference_ChunkSize(chunk.data.length, limit);
        }
        demand.publishedBytes += uint32(chunk.data.length);
        _demands[audit.taskId][audit.nodeId] = demand;
        emit IProofOfInference.DataPublished(
            audit.taskId, audit.nodeId, chunk.offset, demand.requestBytes, demand.totalBytes, chunk.data
        );
        if (demand.publishedBytes == demand.totalBytes) _enter(audit, demand.resumes, _sealTime);
    }

    // ---------------------------------------------------------------- the panel

    /// See `IProofOfInference`.
    function convene(Audit calldata brought) external {
        (Audit memory audit, uint40 until) = _take(brought, AuditState.Accused);
        _checkInTime(audit, until);
        (audit.seed, audit.tries) = (_valueOf(audit.round), 0);
        Party[] memory parties = Hearings.partiesOf(audit, Hearings.MEMBERS);
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
        Party memory party = parties[_unsealedOf(audit, parties, nodeId)];
        _checkSeal(nodeId, sealed_);
        (party.isSealed, party.root) = (true, sealed_);
        _keep(audit, parties);
        for (uint256 k = Hearings.FIRST_MEMBER; k < parties.length; ++k) {
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
        if (members + 1 >= Clusters.QUORUM) {
            _hear(audit);
        } else {
            _conclude(audit, AuditState.Void);
            if (Hearings.isAppeal(parties)) _returnBond(audit);
        }
        for (uint256 i = Hearings.FIRST_MEMBER; i < parties.length; ++i) {
            if (!parties[i].isSealed) _slashIdle(audit, parties[i].nodeId, until);
        }
    }

    function _hear(Audit memory audit) internal {
        audit.round = _nextRound();
        _enter(audit, AuditState.Hearing, _revealTime);
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
        if (i >= Hearings.FIRST_MEMBER) {
            if (Hearings.isAppeal(parties)) _earnAppeal(audit, uint8(1 << (i - Hearings.FIRST_MEMBER)));
            else _earn(audit, nodeId);
        }
        _keep(audit, parties);
        _enter(audit, AuditState.Hearing, until - block.timestamp);
    }

    /// The same as `_earn`, of a member of an appeal's panel.
    function _earnAppeal(Audit memory audit, uint8 bit) internal {
        Appeal storage stored = _appeals[audit.taskId][audit.nodeId];
        if (stored.waived & bit == 0) stored.earners |= bit;
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

    // ---------------------------------------------------------------- time that has passed

    /// See `IProofOfInference`.
    function advanceAudit(Audit calldata brought) external {
        (Audit memory audit, AuditState state, uint40 until) = _load(brought);
        bool known = state >= AuditState.Drawn && state <= AuditState.Accused || state == AuditState.Demanded
            || state == AuditState.Appealed;
        if (!known) revert IProofOfInference.ProofOfInference_WrongState(audit.taskId, audit.nodeId, state);
        _checkLate(audit, until);
        if (state == AuditState.Drawn) return _replace(audit, until);
        if (state == AuditState.Demanded) return _convictHidden(audit, until);
        // There was no randomness to draw a panel with.
        if (state == AuditState.Accused) return _conclude(audit, AuditState.Void);
        if (state == AuditState.Appealed) {
            _conclude(audit, AuditState.Void);
            return _returnBond(audit);
        }
        if (state == AuditState.Sealed) {
            // Aborting when audited must not pay.
            _earn(audit, audit.validator);
            _conclude(audit, AuditState.Disproved);
            return _slashLiar(audit, audit.nodeId, _lateness(audit, Rule.Unopened, until), _only(audit.validator));
        }
        _conclude(audit, AuditState.Unverified);
        // It could not open what needs a round that is not there.
        if (IRandomBeacon(_beacon).valueOf(audit.round) == 0) return;
        _slashLiar(audit, audit.validator, _lateness(audit, Rule.Withheld, until), new NodeId[](0));
    }

    /// Another validator for one that was silent.
    function _replace(Audit memory audit, uint40 until) internal {
        NodeId idle = audit.validator;
        bool more = audit.drawn.length() < MAX_VALIDATORS;
        audit.validator = more ? _draw(audit, false) : NodeId.wrap(0);
        if (NodeId.unwrap(audit.validator) != 0) _enter(audit, AuditState.Drawn, _sealTime);
        else _conclude(audit, AuditState.Unverified);
        _slashIdle(audit, idle, until);
    }

    /// A miner that does not publish what was demanded: hiding must not pay either. Of an appeal nobody has done its duty
    /// by then, but who demanded.
    function _convictHidden(Audit memory audit, uint40 until) internal {
        Appeal memory appealed = _appeals[audit.taskId][audit.nodeId];
        delete _appeals[audit.taskId][audit.nodeId];
        NodeId demander = appealed.waived != 0
            ? _nodeOf(appealed.members, appealed.waived)
            : _nodeOf(audit.drawn, audit.earners >> WAIVED);
        _conclude(audit, AuditState.Disproved);
        _slashLiar(audit, audit.nodeId, _lateness(audit, Rule.Unopened, until), _only(demander));
        if (appealed.bond != 0) _settleBond(audit, appealed, true);
    }

    function _lateness(Audit memory audit, Rule rule, uint40 until) internal view returns (Evidence memory) {
        return Evidence(audit.taskId, rule, block.timestamp, until);
    }

    /// The node at the place of a bit.
    function _nodeOf(uint256 set, uint256 bit) internal pure returns (NodeId) {
        for (; bit > 1; bit >>= 1) {
            set >>= 32;
        }
        return set.nodeAt(0);
    }

    // ---------------------------------------------------------------- pay

    /// See `IProofOfInference`.
    function collect(Audit calldata brought) external {
        (Audit memory audit, uint40 owed) = _take(brought, AuditState.Closed);
        uint256 pay = uint256(audit.fee) * _auditPayBps / BPS;
        uint256 booked = _books[audit.model][audit.asset];
        delete _words[audit.taskId][audit.nodeId];
        Appeal memory appealed;
        if (owed & AuditWords.HAS_MEMBERS != 0) {
            appealed = _appeals[audit.taskId][audit.nodeId];
            delete _appeals[audit.taskId][audit.nodeId];
        }
        uint256 wanted = pay * (Clusters.sizeOf(uint8(audit.earners)) + Clusters.sizeOf(appealed.earners));
        if (wanted > booked) revert IProofOfInference.ProofOfInference_BookTooSmall(wanted, booked);
        _setBook(audit.model, audit.asset, booked - wanted);
        emit IProofOfInference.AuditCollected(audit.taskId, audit.nodeId, wanted);
        _giveEach(audit.asset, audit.drawn, uint8(audit.earners), pay);
        _giveEach(audit.asset, appealed.members, appealed.earners, pay);
    }

    // ---------------------------------------------------------------- parties

    /// The place of a member that has not committed. Miner and accuser have long.
    function _unsealedOf(Audit memory audit, Party[] memory parties, NodeId nodeId) internal pure returns (uint256 i) {
        i = _partyOf(audit, parties, nodeId);
        if (i < Hearings.FIRST_MEMBER || parties[i].isSealed) {
            revert IProofOfInference.ProofOfInference_AlreadySealed(nodeId);
        }
    }

    function _partyOf(Audit memory audit, Party[] memory parties, NodeId nodeId) internal pure returns (uint256) {
        for (uint256 i; i < parties.length; ++i) {
            if (NodeId.unwrap(parties[i].nodeId) == NodeId.unwrap(nodeId)) return i;
        }
        revert IProofOfInference.ProofOfInference_NotParty(audit.taskId, audit.nodeId, nodeId);
    }
}
