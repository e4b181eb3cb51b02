// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration, NodeState} from "../../../src/interfaces/INodePool.sol";
import {AuditState, Findings, IProofOfInference, Leaf, Testimony} from "../../../src/interfaces/IProofOfInference.sol";
import {PartState, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {Positions} from "../../../src/libraries/Positions.sol";
import {NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {Trees} from "../../Trees.sol";
import {PanelBase} from "./PanelBase.sol";

/// Disputes: `convene`, `commitPanel`, `testify`, `judge`, `advancePanel`.
contract PanelTest is PanelBase {
    // ---------------------------------------------------------------- weights

    /// [V11, V12]
    function test_other_weights_cost_the_stake() public {
        attest(3);
        accuse(forged(TOKENS), seen10(), 0);
        commitPanel(seen10(), 0);
        hearAll(forged(TOKENS));
        NodeId miner = audit.nodeId;
        uint256 stake = stakeOf(miner);
        carryOut();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        for (uint256 i = 1; i < 5; ++i) {
            assertEq(balanceOf(parties[i].nodeId), stake * PROVER_BPS / 10_000 / 4, "a prover's share");
        }
        assertEq(payment.balanceOf(client, COR), stake * CLIENT_BPS / 10_000, "client");
        assertEq(supply - token.totalSupply(), stake * 3000 / 10_000, "burnt");
        assertEnds(PartState.Failed, TaskState.Refunded);
        assertEq(audit.earners, 0x0f, "four have done their duty");
    }

    /// [V12]
    function test_without_three_attestations_nobody_is_slashed() public {
        attest(2);
        accuse(forged(TOKENS), seen10(), 0);
        commitPanel(seen10(), 0);
        hearAll(forged(TOKENS));
        uint256 stake = stakeOf(audit.nodeId);
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
        assertEnds(PartState.Failed, TaskState.Refunded);
    }

    /// [V13]
    function test_a_false_accuser_loses() public {
        attest(3);
        Leaf[] memory lie = withMargins(forged(TOKENS), 10);
        accuse(honest(TOKENS), lie, 0);
        commitPanel(seen10(), 0);
        testifyAs(0, honest(TOKENS), 0);
        testifyAs(1, lie, 0);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
        (NodeId accuser, NodeId miner) = (audit.validator, audit.nodeId);
        uint256 stake = stakeOf(accuser);
        uint256 minersStake = stakeOf(miner);
        judge();
        assertStage(AuditState.Passed);
        assertSlashed(accuser, stake);
        assertEq(stakeOf(miner), minersStake, "the miner keeps its own");
        assertEq(balanceOf(parties[2].nodeId), stake * PROVER_BPS / 10_000 / 3, "a prover's share");
        assertEq(audit.earners, 0x0e, "the accuser is not paid");
        assertEnds(PartState.Committed, TaskState.Settled);
    }

    /// [V13]
    function test_a_member_outside_the_cluster_loses() public {
        attest(3);
        accuse(forged(TOKENS), seen10(), 0);
        Leaf[] memory accomplice = withMargins(forged(TOKENS), 10);
        commitAs(2, seen10(), 0);
        commitAs(3, seen10(), 0);
        commitAs(4, accomplice, 0);
        reveal(audit.round);
        testifyAs(0, forged(TOKENS), 0);
        for (uint256 i = 1; i < 4; ++i) {
            testifyAs(i, seen10(), 0);
        }
        testifyAs(4, accomplice, 0);
        NodeId member = parties[4].nodeId;
        (uint256 stake, uint256 membersStake) = (stakeOf(audit.nodeId), stakeOf(member));
        NodeId miner = audit.nodeId;
        carryOut();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        assertSlashed(member, membersStake);
    }

    /// [V11]
    function test_two_against_two_decide_nothing() public {
        attest(3);
        accuse(forged(TOKENS), seen10(), 0);
        Leaf[] memory accomplice = withMargins(forged(TOKENS), 10);
        commitAs(2, seen10(), 0);
        commitAs(3, accomplice, 0);
        vm.warp(untilOfAudit() + 1);
        uint256 stake = stakeOf(parties[4].nodeId);
        proof.advancePanel(audit, parties);
        follow();
        assertStage(AuditState.Hearing);
        assertEq(stakeOf(parties[4].nodeId), stake - stake * DUTY_BPS / 10_000, "the idle one pays a little");
        reveal(audit.round);
        testifyAs(0, forged(TOKENS), 0);
        testifyAs(1, seen10(), 0);
        testifyAs(2, seen10(), 0);
        testifyAs(3, accomplice, 0);
        stake = stakeOf(audit.nodeId);
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
        assertEq(stakeOf(parties[3].nodeId), stakeOf(parties[2].nodeId), "nobody loses");
    }

    /// [V5]
    function test_a_miner_that_hides_its_leaves_loses() public {
        accuse(forged(TOKENS), seen10(), 0);
        commitPanel(seen10(), 0);
        for (uint256 i = 1; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_TooEarly.selector);
        proof.judge(audit, parties);
        NodeId miner = audit.nodeId;
        uint256 stake = stakeOf(miner);
        vm.warp(untilOfAudit() + 1);
        judge();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
    }

    /// [V5]
    function test_a_member_that_hides_what_it_found_loses() public {
        attest(3);
        accuse(forged(TOKENS), seen10(), 0);
        commitPanel(seen10(), 0);
        testifyAs(0, forged(TOKENS), 0);
        for (uint256 i = 1; i < 4; ++i) {
            testifyAs(i, seen10(), 0);
        }
        NodeId silent = parties[4].nodeId;
        uint256 stake = stakeOf(silent);
        vm.warp(untilOfAudit() + 1);
        carryOut();
        assertStage(AuditState.Disproved);
        assertSlashed(silent, stake);
    }

    /// [V7]
    function test_a_hearing_without_a_round_is_void() public {
        accuse(forged(TOKENS), seen10(), 0);
        for (uint256 i = 2; i < 5; ++i) {
            commitAs(i, seen10(), 0);
        }
        vm.warp(untilOfAudit() + 1);
        uint256 stake = stakeOf(audit.nodeId);
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
    }

    /// [V11]
    function test_a_panel_too_small_is_void() public {
        accuse(forged(TOKENS), seen10(), 0);
        commitAs(2, seen10(), 0);
        vm.warp(untilOfAudit() + 1);
        proof.advancePanel(audit, parties);
        follow();
        assertStage(AuditState.Void);
    }

    // ---------------------------------------------------------------- sampling

    /// [V14]
    function test_a_token_that_was_not_sampled_costs_the_stake() public {
        attest(3);
        (Leaf[] memory seen, Findings memory given) = edited();
        accuse(honest(TOKENS), seen, 0, given);
        commitPanel(seen, 0);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen, 0);
        }
        NodeId miner = audit.nodeId;
        uint256 stake = stakeOf(miner);
        carryOut();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
    }

    /// [V13, V14]
    function test_who_invents_a_margin_loses() public {
        attest(3);
        (Leaf[] memory seen, Findings memory given) = edited();
        accuse(honest(TOKENS), seen, 0, given);
        commitPanel(seen10(), 0);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
        NodeId accuser = audit.validator;
        uint256 stake = stakeOf(accuser);
        judge();
        assertStage(AuditState.Passed);
        assertSlashed(accuser, stake);
    }

    /// [V14]
    function test_a_median_forgives_one() public {
        attest(3);
        (Leaf[] memory seen, Findings memory given) = edited();
        accuse(honest(TOKENS), seen, 0, given);
        commitAs(2, seen, 0);
        commitAs(3, seen10(), 0);
        commitAs(4, seen10(), 0);
        testifyAs(2, seen, 0);
        testifyAs(3, seen10(), 0);
        testifyAs(4, seen10(), 0);
        uint256 stake = stakeOf(audit.validator);
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(audit.validator), stake, "one of the panel agrees with the accuser: no lie");
        assertEq(audit.earners, 0x0e, "but no pay");
    }

    /// Margins that are too large together, and at no sixteen positions. [V14]
    function test_a_sum_that_no_positions_show_costs_the_stake() public {
        attest(3);
        Leaf[] memory seen = withMargins(honest(TOKENS), 1000);
        Findings memory given;
        for (uint256 i; i < 8; ++i) {
            given.named |= (i + 1) << (224 - 32 * i);
            given.alsoNamed |= (i + 9) << (224 - 32 * i);
        }
        accuse(honest(TOKENS), seen, 0, given);
        commitPanel(seen, 0);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen, 0);
        }
        (NodeId accuser, NodeId miner) = (audit.validator, audit.nodeId);
        (uint256 stake, uint256 miners) = (stakeOf(accuser), stakeOf(miner));
        carryOut();
        assertStage(AuditState.Disproved);
        assertEq(stakeOf(accuser), stake, "accuser");
        assertSlashed(miner, miners);
    }

    /// Good weights make neither tokens nor text good. [V14, V15]
    function test_who_is_cleared_of_other_weights_is_judged_for_the_rest() public {
        uint8[2] memory flags = [0, 0x20];
        for (uint256 k; k < 2; ++k) {
            uint256 state = vm.snapshotState();
            attest(3);
            // The accuser says that blocks fail, which the panel does not see; margins or text it sees as well.
            Leaf[] memory seen = withMargins(honest(TOKENS), k == 0 ? 400_000 : 10);
            Findings memory given;
            given.failingBlocks = uint16(Positions.blocksOf(TOKENS));
            accuse(honest(TOKENS), seen, flags[k], given);
            commitPanel(seen, flags[k]);
            testifyAs(0, honest(TOKENS), 0);
            for (uint256 i = 1; i < 5; ++i) {
                testifyAs(i, seen, flags[k]);
            }
            (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
            carryOut();
            assertStage(AuditState.Disproved);
            assertSlashed(miner, stake);
            vm.revertToState(state);
        }
    }

    // ---------------------------------------------------------------- content

    /// [V15]
    function test_a_text_that_is_not_that_of_the_ids_costs_the_stake() public {
        content(0x20, 2);
        NodeId miner = audit.nodeId;
        uint256 stake = stakeOf(miner);
        carryOut();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
    }

    /// [V15]
    function test_one_flag_of_three_is_none() public {
        content(0x20, 1);
        uint256 stake = stakeOf(audit.validator);
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(audit.validator), stake, "accuser");
    }

    /// [V13]
    function test_a_flag_that_nobody_else_raises_costs_the_accuser() public {
        content(0x10, 0);
        NodeId accuser = audit.validator;
        uint256 stake = stakeOf(accuser);
        judge();
        assertStage(AuditState.Passed);
        assertSlashed(accuser, stake);
    }

    // ---------------------------------------------------------------- who may, and when

    /// [V3]
    function test_the_panel_is_of_other_owners() public {
        accuse(forged(TOKENS), seen10(), 0);
        for (uint256 i; i < 5; ++i) {
            for (uint256 k; k < i; ++k) {
                (address one,) = pool.ownerOf(parties[i].nodeId);
                (address other,) = pool.ownerOf(parties[k].nodeId);
                assertTrue(one != other, "owners");
            }
        }
    }

    /// [V3, V10]
    function test_refusals() public {
        accuse(forged(TOKENS), seen10(), 0);
        NodeId member = parties[2].nodeId;
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotOperator.selector, member, keeper));
        vm.prank(keeper);
        proof.commitPanel(audit, parties, member, bytes32("seal"));
        address accuser = operatorOf(audit.validator);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_AlreadySealed.selector, audit.validator)
        );
        vm.prank(accuser);
        proof.commitPanel(audit, parties, audit.validator, bytes32("seal"));
        NodeId outsider_ = NodeId.wrap(99);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_NotParty.selector, audit.taskId, audit.nodeId, outsider_
            )
        );
        proof.commitPanel(audit, parties, outsider_, bytes32("seal"));
        parties[2].isSealed = true;
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_StaleParties.selector);
        proof.commitPanel(audit, parties, member, bytes32("seal"));
        parties[2].isSealed = false;
        commitPanel(seen10(), 0);
        Testimony memory other = testimony(withMargins(honest(TOKENS), 11), 0, false);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_WrongOpening.selector);
        proof.testify(audit, parties, member, other);
        testifyAs(2, seen10(), 0);
        Testimony memory again = testimony(seen10(), 0, false);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_AlreadyOpen.selector, member));
        proof.testify(audit, parties, member, again);
    }

    // ---------------------------------------------------------------- classes

    /// Five owners of one class in one epoch: a fault of what they run. Four have failed before. [V16]
    function test_a_class_that_fails_together_is_not_slashed() public {
        attest(3);
        accuse(forged(TOKENS), seen10(), 0);
        uint256 epoch = block.timestamp / EPOCH;
        vm.store(address(proof), keccak256(abi.encode(CLASS, FAILURES_SLOT)), bytes32(epoch | uint256(4) << 40));
        commitPanel(seen10(), 0);
        hearAll(forged(TOKENS));
        uint256 stake = stakeOf(audit.nodeId);
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
        assertEq(proof.pausedUntil(CLASS), (epoch + 2) * EPOCH, "paused");
    }

    /// A member who agrees with the miner while three owners of another class contradict both: nobody of their own class
    /// does, so that it may be a fault of what they run. [V12, V13]
    function test_a_class_that_others_contradict_is_not_slashed() public {
        NumericClass otherClass = NumericClass.wrap("gpu-bf16");
        NodeId friend = withOtherClass(otherClass);
        calibrate(otherClass, otherClass);
        nextBlock();
        accuse(forged(TOKENS), seen10(), 0);
        assertEq(NodeId.unwrap(parties[2].nodeId), NodeId.unwrap(friend), "the only one of the miner's class");
        commitAs(2, withMargins(forged(TOKENS), 10), 0);
        commitAs(3, seen10(), 0);
        commitAs(4, seen10(), 0);
        reveal(audit.round);
        testifyAs(0, forged(TOKENS), 0);
        testifyAs(1, seen10(), 0);
        testifyAs(2, withMargins(forged(TOKENS), 10), 0);
        testifyAs(3, seen10(), 0);
        testifyAs(4, seen10(), 0);
        (uint256 stake, uint256 friends) = (stakeOf(audit.nodeId), stakeOf(friend));
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "miner");
        assertEq(stakeOf(friend), friends, "member");
    }

    /// Validators of a class of which nobody has measured what two of it differ by: the hearing ends all the same. [V11]
    function test_classes_that_nobody_calibrated_agree_with_nobody() public {
        withOtherClass(NumericClass.wrap("gpu-bf16"));
        Leaf[] memory noisy = seen10();
        for (uint256 i; i < noisy.length; ++i) {
            noisy[i].contrasts ^= 1;
        }
        accuse(forged(TOKENS), seen10(), 0);
        commitAs(2, seen10(), 0);
        commitAs(3, seen10(), 0);
        commitAs(4, noisy, 0);
        reveal(audit.round);
        testifyAs(0, forged(TOKENS), 0);
        testifyAs(1, seen10(), 0);
        testifyAs(2, seen10(), 0);
        testifyAs(3, seen10(), 0);
        testifyAs(4, noisy, 0);
        uint256 stake = stakeOf(audit.nodeId);
        carryOut();
        assertEq(stakeOf(audit.nodeId), stake - stake * FRAUD_BPS / 10_000, "the miner's class has a witness");
    }

    /// Besides the miner and one more, only nodes of another class are left, in a pair that was attested.
    function withOtherClass(NumericClass otherClass) internal returns (NodeId friend) {
        NodeId miner = firstNode(id);
        for (uint256 i = 20; i < 26; ++i) {
            NodeRegistration memory wanted_ = registration(i, 8);
            wanted_.numericClass = otherClass;
            register(i, wanted_);
        }
        skipTime(ACTIVATION_DELAY + 1);
        attest(3);
        calibrate(CLASS, otherClass);
        for (uint32 i = 1; i <= 3; ++i) {
            vm.prank(operatorOf(NodeId.wrap(i)));
            models.attest(MODEL, CLASS, otherClass, calibration(), NodeId.wrap(i));
        }
        // Pairs draw for answers that come after them.
        nextBlock();
        for (uint32 i = 1; i <= NODES; ++i) {
            if (i == NodeId.unwrap(miner)) continue;
            if (NodeId.unwrap(friend) == 0) {
                friend = NodeId.wrap(i);
                continue;
            }
            vm.prank(address(queue));
            pool.jail(NodeId.wrap(i));
        }
    }

    function falselyAccused() internal returns (NodeId accuser, uint256 stake) {
        Leaf[] memory lie = withMargins(forged(TOKENS), 10);
        accuse(honest(TOKENS), lie, 0);
        commitPanel(seen10(), 0);
        testifyAs(0, honest(TOKENS), 0);
        testifyAs(1, lie, 0);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
        return (audit.validator, stakeOf(audit.validator));
    }

    /// [V12, V13]
    function test_without_three_attestations_no_accuser_is_slashed() public {
        attest(2);
        (NodeId accuser, uint256 stake) = falselyAccused();
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(accuser), stake, "stake");
    }

    /// [V16]
    function test_an_accuser_of_a_paused_class_is_not_slashed() public {
        attest(3);
        (NodeId accuser, uint256 stake) = falselyAccused();
        uint256 pausedUntil = (block.timestamp / EPOCH + 1) * EPOCH;
        vm.store(address(proof), keccak256(abi.encode(CLASS, FAILURES_SLOT)), bytes32(pausedUntil << 48));
        assertEq(proof.pausedUntil(CLASS), pausedUntil, "paused");
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(accuser), stake, "stake");
    }
}
