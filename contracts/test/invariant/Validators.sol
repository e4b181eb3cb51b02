// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration} from "../../src/interfaces/INodePool.sol";
import {
    Audit,
    AuditState,
    Findings,
    IProofOfInference,
    Leaf,
    Party,
    Question,
    Testimony
} from "../../src/interfaces/IProofOfInference.sol";
import {Rule} from "../../src/interfaces/ISessionPayment.sol";
import {Answer, Task} from "../../src/interfaces/ISessionQueue.sol";
import {Positions} from "../../src/libraries/Positions.sol";
import {Verdicts} from "../../src/libraries/Verdicts.sol";
import {NodeId, NumericClass, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Trees} from "../Trees.sol";
import {Trials} from "./Trials.sol";

/// What nodes really compute, and what they say. Two of five nodes are crooked: as a miner such a one lies now and then, as
/// a validator it is silent, commits to what it cannot open, keeps back what it found, or sides with the lie. Liars of one
/// answer tell the same lie.
abstract contract Validators is Trials {
    /// What a miner's answer is.
    enum Kind {
        True,
        OtherWeights,
        HalfOtherWeights,
        EditedToken,
        OtherText,
        NoSeal,
        HidesFromPanel,
        LooseSampling
    }

    enum Manner {
        Honest,
        Silent,
        Copies,
        Withholds,
        Lies
    }

    // 1/256 nat, 1/65536 nat.
    uint256 internal constant TAU = 8;
    uint256 internal constant SPOT_TAU = 32;
    uint32 internal constant HARD_MARGIN = 6554;
    uint256 internal constant BLOCK_LIMIT = 2;
    uint256 internal constant CONTRASTS = 4;
    uint256 internal constant MAX_LEAVES = 70;
    /// From here on an answer has two blocks, the second of which begins behind `BLOCK` positions.
    uint256 internal constant TWO_BLOCKS = 48;
    uint256 internal constant BLOCK = 32;
    /// Of so many tokens such margins are too large together, though at no sixteen positions; of fewer they are not.
    uint256 internal constant LOOSE = 58;
    uint32 internal constant LOOSE_MARGIN = 1200;
    NumericClass internal constant OTHER_CLASS = NumericClass.wrap("cuda-bf16");
    /// Where `ProofOfInferenceBase` keeps records.
    uint256 internal constant RECORDS_SLOT = 2;
    /// What vouches for nodes with a history.
    uint256 internal constant HISTORY = 0.3e18;
    uint256 internal constant NODES_WITH_HISTORY = 7;

    // ---------------------------------------------------------------- nodes and classes

    function setUpMiners() internal override {
        for (uint256 i; i < 16; ++i) {
            joinAs(uint8(i % 4 + 1), address(0));
        }
        joinAs(2, client);
        skipTime(ACTIVATION_DELAY + 1);
        vm.startPrank(publisher);
        models.calibrate(MODEL, CLASS, CLASS, calibration());
        models.calibrate(MODEL, CLASS, OTHER_CLASS, calibration());
        models.calibrate(MODEL, OTHER_CLASS, CLASS, calibration());
        models.calibrate(MODEL, OTHER_CLASS, OTHER_CLASS, calibration());
        vm.stopPrank();
        // The pairs of one class of miners alone can cost stake.
        uint32[3] memory witnesses = [uint32(1), 4, 5];
        for (uint256 i; i < 3; ++i) {
            NodeId nodeId = NodeId.wrap(witnesses[i]);
            vm.prank(operatorOf(nodeId));
            models.attest(MODEL, CLASS, CLASS, calibration(), nodeId);
            vm.prank(operatorOf(nodeId));
            models.attest(MODEL, CLASS, OTHER_CLASS, calibration(), nodeId);
        }
        for (uint32 i = 1; i <= NODES_WITH_HISTORY; ++i) {
            bytes32 slot = keccak256(abi.encode(MODEL_INDEX, keccak256(abi.encode(i, RECORDS_SLOT))));
            vm.store(address(proof), slot, bytes32(HISTORY));
            passedTold[NodeId.wrap(i)] = uint96(HISTORY);
        }
        accounts.push(address(proof));
    }

    /// Two owners have two nodes each, the others one; every fourth node is of the other class.
    function joinAs(uint8 capacity, address dedicatedTo) internal override {
        uint256 key = ++keys;
        uint256 owner = key <= 4 ? (key + 1) / 2 : key;
        NodeRegistration memory wanted = registration(key, capacity);
        wanted.dedicatedTo = dedicatedTo;
        if (key % 4 == 3) wanted.numericClass = OTHER_CLASS;
        keyOf[register(owner, wanted)] = key;
        accounts.push(payoutOf(key));
        if (key > 4 || key % 2 == 1) accounts.push(ownerOf(owner));
    }

    function calibration() internal pure returns (uint256) {
        uint256 margins = uint256(HARD_MARGIN) << 56 | uint256(40_000) << 80 | uint256(65_536) << 104;
        uint256 slopes = uint256(1 << 22) << 128 | uint256(1 << 20) << 160 | uint256(1 << 23) << 192;
        // A node whose margins are large for two answers loses its record.
        return TAU | SPOT_TAU << 16 | BLOCK_LIMIT << 32 | CONTRASTS << 48 | margins | slopes | uint256(1 << 15) << 224;
    }

    // ---------------------------------------------------------------- what nodes are like

    function isCrooked(NodeId nodeId) internal pure returns (bool) {
        return NodeId.unwrap(nodeId) % 5 > 2;
    }

    function kindOf(TaskId taskId, NodeId miner) internal pure returns (Kind) {
        if (!isCrooked(miner)) return Kind.True;
        uint256 random = uint256(keccak256(abi.encode("kind", taskId, miner)));
        return Kind(random % (uint256(type(Kind).max) + 1));
    }

    function mannerOf(TaskId taskId, NodeId miner, NodeId validator) internal pure returns (Manner) {
        if (!isCrooked(validator)) return Manner.Honest;
        uint256 random = uint256(keccak256(abi.encode("manner", taskId, miner, validator)));
        // Half of them lie.
        if (random & 1 == 0) return Manner.Lies;
        return Manner((random >> 8) % 4);
    }

    /// A lie that honest validators see, if they look at enough.
    function isFalse(TaskId taskId, NodeId miner) internal pure returns (bool) {
        Kind kind = kindOf(taskId, miner);
        if (kind == Kind.LooseSampling) return tokensOf(taskId, miner) >= LOOSE;
        return kind != Kind.True && kind != Kind.NoSeal;
    }

    function tokensOf(TaskId taskId, NodeId miner) internal pure returns (uint256) {
        uint256 random = uint256(keccak256(abi.encode("tokens", taskId, miner)));
        // Some are shorter than a spot check.
        return random >> 128 & 7 == 0 ? random % 5 + 1 : random % MAX_LEAVES + 1;
    }

    /// What the right weights give on somebody's machine.
    function run(TaskId taskId, NodeId miner, NodeId onMachineOf) internal pure returns (Leaf[] memory leaves) {
        leaves = new Leaf[](tokensOf(taskId, miner));
        bytes32 truth = keccak256(abi.encode("leaf", taskId, miner));
        bytes32 noise = keccak256(abi.encode("noise", onMachineOf));
        for (uint256 i; i < leaves.length; ++i) {
            uint256 bits = uint256(keccak256(abi.encode(truth, i)));
            uint256 jitter = uint256(keccak256(abi.encode(noise, i)));
            leaves[i].id = uint32(bits >> 240);
            leaves[i].contrasts = uint64((bits & 0x07ff07ff07ff07ff) + (jitter & 0x0003000300030003));
        }
    }

    /// Other contrasts from a position on, counted from 0.
    function forge(Leaf[] memory leaves, uint256 from, uint64 by) internal pure returns (Leaf[] memory) {
        for (uint256 i = from; i < leaves.length; ++i) {
            leaves[i].contrasts ^= by;
        }
        return leaves;
    }

    function forgedFrom(Kind kind, uint256 tokens) internal pure returns (uint256) {
        if (kind == Kind.OtherWeights || kind == Kind.HidesFromPanel) return 0;
        if (kind == Kind.HalfOtherWeights) return tokens < TWO_BLOCKS ? 0 : BLOCK;
        return tokens;
    }

    /// What the miner recorded.
    function recordedBy(TaskId taskId, NodeId miner) internal pure returns (Leaf[] memory leaves) {
        leaves = run(taskId, miner, miner);
        return forge(leaves, forgedFrom(kindOf(taskId, miner), leaves.length), 0x1000100010001000);
    }

    /// What a validator says that it saw.
    function seenBy(TaskId taskId, NodeId miner, NodeId validator)
        internal
        pure
        returns (Leaf[] memory leaves, uint8 flags)
    {
        if (mannerOf(taskId, miner, validator) == Manner.Lies) return lieOf(taskId, miner);
        leaves = run(taskId, miner, validator);
        Kind kind = kindOf(taskId, miner);
        uint256 random = uint256(keccak256(abi.encode("seen", taskId, miner)));
        for (uint256 i; i < leaves.length; ++i) {
            leaves[i].margin = kind == Kind.LooseSampling ? LOOSE_MARGIN : uint32(i % 10);
        }
        if (kind == Kind.EditedToken) leaves[random % leaves.length].margin = HARD_MARGIN + 1;
        if (kind == Kind.OtherText) flags = uint8(0x10 << (random >> 128 & 3));
    }

    /// Liars clear whom they should accuse, and accuse whom they should clear.
    function lieOf(TaskId taskId, NodeId miner) internal pure returns (Leaf[] memory leaves, uint8 flags) {
        if (isFalse(taskId, miner)) return (recordedBy(taskId, miner), 0);
        uint256 random = uint256(keccak256(abi.encode("lie", taskId, miner)));
        leaves = run(taskId, miner, miner);
        if (random % 3 == 0) forge(leaves, 0, 0x2000200020002000);
        if (random % 3 == 1) leaves[random % leaves.length].margin = HARD_MARGIN + 1;
        if (random % 3 == 2) flags = Verdicts.END;
    }

    // ---------------------------------------------------------------- what they send

    function answerOf(NodeId nodeId, TaskId taskId) internal view override returns (Answer memory given) {
        given = super.answerOf(nodeId, taskId);
        given.numericClass = pool.classOf(nodeId);
        given.outputTokens = uint32(tokensOf(taskId, nodeId));
        if (kindOf(taskId, nodeId) == Kind.NoSeal) return given;
        bytes32 root = rootOf(recordedBy(taskId, nodeId), false);
        bytes32 domain = keccak256("assay.commit.proof.v1");
        given.proofSeal =
            keccak256(abi.encode(domain, block.chainid, address(queue), taskId, nodeId, root, bytes32("salt2")));
    }

    function mayCommit(SessionId id, Answer memory given) internal view override returns (bool) {
        uint96 fee_ = fee(id, given.promptTokens, given.outputTokens);
        return proof.probabilityOf(given.nodeId, MODEL_INDEX, assetOf[id], fee_) <= BPS;
    }

    /// [V17] Or is refused: too much is open for the stake.
    function commit(Task memory task, TaskId taskId, NodeId nodeId, uint256 random) internal override {
        Answer memory given = answerOf(nodeId, taskId);
        if (mayCommit(task.sessionId, given)) return super.commit(task, taskId, nodeId, random);
        bytes memory data = abi.encodeCall(queue.commit, (task, only(given)));
        bytes4 why = IProofOfInference.ProofOfInference_StakeTooSmall.selector;
        refused(operatorOf(nodeId), address(queue), data, why);
    }

    function rootOf(Leaf[] memory leaves, bool withMargins) internal pure returns (bytes32) {
        return Trees.rootOf(Trees.hashesOf(leaves, CONTRASTS, withMargins));
    }

    function statisticsOf(Leaf[] memory leaves, uint8 flags) internal pure returns (uint256) {
        uint256 largest;
        uint256 sum;
        for (uint256 i; i < leaves.length; ++i) {
            uint256 margin = leaves[i].margin;
            if (margin > largest) largest = margin;
            sum += margin < Verdicts.MARGIN_CAP ? margin : Verdicts.MARGIN_CAP;
        }
        return leaves.length | largest << 32 | sum << 64 | uint256(flags) << 96;
    }

    /// What a validator commits to; one that copies repeats what it can see of the miner, and can never open it.
    function sealOf(Audit memory audit, NodeId validator) internal view returns (bytes32) {
        if (mannerOf(audit.taskId, audit.nodeId, validator) == Manner.Copies) return audit.root;
        (Leaf[] memory seen, uint8 flags) = seenBy(audit.taskId, audit.nodeId, validator);
        bytes memory head =
            abi.encode(keccak256("assay.commit.audit.v1"), block.chainid, address(queue), audit.taskId, validator);
        bytes memory tail = abi.encode(audit.nodeId, rootOf(seen, true), statisticsOf(seen, flags), bytes32("salt'"));
        return keccak256(bytes.concat(head, tail));
    }

    function opens(Audit memory audit, NodeId validator) internal pure returns (bool) {
        Manner manner = mannerOf(audit.taskId, audit.nodeId, validator);
        return manner == Manner.Honest || manner == Manner.Lies;
    }

    function findings(Audit memory audit) internal view returns (Findings memory result) {
        (TaskId taskId, NodeId miner) = (audit.taskId, audit.nodeId);
        (Leaf[] memory seen, uint8 flags) = seenBy(taskId, miner, audit.validator);
        Leaf[] memory recorded = recordedBy(taskId, miner);
        (result.root, result.statistics) = (rootOf(seen, true), statisticsOf(seen, flags));
        result.salt = bytes32("salt'");
        (result.failingBlocks, result.worstBlock) = failing(recorded, seen);
        (result.named, result.alsoNamed) = worst(seen);
        bytes32 seed = Positions.seedOf(beacon.valueOf(audit.round), taskId, miner);
        uint256[] memory positions = Positions.draw(seed, 1, seen.length, Verdicts.SPOTS);
        result.minerLeaves = Trees.pick(recorded, positions);
        result.minerNodes = Trees.proofOf(Trees.hashesOf(recorded, CONTRASTS, false), positions);
        result.leaves = Trees.pick(seen, positions);
        result.nodes = Trees.proofOf(Trees.hashesOf(seen, CONTRASTS, true), positions);
    }

    /// Whole blocks are forged, or none of a block.
    function failing(Leaf[] memory one, Leaf[] memory other) internal pure returns (uint16 count, uint16 at_) {
        uint256 blocks = Positions.blocksOf(one.length);
        for (uint256 i = blocks; i > 0; --i) {
            uint256 first = (i - 1) * BLOCK;
            if ((one[first].contrasts ^ other[first].contrasts) & 0xf000f000f000f000 == 0) continue;
            (count, at_) = (count + 1, uint16(i - 1));
        }
    }

    /// The one that is too large, or the first of all.
    function worst(Leaf[] memory seen) internal pure returns (uint256 named, uint256 alsoNamed) {
        for (uint256 i; i < seen.length; ++i) {
            if (seen[i].margin > HARD_MARGIN) return ((i + 1) << 224, 0);
            if (i < 8) named |= (i + 1) << (224 - 32 * i);
            else if (i < 16) alsoNamed |= (i + 1) << (224 - 32 * (i - 8));
        }
    }

    function testimony(Audit memory audit, NodeId party) internal view returns (Testimony memory result) {
        bool isMiner = NodeId.unwrap(party) == NodeId.unwrap(audit.nodeId);
        uint8 flags;
        Leaf[] memory seen;
        if (isMiner) seen = recordedBy(audit.taskId, party);
        else (seen, flags) = seenBy(audit.taskId, audit.nodeId, party);
        result.root = rootOf(seen, !isMiner);
        (result.statistics, result.salt) = (statisticsOf(seen, flags), bytes32("salt'"));
        Question question = Verdicts.questionOf(audit.reasons);
        if (question == Question.Content) return result;
        uint256[] memory positions = compared(audit, question);
        result.leaves = Trees.pick(seen, positions);
        result.nodes = Trees.proofOf(Trees.hashesOf(seen, CONTRASTS, !isMiner), positions);
    }

    function compared(Audit memory audit, Question question) internal view returns (uint256[] memory) {
        if (question == Question.Sampling) return Positions.unpack(audit.named, audit.alsoNamed, audit.outputTokens);
        bytes32 seed = Positions.seedOf(beacon.valueOf(audit.round), audit.taskId, audit.nodeId);
        (uint256 first, uint256 count) = Positions.windowOf(audit.outputTokens, audit.named);
        return Positions.draw(seed, first, count, 16);
    }

    // ---------------------------------------------------------------- the truth

    /// [V12, V13, V16, V21] An honest party loses only if three others, of three owners, lied; and never in pairs that
    /// were not attested, nor while its class is paused.
    function checkVerdict(Audit memory audit, Party[] memory parties, NodeId nodeId, Rule rule) internal view override {
        NumericClass class_ = pool.classOf(nodeId);
        NumericClass minerClass = pool.classOf(audit.nodeId);
        assertTrue(models.isSlashable(MODEL_INDEX, minerClass, class_), "[V12] a pair that nobody attested");
        bool isMiner = NodeId.unwrap(nodeId) == NodeId.unwrap(audit.nodeId);
        // Of a miner it was asked when it was condemned.
        assertTrue(isMiner || block.timestamp >= pausedTold[class_], "[V16] a class that is paused");
        assertTrue(isMiner == (rule != Rule.Contradicted), "[V13] validators are contradicted");
        bool lied =
            isMiner ? isFalse(audit.taskId, nodeId) : mannerOf(audit.taskId, audit.nodeId, nodeId) == Manner.Lies;
        (uint256 honest, uint256 liars) = wordsOf(audit, parties);
        // An owner is drawn once.
        assertTrue(
            (lied ? honest : liars) >= 3, "[V21] an honest one lost to less than three liars, or a liar to fewer"
        );
    }

    /// Validators that had a word, and told the truth, or lied.
    function wordsOf(Audit memory audit, Party[] memory parties) internal pure returns (uint256 honest, uint256 liars) {
        for (uint256 i = 1; i < parties.length; ++i) {
            if (i > 1 && !parties[i].isOpen) continue;
            if (mannerOf(audit.taskId, audit.nodeId, parties[i].nodeId) == Manner.Lies) ++liars;
            else ++honest;
        }
    }

    /// [V11, V14, V15] Where nobody lies but the miner, and enough of a panel opened, what it did is found.
    function checkJudged(Audit memory audit, Party[] memory parties, bool guilty) internal pure override {
        (uint256 honest, uint256 liars) = wordsOf(audit, parties);
        bool lied = isFalse(audit.taskId, audit.nodeId);
        bool weights = Verdicts.questionOf(audit.reasons) == Question.Weights;
        if (weights && !parties[1].isOpen) return;
        if (liars == 0 && honest >= 3 && lied) assertTrue(guilty, "[V11] a lie that honest ones do not find");
        bool silentMiner = weights && !parties[0].isOpen;
        if (liars == 0 && !lied) assertTrue(!guilty || silentMiner, "[V21] no lie, and nobody lied");
    }
}
