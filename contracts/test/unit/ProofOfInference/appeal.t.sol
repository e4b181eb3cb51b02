// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool, NodeState} from "../../../src/interfaces/INodePool.sol";
import {Appeal, AuditState, IProofOfInference, Party, ProofConfig} from "../../../src/interfaces/IProofOfInference.sol";
import {Evidence, Rule} from "../../../src/interfaces/ISessionPayment.sol";
import {PartState, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {AppealBase} from "./AppealBase.sol";

/// Judgements before they are executed: `judge`, `appeal`, `reconvene`, and time that passes.
contract AppealTest is AppealBase {
    // ---------------------------------------------------------------- what waits

    /// [V12, V27]
    function test_a_judgement_waits_for_an_appeal() public {
        condemned();
        (NodeId miner, uint40 until) = (audit.nodeId, untilOfAudit());
        uint256 stake = stakeOf(miner);
        assertEq(until, block.timestamp + APPEAL_TIME, "time to appeal");
        assertTrue(pool.nodeOf(miner).state != NodeState.Jailed, "not jailed");
        assertEq(proof.openValueOf(miner), audit.value, "still at stake");
        vm.warp(until);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_TooEarly.selector, audit.taskId, miner, until)
        );
        proof.judge(audit, parties);
        vm.expectRevert(wrongState());
        proof.advanceAudit(audit);
        assertEq(stakeOf(miner), stake, "nothing is taken");
        vm.warp(until + 1);
        judge();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        assertEnds(PartState.Failed, TaskState.Refunded);
    }

    /// Who found it true is contradicted once the judgement is final. [V13]
    function test_who_is_contradicted_waits_too() public {
        dissented();
        NodeId friend = parties[4].nodeId;
        uint256 stake = stakeOf(friend);
        vm.warp(untilOfAudit() + 1);
        assertEq(stakeOf(friend), stake, "waits");
        judge();
        assertSlashed(friend, stake);
    }

    /// Asked once: five owners who fail after they are condemned do not save one another. [V16]
    function test_a_pause_comes_too_late_for_the_condemned() public {
        condemned();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        vm.store(address(proof), keccak256(abi.encode(CLASS, FAILURES_SLOT)), bytes32(type(uint256).max << 48));
        vm.warp(untilOfAudit() + 1);
        judge();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
    }

    /// Its task is open, so that its session keeps it; from its exit on it is bound for longer than any audit takes. [M8, V27]
    function test_the_condemned_cannot_take_their_stake_away() public {
        condemned();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        vm.prank(address(queue));
        pool.jail(miner);
        address account = owner();
        vm.expectPartialRevert(INodePool.NodePool_StillReserved.selector);
        vm.prank(account);
        pool.exit(miner);
        assertTrue(proof.longestAudit() < UNBONDING, "unbonding is longer than any audit");
        vm.warp(untilOfAudit() + 1);
        judge();
        assertEq(stakeOf(miner), stake - stake * FRAUD_BPS / 10_000, "slashed");
    }

    // ---------------------------------------------------------------- who may appeal, and when

    /// [V27]
    function test_an_appeal() public {
        condemned();
        NodeId miner = audit.nodeId;
        uint256 bond = bondOf(miner);
        assertTrue(bond != 0, "a bond");
        address account = owner();
        fund(account, bond);
        uint256 before = token.balanceOf(account);
        uint128 accusers;
        for (uint256 i = 1; i < 5; ++i) {
            accusers |= uint128(NodeId.unwrap(parties[i].nodeId)) << uint128(32 * (i - 1));
        }
        vm.warp(untilOfAudit());
        vm.expectEmit();
        emit IProofOfInference.Appealed(audit.taskId, miner, uint96(bond), accusers, NodeId.wrap(0));
        vm.prank(account);
        proof.appeal(audit, parties);
        follow();
        assertStage(AuditState.Appealed);
        assertEq(untilOfAudit(), block.timestamp + ROUND_TIMEOUT, "time for a round");
        assertEq(audit.round, beacon.nextRound(), "a round that nobody knows");
        assertEq(before - token.balanceOf(account), bond, "pulled");
        assertEq(payment.balanceOf(address(proof), COR), bond + proof.bookOf(MODEL_INDEX, COR), "kept");
        Appeal memory told = appealed();
        assertTrue(told.bond == bond && told.accusers == accusers && told.members == 0, "stored");
        vm.expectRevert(wrongState());
        vm.prank(account);
        proof.appeal(audit, parties);
        vm.expectRevert(wrongState());
        proof.judge(audit, parties);
    }

    /// [V9, V10, V27]
    function test_refusals_of_an_appeal() public {
        condemned();
        (NodeId miner, address account) = (audit.nodeId, owner());
        address operator = operatorOf(miner);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotOwner.selector, miner, operator));
        vm.prank(operator);
        proof.appeal(audit, parties);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_StaleParties.selector);
        vm.prank(account);
        proof.appeal(audit, new Party[](5));
        uint256 state = vm.snapshotState();
        vm.warp(untilOfAudit() + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_TooLate.selector, audit.taskId, miner, untilOfAudit()
            )
        );
        vm.prank(account);
        proof.appeal(audit, parties);
        vm.revertToState(state);
        // Whoever has no COR for the bond.
        uint256 wealth = token.balanceOf(account);
        vm.prank(account);
        token.transfer(address(this), wealth);
        vm.expectRevert();
        vm.prank(account);
        proof.appeal(audit, parties);
        // What is left to lose?
        Evidence memory evidence = Evidence(audit.taskId, Rule.Equivocation, 2, 1);
        uint256 stake = stakeOf(miner);
        vm.prank(address(queue));
        payment.slash(miner, evidence, stake, keeper, 0);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_NothingAtStake.selector, miner));
        vm.prank(account);
        proof.appeal(audit, parties);
    }

    /// [V7, V27]
    function test_an_appeal_without_a_round_is_void() public {
        condemned();
        uint256 stake = stakeOf(audit.nodeId);
        uint256 bond = appeal();
        uint40 until = untilOfAudit();
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_RoundNotReady.selector, audit.round));
        proof.reconvene(audit, parties);
        vm.warp(until);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_TooEarly.selector, audit.taskId, audit.nodeId, until
            )
        );
        proof.advanceAudit(audit);
        vm.warp(until + 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_TooLate.selector, audit.taskId, audit.nodeId, until
            )
        );
        proof.reconvene(audit, parties);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Void);
        assertEq(stakeOf(audit.nodeId), stake, "stake");
        assertEq(payment.balanceOf(owner(), COR), bond, "the bond is back");
        assertNothingOpen();
        assertEnds(PartState.Failed, TaskState.Refunded);
    }
}

/// A network of eight owners has no second panel.
contract SmallAppealTest is AppealBase {
    function setUp() public override {
        super.setUp();
        for (uint32 i = 9; i < 21; ++i) {
            vm.prank(address(queue));
            pool.jail(NodeId.wrap(i));
        }
    }

    /// The first judgement stands, and costs no bond. [V27]
    function test_with_too_few_others_the_judgement_stands() public {
        condemned();
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        uint256 bond = appeal();
        reconvene();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        assertEq(payment.balanceOf(owner(), COR), bond, "the bond is back");
        assertNothingOpen();
        assertEnds(PartState.Failed, TaskState.Refunded);
    }
}

/// Where an appeal costs nothing.
contract FreeAppealTest is AppealBase {
    function proofConfig() internal pure override returns (ProofConfig memory result) {
        result = super.proofConfig();
        result.appealBps = 0;
    }

    /// [V27]
    function test_an_appeal_without_a_bond() public {
        condemned();
        uint256 supply_ = payment.totalAccounts(COR);
        address account = owner();
        vm.prank(account);
        proof.appeal(audit, parties);
        follow();
        assertEq(payment.totalAccounts(COR), supply_, "nothing is pulled");
        reconvene();
        commitAll(seen10(), 0, LAST_OF_APPEAL);
        hear(forged(TOKENS), seen10(), seen10(), LAST_OF_APPEAL);
        judge();
        assertStage(AuditState.Disproved);
        assertNothingOpen();
    }
}
