// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Answer, ISessionQueue, Task} from "../interfaces/ISessionQueue.sol";
import {NumericClass, TaskId} from "../types/Ids.sol";
import {Commitments} from "./Commitments.sol";

/// What an answer must satisfy, apart from who sends it.
library Answers {
    /// 1 eos, 2 stop, 3 max.
    uint8 internal constant LAST_END_REASON = 3;

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

    /// The data of `TaskCommitted`: more arguments than the stack holds, in the event's order.
    function encode(Answer memory answer, uint96 fee, uint40 settleAt) internal pure returns (bytes memory) {
        bytes memory what = abi.encode(
            answer.outputDigest,
            answer.promptHash,
            answer.promptTokens,
            answer.outputTokens,
            answer.numericClass,
            answer.endReason
        );
        return bytes.concat(what, abi.encode(answer.salt, answer.proofSeal, fee, settleAt));
    }
}
