// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Commit, TaskRequest} from "../interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// Hashes that the protocol is built on: keccak256 of `abi.encode` in the written order. The same vectors test them
/// here and in Rust.
library Commitments {
    bytes32 internal constant DOMAIN_TOKENS = keccak256("assay.commit.tokens.v1");
    bytes32 internal constant REQUEST_TYPEHASH = keccak256(
        "TaskRequest(uint64 sessionId,uint32 lane,uint64 nonce,bytes32 requestDigest,uint32 maxPrompt,uint32 maxOutput,uint128 feeCap,uint64 deadline,uint32 nodeId)"
    );

    function taskId(address queue, SessionId sessionId, Lane lane, uint64 nonce) internal pure returns (TaskId) {
        return TaskId.wrap(keccak256(abi.encode(queue, sessionId, lane, nonce)));
    }

    /// H1: what was answered, by whom, for which task.
    function tokenSeal(uint256 chainId, address queue, TaskId task, NodeId nodeId, Commit calldata answer)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                DOMAIN_TOKENS,
                chainId,
                queue,
                task,
                nodeId,
                answer.outputDigest,
                answer.promptHash,
                answer.promptTokens,
                answer.outputTokens,
                answer.numericClass,
                answer.endReason,
                answer.salt
            )
        );
    }

    /// The precommitment over H1 and H2.
    function commitment(bytes32 h1, bytes32 h2) internal pure returns (bytes32) {
        return keccak256(abi.encode(h1, h2));
    }

    /// EIP-712 struct hash.
    function requestHash(TaskRequest calldata request) internal pure returns (bytes32) {
        // Members of a static struct are one word each: their encoding is the struct's.
        return keccak256(abi.encode(REQUEST_TYPEHASH, request));
    }
}
