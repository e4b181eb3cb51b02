// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    Appeal,
    AuditState,
    Chunk,
    Findings,
    IProofOfInference,
    Testimony
} from "../../../src/interfaces/IProofOfInference.sol";
import {PartState, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {AppealBase} from "./AppealBase.sol";

/// The second panel, of an appeal: `reconvene`, and how it ends for everybody.
contract ReconveneTest is AppealBase {
    // ---------------------------------------------------------------- the second panel

    /// [V3, V27]
    function test_the_second_panel_is_of_others() public {
        condemned();
        uint256 drawn = audit.drawn;
        uint256 bond = reconvened();
        assertEq(parties.length, 9, "miner, accuser, seven");
        assertEq(untilOfAudit(), block.timestamp + SEAL_TIME, "time to look");
        assertEq(audit.drawn, drawn, "kept apart");
        Appeal memory told = appealed();
        assertEq(told.bond, bond, "the bond stays");
        for (uint256 i; i < parties.length; ++i) {
            (address one,) = pool.ownerOf(parties[i].nodeId);
            for (uint256 k; k < i; ++k) {
                (address other,) = pool.ownerOf(parties[k].nodeId);
                assertTrue(one != other, "owners");
            }
            if (i < 2) continue;
            assertEq(uint32(told.members >> (32 * (i - 2))), NodeId.unwrap(parties[i].nodeId), "members");
            for (uint256 set = drawn; set != 0; set >>= 32) {
                (address other,) = pool.ownerOf(NodeId.wrap(uint32(set)));
                assertTrue(one != other, "not those who were drawn before");
            }
        }
        vm.expectRevert(wrongState());
        proof.reconvene(audit, parties);
    }

    /// The first of them runs what the miner runs; so do all who are asked of pairs that came later than the answer.
    /// [V2, V3]
    function test_a_pair_that_is_calibrated_later_judges_nothing() public {
        NumericClass later = NumericClass.wrap("later");
        condemned();
        calibrate(CLASS, later);
        calibrate(later, CLASS);
        reconvened();
        for (uint256 i = 2; i < parties.length; ++i) {
            assertEq(NumericClass.unwrap(pool.classOf(parties[i].nodeId)), NumericClass.unwrap(CLASS), "class");
        }
    }

    /// It bears the first one out. [V25, V27]
    function test_an_appeal_that_fails() public {
        condemned();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        uint256 bond = reconvened();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        hear(forged(TOKENS), seen10(), seen10(), LAST_OF_APPEAL);
        assertEq(appealed().earners, 0x7f, "seven have done their duty");
        uint256 had = payment.balanceOf(client, COR);
        judge();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        uint256 award = stake * PROVER_BPS / 10_000 / 8;
        for (uint256 i = 2; i <= LAST_OF_APPEAL; ++i) {
            assertEq(balanceOf(parties[i].nodeId), award + bond / SEVEN, "a prover's share, and of the bond");
        }
        assertEq(balanceOf(audit.validator), award, "the accuser has none of the bond");
        uint256 rest = bond - bond / SEVEN * SEVEN;
        assertEq(payment.balanceOf(client, COR) - had, stake * CLIENT_BPS / 10_000 + rest, "client");
        assertNothingOpen();
        assertEnds(PartState.Failed, TaskState.Refunded);
        assertEq(audit.earners, 0x0f, "the first four are paid by the book");
    }

    /// Four who framed an honest miner lose. [V13, V21, V27]
    function test_an_appeal_that_holds() public {
        framed();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        NodeId[4] memory framers;
        for (uint256 i; i < 4; ++i) {
            framers[i] = parties[i + 1].nodeId;
        }
        uint256 bond = reconvened();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        hear(honest(TOKENS), liars(), seen10(), LAST_OF_APPEAL);
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(miner), stake, "the miner keeps its own");
        assertEq(payment.balanceOf(owner(), COR), bond, "and has its bond back");
        for (uint256 i; i < 4; ++i) {
            assertSlashed(framers[i], stake);
        }
        assertEq(audit.earners, 0, "none of them is paid");
        (uint96 passed,) = proof.recordOf(miner, MODEL_INDEX);
        assertEq(passed, audit.value, "the answer vouches");
        assertEq(appealed().earners, 0x7f, "seven are owed");
        assertEnds(PartState.Committed, TaskState.Settled);
        collected();
    }

    /// [V20, V24] The book pays the seven, once.
    function collected() internal {
        assertStage(AuditState.Closed);
        uint256 pay = uint256(audit.fee) * AUDIT_PAY_BPS / 10_000;
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_BookTooSmall.selector);
        proof.collect(audit);
        fund(client, 1e18);
        vm.prank(address(proof));
        payment.fund(COR, client, 1e18);
        vm.prank(address(queue));
        proof.book(MODEL_INDEX, COR, 1e18);
        uint256 booked = proof.bookOf(MODEL_INDEX, COR);
        uint256 had = balanceOf(parties[8].nodeId);
        proof.collect(audit);
        assertEq(balanceOf(parties[8].nodeId) - had, pay, "a member's pay");
        assertEq(booked - proof.bookOf(MODEL_INDEX, COR), SEVEN * pay, "out of the book");
        assertNothingOpen();
        vm.expectRevert(wrongState());
        proof.collect(audit);
    }

    /// [V11, V27]
    function test_an_appeal_that_decides_nothing() public {
        framed();
        NodeId framer = parties[2].nodeId;
        uint256 stake = stakeOf(audit.nodeId);
        uint256 bond = reconvened();
        for (uint256 i = 2; i < 5; ++i) {
            commitAs(i, seen10(), 0);
        }
        for (uint256 i = 5; i < 8; ++i) {
            commitAs(i, liars(), 0);
        }
        NodeId idle = parties[8].nodeId;
        vm.warp(untilOfAudit() + 1);
        proof.advancePanel(audit, parties);
        follow();
        assertEq(stakeOf(idle), stake - stake * DUTY_BPS / 10_000, "the idle one pays a little");
        reveal(audit.round);
        hear(honest(TOKENS), liars(), seen10(), 4);
        for (uint256 i = 5; i < 8; ++i) {
            testifyAs(i, liars(), 0);
        }
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "miner");
        assertEq(stakeOf(framer), stake, "first panel");
        assertEq(stakeOf(audit.validator), stake, "accuser");
        assertEq(payment.balanceOf(owner(), COR), bond, "the bond is back");
        assertEq(appealed().earners, 0x3f, "six are owed");
        assertEq(appealed().bond, 0, "and no bond");
    }

    /// [V11, V27]
    function test_a_second_panel_too_small_is_void() public {
        condemned();
        uint256 stake = stakeOf(audit.nodeId);
        uint256 bond = reconvened();
        commitAs(2, seen10(), 0);
        vm.warp(untilOfAudit() + 1);
        proof.advancePanel(audit, parties);
        follow();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
        assertEq(payment.balanceOf(owner(), COR), bond, "the bond is back");
        assertEq(stakeOf(parties[8].nodeId), stake - stake * DUTY_BPS / 10_000, "the idle ones pay a little");
        assertNothingOpen();
    }

    /// [V7, V27]
    function test_a_second_hearing_without_a_round_is_void() public {
        condemned();
        uint256 stake = stakeOf(audit.nodeId);
        uint256 bond = reconvened();
        for (uint256 i = 2; i <= LAST_OF_APPEAL; ++i) {
            commitAs(i, seen10(), 0);
        }
        vm.warp(untilOfAudit() + 1);
        judge();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
        assertEq(payment.balanceOf(owner(), COR), bond, "the bond is back");
        assertNothingOpen();
    }

    /// Its time to commit is over: another miner than the first panel's cannot be asked, and a bond does not save it.
    /// [V5, V27]
    function test_who_appeals_and_hides_loses_both() public {
        condemned();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        uint256 bond = reconvened();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        for (uint256 i = 1; i <= LAST_OF_APPEAL; ++i) {
            testifyAs(i, seen10(), 0);
        }
        vm.warp(untilOfAudit() + 1);
        judge();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        uint256 award = stake * PROVER_BPS / 10_000 / 8;
        assertEq(balanceOf(parties[2].nodeId), award + bond / SEVEN, "a share of both");
        assertNothingOpen();
    }

    // ---------------------------------------------------------------- parties of both

    /// Who contradicted the first quorum loses once the second one bears it out. [V13, V27]
    function test_a_dissenter_loses_with_the_appeal() public {
        dissented();
        NodeId friend = parties[4].nodeId;
        uint256 stake = stakeOf(friend);
        appeal();
        assertEq(NodeId.unwrap(appealed().dissenter), NodeId.unwrap(friend), "remembered");
        reconvene();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        hear(forged(TOKENS), seen10(), seen10(), LAST_OF_APPEAL);
        assertEq(stakeOf(friend), stake, "waits");
        judge();
        assertStage(AuditState.Disproved);
        assertSlashed(friend, stake);
        assertEq(audit.earners, 0x07, "nor is it paid");
        assertNothingOpen();
    }

    /// There is room for another opinion. [V13]
    function test_one_of_seven_who_found_the_same_leaves_the_first_panel_its_stakes() public {
        accuse(honest(TOKENS), seen10(), 0x20);
        // Content is polled: the flag is upheld by all three.
        commitAll(seen10(), 0x20, LAST_MEMBER);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0x20);
        }
        judge();
        assertStage(AuditState.Condemned);
        uint256 stake = stakeOf(audit.nodeId);
        NodeId first = parties[2].nodeId;
        reconvened();
        commitAs(2, seen10(), 0x20);
        for (uint256 i = 3; i <= LAST_OF_APPEAL; ++i) {
            commitAs(i, seen10(), 0);
        }
        testifyAs(2, seen10(), 0x20);
        for (uint256 i = 3; i <= LAST_OF_APPEAL; ++i) {
            testifyAs(i, seen10(), 0);
        }
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(audit.validator), stake, "accuser");
        assertEq(stakeOf(first), stake, "first panel");
        assertEq(audit.earners, 0x0e, "the accuser is not paid");
    }

    /// Nobody of seven sees what four said that they saw. [V13]
    function test_a_flag_that_nobody_of_seven_raises_costs_all_who_did() public {
        accuse(honest(TOKENS), seen10(), 0x20);
        commitAll(seen10(), 0x20, LAST_MEMBER);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0x20);
        }
        judge();
        uint256 stake = stakeOf(audit.nodeId);
        NodeId first = parties[2].nodeId;
        reconvened();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        for (uint256 i = 2; i <= LAST_OF_APPEAL; ++i) {
            testifyAs(i, seen10(), 0);
        }
        judge();
        assertStage(AuditState.Passed);
        assertSlashed(audit.validator, stake);
        assertSlashed(first, stake);
    }

    /// Three liars against miner and accuser alike: the accuser is not contradicted by the second panel, and loses
    /// nothing by the first. [V21]
    function test_an_accuser_whom_the_first_panel_contradicts() public {
        Findings memory given;
        given.failingBlocks = 4;
        accuse(honest(TOKENS), seen10(), 0, given);
        commitAll(liars(), 0, LAST_MEMBER);
        hear(honest(TOKENS), seen10(), liars(), LAST_MEMBER);
        judge();
        assertStage(AuditState.Condemned);
        (NodeId accuser, uint256 stake) = (audit.validator, stakeOf(audit.validator));
        appeal();
        assertEq(NodeId.unwrap(appealed().dissenter), 0, "the accuser is heard again");
        reconvene();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        hear(honest(TOKENS), seen10(), seen10(), LAST_OF_APPEAL);
        judge();
        assertStage(AuditState.Passed);
        assertEq(stakeOf(accuser), stake, "accuser");
    }

    /// [P2]
    function test_a_silent_accuser_is_punished_once() public {
        accuse(forged(TOKENS), seen10(), 0);
        commitAll(seen10(), 0, LAST_MEMBER);
        testifyAs(0, forged(TOKENS), 0);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
        NodeId accuser = audit.validator;
        vm.warp(untilOfAudit() + 1);
        judge();
        assertStage(AuditState.Condemned);
        assertEq(stakeOf(accuser), 0, "for its silence, at once");
        reconvened();
        assertTrue(!parties[1].isSealed, "not asked again");
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_AlreadySealed.selector, accuser));
        proof.commitPanel(audit, parties, accuser, bytes32("seal"));
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_AlreadySealed.selector, accuser));
        proof.demandData(audit, parties, accuser);
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        Testimony memory late = testimony(seen10(), 0, false);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotSealed.selector, accuser));
        proof.testify(audit, parties, accuser, late);
        testifyAs(0, forged(TOKENS), 0);
        for (uint256 i = 2; i <= LAST_OF_APPEAL; ++i) {
            testifyAs(i, seen10(), 0);
        }
        // Nobody is missing.
        judge();
        assertStage(AuditState.Disproved);
    }

    // ---------------------------------------------------------------- data of an appeal

    /// [V26, V27]
    function test_a_member_of_the_second_panel_demands() public {
        condemned();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        uint256 bond = reconvened();
        NodeId demander = parties[8].nodeId;
        address operator = operatorOf(demander);
        vm.prank(operator);
        proof.demandData(audit, parties, demander);
        follow();
        assertStage(AuditState.Demanded);
        assertEq(appealed().waived, 0x40, "remembered beside the members");
        uint256 state = vm.snapshotState();
        vm.warp(untilOfAudit() + 1);
        uint256 had = payment.balanceOf(client, COR);
        proof.advanceAudit(audit);
        assertEq(stakeOf(miner), 0, "hiding costs the stake");
        assertEq(balanceOf(demander), stake * PROVER_BPS / 10_000, "who demanded");
        assertEq(payment.balanceOf(client, COR) - had, stake * CLIENT_BPS / 10_000 + bond, "and the bond");
        assertNothingOpen();
        vm.revertToState(state);
        operator = operatorOf(miner);
        vm.prank(operator);
        proof.publishData(audit, Chunk({requestBytes: 1, totalBytes: 2, offset: 0, data: hex"7b7d"}));
        vm.getRecordedLogs();
        assertStage(AuditState.Convened);
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        hear(forged(TOKENS), seen10(), seen10(), LAST_OF_APPEAL);
        assertEq(appealed().earners, 0x3f, "all but who demanded");
        judge();
        assertStage(AuditState.Disproved);
        assertEq(balanceOf(parties[2].nodeId) - balanceOf(demander), bond / 6, "nor of the bond");
    }
}
