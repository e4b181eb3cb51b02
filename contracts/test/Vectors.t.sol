// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionQueue} from "../src/SessionQueue.sol";
import {Answer, Dispatch, TaskRequest} from "../src/interfaces/ISessionQueue.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {Lane, NodeId, NumericClass, SessionId, TaskId} from "../src/types/Ids.sol";
import {Base} from "./Base.sol";

/// `vectors/commitments.json`, which the Rust tests read too.
contract VectorsTest is Base {
    string internal json;

    function setUp() public override {
        super.setUp();
        json = vm.readFile("contracts/test/vectors/commitments.json");
    }

    /// Every case, with the real queue's code at the case's address on the case's chain.
    function test_vectors() public {
        bytes memory code = address(queue).code;
        uint256 i;
        for (; vm.keyExistsJson(json, path(i, "name")); ++i) {
            checkCommitment(i);
            checkSeeds(i);
            checkRequest(i, code);
            checkOperators(i);
        }
        assertTrue(i >= 4, "too few vectors");
    }

    function checkCommitment(uint256 i) internal view {
        Answer memory seal = Answer({
            nodeId: nodeOf(i),
            outputDigest: word(i, "outputDigest"),
            promptHash: word(i, "promptHash"),
            promptTokens: uint32(number(i, "promptTokens")),
            outputTokens: uint32(number(i, "outputTokens")),
            numericClass: NumericClass.wrap(word(i, "numericClass")),
            endReason: uint8(number(i, "endReason")),
            salt: word(i, "salt"),
            proofSeal: word(i, "h2"),
            signature: ""
        });
        bytes32 h1 = Commitments.tokenSeal(number(i, "chainId"), queueOf(i), TaskId.wrap(word(i, "taskId")), seal);
        assertEq(h1, word(i, "h1"), "h1");
        assertEq(Commitments.commitment(h1, word(i, "h2")), word(i, "commitment"), "commitment");
    }

    /// What no contract computes yet, as PROTOCOL's formulas read in Solidity.
    function checkSeeds(uint256 i) internal view {
        bytes memory ids;
        uint256[] memory prompt = vm.parseJsonUintArray(json, path(i, "promptIds"));
        for (uint256 k; k < prompt.length; ++k) {
            ids = abi.encodePacked(ids, uint32(prompt[k]));
        }
        assertEq(keccak256(ids), word(i, "promptHash"), "promptHash");
        bytes32 seedG = keccak256(
            abi.encode(
                keccak256("assay.seed.sampling.v1"),
                number(i, "chainId"),
                queueOf(i),
                word(i, "taskId"),
                word(i, "promptHash"),
                nodeOf(i),
                word(i, "beacon")
            )
        );
        assertEq(seedG, word(i, "seedG"), "seedG");
        assertEq(keccak256(abi.encode(keccak256("assay.seed.fingerprint.v1"), seedG)), word(i, "seedF"), "seedF");
        bytes32 h2 = keccak256(
            abi.encode(
                keccak256("assay.commit.proof.v1"),
                number(i, "chainId"),
                queueOf(i),
                word(i, "taskId"),
                nodeOf(i),
                word(i, "root"),
                word(i, "proofSalt")
            )
        );
        assertEq(h2, word(i, "h2"), "h2");
        bytes32 stream = keccak256(abi.encode(keccak256("assay.stream.v1"), word(i, "taskId")));
        uint256[] memory output = vm.parseJsonUintArray(json, path(i, "outputIds"));
        for (uint256 k; k < output.length; ++k) {
            stream = keccak256(abi.encodePacked(stream, uint32(output[k])));
        }
        assertEq(stream, word(i, "streamHash"), "streamHash");
    }

    function checkRequest(uint256 i, bytes memory code) internal {
        (SessionId id, Lane lane) =
            (SessionId.wrap(uint64(number(i, "sessionId"))), Lane.wrap(uint32(number(i, "lane"))));
        uint64 nonce = uint64(number(i, "nonce"));
        TaskId taskId = Commitments.taskId(queueOf(i), id, lane, nonce);
        assertEq(TaskId.unwrap(taskId), word(i, "taskId"), "taskId");
        TaskRequest memory wanted = TaskRequest({
            sessionId: id,
            lane: lane,
            nonce: nonce,
            seedRound: uint64(number(i, "seedRound")),
            requestDigest: word(i, "requestDigest"),
            maxPrompt: uint32(number(i, "maxPrompt")),
            maxOutput: uint32(number(i, "maxOutput")),
            feeCap: uint96(number(i, "feeCap")),
            deadline: uint64(number(i, "deadline")),
            nodeId: nodeOf(i),
            redundancy: uint8(number(i, "redundancy")),
            attempts: uint8(number(i, "attempts")),
            dispatch: Dispatch(number(i, "dispatch")),
            callbackGas: uint32(number(i, "callbackGas"))
        });
        bytes32 structHash = Commitments.requestHash(wanted);
        assertEq(structHash, word(i, "structHash"), "structHash");
        uint256 chain = block.chainid;
        vm.chainId(number(i, "chainId"));
        bytes32 separator = word(i, "domainSeparator");
        // Code at address zero cannot be called; there the separator is computed as the contract does.
        if (queueOf(i) != address(0)) {
            vm.etch(queueOf(i), code);
            SessionQueue there = SessionQueue(queueOf(i));
            assertEq(there.DOMAIN_SEPARATOR(), separator, "domainSeparator");
            assertEq(TaskId.unwrap(there.taskIdOf(id, lane, nonce)), word(i, "taskId"), "taskIdOf");
        }
        vm.chainId(chain);
        assertEq(keccak256(abi.encodePacked(hex"1901", separator, structHash)), word(i, "digest"), "digest");
    }

    /// What operators sign.
    function checkOperators(uint256 i) internal view {
        TaskId taskId = TaskId.wrap(word(i, "taskId"));
        bytes32 precommitHash = Commitments.precommitHash(taskId, nodeOf(i), word(i, "commitment"));
        bytes32 declineHash = Commitments.declineHash(taskId, nodeOf(i));
        assertEq(precommitHash, word(i, "precommitHash"), "precommitHash");
        assertEq(declineHash, word(i, "declineHash"), "declineHash");
        bytes32 separator = word(i, "domainSeparator");
        assertEq(Commitments.domainSeparator(number(i, "chainId"), queueOf(i)), separator, "domainSeparator");
        bytes memory precommit = abi.encodePacked(hex"1901", separator, precommitHash);
        assertEq(keccak256(precommit), word(i, "precommitDigest"), "precommitDigest");
        assertEq(
            keccak256(abi.encodePacked(hex"1901", separator, declineHash)), word(i, "declineDigest"), "declineDigest"
        );
    }

    function path(uint256 i, string memory key) internal pure returns (string memory) {
        return string.concat(".cases[", vm.toString(i), "].", key);
    }

    function word(uint256 i, string memory key) internal view returns (bytes32) {
        return vm.parseJsonBytes32(json, path(i, key));
    }

    function number(uint256 i, string memory key) internal view returns (uint256) {
        return vm.parseJsonUint(json, path(i, key));
    }

    function queueOf(uint256 i) internal view returns (address) {
        return vm.parseJsonAddress(json, path(i, "queue"));
    }

    function nodeOf(uint256 i) internal view returns (NodeId) {
        return NodeId.wrap(uint32(number(i, "nodeId")));
    }
}
