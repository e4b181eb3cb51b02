// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Answer, ISessionQueue, Task} from "../interfaces/ISessionQueue.sol";
import {NumericClass, SessionId, TaskId} from "../types/Ids.sol";
import {Commitments} from "./Commitments.sol";

/// What an answer must satisfy, apart from who sends it.
library Answers {
    /// 1 eos, 2 stop, 3 max.
    uint8 internal constant LAST_END_REASON = 3;

    /// The copy that the compiler would make, with one check for all members that are less than a word.
    function read(Answer calldata brought) internal pure returns (Answer memory answer) {
        answer.signature = brought.signature;
        assembly ("memory-safe") {
            // From the node to the proof seal.
            calldatacopy(answer, brought, 288)
            let tokens := or(mload(add(answer, 96)), mload(add(answer, 128)))
            if or(shr(32, or(mload(answer), tokens)), shr(8, mload(add(answer, 192)))) { revert(0, 0) }
        }
    }

    function check(Answer memory answer, Task memory task, NumericClass declared) internal pure {
        (uint32 prompt, uint32 output) = (answer.promptTokens, answer.outputTokens);
        if (prompt == 0 || prompt > task.maxPrompt || output == 0 || output > task.maxOutput) {
            revert ISessionQueue.SessionQueue_TooManyTokens(prompt, task.maxPrompt, output, task.maxOutput);
        }
        if (answer.endReason == 0 || answer.endReason > LAST_END_REASON) {
            revert ISessionQueue.SessionQueue_BadEndReason(answer.endReason);
        }
        if (answer.outputDigest == 0 || answer.promptHash == 0 || answer.proofSeal == 0) {
            revert ISessionQueue.SessionQueue_EmptyDigest();
        }
        if (NumericClass.unwrap(answer.numericClass) != NumericClass.unwrap(declared)) {
            revert ISessionQueue.SessionQueue_WrongClass(answer.nodeId, answer.numericClass, declared);
        }
    }

    /// keccak256(abi.encode(H1, H2)) of the queue that this runs in.
    function commitmentOf(Answer memory answer, TaskId taskId) internal view returns (bytes32) {
        bytes32 h1 = Commitments.tokenSeal(block.chainid, address(this), taskId, answer);
        return Commitments.commitment(h1, answer.proofSeal);
    }

    /// Emits `TaskCommitted`, whose data begin with the members of an answer from its digest to its proof seal: one word
    /// each, copied instead of encoded.
    function tellCommitted(Answer memory answer, TaskId taskId, SessionId sessionId, uint96 fee, uint40 settleAt)
        internal
    {
        bytes32 topic = ISessionQueue.TaskCommitted.selector;
        (uint256 fee_, uint256 settleAt_) = (fee, settleAt);
        assembly ("memory-safe") {
            let data := mload(0x40)
            mcopy(data, add(answer, 32), 256)
            mstore(add(data, 256), fee_)
            mstore(add(data, 288), settleAt_)
            log4(data, 320, topic, taskId, sessionId, mload(answer))
        }
    }
}
