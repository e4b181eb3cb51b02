// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    AuditState,
    Chunk,
    Demand,
    Findings,
    IProofOfInference,
    Party
} from "../../../src/interfaces/IProofOfInference.sol";
import {PartState, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PanelBase} from "./PanelBase.sol";

/// Data that nobody could fetch: `demandData`, `publishData`, and what follows if the miner does not.
contract DemandTest is PanelBase {
    uint32 internal constant REQUEST = 700;
    uint256 internal constant MAX_CHUNK = 32 * 1024;
    uint256 internal constant MAX_DATA = 2 * 1024 * 1024;
    uint8 internal constant UNREAD = 0x80;

    function demandAs(NodeId validator) internal {
        address operator = operatorOf(validator);
        vm.prank(operator);
        proof.demandData(audit, parties, validator);
        follow();
        assertStage(AuditState.Demanded);
    }

    function chunk(uint32 total, uint32 offset, uint256 size) internal pure returns (Chunk memory) {
        return Chunk({requestBytes: REQUEST, totalBytes: total, offset: offset, data: new bytes(size)});
    }

    function publish(Chunk memory given) internal {
        address operator = operatorOf(audit.nodeId);
        vm.prank(operator);
        proof.publishData(audit, given);
        follow();
    }

    function refusedToPublish(Chunk memory given, bytes memory why) internal {
        address operator = operatorOf(audit.nodeId);
        vm.expectRevert(why);
        vm.prank(operator);
        proof.publishData(audit, given);
    }

    function demand() internal view returns (Demand memory) {
        return proof.demandOf(audit.taskId, audit.nodeId);
    }

    // ---------------------------------------------------------------- before an audit is committed

    /// [V26]
    function test_a_validator_has_what_it_could_not_fetch() public {
        Task memory task = drawn(0, honest(TOKENS));
        NodeId validator = audit.validator;
        demandAs(validator);
        assertEq(untilOfAudit(), block.timestamp + OPEN_TIME, "time to publish");
        assertEq(uint8(demand().resumes), uint8(AuditState.Drawn), "what it goes back to");
        assertEq(audit.earners, 0x0100, "who demands is not paid");
        skipTime(3);
        uint40 until = untilOfAudit();
        publish(chunk(1000, 0, 999));
        assertStage(AuditState.Demanded);
        assertEq(untilOfAudit(), until, "the time stays");
        vm.warp(until);
        publish(chunk(1000, 999, 1));
        assertStage(AuditState.Drawn);
        assertEq(untilOfAudit(), block.timestamp + SEAL_TIME, "time to look");
        assertEq(NodeId.unwrap(audit.validator), NodeId.unwrap(validator), "the same validator");
        Demand memory told = demand();
        assertTrue(told.requestBytes == REQUEST && told.totalBytes == 1000 && told.publishedBytes == 1000, "told");
        commitAudit(seen10(), 0);
        openProof(honest(TOKENS));
        reveal(audit.round);
        revealAs(audit.validator, findings(honest(TOKENS), seen10(), 0));
        follow();
        assertStage(AuditState.Passed);
        assertEq(audit.earners, 0x0100, "not for what it did either");
        assertEq(settle(task), 1, "settled");
        (AuditState state,,) = proof.statusOf(audit.taskId, audit.nodeId);
        assertEq(uint8(state), uint8(AuditState.None), "nobody is to be paid");
    }

    /// What is published is told as it is.
    function test_events() public {
        drawn(0, honest(TOKENS));
        address operator = operatorOf(audit.validator);
        vm.expectEmit();
        emit IProofOfInference.DataDemanded(audit.taskId, audit.nodeId, audit.validator);
        vm.prank(operator);
        proof.demandData(audit, parties, audit.validator);
        follow();
        Chunk memory given = chunk(uint32(MAX_CHUNK), 0, MAX_CHUNK);
        given.data[7] = 0x07;
        operator = operatorOf(audit.nodeId);
        vm.expectEmit();
        emit IProofOfInference.DataPublished(audit.taskId, audit.nodeId, 0, REQUEST, uint32(MAX_CHUNK), given.data);
        vm.prank(operator);
        proof.publishData(audit, given);
    }

    /// Pieces of any sizes come to the whole, in their order. [V26]
    function testFuzz_pieces(uint256 seed, uint32 total) public {
        total = total % 100_000 + 1;
        drawn(0, honest(TOKENS));
        demandAs(audit.validator);
        uint32 offset;
        while (offset < total) {
            assertEq(demand().publishedBytes, offset, "published");
            assertStage(AuditState.Demanded);
            seed = uint256(keccak256(abi.encode(seed)));
            uint32 size = uint32(seed % MAX_CHUNK) + 1;
            if (size > total - offset) size = total - offset;
            Chunk memory given = chunk(total, offset, size);
            given.requestBytes = total / 2;
            publish(given);
            offset += size;
        }
        assertStage(AuditState.Drawn);
    }

    /// [V26]
    function test_who_may_demand_and_when() public {
        drawn(0, honest(TOKENS));
        (NodeId validator, NodeId miner) = (audit.validator, audit.nodeId);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotParty.selector, audit.taskId, miner, miner)
        );
        proof.demandData(audit, parties, miner);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotOperator.selector, validator, keeper)
        );
        vm.prank(keeper);
        proof.demandData(audit, parties, validator);
        uint256 state = vm.snapshotState();
        (uint40 until, address operator) = (untilOfAudit(), operatorOf(validator));
        vm.warp(until);
        demandAs(validator);
        vm.revertToState(state);
        vm.warp(until + 1);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_TooLate.selector, audit.taskId, miner, until)
        );
        vm.prank(operator);
        proof.demandData(audit, parties, validator);
        vm.warp(until);
        commitAudit(seen10(), 0);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_WrongState.selector, audit.taskId, miner, AuditState.Sealed
            )
        );
        vm.prank(operator);
        proof.demandData(audit, parties, validator);
    }

    /// Neither again by the same one, nor by those who come after it, nor by a panel. [V26]
    function test_once_for_each_answer() public {
        drawn(0, honest(TOKENS));
        demandAs(audit.validator);
        publish(chunk(1000, 0, 1000));
        refusedAgain(audit.validator);
        vm.warp(untilOfAudit() + 1);
        proof.advanceAudit(audit);
        follow();
        refusedAgain(audit.validator);
        commitAudit(seen10(), 0x20);
        openProof(honest(TOKENS));
        reveal(audit.round);
        revealAs(audit.validator, findings(honest(TOKENS), seen10(), 0x20));
        follow();
        assertEq(audit.earners, 0x0102, "the second one is paid");
        reveal(audit.round);
        proof.convene(audit);
        follow();
        refusedAgain(parties[2].nodeId);
    }

    function refusedAgain(NodeId validator) internal {
        address operator = operatorOf(validator);
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_AlreadyDemanded.selector, audit.taskId, audit.nodeId
            )
        );
        vm.prank(operator);
        proof.demandData(audit, parties, validator);
    }

    // ---------------------------------------------------------------- what may be published

    /// By the miner alone: rubbish of anybody else would be judged as its own. [V26]
    function test_only_the_miner_publishes() public {
        drawn(0, honest(TOKENS));
        address validators = operatorOf(audit.validator);
        refusedToPublish(
            chunk(1000, 0, 1000),
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_WrongState.selector, audit.taskId, audit.nodeId, AuditState.Drawn
            )
        );
        demandAs(audit.validator);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotOperator.selector, audit.nodeId, validators)
        );
        vm.prank(validators);
        proof.publishData(audit, chunk(1000, 0, 1000));
        vm.warp(untilOfAudit() + 1);
        refusedToPublish(
            chunk(1000, 0, 1000),
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_TooLate.selector, audit.taskId, audit.nodeId, untilOfAudit()
            )
        );
    }

    /// [G2]
    function test_sizes_and_offsets() public {
        bytes4 dataSize = IProofOfInference.ProofOfInference_DataSize.selector;
        bytes4 chunkSize = IProofOfInference.ProofOfInference_ChunkSize.selector;
        bytes4 wrongOffset = IProofOfInference.ProofOfInference_WrongOffset.selector;
        drawn(0, honest(TOKENS));
        demandAs(audit.validator);
        refusedToPublish(chunk(REQUEST - 1, 0, 1), abi.encodeWithSelector(dataSize, REQUEST, REQUEST - 1, MAX_DATA));
        uint32 tooMuch = uint32(MAX_DATA + 1);
        refusedToPublish(chunk(tooMuch, 0, 1), abi.encodeWithSelector(dataSize, REQUEST, tooMuch, MAX_DATA));
        refusedToPublish(chunk(1000, 1, 1), abi.encodeWithSelector(wrongOffset, 1, 0));
        refusedToPublish(chunk(1000, 0, 0), abi.encodeWithSelector(chunkSize, 0, 1000));
        refusedToPublish(chunk(1000, 0, 1001), abi.encodeWithSelector(chunkSize, 1001, 1000));
        uint32 most = uint32(MAX_DATA);
        refusedToPublish(chunk(most, 0, MAX_CHUNK + 1), abi.encodeWithSelector(chunkSize, MAX_CHUNK + 1, MAX_CHUNK));
        publish(chunk(most, 0, MAX_CHUNK));
        uint32 next = uint32(MAX_CHUNK);
        refusedToPublish(chunk(most, 0, 1), abi.encodeWithSelector(wrongOffset, 0, next));
        refusedToPublish(chunk(most, next + 1, 1), abi.encodeWithSelector(wrongOffset, next + 1, next));
        bytes memory otherSizes =
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_OtherSizes.selector, REQUEST, most);
        refusedToPublish(chunk(most - 1, next, 1), otherSizes);
        Chunk memory given = chunk(most, next, 1);
        --given.requestBytes;
        refusedToPublish(given, otherSizes);
        publish(chunk(most, next, MAX_CHUNK));
    }

    /// A request alone, or an answer alone, is a whole too: what it is worth is for the validators.
    function test_the_smallest_data() public {
        drawn(0, honest(TOKENS));
        demandAs(audit.validator);
        Chunk memory given = chunk(1, 0, 1);
        given.requestBytes = 1;
        publish(given);
        assertStage(AuditState.Drawn);
    }

    // ---------------------------------------------------------------- what is not published

    /// [V5, V25, V26]
    function test_a_miner_that_does_not_publish_loses() public {
        Task memory task = drawn(0, honest(TOKENS));
        demandAs(audit.validator);
        publish(chunk(1000, 0, 999));
        unpublished(audit.validator);
        assertEq(settle(task), 1, "ended");
        task.parts[0].state = PartState.Failed;
        assertState(task, TaskState.Refunded);
    }

    /// By the last second of its time the demander has its share alone; a class that is paused saves nobody who hides.
    function unpublished(NodeId demander) internal {
        vm.store(address(proof), keccak256(abi.encode(CLASS, FAILURES_SLOT)), bytes32(type(uint256).max << 48));
        (NodeId miner, uint40 until) = (audit.nodeId, untilOfAudit());
        (uint256 stake, uint256 before) = (stakeOf(miner), token.totalSupply());
        vm.warp(until);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_TooEarly.selector, audit.taskId, miner, until)
        );
        proof.advanceAudit(audit);
        vm.warp(until + 1);
        proof.advanceAudit(audit);
        follow();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
        assertEq(balanceOf(demander), stake * PROVER_BPS / 10_000, "who demanded");
        assertEq(payment.balanceOf(client, COR), stake * CLIENT_BPS / 10_000, "client");
        assertEq(before - token.totalSupply(), stake * 3000 / 10_000, "burnt");
    }

    /// [V26]
    function test_a_member_of_a_panel_demands() public {
        accuse(honest(TOKENS), seen10(), 0x20);
        commitAs(2, seen10(), 0);
        NodeId demander = parties[3].nodeId;
        uint256 state = vm.snapshotState();
        demandAs(demander);
        unpublished(demander);
        vm.revertToState(state);
        follow();
        accusedAgain(demander);
        uint16 place = uint16(audit.earners >> 8);
        publish(chunk(1000, 0, 1000));
        assertStage(AuditState.Convened);
        assertEq(untilOfAudit(), block.timestamp + SEAL_TIME, "time to look");
        commitAs(3, seen10(), 0);
        commitAs(4, seen10(), 0);
        assertStage(AuditState.Hearing);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), 0);
        }
        assertEq(audit.earners, place << 8 | 0x0f & ~place, "all but who demanded");
    }

    /// The audit as it was before what a snapshot has undone.
    function accusedAgain(NodeId demander) internal {
        (AuditState state,,) = proof.statusOf(audit.taskId, audit.nodeId);
        assertEq(uint8(state), uint8(AuditState.Convened), "back");
        audit.earners = 1;
        demandAs(demander);
    }

    /// [V3, V10]
    function test_who_of_a_panel_may_demand() public {
        accuse(honest(TOKENS), seen10(), 0x20);
        commitAs(2, seen10(), 0);
        for (uint256 i; i < 3; ++i) {
            NodeId party = parties[i].nodeId;
            vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_AlreadySealed.selector, party));
            proof.demandData(audit, parties, party);
        }
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_NotParty.selector);
        proof.demandData(audit, parties, NodeId.wrap(99));
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_StaleParties.selector);
        proof.demandData(audit, new Party[](0), parties[3].nodeId);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_NotOperator.selector);
        proof.demandData(audit, parties, parties[3].nodeId);
        vm.warp(untilOfAudit() + 1);
        address operator = operatorOf(parties[3].nodeId);
        vm.expectPartialRevert(IProofOfInference.ProofOfInference_TooLate.selector);
        vm.prank(operator);
        proof.demandData(audit, parties, parties[3].nodeId);
    }

    // ---------------------------------------------------------------- what cannot be read

    /// [V15, V26]
    function test_nobody_calls_unreadable_what_it_did_not_demand() public {
        opened(0, honest(TOKENS), seen10(), UNREAD);
        Findings memory given = findings(honest(TOKENS), seen10(), UNREAD);
        address operator = operatorOf(audit.validator);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_NotDemanded.selector, audit.taskId, audit.nodeId)
        );
        vm.prank(operator);
        proof.reveal(audit, given);
    }

    /// What was published is not what was answered: everybody sees the same. [V15]
    function test_rubbish_costs_the_stake() public {
        attest(3);
        drawn(0, honest(TOKENS));
        demandAs(audit.validator);
        publish(chunk(1000, 0, 1000));
        commitAudit(seen10(), UNREAD);
        openProof(honest(TOKENS));
        reveal(audit.round);
        revealAs(audit.validator, findings(honest(TOKENS), seen10(), UNREAD));
        follow();
        reveal(audit.round);
        proof.convene(audit);
        follow();
        commitPanel(seen10(), UNREAD);
        for (uint256 i = 2; i < 5; ++i) {
            testifyAs(i, seen10(), UNREAD);
        }
        (NodeId miner, uint256 stake) = (audit.nodeId, stakeOf(audit.nodeId));
        carryOut();
        assertStage(AuditState.Disproved);
        assertSlashed(miner, stake);
    }
}
