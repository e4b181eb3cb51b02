// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Answer, Task, TaskRequest} from "../interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// Hashes that the protocol is built on: keccak256 of `abi.encode` in the written order. The same vectors test them
/// here and in Rust.
library Commitments {
    bytes32 internal constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 internal constant DOMAIN_NAME = keccak256("Assay");
    bytes32 internal constant DOMAIN_VERSION = keccak256("1");
    bytes32 internal constant DOMAIN_TOKENS = keccak256("assay.commit.tokens.v1");
    bytes32 internal constant DOMAIN_PROOF = keccak256("assay.commit.proof.v1");
    bytes32 internal constant REQUEST_TYPEHASH = keccak256(
        "TaskRequest(uint64 sessionId,uint32 lane,uint64 nonce,uint64 seedRound,bytes32 requestDigest,uint32 maxPrompt,uint32 maxOutput,uint96 feeCap,uint64 deadline,uint32 nodeId,uint8 redundancy,uint8 attempts,uint8 dispatch,uint32 callbackGas)"
    );
    bytes32 internal constant PRECOMMIT_TYPEHASH =
        keccak256("Precommit(bytes32 taskId,uint32 nodeId,bytes32 commitment)");
    bytes32 internal constant DECLINE_TYPEHASH = keccak256("Decline(bytes32 taskId,uint32 nodeId)");

    function taskId(address queue, SessionId sessionId, Lane lane, uint64 nonce) internal pure returns (TaskId) {
        return TaskId.wrap(keccak256(abi.encode(queue, sessionId, lane, nonce)));
    }

    /// The same of a task, whose first members are these.
    function taskIdOf(address queue, Task memory task) internal pure returns (TaskId id) {
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, queue)
            mcopy(add(data, 32), task, 96)
            id := keccak256(data, 128)
        }
    }

    /// H1: what was answered, by whom, for which task.
    function tokenSeal(uint256 chainId, address queue, TaskId task, Answer memory answer)
        internal
        pure
        returns (bytes32 result)
    {
        bytes memory sealed_ = abi.encode(DOMAIN_TOKENS, chainId, queue, task);
        // The members of an answer from its node to its salt are one word each, in the written order: copied instead of
        // encoded. What lies behind the four words is free memory, which is left as free as it was.
        assembly ("memory-safe") {
            mcopy(add(sealed_, 160), answer, 256)
            result := keccak256(add(sealed_, 32), 384)
        }
    }

    /// H2: what was recorded on the way to the answer.
    function proofSeal(uint256 chainId, address queue, TaskId task, NodeId nodeId, bytes32 root, bytes32 salt)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(DOMAIN_PROOF, chainId, queue, task, nodeId, root, salt));
    }

    /// The precommitment over H1 and H2.
    function commitment(bytes32 h1, bytes32 h2) internal pure returns (bytes32) {
        return keccak256(abi.encode(h1, h2));
    }

    /// EIP-712 domain separator of a queue.
    function domainSeparator(uint256 chainId, address queue) internal pure returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPEHASH, DOMAIN_NAME, DOMAIN_VERSION, chainId, queue));
    }

    /// EIP-712 digest: keccak256(0x1901, separator, hash).
    function typed(bytes32 separator, bytes32 structHash) internal pure returns (bytes32 digest) {
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, hex"1901")
            mstore(add(data, 2), separator)
            mstore(add(data, 34), structHash)
            digest := keccak256(data, 66)
        }
    }

    /// EIP-712 struct hash.
    function requestHash(TaskRequest memory request) internal pure returns (bytes32 result) {
        bytes32 typeHash = REQUEST_TYPEHASH;
        // Members of a static struct are one word each: their encoding is the struct's, which memory has as it is.
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, typeHash)
            mcopy(add(data, 32), request, 448)
            result := keccak256(data, 480)
        }
    }

    /// EIP-712 struct hash.
    function precommitHash(TaskId task, NodeId nodeId, bytes32 sealed_) internal pure returns (bytes32) {
        return keccak256(abi.encode(PRECOMMIT_TYPEHASH, task, nodeId, sealed_));
    }

    /// EIP-712 struct hash.
    function declineHash(TaskId task, NodeId nodeId) internal pure returns (bytes32) {
        return keccak256(abi.encode(DECLINE_TYPEHASH, task, nodeId));
    }
}
