// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AuditState, Chunk, Leaf} from "../../src/interfaces/IProofOfInference.sol";
import {NodeId} from "../../src/types/Ids.sol";
import {AppealBase} from "../unit/ProofOfInference/AppealBase.sol";

/// Gas of appeals and of data on demand: whole transactions, of an answer of 150 tokens; written to contracts/snapshots.
contract AppealGasTest is AppealBase {
    string internal constant GROUP = "proof";
    uint256 internal constant MAX_CHUNK = 32 * 1024;

    function test_gas_of_an_appeal() public {
        condemned();
        fund(owner(), bondOf(audit.nodeId));
        address account = owner();
        vm.prank(account);
        proof.appeal(audit, parties);
        vm.snapshotGasLastCall(GROUP, "appeal");
        follow();
        reveal(audit.round);
        proof.reconvene(audit, parties);
        vm.snapshotGasLastCall(GROUP, "appeal, reconvene");
        follow();
        Leaf[] memory seen = seen10();
        for (uint256 i = 2; i <= LAST_OF_APPEAL; ++i) {
            NodeId member = parties[i].nodeId;
            bytes32 seal = sealOf(member, rootOf(seen, true), statisticsOf(seen, 0));
            address operator = operatorOf(member);
            vm.prank(operator);
            proof.commitPanel(audit, parties, member, seal);
            if (i < LAST_OF_APPEAL) vm.snapshotGasLastCall(GROUP, "appeal, commit of a member");
            follow();
        }
        reveal(audit.round);
        for (uint256 i; i <= LAST_OF_APPEAL; ++i) {
            Leaf[] memory leaves = i == 0 ? forged(TOKENS) : seen;
            proof.testify(audit, parties, parties[i].nodeId, testimony(leaves, 0, i == 0));
            vm.snapshotGasLastCall(GROUP, "appeal, opening of sixteen positions");
            follow();
        }
        proof.judge(audit, parties);
        vm.snapshotGasLastCall(GROUP, "appeal, comparison and slash");
        follow();
        assertStage(AuditState.Disproved);
    }

    /// Bytes that are not zero: the dearest.
    function test_gas_of_data() public {
        drawn(0, honest(TOKENS));
        address operator = operatorOf(audit.validator);
        vm.prank(operator);
        proof.demandData(audit, parties, audit.validator);
        vm.snapshotGasLastCall(GROUP, "data, demand");
        follow();
        bytes memory data = new bytes(MAX_CHUNK);
        for (uint256 i; i < data.length; ++i) {
            data[i] = 0x5a;
        }
        operator = operatorOf(audit.nodeId);
        vm.prank(operator);
        proof.publishData(audit, Chunk({requestBytes: 1, totalBytes: uint32(2 * MAX_CHUNK), offset: 0, data: data}));
        vm.snapshotGasLastCall(GROUP, "data, publish 32 KiB");
    }
}
