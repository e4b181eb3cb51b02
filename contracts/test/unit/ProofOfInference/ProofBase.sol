// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    Audit,
    AuditState,
    Findings,
    IProofOfInference,
    Leaf,
    Party,
    Testimony
} from "../../../src/interfaces/IProofOfInference.sol";
import {Answer, Part, Task, TaskRequest} from "../../../src/interfaces/ISessionQueue.sol";
import {Positions} from "../../../src/libraries/Positions.sol";
import {NodeId, NumericClass, SessionId, TaskId} from "../../../src/types/Ids.sol";
import {Log} from "../../IVm.sol";
import {Trees} from "../../Trees.sol";
import {QueueBase} from "../SessionQueue/QueueBase.sol";

/// A proven session of one drawn node among eight owners, and answers with everything that a proof of them takes.
abstract contract ProofBase is QueueBase {
    // 1/256 nat, 1/65536 nat.
    uint256 internal constant TAU = 8;
    uint256 internal constant SPOT_TAU = 32;
    uint256 internal constant HARD_MARGIN = 6554;
    uint256 internal constant BLOCK_LIMIT = 2;
    uint256 internal constant CONTRASTS = 4;
    uint32 internal constant TOKENS = 150;
    uint256 internal constant NODES = 8;

    /// What a test follows: the latest of each that was told.
    Audit internal audit;
    Party[] internal parties;
    mapping(NodeId => Audit) internal audits;

    function setUp() public virtual override {
        super.setUp();
        for (uint256 i = 5; i <= NODES; ++i) {
            newNode(i, 8);
        }
        skipTime(ACTIVATION_DELAY + 1);
        calibrate(CLASS, CLASS);
        id = activeSession(1, 1);
        recordTasks();
    }

    // ---------------------------------------------------------------- calibrations

    function calibration() internal pure returns (uint256) {
        uint256 margins = HARD_MARGIN << 56 | uint256(40_000) << 80 | uint256(65_536) << 104;
        uint256 slopes = uint256(1 << 22) << 128 | uint256(1 << 20) << 160 | uint256(1 << 23) << 192;
        return TAU | SPOT_TAU << 16 | BLOCK_LIMIT << 32 | CONTRASTS << 48 | margins | slopes | uint256(1 << 20) << 224;
    }

    function calibrate(NumericClass minerClass, NumericClass validatorClass) internal {
        vm.prank(publisher);
        models.calibrate(MODEL, minerClass, validatorClass, calibration());
    }

    function attest(uint32 nodes) internal {
        for (uint32 i = 1; i <= nodes; ++i) {
            vm.prank(operatorOf(NodeId.wrap(i)));
            models.attest(MODEL, CLASS, CLASS, calibration(), NodeId.wrap(i));
        }
    }

    // ---------------------------------------------------------------- answers

    /// What an honest run records at every position.
    function honest(uint256 tokens) internal pure returns (Leaf[] memory leaves) {
        leaves = new Leaf[](tokens);
        for (uint256 i; i < tokens; ++i) {
            uint256 bits = uint256(keccak256(abi.encode("leaf", i)));
            leaves[i] = Leaf({id: uint32(bits >> 240), contrasts: uint64(bits) & 0x0fff0fff0fff0fff, margin: 0});
        }
    }

    /// What other weights record.
    function forged(uint256 tokens) internal pure returns (Leaf[] memory leaves) {
        leaves = honest(tokens);
        for (uint256 i; i < tokens; ++i) {
            leaves[i].contrasts ^= 0x1000100010001000;
        }
    }

    function withMargins(Leaf[] memory leaves, uint32 margin) internal pure returns (Leaf[] memory) {
        for (uint256 i; i < leaves.length; ++i) {
            leaves[i].margin = margin;
        }
        return leaves;
    }

    function rootOf(Leaf[] memory leaves, bool withMargin) internal pure returns (bytes32) {
        return Trees.rootOf(Trees.hashesOf(leaves, CONTRASTS, withMargin));
    }

    /// An answer whose miner recorded these leaves.
    function proven(TaskId taskId, NodeId nodeId, Leaf[] memory leaves) internal view returns (Answer memory result) {
        result = answer(nodeId, 90, uint32(leaves.length));
        result.proofSeal = keccak256(
            abi.encode(
                keccak256("assay.commit.proof.v1"),
                block.chainid,
                address(queue),
                taskId,
                nodeId,
                rootOf(leaves, false),
                bytes32("salt2")
            )
        );
    }

    /// A task that was answered by its node with these leaves.
    function answered(uint64 nonce, Leaf[] memory leaves) internal returns (Task memory task) {
        task = submit(wanted(nonce));
        return commit(task, proven(idOf(task), task.parts[0].nodeId, leaves));
    }

    /// The end of the epoch, its round named and revealed.
    function drawable(Task memory task) internal returns (uint64 round) {
        (, uint40 committedAt,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        uint40 epoch = committedAt / AUDIT_EPOCH;
        skipTime((epoch + 1) * AUDIT_EPOCH + 1 - block.timestamp);
        round = proof.closeEpoch(epoch);
        reveal(round);
    }

    /// A task whose only answer is being audited.
    function drawn(uint64 nonce, Leaf[] memory leaves) internal returns (Task memory task) {
        task = answered(nonce, leaves);
        drawable(task);
        settle(task);
        follow();
        assertStage(AuditState.Drawn);
    }

    // ---------------------------------------------------------------- an audit

    /// Takes over what was told last.
    function follow() internal {
        Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; ++i) {
            bytes32 topic = logs[i].topics[0];
            if (topic == IProofOfInference.AuditMoved.selector) {
                (, audit) = abi.decode(logs[i].data, (uint40, Audit));
                audits[audit.nodeId] = audit;
            }
            if (topic != IProofOfInference.PanelMoved.selector) continue;
            Party[] memory told = abi.decode(logs[i].data, (Party[]));
            delete parties;
            for (uint256 k; k < told.length; ++k) {
                parties.push(told[k]);
            }
        }
    }

    function sealOf(NodeId validator, bytes32 root, uint256 statistics) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("assay.commit.audit.v1"),
                block.chainid,
                address(queue),
                audit.taskId,
                validator,
                audit.nodeId,
                root,
                statistics,
                bytes32("salt'")
            )
        );
    }

    /// The statistics of leaves with margins.
    function statisticsOf(Leaf[] memory leaves, uint8 flags) internal pure returns (uint256) {
        uint256 largest;
        uint256 sum;
        for (uint256 i; i < leaves.length; ++i) {
            uint256 margin = leaves[i].margin;
            if (margin > largest) largest = margin;
            sum += margin < 32_768 ? margin : 32_768;
        }
        return leaves.length | largest << 32 | sum << 64 | uint256(flags) << 96;
    }

    function commitAudit(Leaf[] memory seen, uint8 flags) internal {
        bytes32 seal = sealOf(audit.validator, rootOf(seen, true), statisticsOf(seen, flags));
        vm.prank(operatorOf(audit.validator));
        proof.commitAudit(audit, seal);
        follow();
    }

    function openProof(Leaf[] memory leaves) internal {
        Answer memory given = proven(audit.taskId, audit.nodeId, leaves);
        proof.openProof(audit, given, rootOf(leaves, false), bytes32("salt2"), keccak256("proof block"));
        follow();
    }

    /// What the validator opens: the miner's leaves and its own at the drawn positions.
    function findings(Leaf[] memory leaves, Leaf[] memory seen, uint8 flags)
        internal
        view
        returns (Findings memory result)
    {
        uint256[] memory positions = spots(leaves.length);
        result.root = rootOf(seen, true);
        result.statistics = statisticsOf(seen, flags);
        result.salt = bytes32("salt'");
        result.minerLeaves = Trees.pick(leaves, positions);
        result.minerNodes = Trees.proofOf(Trees.hashesOf(leaves, CONTRASTS, false), positions);
        result.leaves = Trees.pick(seen, positions);
        result.nodes = Trees.proofOf(Trees.hashesOf(seen, CONTRASTS, true), positions);
    }

    function spots(uint256 tokens) internal view returns (uint256[] memory) {
        bytes32 seed = Positions.seedOf(beacon.valueOf(audit.round), audit.taskId, audit.nodeId);
        return Positions.draw(seed, 1, tokens, 4);
    }

    /// An audit up to where its validator may open.
    function opened(uint64 nonce, Leaf[] memory leaves, Leaf[] memory seen, uint8 flags)
        internal
        returns (Task memory task)
    {
        task = drawn(nonce, leaves);
        commitAudit(seen, flags);
        openProof(leaves);
        reveal(audit.round);
    }

    // ---------------------------------------------------------------- what is seen

    function assertStage(AuditState wanted_) internal view {
        (AuditState state,, bytes32 digest) = proof.statusOf(audit.taskId, audit.nodeId);
        assertEq(uint8(state), uint8(wanted_), "stage");
        assertEq(digest, bytes32(uint256(keccak256(abi.encode(audit))) >> 48 << 48), "digest, written anew");
        assertEq(digest, proof.digestOf(audit), "digest");
    }

    function untilOfAudit() internal view returns (uint40 until) {
        (, until,) = proof.statusOf(audit.taskId, audit.nodeId);
    }

    function stakeOf(NodeId nodeId) internal view returns (uint256) {
        return payment.stakeOf(nodeId);
    }

    function balanceOf(NodeId nodeId) internal view returns (uint256) {
        return payment.balanceOf(pool.payoutOf(nodeId), COR);
    }

    /// The opening of a validator, by its operator.
    function revealAs(NodeId validator, Findings memory given) internal {
        vm.prank(operatorOf(validator));
        proof.reveal(audit, given);
    }
}
