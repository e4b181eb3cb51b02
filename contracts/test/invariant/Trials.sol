// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    Appeal,
    Audit,
    AuditState,
    Demand,
    IProofOfInference,
    Party,
    Question
} from "../../src/interfaces/IProofOfInference.sol";
import {Rule} from "../../src/interfaces/ISessionPayment.sol";
import {PartState, Task} from "../../src/interfaces/ISessionQueue.sol";
import {Verdicts} from "../../src/libraries/Verdicts.sol";
import {AssetId, NodeId, NumericClass, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Log} from "../IVm.sol";
import {Network} from "./Network.t.sol";

/// What the proofs of a network should be, told by their events alone: every draw, move and slash is checked as it is
/// told, with arithmetic of its own.
abstract contract Trials is Network {
    /// An answer whose proof is not forgotten yet.
    struct Trial {
        TaskId taskId;
        NodeId nodeId;
    }

    struct Told {
        AuditState state;
        uint40 until;
        uint96 value;
        uint40 committedAt;
        uint32 slots;
        uint16 probabilityBps;
        /// abi.encode(Audit), abi.encode(Party[]).
        bytes audit;
        bytes parties;
        /// The same before its latest move.
        AuditState from;
        uint40 dueUntil;
        bytes before;
        /// What was demanded, and by whom; what an appeal has put down.
        Demand demand;
        NodeId demander;
        bool isAppealed;
        uint96 bond;
    }

    /// The data of `AnswerExposed`.
    struct Exposure {
        uint96 value;
        uint40 committedAt;
        uint32 slots;
        uint16 probabilityBps;
        uint256 open;
    }

    struct Round {
        uint64 round;
        uint40 namedAt;
    }

    uint256 internal constant BPS = 10_000;
    /// Not all of a stake: who has lied once can lie again.
    uint16 internal constant SLASHED_BPS = 6000;
    uint256 internal constant KEEPER_BPS = 1000;
    uint256 internal constant OWN_COST_BPS = 5000;
    uint256 internal constant TRIES = 32;

    Trial[] internal trials;
    mapping(TaskId => mapping(NodeId => Told)) internal tolds;
    mapping(uint40 epoch => Round) internal rounds;
    mapping(NodeId => uint256) internal openTold;
    mapping(NodeId => uint96) internal passedTold;
    mapping(NodeId => uint32) internal driftTold;
    mapping(AssetId => uint256) internal bookTold;
    /// What answers gave for audits, and what validators were paid.
    mapping(AssetId => uint256) internal levied;
    mapping(AssetId => uint256) internal collected;
    mapping(NumericClass => uint40) internal pausedTold;
    /// What the validators of an answer are owed.
    mapping(TaskId => mapping(NodeId => uint256)) internal payTold;
    /// Of all appeals that are open.
    uint256 internal bonds;
    /// Of the latest `AuditMoved` or `Judged`.
    Trial internal moved;

    function isProven() internal pure override returns (bool) {
        return true;
    }

    /// Whether a node can lose its stake by such a verdict over a trial.
    function checkVerdict(Audit memory audit, Party[] memory parties, NodeId nodeId, Rule rule) internal view virtual;

    function checkJudged(Audit memory audit, Party[] memory parties, bool guilty) internal view virtual;

    // ---------------------------------------------------------------- folding

    function foldProof(Log memory entry) internal override {
        bytes32 what = entry.topics[0];
        if (what == IProofOfInference.EpochClosed.selector) {
            foldEpoch(uint40(uint256(entry.topics[1])), uint64(uint256(entry.topics[2])));
        } else if (what == IProofOfInference.RecordChanged.selector) {
            NodeId node = nodeIn(entry, 1);
            (passedTold[node], driftTold[node]) = abi.decode(entry.data, (uint96, uint32));
        } else if (what == IProofOfInference.ClassPaused.selector) {
            pausedTold[NumericClass.wrap(entry.topics[1])] = abi.decode(entry.data, (uint40));
        } else if (what == IProofOfInference.BookChanged.selector) {
            bookTold[assetIn(entry, 2)] = amountIn(entry);
        } else {
            foldTrial(entry, what, TaskId.wrap(entry.topics[1]), nodeIn(entry, 2));
        }
    }

    function nodeIn(Log memory entry, uint256 i) internal pure returns (NodeId) {
        return NodeId.wrap(uint32(uint256(entry.topics[i])));
    }

    function foldTrial(Log memory entry, bytes32 what, TaskId taskId, NodeId nodeId) internal {
        Told storage told = tolds[taskId][nodeId];
        if (what == IProofOfInference.AnswerExposed.selector) {
            foldExposed(entry, told, taskId, nodeId);
        } else if (what == IProofOfInference.AnswerCleared.selector) {
            foldCleared(told, taskId, nodeId, abi.decode(entry.data, (bool)));
        } else if (what == IProofOfInference.AnswerUnverified.selector) {
            assertTrue(
                told.state == AuditState.Exposed && isDrawn(told, taskId, nodeId), "[V8] drawn, and nobody there"
            );
            Audit memory nobodys = auditOf(taskId, nodeId);
            (nobodys.seed, nobodys.slots) = (valueOf(told), told.slots);
            (nobodys.committedAt, nobodys.tries, nobodys.drawn) = (told.committedAt, 0, 0);
            assertEq(NodeId.unwrap(drawFor(nobodys, false)), 0, "[V3] nobody to ask");
            told.state = AuditState.Cleared;
            openTold[nodeId] -= told.value;
        } else if (what == IProofOfInference.AuditMoved.selector) {
            foldMoved(entry, told, taskId, nodeId);
        } else if (what == IProofOfInference.PanelMoved.selector) {
            told.parties = abi.encode(abi.decode(entry.data, (Party[])));
        } else if (what == IProofOfInference.Judged.selector) {
            (,, bool guilty,) = abi.decode(entry.data, (Question, uint256, bool, bool));
            checkJudged(abi.decode(told.audit, (Audit)), abi.decode(told.parties, (Party[])), guilty);
        } else if (what == IProofOfInference.DataDemanded.selector) {
            assertTrue(told.demand.resumes == AuditState.None, "[V26] demanded once");
            (told.demand.resumes, told.demander) = (told.state, nodeIn(entry, 3));
        } else if (what == IProofOfInference.DataPublished.selector) {
            foldPublished(entry, told);
        } else if (what == IProofOfInference.Appealed.selector) {
            foldAppealed(entry, told, nodeId);
        } else if (what == IProofOfInference.AuditCollected.selector) {
            foldCollected(told, taskId, nodeId, amountIn(entry));
        }
    }

    /// [V1] Nobody knows the round yet that draws the answers of an epoch that is over.
    function foldEpoch(uint40 epoch, uint64 round) internal {
        assertTrue(rounds[epoch].round == 0, "[V1] named once");
        assertTrue(block.timestamp >= (uint256(epoch) + 1) * AUDIT_EPOCH, "[V1] named after the epoch");
        assertTrue(round > block.number && beacon.valueOf(round) == 0, "[V1] a round that nobody knows");
        rounds[epoch] = Round(round, uint40(block.timestamp));
    }

    function foldExposed(Log memory entry, Told storage told, TaskId taskId, NodeId nodeId) internal {
        assertTrue(told.state == AuditState.None, "[V8] exposed once");
        Exposure memory given = abi.decode(entry.data, (Exposure));
        (told.value, told.committedAt) = (given.value, given.committedAt);
        (told.slots, told.probabilityBps) = (given.slots, given.probabilityBps);
        Task memory task = taskOf(taskId);
        uint256 fee_ = partOf(task, nodeId).fee;
        if (AssetId.unwrap(assetOf[task.sessionId]) != 0) {
            fee_ = (fee_ * PRICE_OUT + USD_PRICE_OUT - 1) / USD_PRICE_OUT;
        }
        assertEq(told.value, fee_, "[V8] value in COR");
        openTold[nodeId] += told.value;
        assertEq(given.open, openTold[nodeId], "[V8] what is open");
        (uint32 slots,,) = pool.poolOf(MODEL_INDEX);
        assertTrue(told.committedAt == block.timestamp && told.slots == slots, "[V2] as of the commit");
        checkProbability(nodeId, given.value, given.open, given.probabilityBps);
        told.state = AuditState.Exposed;
        trials.push(Trial(taskId, nodeId));
    }

    /// [V8] The largest of the three bounds, and hardly more.
    function checkProbability(NodeId nodeId, uint256 value, uint256 open_, uint256 p) internal view {
        assertTrue(p >= MIN_PROBABILITY_BPS && p <= BPS, "[V8] a probability, not below the floor");
        uint256 gain = (open_ * GAIN_BPS + BPS - 1) / BPS;
        uint256 lost = POWER_BPS * (stakeTold[nodeId] * SLASHED_BPS / BPS + gain);
        assertTrue(p * lost >= 15_000 * BPS * gain, "[V8] the bound of what is open");
        uint256 passes = passedTold[nodeId] / value;
        // (p / 10,000)^10 against 2^-passes; after more passes no hundredth of a percent is left.
        assertTrue(passes > 120 || p ** 10 << passes >= 10 ** 40, "[V8] the bound of the record");
        bool byRecord = passes <= 120 && (p - 2) ** 10 << passes < 10 ** 40;
        assertTrue(p == MIN_PROBABILITY_BPS || byRecord || (p - 1) * lost < 15_000 * BPS * gain, "[V8] not more");
    }

    function valueOf(Told storage told) internal view returns (bytes32) {
        return beacon.valueOf(rounds[told.committedAt / AUDIT_EPOCH].round);
    }

    /// [V1] By the value of the round that was named for its epoch.
    function isDrawn(Told storage told, TaskId taskId, NodeId nodeId) internal view returns (bool) {
        bytes32 value = valueOf(told);
        assertTrue(value != 0, "[V1] drawn without a value");
        bytes32 hash = keccak256(abi.encode(keccak256("assay.audit.draw.v1"), value, taskId, nodeId));
        return uint256(hash) % BPS < told.probabilityBps;
    }

    function foldCleared(Told storage told, TaskId taskId, NodeId nodeId, bool unaudited) internal {
        assertTrue(told.state == AuditState.Exposed, "[V1] cleared once");
        if (unaudited) {
            Round memory named = rounds[told.committedAt / AUDIT_EPOCH];
            bool late = block.timestamp > named.namedAt + ROUND_TIMEOUT || beacon.isMissed(named.round);
            assertTrue(named.round != 0 && late && valueOf(told) == 0, "[V7] a round that cannot be had");
        } else {
            assertTrue(!isDrawn(told, taskId, nodeId), "[V1] not drawn");
        }
        told.state = AuditState.Cleared;
        openTold[nodeId] -= told.value;
    }

    // ---------------------------------------------------------------- audits

    function foldMoved(Log memory entry, Told storage told, TaskId taskId, NodeId nodeId) internal {
        (uint40 until, Audit memory audit) = abi.decode(entry.data, (uint40, Audit));
        AuditState next = AuditState(uint256(entry.topics[3]));
        assertTrue(
            isLegal(told.state, next),
            string.concat("[V9] ", vm.toString(uint256(told.state)), " to ", vm.toString(uint256(next)))
        );
        (told.from, told.dueUntil) = (told.state, told.until);
        told.before = told.audit;
        (told.state, told.until) = (next, until);
        told.audit = abi.encode(audit);
        moved = Trial(taskId, nodeId);
        if (told.from == AuditState.Exposed) checkOpened(told, audit);
        else if (told.from < AuditState.Accused) checkInherits(abi.decode(told.before, (Audit)), audit);
        if (next == AuditState.Drawn && told.from != AuditState.Demanded) checkValidator(told, audit);
        if (told.from == AuditState.Accused && next == AuditState.Convened) checkPanel(told);
        if (told.from == AuditState.Appealed && next == AuditState.Convened) checkSecondPanel(told, audit);
        if (told.from == AuditState.Demanded) checkResumed(told, next);
        if (next == AuditState.Condemned) checkCondemned(told, nodeId);
        if (next >= AuditState.Passed) {
            openTold[nodeId] -= told.value;
            (bonds, told.bond) = (bonds - told.bond, 0);
        }
        if (next == AuditState.Disproved) assertEq(passedTold[nodeId], 0, "[V8] nothing vouches for a liar");
    }

    function isLegal(AuditState from, AuditState to) internal pure returns (bool) {
        if (from == AuditState.Exposed) return to == AuditState.Drawn;
        if (from == AuditState.Drawn) {
            return to == AuditState.Drawn || to == AuditState.Sealed || to == AuditState.Demanded
                || to == AuditState.Unverified;
        }
        if (from == AuditState.Sealed) return to == AuditState.Opened || to == AuditState.Disproved;
        if (from == AuditState.Opened) {
            return to == AuditState.Passed || to == AuditState.Accused || to == AuditState.Unverified;
        }
        if (from == AuditState.Accused) return to == AuditState.Convened || to == AuditState.Void;
        if (from == AuditState.Convened) {
            return
                to == AuditState.Convened || to == AuditState.Hearing || to == AuditState.Demanded
                    || to == AuditState.Void;
        }
        if (from == AuditState.Demanded) {
            return to == AuditState.Drawn || to == AuditState.Convened || to == AuditState.Disproved;
        }
        if (from == AuditState.Condemned) return to == AuditState.Appealed || to == AuditState.Disproved;
        if (from == AuditState.Appealed) {
            return to == AuditState.Convened || to == AuditState.Void || to == AuditState.Disproved;
        }
        bool decides = to == AuditState.Passed || to == AuditState.Void || to == AuditState.Disproved;
        return from == AuditState.Hearing && (to == AuditState.Hearing || to == AuditState.Condemned || decides);
    }

    // ---------------------------------------------------------------- data and appeals

    /// [V26] In order, and all of it.
    function foldPublished(Log memory entry, Told storage told) internal {
        (uint32 offset, uint32 requestBytes, uint32 totalBytes, bytes memory data) =
            abi.decode(entry.data, (uint32, uint32, uint32, bytes));
        assertTrue(told.state == AuditState.Demanded && offset == told.demand.publishedBytes, "[V26] the next piece");
        (told.demand.requestBytes, told.demand.totalBytes) = (requestBytes, totalBytes);
        told.demand.publishedBytes += uint32(data.length);
    }

    /// [V26] Goes on where it was, with everything published; else the miner hides.
    function checkResumed(Told storage told, AuditState next) internal view {
        bool complete = told.demand.totalBytes != 0 && told.demand.publishedBytes == told.demand.totalBytes;
        assertTrue(complete == (next == told.demand.resumes), "[V26] all of it, or nothing");
        assertTrue(complete || block.timestamp > told.dueUntil, "[V9] in time");
    }

    /// [V12, V16] Nothing is taken yet, and the class is not paused.
    function checkCondemned(Told storage told, NodeId nodeId) internal view {
        assertTrue(!told.isAppealed, "[V27] one appeal");
        assertTrue(block.timestamp >= pausedTold[pool.classOf(nodeId)], "[V16] a class that is paused");
    }

    function foldAppealed(Log memory entry, Told storage told, NodeId nodeId) internal {
        (uint96 bond, uint128 accusers) = abi.decode(entry.data, (uint96, uint128));
        assertTrue(told.state == AuditState.Condemned && block.timestamp <= told.until, "[V27] in time");
        assertTrue(!told.isAppealed && accusers != 0, "[V27] once");
        assertEq(bond, stakeTold[nodeId] * SLASHED_BPS / BPS * APPEAL_BPS / BPS, "[V27] a part of what it would save");
        (told.isAppealed, told.bond) = (true, bond);
        bonds += bond;
    }

    /// [V3, V27] Seven more, of owners that were not drawn before, the first of the miner's class.
    function checkSecondPanel(Told storage told, Audit memory audit) internal view {
        Audit memory was = abi.decode(told.before, (Audit));
        Party[] memory parties = abi.decode(told.parties, (Party[]));
        assertEq(parties.length, 9, "[V27] miner, accuser, seven");
        (was.seed, was.tries) = (beacon.valueOf(was.round), 0);
        uint256 members;
        for (uint256 i = 2; i < parties.length; ++i) {
            NodeId next = nextFor(was, members, i == 2);
            assertEq(NodeId.unwrap(next), NodeId.unwrap(parties[i].nodeId), "[V3] the next that may be drawn");
            members |= uint256(NodeId.unwrap(next)) << (32 * (i - 2));
        }
        assertTrue(audit.tries == was.tries && audit.drawn == was.drawn, "[V10] as it was drawn");
    }

    /// [V1, V2, X3] Drawn by the round, and all that counts is as of the commit.
    function checkOpened(Told storage told, Audit memory audit) internal view {
        assertTrue(isDrawn(told, audit.taskId, audit.nodeId), "[V1] drawn");
        Task memory task = taskOf(audit.taskId);
        assertTrue(audit.value == told.value && audit.probabilityBps == told.probabilityBps, "[V8] as of the commit");
        assertTrue(audit.committedAt == told.committedAt && audit.slots == told.slots, "[V2] as of the commit");
        assertEq(audit.fee, partOf(task, audit.nodeId).fee, "[M3] fee");
        assertEq(audit.root, partOf(task, audit.nodeId).commitment, "[B1] commitment");
        assertEq(audit.client, openedBy[task.sessionId], "[V18] who has the fee back");
        assertEq(audit.seed, valueOf(told), "[V2] the round's value draws validators too");
    }

    /// [V8, V10] What is fixed stays as it was.
    function checkInherits(Audit memory was, Audit memory audit) internal pure {
        bool same = was.fee == audit.fee && was.value == audit.value && was.client == audit.client
            && was.slots == audit.slots && was.committedAt == audit.committedAt && was.nodes == audit.nodes
            && was.seed == audit.seed;
        assertTrue(same, "[V8] an audit keeps what it began with");
    }

    function auditOf(TaskId taskId, NodeId nodeId) internal view returns (Audit memory audit) {
        (audit.taskId, audit.nodeId, audit.model) = (taskId, nodeId, MODEL_INDEX);
        Task memory task = taskOf(taskId);
        uint256 count;
        for (uint256 i; i < task.parts.length; ++i) {
            if (task.parts[i].state != PartState.Committed) continue;
            audit.nodes |= uint256(NodeId.unwrap(task.parts[i].nodeId)) << (32 * count++);
        }
    }

    /// [V2, V3] The next of the places that the seed hits, as it was at the commit.
    function checkValidator(Told storage told, Audit memory audit) internal view {
        Audit memory was = audit;
        bool first = told.from == AuditState.Exposed;
        (was.drawn, was.tries) = (0, 0);
        if (!first) {
            Audit memory before = abi.decode(told.before, (Audit));
            (was.drawn, was.tries) = (before.drawn, before.tries);
        }
        NodeId wanted = audit.validator;
        assertEq(NodeId.unwrap(drawFor(was, false)), NodeId.unwrap(wanted), "[V3] the first that may be drawn");
    }

    /// [V3] Three more, one of the miner's class.
    function checkPanel(Told storage told) internal view {
        Audit memory was = abi.decode(told.before, (Audit));
        Party[] memory parties = abi.decode(told.parties, (Party[]));
        (was.seed, was.tries) = (beacon.valueOf(was.round), 0);
        for (uint256 i = 2; i < parties.length; ++i) {
            NodeId next = drawFor(was, i == 2);
            assertEq(NodeId.unwrap(next), NodeId.unwrap(parties[i].nodeId), "[V3] the next that may be drawn");
        }
    }

    /// The validator joins `audit.drawn`.
    function drawFor(Audit memory audit, bool sameClass) internal view returns (NodeId found) {
        found = nextFor(audit, 0, sameClass);
        uint256 shift;
        while (audit.drawn >> shift != 0) shift += 32;
        audit.drawn |= uint256(NodeId.unwrap(found)) << shift;
    }

    /// The draw, written anew, of somebody else than `others`.
    function nextFor(Audit memory audit, uint256 others, bool sameClass) internal view returns (NodeId) {
        (, NumericClass minerClass) = pool.ownerOf(audit.nodeId);
        for (uint256 last = audit.tries + TRIES; audit.tries < last;) {
            bytes32 hash = keccak256(abi.encode(audit.seed, audit.taskId, audit.nodeId, audit.tries++));
            uint32 place = uint32(uint256(hash) % audit.slots);
            (NodeId found, address owner, NumericClass class_) = pool.candidateAt(MODEL_INDEX, place, audit.committedAt);
            if (NodeId.unwrap(found) == 0 || hasOwner(audit.nodes, owner) || hasOwner(audit.drawn, owner)) continue;
            if (sameClass && NumericClass.unwrap(class_) != NumericClass.unwrap(minerClass)) continue;
            if (!hasOwner(others, owner)) return found;
        }
        return NodeId.wrap(0);
    }

    function hasOwner(uint256 set, address owner) internal view returns (bool) {
        for (; set != 0; set >>= 32) {
            (address one,) = pool.ownerOf(NodeId.wrap(uint32(set)));
            if (one == owner) return true;
        }
        return false;
    }

    // ---------------------------------------------------------------- the end of a proof

    /// [V1] Only what was not drawn, passed, or could not be audited is paid; it gives its share.
    function foldPaid(TaskId taskId, NodeId nodeId, uint96[6] memory shares) internal override returns (uint256 levy) {
        Told storage told = tolds[taskId][nodeId];
        bool audited = told.state == AuditState.Passed || told.state == AuditState.Unverified;
        assertTrue(audited || told.state == AuditState.Cleared, "[V1] paid before its proof ended, or found false");
        uint256 levyBps = AUDIT_SHARE_BPS;
        if (audited && told.probabilityBps >= OWN_COST_BPS) levyBps += AUDIT_PAY_BPS;
        levy = shares[0] * levyBps / BPS;
        uint256 others = uint256(shares[2]) + shares[3] + shares[4] + shares[5];
        if (levy > shares[0] - others) levy = shares[0] - others;
        levied[assetOf[taskOf(taskId).sessionId]] += levy;
        forget(taskId, nodeId);
    }

    function foldDisproved(TaskId taskId, NodeId nodeId) internal override {
        super.foldDisproved(taskId, nodeId);
        AuditState state = tolds[taskId][nodeId].state;
        assertTrue(state == AuditState.Void || state == AuditState.Disproved, "[V18] not paid without a reason");
        forget(taskId, nodeId);
    }

    function forget(TaskId taskId, NodeId nodeId) internal {
        Told storage told = tolds[taskId][nodeId];
        bool owes = told.audit.length != 0 && payFor(told, abi.decode(told.audit, (Audit))) != 0;
        if (owes) told.state = AuditState.Closed;
        else drop(taskId, nodeId);
    }

    function drop(TaskId taskId, NodeId nodeId) internal {
        tolds[taskId][nodeId].state = AuditState.None;
        for (uint256 i; i < trials.length; ++i) {
            if (TaskId.unwrap(trials[i].taskId) != TaskId.unwrap(taskId)) continue;
            if (NodeId.unwrap(trials[i].nodeId) != NodeId.unwrap(nodeId)) continue;
            trials[i] = trials[trials.length - 1];
            trials.pop();
            return;
        }
    }

    /// [V20, V24] Once.
    function foldCollected(Told storage told, TaskId taskId, NodeId nodeId, uint256 amount) internal {
        assertTrue(told.state == AuditState.Closed, "[V24] paid once, at the end");
        Audit memory audit = abi.decode(told.audit, (Audit));
        assertEq(amount, payTold[taskId][nodeId], "[V20] what its validators earned");
        collected[audit.asset] += amount;
        drop(taskId, nodeId);
    }

    /// [V24, V26] What is owed once the task has ended: neither to who demanded the data, nor to a member that showed nothing.
    function payFor(Told storage told, Audit memory audit) internal returns (uint256 pay) {
        uint256 bits = uint8(audit.earners);
        for (uint256 i; i < 8; ++i) {
            if (bits >> i & 1 == 0) continue;
            pay += uint256(audit.fee) * AUDIT_PAY_BPS / BPS;
            assertTrue(uint32(audit.drawn >> (32 * i)) != NodeId.unwrap(told.demander), "[V26] who demands is not paid");
        }
        Appeal memory owed = proof.appealOf(audit.taskId, audit.nodeId);
        assertTrue(owed.bond == 0 && owed.accusers == 0 && owed.waived == 0, "[V27] nothing else is left of an appeal");
        assertTrue(owed.members == 0 || told.isAppealed, "[V27] of an appeal");
        assertTrue((owed.members == 0) == (owed.earners == 0), "[V24] nobody who is not owed");
        Party[] memory parties = owed.members == 0 ? new Party[](0) : abi.decode(told.parties, (Party[]));
        for (uint256 i = 2; i < parties.length; ++i) {
            if (owed.earners >> (i - 2) & 1 == 0) continue;
            pay += uint256(audit.fee) * AUDIT_PAY_BPS / BPS;
            bool other = NodeId.unwrap(parties[i].nodeId) != NodeId.unwrap(told.demander);
            assertTrue(parties[i].isOpen && other, "[V24] who has done its duty");
        }
        payTold[audit.taskId][audit.nodeId] = pay;
    }

    /// [V20, V27] The proof's account is its books, and the bonds of appeals.
    function folded() internal override {
        for (uint8 a; a < 2; ++a) {
            AssetId asset = AssetId.wrap(a);
            assertEq(bookTold[asset], levied[asset] - collected[asset], "[V20] what was given and not paid out");
            creditOf[address(proof)][asset] = bookTold[asset] + (a == 0 ? bonds : 0);
        }
    }

    // ---------------------------------------------------------------- penalties

    function foldSlashed(Log memory entry, NodeId nodeId) internal override {
        Rule rule = Rule(uint256(entry.topics[3]));
        if (rule == Rule.Equivocation) return super.foldSlashed(entry, nodeId);
        (uint256 measured, uint256 bound_, uint256 amount, address reporter, uint256 reward) =
            abi.decode(entry.data, (uint256, uint256, uint256, address, uint256));
        checkAmount(rule, stakeTold[nodeId], amount, reward);
        stakeTold[nodeId] -= amount;
        assertTrue(rule == Rule.Idle || reporter == address(proof), "[V25] divided by the proof");
        assertEq(TaskId.unwrap(moved.taskId), entry.topics[2], "[P1] the task that was judged");
        bool isVerdict = rule >= Rule.Fingerprint;
        assertTrue(isVerdict ? measured >= bound_ : measured > bound_, "[P1] a bound was broken");
        Told storage told = tolds[moved.taskId][moved.nodeId];
        if (!isVerdict) return assertTrue(isLate(told, nodeId, rule), "[V21] nobody loses who was in time");
        bool isFinal = told.state >= AuditState.Passed && (told.isAppealed || told.from == AuditState.Condemned);
        assertTrue(isFinal || rule == Rule.Contradicted, "[V12, V27] not before an appeal was possible");
        assertTrue(isFinal || told.from == AuditState.Hearing, "[V12] heard");
        checkVerdict(abi.decode(told.before, (Audit)), abi.decode(told.parties, (Party[])), nodeId, rule);
    }

    function checkAmount(Rule rule, uint256 stake, uint256 amount, uint256 reward) internal pure {
        if (rule == Rule.Idle) {
            assertEq(amount, stake * DUTY_BPS / BPS, "[V4] a little");
            assertEq(reward, amount * KEEPER_BPS / BPS, "[P5] a keeper's part of it");
            return;
        }
        assertEq(amount, stake * SLASHED_BPS / BPS, "[V5] the bond");
        uint256 clients = amount * CLIENT_BPS / BPS;
        bool divided = reward >= clients && reward - clients <= amount * PROVER_BPS / BPS;
        assertTrue(divided, "[V25] provers and client have their shares, and no more");
    }

    /// [V4, V5, V7, V9] Whether it had something to do, and did not do it in time, though it could.
    function isLate(Told storage told, NodeId nodeId, Rule rule) internal view returns (bool) {
        if (block.timestamp <= told.dueUntil) return false;
        Audit memory was = abi.decode(told.before, (Audit));
        bool isMiner = NodeId.unwrap(nodeId) == NodeId.unwrap(was.nodeId);
        bool isValidator = NodeId.unwrap(nodeId) == NodeId.unwrap(was.validator);
        if (told.from == AuditState.Drawn) return rule == Rule.Idle && isValidator;
        bool publishes = told.from == AuditState.Sealed || told.from == AuditState.Demanded;
        if (publishes) return rule == Rule.Unopened && isMiner;
        bool isKnown = beacon.valueOf(was.round) != 0;
        if (told.from == AuditState.Opened) return rule == Rule.Withheld && isValidator && isKnown;
        Party[] memory parties = abi.decode(told.parties, (Party[]));
        uint256 i;
        while (NodeId.unwrap(parties[i].nodeId) != NodeId.unwrap(nodeId)) ++i;
        if (told.from == AuditState.Convened) return rule == Rule.Idle && i > 1 && !parties[i].isSealed;
        if (told.from != AuditState.Hearing || rule != (isMiner ? Rule.Unopened : Rule.Withheld)) return false;
        bool could = Verdicts.questionOf(was.reasons) == Question.Weights ? isKnown : i > 1;
        return could && parties[i].isSealed && !parties[i].isOpen;
    }

    // ---------------------------------------------------------------- what holds after every step

    /// [E1, V10, V20, V22] Proofs are stored as their events tell, and what is open is the sum of what is not through.
    function checkProofs() external view {
        uint256[] memory sums = new uint256[](nodes.length + 1);
        for (uint256 i; i < trials.length; ++i) {
            (TaskId taskId, NodeId nodeId) = (trials[i].taskId, trials[i].nodeId);
            Told storage told = tolds[taskId][nodeId];
            checkStored(told, taskId, nodeId);
            bool waits =
                told.state == AuditState.Exposed || (told.state >= AuditState.Drawn && told.state < AuditState.Passed);
            if (waits) sums[NodeId.unwrap(nodeId)] += told.value;
        }
        for (uint256 i; i < nodes.length; ++i) {
            NodeId nodeId = nodes[i];
            assertEq(proof.openValueOf(nodeId), sums[NodeId.unwrap(nodeId)], "[V22] what is open");
            (uint96 passed, uint32 drift) = proof.recordOf(nodeId, MODEL_INDEX);
            assertTrue(passed == passedTold[nodeId] && drift == driftTold[nodeId], "[E1] record");
        }
        for (uint8 a; a < 2; ++a) {
            assertEq(proof.bookOf(MODEL_INDEX, AssetId.wrap(a)), bookTold[AssetId.wrap(a)], "[V20] book");
        }
    }

    function checkStored(Told storage told, TaskId taskId, NodeId nodeId) internal view {
        (AuditState state, uint40 until, bytes32 digest) = proof.statusOf(taskId, nodeId);
        assertEq(uint8(state), uint8(told.state), "[E1] state of a proof");
        if (state == AuditState.Exposed) {
            (uint96 value, uint40 committedAt, uint32 slots, uint16 p) = proof.exposureOf(taskId, nodeId);
            bool same = value == told.value && committedAt == told.committedAt && slots == told.slots;
            assertTrue(same && p == told.probabilityBps, "[E1] exposure");
        }
        if (state <= AuditState.Cleared) return;
        assertEq(digest, bytes32(uint256(keccak256(told.audit)) >> 48 << 48), "[V10] the audit as told");
        bytes32 demanded = keccak256(abi.encode(proof.demandOf(taskId, nodeId)));
        assertEq(demanded, keccak256(abi.encode(told.demand)), "[E1, V26] data");
        assertEq(proof.appealOf(taskId, nodeId).bond, told.bond, "[E1, V27] bond");
        if (state >= AuditState.Passed) return;
        assertEq(until, told.until, "[E1] time of a proof");
        if (state < AuditState.Convened || told.parties.length == 0) return;
        assertEq(abi.decode(told.audit, (Audit)).parties, keccak256(told.parties), "[V10] the parties as told");
    }
}
