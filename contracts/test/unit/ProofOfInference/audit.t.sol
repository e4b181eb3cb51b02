// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeState} from "../../../src/interfaces/INodePool.sol";
import {AuditState, Findings, IProofOfInference, Leaf} from "../../../src/interfaces/IProofOfInference.sol";
import {Answer, PartState, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {ProofBase} from "./ProofBase.sol";

/// Audits without a dispute: `commitAudit`, `openProof`, `reveal`, `advanceAudit`, `collect`.
contract AuditTest is ProofBase {
    /// [V20]
    function test_a_true_answer_passes_and_is_paid() public {
        Leaf[] memory leaves = honest(TOKENS);
        Task memory task = opened(0, leaves, withMargins(honest(TOKENS), 10), 0);
        NodeId miner = audit.nodeId;
        uint256 fee_ = task.parts[0].fee;
        assertEq(proof.openValueOf(miner), fee_, "at stake");
        assertEq(settle(task), 0, "not before the end of the audit");
        revealAs(audit.validator, findings(leaves, withMargins(honest(TOKENS), 10), 0));
        follow();
        assertStage(AuditState.Passed);
        assertEq(proof.openValueOf(miner), 0, "no longer at stake");
        (uint96 passed,) = proof.recordOf(miner, MODEL_INDEX);
        assertEq(passed, fee_, "vouches for its fee");
        assertEq(settle(task), 1, "settled");
        assertState(task, TaskState.Settled);
        uint256 levy = fee_ * (AUDIT_SHARE_BPS + AUDIT_PAY_BPS) / 10_000;
        assertEq(balanceOf(miner), fee_ * MINER_BPS / 10_000 - levy, "a new node pays for its audit");
        assertEq(proof.bookOf(MODEL_INDEX, COR), levy, "booked");
        assertEq(payment.balanceOf(address(proof), COR), levy, "there");
        assertStage(AuditState.Closed);
        proof.collect(audit);
        assertEq(balanceOf(audit.validator), fee_ * AUDIT_PAY_BPS / 10_000, "validator");
        assertEq(proof.bookOf(MODEL_INDEX, COR), payment.balanceOf(address(proof), COR), "book");
        vm.expectRevert(wrongStage(AuditState.None));
        proof.collect(audit);
    }

    function wrongStage(AuditState state) internal view returns (bytes memory) {
        return abi.encodeWithSelector(
            IProofOfInference.ProofOfInference_WrongState.selector, audit.taskId, audit.nodeId, state
        );
    }

    // ---------------------------------------------------------------- commitAudit

    /// [V3]
    function test_only_the_drawn_validator_commits() public {
        drawn(0, honest(TOKENS));
        address stranger = operatorOf(audit.nodeId);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotOperator.selector, audit.validator, stranger)
        );
        vm.prank(stranger);
        proof.commitAudit(audit, bytes32("seal"));
        address operator = operatorOf(audit.validator);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_EmptySeal.selector));
        vm.prank(operator);
        proof.commitAudit(audit, 0);
    }

    /// [V9]
    function test_a_commitment_counts_to_the_last_second() public {
        drawn(0, honest(TOKENS));
        uint40 until = untilOfAudit();
        vm.warp(until + 1);
        address operator = operatorOf(audit.validator);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_TooLate.selector, audit.taskId, audit.nodeId, until
            )
        );
        vm.prank(operator);
        proof.commitAudit(audit, bytes32("seal"));
        vm.warp(until);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_TooEarly.selector, audit.taskId, audit.nodeId, until
            )
        );
        proof.advanceAudit(audit);
        vm.prank(operator);
        proof.commitAudit(audit, bytes32("seal"));
    }

    /// [V4]
    function test_an_idle_validator_pays_a_little_and_is_replaced() public {
        drawn(0, honest(TOKENS));
        NodeId idle = audit.validator;
        uint256 stake = stakeOf(idle);
        vm.warp(untilOfAudit() + 1);
        vm.prank(keeper);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Drawn);
        assertTrue(NodeId.unwrap(audit.validator) != NodeId.unwrap(idle), "another");
        uint256 taken = stake * DUTY_BPS / 10_000;
        assertEq(stakeOf(idle), stake - taken, "duty");
        assertEq(tipsOf(keeper), taken / 10, "keeper");
        assertTrue(pool.nodeOf(idle).state != NodeState.Jailed, "free");
    }

    /// [V4, V8]
    function test_after_three_idle_validators_the_answer_is_unverified() public {
        Task memory task = drawn(0, honest(TOKENS));
        for (uint256 i; i < 3; ++i) {
            vm.warp(untilOfAudit() + 1);
            proof.advanceAudit(audit);
            follow();
        }
        assertStage(AuditState.Unverified);
        assertEq(settle(task), 1, "paid all the same");
        (uint96 passed,) = proof.recordOf(audit.nodeId, MODEL_INDEX);
        assertEq(passed, 0, "vouches for nothing");
        (AuditState state,,) = proof.statusOf(audit.taskId, audit.nodeId);
        assertEq(uint8(state), uint8(AuditState.None), "nobody is to be paid");
    }

    // ---------------------------------------------------------------- openProof

    /// [V3]
    function test_the_miner_opens_what_it_committed_to() public {
        Leaf[] memory leaves = honest(TOKENS);
        drawn(0, leaves);
        Answer memory given = proven(audit.taskId, audit.nodeId, leaves);
        bytes32 root = rootOf(leaves, false);
        vm.expectRevert(wrongStage(AuditState.Drawn));
        proof.openProof(audit, given, root, bytes32("salt2"), 0);
        commitAudit(withMargins(honest(TOKENS), 10), 0);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongOpening.selector);
        proof.openProof(audit, given, bytes32("root"), bytes32("salt2"), 0);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongOpening.selector);
        proof.openProof(audit, given, root, bytes32("salt"), 0);
        --given.outputTokens;
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongOpening.selector);
        proof.openProof(audit, given, root, bytes32("salt2"), 0);
        openProof(leaves);
        assertStage(AuditState.Opened);
        assertEq(audit.outputTokens, TOKENS, "tokens");
    }

    /// [V5]
    function test_a_miner_that_does_not_open_loses_as_for_fraud() public {
        Task memory task = drawn(0, honest(TOKENS));
        commitAudit(withMargins(honest(TOKENS), 10), 0);
        NodeId miner = audit.nodeId;
        uint256 stake = stakeOf(miner);
        uint256 supply = token.totalSupply();
        vm.warp(untilOfAudit() + 1);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Disproved);
        assertEq(stakeOf(miner), stake - stake * FRAUD_BPS / 10_000, "stake");
        assertEq(balanceOf(audit.validator), stake * PROVER_BPS / 10_000, "half");
        assertEq(payment.balanceOf(client, COR), stake * CLIENT_BPS / 10_000, "client");
        assertEq(supply - token.totalSupply(), stake * (10_000 - PROVER_BPS - CLIENT_BPS) / 10_000, "burnt");
        assertEq(uint8(pool.nodeOf(miner).state), uint8(NodeState.Jailed), "jailed");
        uint256 before = free(ROUTER_LANE);
        uint256 held_ = held(ROUTER_LANE);
        assertEq(settle(task), 1, "ended");
        task.parts[0].state = PartState.Failed;
        assertState(task, TaskState.Refunded);
        assertEq(held(ROUTER_LANE), held_ - task.held, "held");
        assertEq(free(ROUTER_LANE), before + task.held - TIP, "the client has all but the tip back");
    }

    // ---------------------------------------------------------------- reveal

    /// [V6]
    function test_a_reveal_is_what_was_committed_and_its_leaves_are_there() public {
        Leaf[] memory leaves = honest(TOKENS);
        opened(0, leaves, withMargins(honest(TOKENS), 10), 0);
        Findings memory given = findings(leaves, withMargins(honest(TOKENS), 11), 0);
        vm.prank(operatorOf(audit.validator));
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongOpening.selector);
        proof.reveal(audit, given);
        given = findings(leaves, withMargins(honest(TOKENS), 10), 0);
        ++given.leaves[0].margin;
        vm.prank(operatorOf(audit.validator));
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongRoot.selector);
        proof.reveal(audit, given);
        --given.leaves[0].margin;
        ++given.minerLeaves[0].id;
        vm.prank(operatorOf(audit.validator));
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongRoot.selector);
        proof.reveal(audit, given);
        --given.minerLeaves[0].id;
        given.failingBlocks = 6;
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadBlocks.selector, 6, 0, 5));
        proof.reveal(audit, given);
        (given.failingBlocks, given.worstBlock) = (0, 5);
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadBlocks.selector, 0, 5, 5));
        proof.reveal(audit, given);
        given.worstBlock = 0;
        vm.prank(operatorOf(audit.validator));
        proof.reveal(audit, given);
        follow();
        assertStage(AuditState.Passed);
    }

    /// [V5]
    function test_a_validator_that_does_not_reveal_loses_as_for_fraud() public {
        Task memory task = opened(0, honest(TOKENS), withMargins(honest(TOKENS), 10), 0);
        uint256 stake = stakeOf(audit.validator);
        vm.warp(untilOfAudit() + 1);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Unverified);
        assertEq(stakeOf(audit.validator), stake - stake * FRAUD_BPS / 10_000, "stake");
        assertEq(settle(task), 1, "paid");
    }

    /// [V7]
    function test_without_the_round_nobody_is_blamed() public {
        drawn(0, honest(TOKENS));
        commitAudit(withMargins(honest(TOKENS), 10), 0);
        openProof(honest(TOKENS));
        uint256 stake = stakeOf(audit.validator);
        vm.warp(untilOfAudit() + 1);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Unverified);
        assertEq(stakeOf(audit.validator), stake, "stake");
    }

    function accused(Leaf[] memory leaves, Leaf[] memory seen, uint8 flags, Findings memory given) internal {
        opened(0, leaves, seen, flags);
        Findings memory all = findings(leaves, seen, flags);
        (all.failingBlocks, all.worstBlock) = (given.failingBlocks, given.worstBlock);
        (all.named, all.alsoNamed) = (given.named, given.alsoNamed);
        vm.prank(operatorOf(audit.validator));
        proof.reveal(audit, all);
        follow();
        assertStage(AuditState.Accused);
    }

    function test_reasons_of_a_verdict() public {
        Findings memory given;
        uint256 snapshot = vm.snapshotState();
        accused(forged(TOKENS), withMargins(honest(TOKENS), 10), 0, given);
        assertEq(audit.reasons, 0x02, "spot");
        vm.revertToState(snapshot);
        given.failingBlocks = 2;
        accused(honest(TOKENS), withMargins(honest(TOKENS), 10), 0, given);
        assertEq(audit.reasons, 0x01, "blocks");
        vm.revertToState(snapshot);
        given.failingBlocks = 1;
        given.named = uint256(7) << 224;
        Leaf[] memory seen = withMargins(honest(TOKENS), 10);
        seen[6].margin = uint32(HARD_MARGIN + 1);
        accused(honest(TOKENS), seen, 0, given);
        assertEq(audit.reasons, 0x04, "one margin; one block is not enough");
        vm.revertToState(snapshot);
        accused(honest(TOKENS), withMargins(honest(TOKENS), 1000), 0, given);
        assertEq(audit.reasons, 0x08, "sum");
        vm.revertToState(snapshot);
        accused(honest(TOKENS), withMargins(honest(TOKENS), 10), 0x40, given);
        assertEq(audit.reasons, 0x40, "flag");
    }

    function test_who_accuses_the_sampling_names_positions() public {
        opened(0, honest(TOKENS), withMargins(honest(TOKENS), 1000), 0);
        Findings memory given = findings(honest(TOKENS), withMargins(honest(TOKENS), 1000), 0);
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadPosition.selector, 0, TOKENS));
        proof.reveal(audit, given);
        given.named = uint256(9) << 224 | uint256(9) << 192;
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadPosition.selector, 9, TOKENS));
        proof.reveal(audit, given);
        given.named = uint256(151) << 224;
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadPosition.selector, 151, TOKENS));
        proof.reveal(audit, given);
        (given.named, given.alsoNamed) = (uint256(9) << 224, 1);
        vm.prank(operatorOf(audit.validator));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_BadPosition.selector, 0, TOKENS));
        proof.reveal(audit, given);
    }

    /// A validator that cannot have the miner's leaves accuses without them. [V6]
    function test_leaves_that_cannot_be_had_are_a_reason() public {
        Leaf[] memory leaves = honest(TOKENS);
        opened(0, leaves, withMargins(honest(TOKENS), 10), 0);
        Findings memory given = findings(leaves, withMargins(honest(TOKENS), 10), 0);
        delete given.minerLeaves;
        delete given.minerNodes;
        vm.prank(operatorOf(audit.validator));
        proof.reveal(audit, given);
        follow();
        assertStage(AuditState.Accused);
        assertEq(audit.reasons, 0x02, "spot");
    }

    /// [V7]
    function test_a_panel_without_a_round_is_void() public {
        Findings memory given;
        accused(forged(TOKENS), withMargins(honest(TOKENS), 10), 0, given);
        uint256 stake = stakeOf(audit.nodeId);
        vm.warp(untilOfAudit() + 1);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "nobody is slashed");
    }

    // ---------------------------------------------------------------- what is brought

    /// [V10]
    function test_an_audit_that_is_not_the_stored_one_moves_nothing() public {
        drawn(0, honest(TOKENS));
        ++audit.probabilityBps;
        address operator = operatorOf(audit.validator);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_StaleAudit.selector);
        vm.prank(operator);
        proof.commitAudit(audit, bytes32("seal"));
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_StaleAudit.selector);
        proof.advanceAudit(audit);
    }
}
