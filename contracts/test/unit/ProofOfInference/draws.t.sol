// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration} from "../../../src/interfaces/INodePool.sol";
import {AuditState, Docket, IProofOfInference} from "../../../src/interfaces/IProofOfInference.sol";
import {OpenTerms} from "../../../src/interfaces/ISession.sol";
import {
    Answer,
    ISessionQueue,
    PartState,
    Task,
    TaskRequest,
    TaskState
} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId, NumericClass, SessionId, TaskId} from "../../../src/types/Ids.sol";
import {ProofBase} from "./ProofBase.sol";

/// What is fixed at the commit, and what a settlement draws: `expose`, `closeEpoch`, `resolve`, `book`.
contract DrawsTest is ProofBase {
    /// Where `ProofOfInferenceBase` keeps records, and `SessionPayment` stakes.
    uint256 internal constant RECORDS_SLOT = 2;
    uint256 internal constant STAKES_SLOT = 2;

    /// Makes a node's record so good that nothing but the floor is left of its probability.
    function vouched(NodeId nodeId) internal {
        bytes32 slot = keccak256(abi.encode(MODEL_INDEX, keccak256(abi.encode(nodeId, RECORDS_SLOT))));
        vm.store(address(proof), slot, bytes32(uint256(1e24)));
        (uint96 passed,) = proof.recordOf(nodeId, MODEL_INDEX);
        assertEq(passed, 1e24, "record");
    }

    // ---------------------------------------------------------------- expose

    /// [V8]
    function test_what_a_commit_fixes() public {
        Task memory task = answered(0, honest(TOKENS));
        NodeId miner = task.parts[0].nodeId;
        (uint96 value, uint40 committedAt, uint32 slots, uint16 probability) = proof.exposureOf(idOf(task), miner);
        assertEq(value, task.parts[0].fee, "value");
        assertEq(committedAt, block.timestamp, "time");
        assertEq(slots, 64, "eight nodes with eight places");
        assertEq(probability, 10_000, "nothing vouches for it yet");
        assertEq(proof.openValueOf(miner), value, "at stake");
        Task memory second = answered(1, honest(TOKENS));
        assertEq(proof.openValueOf(miner), uint256(value) + second.parts[0].fee, "both");
    }

    /// A value in dollars is one in COR by the model's own prices.
    function test_value_of_another_asset() public {
        id = activeWith(termsInUsd(1, 1));
        recordTasks();
        Task memory task = answered(0, honest(TOKENS));
        (uint96 value,,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        uint256 fee_ = task.parts[0].fee;
        assertEq(value, (fee_ * PRICE_OUT + USD_PRICE_OUT - 1) / USD_PRICE_OUT, "in COR");
    }

    /// [V17]
    function test_more_than_the_stake_covers_is_refused() public {
        Task memory task = submit(wanted(0));
        NodeId miner = task.parts[0].nodeId;
        // The bond that is left is worth less than the gain.
        vm.store(address(payment), keccak256(abi.encode(miner, STAKES_SLOT)), bytes32(uint256(1)));
        assertEq(payment.stakeOf(miner), 1, "stake");
        Answer memory given = proven(idOf(task), miner, honest(TOKENS));
        uint96 fee_ = fee(id, 90, TOKENS);
        assertTrue(proof.probabilityOf(miner, MODEL_INDEX, COR, fee_) > 10_000, "told beforehand");
        address operator = operatorOf(miner);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_StakeTooSmall.selector, miner, fee_, 1)
        );
        vm.prank(operator);
        queue.commit(task, only(given));
    }

    /// [V17]
    function test_a_class_that_nobody_can_check_is_refused() public {
        NodeRegistration memory wanted_ = registration(30, 1);
        wanted_.numericClass = NumericClass.wrap("abacus");
        wanted_.dedicatedTo = client;
        NodeId stranger = register(30, wanted_);
        OpenTerms memory terms_ = termsNaming(only(stranger), 0, 0);
        id = activeWith(terms_);
        recordTasks();
        Task memory task = submit(wanted(0));
        Answer memory given = proven(idOf(task), stranger, honest(TOKENS));
        given.numericClass = NumericClass.wrap("abacus");
        address operator = operatorOf(stranger);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_NotCalibrated.selector, stranger, given.numericClass
            )
        );
        vm.prank(operator);
        queue.commit(task, only(given));
    }

    /// [V17]
    function test_an_answer_longer_than_a_tree_is_refused() public {
        TaskRequest memory long = wanted(0);
        (long.maxOutput, long.feeCap) = (65_537, 100e18);
        Task memory task = submit(long);
        Answer memory given = proven(idOf(task), task.parts[0].nodeId, honest(TOKENS));
        address operator = operatorOf(given.nodeId);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_TokensOutOfBounds.selector, 100, 65_537));
        vm.prank(operator);
        queue.commit(task, only(given));
    }

    function test_only_the_queue_exposes_resolves_and_books() public {
        bytes memory why = abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotQueue.selector, keeper);
        vm.startPrank(keeper);
        vm.expectRevert(why);
        proof.expose(TaskId.wrap(0), NodeId.wrap(1), MODEL_INDEX, COR, 1);
        Docket memory docket;
        vm.expectRevert(why);
        proof.resolve(docket);
        vm.expectRevert(why);
        proof.book(MODEL_INDEX, COR, 1);
        vm.stopPrank();
    }

    /// A session keeps what it opened under. [X3]
    function test_a_session_from_before_the_calibration_is_not_proven() public {
        assertTrue(session.sessionOf(id).isProven, "this one is");
        assertTrue(!session.sessionOf(SessionId.wrap(1)).isProven, "the first is not");
        id = SessionId.wrap(1);
        Task memory task = answered(0, honest(TOKENS));
        (uint96 value,,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        assertEq(value, 0, "not exposed");
        skipTime(SETTLE_DELAY);
        assertEq(settle(task), 1, "settled at once");
        assertEq(proof.bookOf(MODEL_INDEX, COR), 0, "gives nothing for audits");
    }

    /// A pair draws for answers that are committed in a later second than it was calibrated in, and not for others. [V2]
    function test_a_pair_that_is_calibrated_later_draws_nobody() public {
        NumericClass otherClass = NumericClass.wrap("gpu-bf16");
        NodeId miner = firstNode(id);
        for (uint256 i = 20; i < 24; ++i) {
            NodeRegistration memory wanted_ = registration(i, 8);
            wanted_.numericClass = otherClass;
            register(i, wanted_);
        }
        skipTime(ACTIVATION_DELAY + 1);
        for (uint32 i = 1; i <= NODES; ++i) {
            if (i == NodeId.unwrap(miner)) continue;
            vm.prank(address(queue));
            pool.jail(NodeId.wrap(i));
        }
        for (uint256 k; k < 2; ++k) {
            uint256 state = vm.snapshotState();
            calibrate(CLASS, otherClass);
            skipTime(k);
            Task memory task = answered(0, honest(TOKENS));
            drawable(task);
            assertEq(settle(task), 1 - k, k == 0 ? "nobody is there to look" : "one of them looks");
            vm.revertToState(state);
        }
    }

    // ---------------------------------------------------------------- the epoch

    /// [V1]
    function test_a_round_is_named_after_the_epoch() public {
        uint40 epoch = uint40(block.timestamp) / AUDIT_EPOCH;
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_EpochOpen.selector, epoch, (epoch + 1) * AUDIT_EPOCH
            )
        );
        proof.closeEpoch(epoch);
        skipTime((epoch + 1) * AUDIT_EPOCH - block.timestamp);
        uint64 round = proof.closeEpoch(epoch);
        assertEq(round, beacon.nextRound(), "nobody knows it");
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_EpochClosed.selector, epoch, round));
        proof.closeEpoch(epoch);
        (uint64 named, uint40 at_) = proof.roundOf(epoch);
        assertEq(named, round, "round");
        assertEq(at_, block.timestamp, "time");
    }

    /// [V1]
    function test_a_settlement_waits_for_the_draw() public {
        Task memory task = answered(0, honest(TOKENS));
        (, uint40 committedAt,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        skipTime(SETTLE_DELAY);
        assertEq(settle(task), 0, "the epoch is not over");
        uint40 epoch = committedAt / AUDIT_EPOCH;
        skipTime((epoch + 1) * AUDIT_EPOCH - block.timestamp);
        assertEq(settle(task), 0, "names the round");
        (uint64 round,) = proof.roundOf(epoch);
        assertTrue(round != 0, "named");
        assertEq(settle(task), 0, "the round has no value");
        reveal(round);
        assertEq(settle(task), 0, "audited");
        (AuditState state,,) = proof.statusOf(idOf(task), task.parts[0].nodeId);
        assertEq(uint8(state), uint8(AuditState.Drawn), "drawn");
        assertState(task, TaskState.Committed);
    }

    /// [V8]
    function test_an_answer_that_is_not_drawn_is_settled_at_once() public {
        vouched(firstNode(id));
        uint256 settledAtOnce;
        for (uint64 nonce; nonce < 8; ++nonce) {
            Task memory task = answered(nonce, honest(TOKENS));
            NodeId miner = task.parts[0].nodeId;
            (,,, uint16 probability) = proof.exposureOf(idOf(task), miner);
            assertTrue(probability >= MIN_PROBABILITY_BPS && probability < 10_000, "by exposure, or the floor");
            drawable(task);
            uint256 before = balanceOf(miner);
            if (settle(task) == 0) continue;
            ++settledAtOnce;
            uint256 fee_ = task.parts[0].fee;
            uint256 share = fee_ * MINER_BPS / 10_000 - fee_ * AUDIT_SHARE_BPS / 10_000;
            assertEq(balanceOf(miner) - before, share, "gives its share for audits");
            (AuditState state,,) = proof.statusOf(idOf(task), miner);
            assertEq(uint8(state), uint8(AuditState.None), "nothing is left");
        }
        assertTrue(settledAtOnce >= 5, "most");
    }

    /// [V7]
    function test_without_a_value_in_time_answers_are_settled_unaudited() public {
        Task memory task = answered(0, honest(TOKENS));
        (, uint40 committedAt,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        uint40 epoch = committedAt / AUDIT_EPOCH;
        skipTime((epoch + 1) * AUDIT_EPOCH - block.timestamp);
        proof.closeEpoch(epoch);
        skipTime(ROUND_TIMEOUT);
        assertEq(settle(task), 0, "not yet");
        skipTime(1);
        vm.expectEmit();
        emit IProofOfInference.AnswerCleared(idOf(task), task.parts[0].nodeId, true);
        assertEq(settle(task), 1, "unaudited");
        assertEq(proof.openValueOf(task.parts[0].nodeId), 0, "nothing is at stake");
    }

    /// [V7]
    function test_a_missed_round_is_not_drawn_again() public {
        Task memory task = answered(0, honest(TOKENS));
        (, uint40 committedAt,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        uint40 epoch = committedAt / AUDIT_EPOCH;
        skipTime((epoch + 1) * AUDIT_EPOCH - block.timestamp);
        uint64 round = proof.closeEpoch(epoch);
        vm.roll(round + 300);
        assertTrue(beacon.isMissed(round), "missed");
        assertEq(settle(task), 1, "unaudited");
    }

    // ---------------------------------------------------------------- who is drawn

    /// [V3]
    function testFuzz_validators_are_of_other_owners(uint64 nonce) public {
        Task memory task = drawn(nonce % 200, honest(TOKENS));
        (address owner,) = pool.ownerOf(audit.validator);
        (address miners,) = pool.ownerOf(task.parts[0].nodeId);
        assertTrue(owner != miners && owner != address(0), "another owner");
    }

    /// [V2]
    function test_who_comes_after_the_commit_is_not_drawn() public {
        Task memory task = answered(0, honest(TOKENS));
        for (uint256 i = 20; i < 28; ++i) {
            newNode(i, 8);
        }
        drawable(task);
        settle(task);
        follow();
        assertTrue(NodeId.unwrap(audit.validator) <= NODES, "of those who were there");
        assertEq(audit.slots, 64, "places then");
    }

    /// [V8]
    function test_nobody_to_ask_leaves_an_answer_unverified() public {
        Task memory task = answered(0, honest(TOKENS));
        for (uint32 i = 1; i <= NODES; ++i) {
            if (i == NodeId.unwrap(task.parts[0].nodeId)) continue;
            vm.prank(address(queue));
            pool.jail(NodeId.wrap(i));
        }
        drawable(task);
        vm.expectEmit();
        emit IProofOfInference.AnswerUnverified(idOf(task), task.parts[0].nodeId);
        assertEq(settle(task), 1, "paid");
    }

    // ---------------------------------------------------------------- several answers

    function threeAnswers() internal returns (Task memory task) {
        id = activeSession(3, 3);
        recordTasks();
        task = submit(redundant(0, 3, 1));
        Answer[] memory given = new Answer[](3);
        for (uint256 i; i < 3; ++i) {
            given[i] = proven(idOf(task), task.parts[i].nodeId, honest(TOKENS));
        }
        for (uint256 i; i < 3; ++i) {
            vm.prank(operatorOf(given[i].nodeId));
            queue.precommit(task, only(signed(task, given[i])));
            task.parts[i].state = PartState.Precommitted;
            task.parts[i].commitment = commitmentOf(idOf(task), given[i]);
        }
        task = lastTask();
        queue.commit(task, given);
        return lastTask();
    }

    /// [V18]
    function test_the_others_of_a_task_are_paid_if_one_is_false() public {
        Task memory task = threeAnswers();
        drawable(task);
        assertEq(settle(task), 0, "audits");
        follow();
        audit = audits[task.parts[1].nodeId];
        vm.prank(operatorOf(audit.validator));
        proof.commitAudit(audit, bytes32("seal"));
        follow();
        late();
        assertStage(AuditState.Disproved);
        assertEq(settle(task), 0, "the others are not through");
        for (uint256 i; i < 3; i += 2) {
            audit = audits[task.parts[i].nodeId];
            for (uint256 k; k < 3; ++k) {
                late();
            }
            assertStage(AuditState.Unverified);
        }
        uint256 before = free(ROUTER_LANE);
        assertEq(settle(task), 1, "settled");
        task.parts[1].state = PartState.Failed;
        assertState(task, TaskState.Settled);
        uint256 paid = uint256(task.parts[0].fee) + task.parts[2].fee;
        assertEq(free(ROUTER_LANE) - before, task.held - paid, "the fee of the false one is the client's");
    }

    function late() internal {
        if (block.timestamp <= untilOfAudit()) vm.warp(untilOfAudit() + 1);
        proof.advanceAudit(audit);
        follow();
    }
}
