// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ProofOfInferenceBase} from "../../src/ProofOfInferenceBase.sol";
import {Audit, ProofConfig, ProofWiring} from "../../src/interfaces/IProofOfInference.sol";
import {Evidence, Rule} from "../../src/interfaces/ISessionPayment.sol";
import {Task} from "../../src/interfaces/ISessionQueue.sol";
import {NodeId, TaskId} from "../../src/types/Ids.sol";
import {ProofBase} from "../unit/ProofOfInference/ProofBase.sol";

/// What every penalty for a lie ends with, for anyone to call.
contract Slasher is ProofOfInferenceBase {
    constructor(ProofWiring memory wiring, ProofConfig memory config_) ProofOfInferenceBase(wiring, config_) {}

    function slash(NodeId nodeId, NodeId[] memory provers, address client) external {
        Audit memory audit;
        audit.client = client;
        _slashLiar(audit, nodeId, Evidence(TaskId.wrap("task"), Rule.Unopened, 2, 1), provers);
    }
}

/// Draws of validators, and the division of slashes.
contract AuditFuzz is ProofBase {
    /// Where `SessionPayment` keeps stakes.
    uint256 internal constant STAKES_SLOT = 2;
    uint256 internal constant ACTIONS = 6;
    /// Number of the next node that joins.
    uint256 internal nextNode = 40;

    // ---------------------------------------------------------------- draws

    /// Whoever learns the round's value, and does what there is to do before the draw, finds the same validators. [V2]
    function testFuzz_nothing_after_the_commit_changes_who_is_drawn(uint256 random) public {
        Task memory task = answered(0, honest(20));
        (, uint40 committedAt,,) = proof.exposureOf(idOf(task), task.parts[0].nodeId);
        uint40 epoch = committedAt / AUDIT_EPOCH;
        skipTime((epoch + 1) * AUDIT_EPOCH + 1 - block.timestamp);
        uint64 round = proof.closeEpoch(epoch);
        reveal(round);
        uint256 snapshot = vm.snapshotState();
        NodeId[3] memory first = drawAll(task);
        vm.revertToState(snapshot);
        for (uint256 i; i < ACTIONS; ++i) {
            act(uint256(keccak256(abi.encode(random, i))), uint64(i + 1));
        }
        NodeId[3] memory second = drawAll(task);
        for (uint256 i; i < 3; ++i) {
            assertEq(NodeId.unwrap(first[i]), NodeId.unwrap(second[i]), "validator");
        }
    }

    /// The validators that are asked one after the other.
    function drawAll(Task memory task) internal returns (NodeId[3] memory drawn_) {
        settle(task);
        follow();
        for (uint256 i; i < 3; ++i) {
            drawn_[i] = audit.validator;
            assertTrue(NodeId.unwrap(drawn_[i]) != 0, "somebody");
            vm.warp(untilOfAudit() + 1);
            proof.advanceAudit(audit);
            follow();
        }
    }

    function act(uint256 random, uint64 nonce) internal {
        uint256 kind = random % 8;
        NodeId nodeId = NodeId.wrap(uint32((random >> 8) % NODES + 1));
        address owner = pool.nodeOf(nodeId).owner;
        if (kind == 0) newNode(nextNode++, uint8((random >> 16) % 8 + 1));
        if (kind == 1) {
            vm.prank(owner);
            try pool.drain(nodeId) {} catch {}
        }
        if (kind == 2) {
            vm.prank(owner);
            try pool.setOperator(nodeId, address(uint160(random))) {} catch {}
        }
        if (kind == 3) {
            vm.prank(owner);
            pool.setPayout(nodeId, address(uint160(random)));
        }
        if (kind == 4) {
            vm.prank(client);
            session.open(terms(1, 1));
        }
        if (kind == 5) answered(nonce, honest(5));
        if (kind == 6) skipTime(random >> 8 & 7);
        if (kind == 7) {
            address operator = operatorOf(nodeId);
            vm.prank(operator);
            try models.attest(MODEL, CLASS, CLASS, calibration(), nodeId) {} catch {}
        }
    }

    // ---------------------------------------------------------------- slashes

    function anyShares(uint256 random) internal pure returns (ProofConfig memory config) {
        config = proofConfig();
        config.slashBps = uint16(random % 10_000 + 1);
        config.proverBps = uint16((random >> 16) % 9001);
        config.clientBps = uint16((random >> 32) % (9001 - config.proverBps));
    }

    /// To the last unit: the same to every prover, the client's share, and the rest is burnt. [V25]
    function testFuzz_a_slash_is_divided(uint256 random, uint96 stake, uint8 provers) public {
        ProofConfig memory config = anyShares(random);
        vm.etch(address(proof), address(new Slasher(proofWiring(), config)).code);
        NodeId liar = NodeId.wrap(1);
        stake = uint96(bound(stake, 0, stakeOf(liar)));
        vm.store(address(payment), keccak256(abi.encode(liar, STAKES_SLOT)), bytes32(uint256(stake)));
        NodeId[] memory list = new NodeId[](provers % 5);
        for (uint32 i; i < list.length; ++i) {
            list[i] = NodeId.wrap(i + 2);
        }
        (uint256 supply, uint256 clients) = (token.totalSupply(), payment.balanceOf(client, COR));
        uint256 total = payment.totalAccounts(COR);
        Slasher(address(proof)).slash(liar, list, client);
        uint256 amount = uint256(stake) * config.slashBps / 10_000;
        assertEq(stakeOf(liar), stake - amount, "taken");
        uint256 each = list.length == 0 ? 0 : amount * config.proverBps / 10_000 / list.length;
        for (uint256 i; i < list.length; ++i) {
            assertEq(balanceOf(list[i]), each, "a prover's share");
        }
        uint256 toClient = amount * config.clientBps / 10_000;
        assertEq(payment.balanceOf(client, COR) - clients, toClient, "the client's");
        assertEq(supply - token.totalSupply(), amount - toClient - each * list.length, "burnt");
        assertEq(total - payment.totalAccounts(COR), supply - token.totalSupply(), "out of the accounts");
        assertEq(payment.balanceOf(address(proof), COR), 0, "nothing stays");
    }
}
