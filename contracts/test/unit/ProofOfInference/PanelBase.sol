// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeState} from "../../../src/interfaces/INodePool.sol";
import {AuditState, Findings, Leaf, Testimony} from "../../../src/interfaces/IProofOfInference.sol";
import {PartState, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {Positions} from "../../../src/libraries/Positions.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {Trees} from "../../Trees.sol";
import {ProofBase} from "./ProofBase.sol";

/// What tests of disputes do again and again.
abstract contract PanelBase is ProofBase {
    /// Where `ProofOfInferenceBase` keeps the failures of classes.
    uint256 internal constant FAILURES_SLOT = 4;

    uint256 internal supply;
    bytes private taskThere;

    // ---------------------------------------------------------------- steps

    /// Accused by its validator, who saw `seen`.
    function accuse(Leaf[] memory leaves, Leaf[] memory seen, uint8 flags, Findings memory given) internal {
        taskThere = abi.encode(opened(0, leaves, seen, flags));
        Findings memory all = findings(leaves, seen, flags);
        (all.failingBlocks, all.worstBlock) = (given.failingBlocks, given.worstBlock);
        (all.named, all.alsoNamed) = (given.named, given.alsoNamed);
        vm.prank(operatorOf(audit.validator));
        proof.reveal(audit, all);
        follow();
        assertStage(AuditState.Accused);
        reveal(audit.round);
        proof.convene(audit);
        follow();
        assertStage(AuditState.Convened);
        supply = token.totalSupply();
    }

    /// Settles the task, whose only answer failed or not.
    function assertEnds(PartState part, TaskState state) internal {
        Task memory task = abi.decode(taskThere, (Task));
        assertEq(settle(task), 1, "ended");
        task.parts[0].state = part;
        assertState(task, state);
    }

    function accuse(Leaf[] memory leaves, Leaf[] memory seen, uint8 flags) internal {
        Findings memory given;
        accuse(leaves, seen, flags, given);
    }

    function commitAs(uint256 i, Leaf[] memory seen, uint8 flags) internal {
        NodeId member = parties[i].nodeId;
        bytes32 seal = sealOf(member, rootOf(seen, true), statisticsOf(seen, flags));
        vm.prank(operatorOf(member));
        proof.commitPanel(audit, parties, member, seal);
        follow();
    }

    /// Members 2 to 4 commit to the same.
    function commitPanel(Leaf[] memory seen, uint8 flags) internal {
        for (uint256 i = 2; i < 5; ++i) {
            commitAs(i, seen, flags);
        }
        assertStage(AuditState.Hearing);
        reveal(audit.round);
    }

    function comparedPositions(bool named) internal view returns (uint256[] memory) {
        if (named) return Positions.unpack(audit.named, audit.alsoNamed, TOKENS);
        bytes32 seed = Positions.seedOf(beacon.valueOf(audit.round), audit.taskId, audit.nodeId);
        (uint256 first, uint256 count) = Positions.windowOf(TOKENS, audit.named);
        return Positions.draw(seed, first, count, 16);
    }

    function testimony(Leaf[] memory seen, uint8 flags, bool isMiner) internal view returns (Testimony memory result) {
        result.root = rootOf(seen, !isMiner);
        (result.statistics, result.salt) = (statisticsOf(seen, flags), bytes32("salt'"));
        if (audit.reasons & 0x0f == 0) return result;
        uint256[] memory positions = comparedPositions(audit.reasons & 0x03 == 0);
        result.leaves = Trees.pick(seen, positions);
        result.nodes = Trees.proofOf(Trees.hashesOf(seen, CONTRASTS, !isMiner), positions);
    }

    function testifyAs(uint256 i, Leaf[] memory seen, uint8 flags) internal {
        proof.testify(audit, parties, parties[i].nodeId, testimony(seen, flags, i == 0));
        follow();
    }

    function judge() internal {
        vm.prank(keeper);
        proof.judge(audit, parties);
        follow();
    }

    /// A judgement that nobody appeals against.
    function carryOut() internal {
        judge();
        assertStage(AuditState.Condemned);
        vm.warp(untilOfAudit() + 1);
        judge();
    }

    function seen10() internal pure returns (Leaf[] memory) {
        return withMargins(honest(TOKENS), 10);
    }

    function assertSlashed(NodeId nodeId, uint256 stake) internal view {
        assertEq(stakeOf(nodeId), stake - stake * FRAUD_BPS / 10_000, "slashed");
        assertEq(uint8(pool.nodeOf(nodeId).state), uint8(NodeState.Jailed), "jailed");
    }

    // ---------------------------------------------------------------- answers in dispute

    /// Everybody but the miner has run the right weights.
    function hearAll(Leaf[] memory leaves) internal {
        testifyAs(0, leaves, 0);
        for (uint256 i = 1; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
    }

    /// One token that the model would not have sampled, which the accuser names.
    function edited() internal pure returns (Leaf[] memory seen, Findings memory given) {
        seen = seen10();
        seen[76].margin = uint32(HARD_MARGIN + 1);
        given.named = uint256(77) << 224;
    }

    function content(uint8 flag, uint256 raised) internal {
        attest(3);
        accuse(honest(TOKENS), seen10(), flag);
        for (uint256 i = 2; i < 5; ++i) {
            commitAs(i, seen10(), i - 2 < raised ? flag : 0);
        }
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), i - 2 < raised ? flag : 0);
        }
    }
}
