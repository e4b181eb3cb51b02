// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Audit, AuditState, IProofOfInference} from "../interfaces/IProofOfInference.sol";
import {NodeId, TaskId} from "../types/Ids.sol";
import {AuditWords} from "./AuditWords.sol";

/// Audits in memory. All members are values, so that an audit lies there as `abi.encode` has it: it is copied from
/// calldata, hashed and told in events as it stands.
///
/// An audit that was brought is not checked word by word: every word is in its digest, which is compared with the stored
/// one, and what has bits that its type does not know is not the stored audit.
library AuditMemory {
    // Assembly takes no computed constants.

    /// The 24 members, one word each.
    uint256 internal constant BYTES = 768;

    /// An audit of zeros, with room for a word before it.
    function create() internal pure returns (Audit memory audit) {
        audit = _reserve();
        assembly ("memory-safe") {
            // Behind the calldata there are zeros.
            calldatacopy(audit, calldatasize(), BYTES)
        }
    }

    function read(Audit calldata brought) internal pure returns (Audit memory audit) {
        audit = _reserve();
        assembly ("memory-safe") {
            calldatacopy(audit, brought, BYTES)
        }
    }

    /// keccak256(abi.encode(audit)) with the 48 lowest bits cleared.
    function digest(Audit memory audit) internal pure returns (bytes32 result) {
        assembly ("memory-safe") {
            result := keccak256(audit, BYTES)
        }
        return AuditWords.digestOf(uint256(result));
    }

    /// Emits `AuditMoved`.
    function tellMoved(Audit memory audit, AuditState state, uint40 until) internal {
        (bytes32 topic, uint256 state_, uint256 until_) = (IProofOfInference.AuditMoved.selector, uint256(state), until);
        (bytes32 taskId, uint256 nodeId) = (TaskId.unwrap(audit.taskId), NodeId.unwrap(audit.nodeId));
        assembly ("memory-safe") {
            let data := sub(audit, 32)
            mstore(data, until_)
            log4(data, add(BYTES, 32), topic, taskId, nodeId, state_)
        }
    }

    function _reserve() private pure returns (Audit memory audit) {
        assembly ("memory-safe") {
            audit := add(mload(0x40), 32)
            mstore(0x40, add(audit, BYTES))
        }
    }
}
