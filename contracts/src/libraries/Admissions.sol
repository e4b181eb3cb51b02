// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Admission, SessionState} from "../interfaces/ISession.sol";
import {Dispatch, ISessionQueue, TaskRequest} from "../interfaces/ISessionQueue.sol";
import {Lane, NodeId} from "../types/Ids.sol";
import {Fees} from "./Fees.sol";
import {NodeSet} from "./NodeSet.sol";

/// What a request must satisfy, apart from its holder's consent and its money being there.
library Admissions {
    using NodeSet for uint256;

    /// Enough to store an answer and to act on it; small enough for a block of any chain.
    uint32 internal constant MAX_CALLBACK_GAS = 500_000;

    /// `earliest` is the first deadline that is taken, unix seconds.
    function check(TaskRequest memory request, Admission memory admission, uint256 earliest) internal view {
        bool open = admission.state == SessionState.Active
            || (admission.state == SessionState.Draining && Lane.unwrap(request.lane) != 0);
        if (!open) revert ISessionQueue.SessionQueue_SessionNotActive(request.sessionId);
        if (admission.seedRound == 0) {
            revert ISessionQueue.SessionQueue_NotServed(request.sessionId, request.seedRound);
        }
        if (request.attempts == 0 || request.attempts > admission.maxAttempts) {
            revert ISessionQueue.SessionQueue_AttemptsOutOfBounds(request.attempts, admission.maxAttempts);
        }
        _checkParts(request, admission.nodes.length());
        _checkDeadline(request, admission, earliest);
        if (request.callbackGas != 0 && (Lane.unwrap(request.lane) != 0 || request.callbackGas > MAX_CALLBACK_GAS)) {
            revert ISessionQueue.SessionQueue_CallbackNotAllowed(request.lane, request.callbackGas, MAX_CALLBACK_GAS);
        }
        if (request.maxPrompt == 0 || request.maxOutput == 0) {
            revert ISessionQueue.SessionQueue_TokensOutOfBounds(request.maxPrompt, request.maxOutput);
        }
        if (request.requestDigest == 0) revert ISessionQueue.SessionQueue_EmptyDigest();
    }

    /// What the task may cost at most, with the tip of its callback.
    function heldFor(TaskRequest memory request, Admission memory admission) internal pure returns (uint96) {
        uint256 fee = Fees.feeUp(request.maxPrompt, request.maxOutput, admission.priceIn, admission.priceOut);
        if (fee > request.feeCap) revert ISessionQueue.SessionQueue_FeeAboveCap(fee, request.feeCap);
        if (fee < admission.tip) revert ISessionQueue.SessionQueue_FeeBelowTip(fee, admission.tip);
        uint256 held = fee * request.redundancy + tipOfCallback(request, admission);
        if (held > type(uint96).max) revert ISessionQueue.SessionQueue_FeeAboveCap(held, type(uint96).max);
        return uint96(held);
    }

    function tipOfCallback(TaskRequest memory request, Admission memory admission) internal pure returns (uint96) {
        return request.callbackGas == 0 ? 0 : admission.tip;
    }

    /// Seconds after the deadline that further attempts have: their own, and one attempt's more for the blocks that pass
    /// before somebody notices the silence.
    function timeOfFollowers(TaskRequest memory request, Admission memory admission) internal pure returns (uint256) {
        return request.attempts == 1 ? 0 : uint256(request.attempts) * admission.attemptTime;
    }

    function _checkParts(TaskRequest memory request, uint256 nodes) private pure {
        if (request.redundancy == 0 || request.redundancy > nodes) {
            revert ISessionQueue.SessionQueue_RedundancyOutOfBounds(request.redundancy, nodes);
        }
        bool single = request.redundancy == 1 && NodeId.unwrap(request.nodeId) == 0;
        if (request.dispatch == Dispatch.Pull && !single) {
            revert ISessionQueue.SessionQueue_PullTakesOne(request.redundancy, request.nodeId);
        }
    }

    /// Where the lane or the session ends, the task's last attempt and its openings must fit.
    function _checkDeadline(TaskRequest memory request, Admission memory admission, uint256 earliest) private view {
        uint256 latest = block.timestamp + admission.maxDeadline;
        if (admission.endsAt != 0) {
            uint256 tail = timeOfFollowers(request, admission) + admission.revealTime;
            uint256 last = admission.endsAt > tail ? admission.endsAt - tail : 0;
            if (last < latest) latest = last;
        }
        if (request.deadline < earliest || request.deadline > latest) {
            revert ISessionQueue.SessionQueue_DeadlineOutOfBounds(request.deadline, earliest, latest);
        }
    }
}
