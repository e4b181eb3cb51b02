// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Findings, Leaf, Testimony} from "../../src/interfaces/IProofOfInference.sol";
import {Answer, Task, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {Positions} from "../../src/libraries/Positions.sol";
import {NodeId} from "../../src/types/Ids.sol";
import {Trees} from "../Trees.sol";
import {ProofBase} from "../unit/ProofOfInference/ProofBase.sol";

/// Gas of proven tasks, audits and disputes: whole transactions, of an answer of 150 tokens as in the other figures;
/// written to contracts/snapshots.
contract AuditGasTest is ProofBase {
    // What all transactions of an audit, and the comparison of a dispute, may cost.
    uint256 internal constant AUDIT_TARGET = 320_000;
    uint256 internal constant COMPARISON_TARGET = 500_000;
    uint256 internal constant MANY = TOKENS;
    string internal constant GROUP = "proof";

    function setUp() public override {
        super.setUp();
        // Accounts, records and books leave zero.
        Task memory task = opened(0, honest(MANY), seen(), 0);
        revealAs(audit.validator, findings(honest(MANY), seen(), 0));
        follow();
        settle(task);
        vm.snapshotGasLastCall(GROUP, "audit, settle what passed");
        proof.collect(audit);
        vm.snapshotGasLastCall(GROUP, "audit, collect");
        answered(1, honest(MANY));
    }

    function wanted(uint64 nonce) internal view override returns (TaskRequest memory result) {
        result = super.wanted(nonce);
        (result.maxOutput, result.nodeId) = (uint32(MANY), firstNode(id));
    }

    function seen() internal pure returns (Leaf[] memory) {
        return withMargins(honest(MANY), 10);
    }

    function carried(uint64 nonce, Leaf[] memory leaves) internal returns (Task memory task) {
        TaskRequest memory request_ = wanted(nonce);
        Answer memory given = proven(queue.taskIdOf(id, ROUTER_LANE, nonce), request_.nodeId, leaves);
        bytes memory signature = sign(ROUTER_KEY, request_);
        vm.prank(operatorOf(given.nodeId));
        queue.submitAndCommit(request_, signature, given);
        vm.snapshotGasLastCall(GROUP, "proven, request carried with the answer");
        return afterCommit(lastTask(), 0, given);
    }

    /// Ten tasks of a node that is vouched for, none of which is drawn.
    function test_gas_of_a_settlement_without_audits() public {
        NodeId miner = firstNode(id);
        bytes32 slot = keccak256(abi.encode(MODEL_INDEX, keccak256(abi.encode(miner, uint256(2)))));
        vm.store(address(proof), slot, bytes32(uint256(1e24)));
        Task[] memory tasks = new Task[](10);
        for (uint64 i; i < 10; ++i) {
            tasks[i] = carried(2 + i, honest(MANY));
        }
        drawable(tasks[0]);
        uint256 settled = queue.settle(tasks);
        vm.snapshotGasLastCall(GROUP, "proven, settle ten tasks of one miner");
        assertEq(settled, 10, "none is drawn");
    }

    /// Each transaction once, and its share of a settlement that draws ten.
    function test_gas_of_an_audit() public {
        Leaf[] memory leaves = honest(MANY);
        Task[] memory tasks = new Task[](10);
        for (uint64 i; i < 10; ++i) {
            tasks[i] = carried(2 + i, leaves);
        }
        drawable(tasks[9]);
        queue.settle(tasks);
        uint256 gas = vm.snapshotGasLastCall(GROUP, "audit, draw ten in a settlement") / 10;
        follow();
        bytes32 seal = sealOf(audit.validator, rootOf(seen(), true), statisticsOf(seen(), 0));
        vm.prank(operatorOf(audit.validator));
        proof.commitAudit(audit, seal);
        gas += vm.snapshotGasLastCall(GROUP, "audit, commit");
        follow();
        Answer memory given = proven(audit.taskId, audit.nodeId, leaves);
        proof.openProof(audit, given, rootOf(leaves, false), bytes32("salt2"), keccak256("proof block"));
        gas += vm.snapshotGasLastCall(GROUP, "audit, open");
        follow();
        reveal(audit.round);
        Findings memory found = findings(leaves, seen(), 0);
        vm.prank(operatorOf(audit.validator));
        proof.reveal(audit, found);
        gas += vm.snapshotGasLastCall(GROUP, "audit, reveal");
        follow();
        vm.snapshotValue(GROUP, "audit, all of it", gas);
        assertTrue(gas <= AUDIT_TARGET, "target");
    }

    /// A false answer of a pair that three owners have measured, and of one that they have not: there nobody is slashed.
    function test_gas_of_a_dispute() public {
        uint256 snapshot = vm.snapshotState();
        heard();
        proof.judge(audit, parties);
        assertTrue(vm.snapshotGasLastCall(GROUP, "dispute, comparison") <= COMPARISON_TARGET, "target");
        vm.revertToState(snapshot);
        attest(3);
        heard();
        proof.judge(audit, parties);
        assertTrue(vm.snapshotGasLastCall(GROUP, "dispute, comparison that condemns") <= COMPARISON_TARGET, "target");
        follow();
        skipTime(APPEAL_TIME + 1);
        proof.judge(audit, parties);
        vm.snapshotGasLastCall(GROUP, "dispute, execution of a judgement");
    }

    function heard() internal {
        Leaf[] memory lie = forged(MANY);
        opened(2, lie, seen(), 0);
        revealAs(audit.validator, findings(lie, seen(), 0));
        follow();
        reveal(audit.round);
        proof.convene(audit);
        vm.snapshotGasLastCall(GROUP, "dispute, convene");
        follow();
        for (uint256 i = 2; i < 5; ++i) {
            NodeId member = parties[i].nodeId;
            bytes32 seal = sealOf(member, rootOf(seen(), true), statisticsOf(seen(), 0));
            vm.prank(operatorOf(member));
            proof.commitPanel(audit, parties, member, seal);
            vm.snapshotGasLastCall(GROUP, "dispute, commit of a member");
            follow();
        }
        reveal(audit.round);
        uint256[] memory positions = compared();
        for (uint256 i; i < 5; ++i) {
            Leaf[] memory leaves = i == 0 ? lie : seen();
            Testimony memory given;
            given.root = rootOf(leaves, i != 0);
            (given.statistics, given.salt) = (statisticsOf(leaves, 0), bytes32("salt'"));
            given.leaves = Trees.pick(leaves, positions);
            given.nodes = Trees.proofOf(Trees.hashesOf(leaves, CONTRASTS, i != 0), positions);
            proof.testify(audit, parties, parties[i].nodeId, given);
            vm.snapshotGasLastCall(GROUP, "dispute, opening of sixteen positions");
            follow();
        }
    }

    function compared() internal view returns (uint256[] memory) {
        bytes32 seed = Positions.seedOf(beacon.valueOf(audit.round), audit.taskId, audit.nodeId);
        (uint256 first, uint256 count) = Positions.windowOf(MANY, audit.named);
        return Positions.draw(seed, first, count, 16);
    }
}
