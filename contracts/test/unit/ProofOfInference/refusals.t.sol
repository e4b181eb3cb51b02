// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AuditState, Findings, IProofOfInference, Leaf, Testimony} from "../../../src/interfaces/IProofOfInference.sol";
import {Task} from "../../../src/interfaces/ISessionQueue.sol";
import {Multiproof} from "../../../src/libraries/Multiproof.sol";
import {NodeId, TaskId} from "../../../src/types/Ids.sol";
import {ProofBase} from "./ProofBase.sol";

/// What an audit is refused for, beside its state, its time and its sender.
contract ProofRefusalsTest is ProofBase {
    /// Where `ProofOfInferenceBase` keeps books.
    uint256 internal constant BOOKS_SLOT = 3;

    function hashes(uint256[] memory positions, Leaf[] calldata leaves, uint256 contrasts) external pure {
        Multiproof.hashesOf(positions, leaves, contrasts, false);
    }

    function seen() internal pure returns (Leaf[] memory) {
        return withMargins(honest(TOKENS), 10);
    }

    function test_an_answer_is_exposed_once() public {
        Task memory task = answered(0, honest(TOKENS));
        (TaskId taskId, NodeId miner) = (idOf(task), task.parts[0].nodeId);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_AlreadyExposed.selector, taskId, miner)
        );
        vm.prank(address(queue));
        proof.expose(taskId, miner, MODEL_INDEX, COR, 1);
    }

    /// [V6]
    function test_a_reveal_waits_for_its_round() public {
        drawn(0, honest(TOKENS));
        commitAudit(seen(), 0);
        openProof(honest(TOKENS));
        Findings memory given;
        (given.root, given.statistics) = (rootOf(seen(), true), statisticsOf(seen(), 0));
        given.salt = bytes32("salt'");
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_RoundNotReady.selector, audit.round));
        proof.reveal(audit, given);
    }

    /// Which blocks fail and where a panel looks is said by whoever opens: by its validator alone. [V3, V6]
    function test_nobody_else_reveals() public {
        opened(0, honest(TOKENS), seen(), 0);
        Findings memory given = findings(honest(TOKENS), seen(), 0);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_NotOperator.selector, audit.validator, address(this)
            )
        );
        proof.reveal(audit, given);
    }

    /// What no honest arithmetic gives is refused; its validator cannot open it. [V6]
    function test_statistics_of_another_length() public {
        drawn(0, honest(TOKENS));
        uint256 word = statisticsOf(seen(), 0) + 1;
        bytes32 seal = sealOf(audit.validator, rootOf(seen(), true), word);
        vm.prank(operatorOf(audit.validator));
        proof.commitAudit(audit, seal);
        follow();
        openProof(honest(TOKENS));
        reveal(audit.round);
        Findings memory given = findings(honest(TOKENS), seen(), 0);
        given.statistics = word;
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadStatistics.selector, word, TOKENS));
        proof.reveal(audit, given);
    }

    /// [V6]
    function test_leaves_and_nodes_of_another_number() public {
        opened(0, honest(TOKENS), seen(), 0);
        Findings memory given = findings(honest(TOKENS), seen(), 0);
        Leaf[] memory three = new Leaf[](3);
        Leaf[] memory four = given.leaves;
        given.leaves = three;
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_LeafCount.selector, 3, 4));
        proof.reveal(audit, given);
        given.leaves = four;
        uint256 length = given.nodes.length;
        bytes32[] memory nodes = given.nodes;
        assembly {
            mstore(nodes, sub(length, 1))
        }
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadProof.selector, length - 1));
        proof.reveal(audit, given);
    }

    function test_contrasts_that_the_model_does_not_have() public {
        uint256[] memory positions = new uint256[](1);
        positions[0] = 7;
        Leaf[] memory leaves = new Leaf[](1);
        leaves[0].contrasts = 1 << 32;
        this.hashes(positions, leaves, 4);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadLeaf.selector, 7));
        this.hashes(positions, leaves, 2);
    }

    /// [V20]
    function test_validators_wait_for_what_is_put_aside() public {
        Task memory task = opened(0, honest(TOKENS), seen(), 0);
        revealAs(audit.validator, findings(honest(TOKENS), seen(), 0));
        follow();
        settle(task);
        bytes32 slot = keccak256(abi.encode(COR, keccak256(abi.encode(MODEL_INDEX, BOOKS_SLOT))));
        bytes32 booked = vm.load(address(proof), slot);
        vm.store(address(proof), slot, bytes32(uint256(1)));
        uint256 pay = uint256(audit.fee) * AUDIT_PAY_BPS / 10_000;
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BookTooSmall.selector, pay, 1));
        proof.collect(audit);
        vm.store(address(proof), slot, booked);
        proof.collect(audit);
        assertEq(balanceOf(audit.validator), pay, "later");
    }

    /// [V3]
    function test_who_has_not_committed_does_not_testify() public {
        opened(0, forged(TOKENS), seen(), 0);
        revealAs(audit.validator, findings(forged(TOKENS), seen(), 0));
        follow();
        reveal(audit.round);
        proof.convene(audit);
        follow();
        for (uint256 i = 2; i < 4; ++i) {
            NodeId member = parties[i].nodeId;
            bytes32 seal = sealOf(member, rootOf(seen(), true), statisticsOf(seen(), 0));
            vm.prank(operatorOf(member));
            proof.commitPanel(audit, parties, member, seal);
            follow();
        }
        vm.warp(untilOfAudit() + 1);
        proof.advancePanel(audit, parties);
        follow();
        assertStage(AuditState.Hearing);
        Testimony memory nothing;
        NodeId idle = parties[4].nodeId;
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotSealed.selector, idle));
        proof.testify(audit, parties, idle, nothing);
    }
}
