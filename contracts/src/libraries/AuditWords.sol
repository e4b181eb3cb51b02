// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AuditState} from "../interfaces/IProofOfInference.sol";

/// The word that is stored of the proof of an answer; its state in the lowest eight bits. Until its draw the rest is what
/// was fixed at the commit: the value at stake in the 96 highest bits, the time of the commit in 40, the places of the
/// pool in 32, the probability in 16. From then on it is the digest of the `Audit` in the 208 highest bits, and a time in
/// 40; in the end, instead of the time, what settlement and payment need to know.
library AuditWords {
    /// In the place of the time, above the 16 bits of the levy.
    uint40 internal constant HAS_EARNERS = 1 << 16;
    /// Members of an appeal's panel are to be paid, too.
    uint40 internal constant HAS_MEMBERS = 1 << 17;

    function exposed(uint256 value, uint40 committedAt, uint32 slots, uint256 probabilityBps)
        internal
        pure
        returns (uint256)
    {
        return value << 160 | uint256(committedAt) << 120 | uint256(slots) << 88 | probabilityBps << 72
            | uint256(AuditState.Exposed);
    }

    function valueOf(uint256 word) internal pure returns (uint96) {
        return uint96(word >> 160);
    }

    /// Unix seconds.
    function committedAtOf(uint256 word) internal pure returns (uint40) {
        return uint40(word >> 120);
    }

    function slotsOf(uint256 word) internal pure returns (uint32) {
        return uint32(word >> 88);
    }

    function probabilityOf(uint256 word) internal pure returns (uint16) {
        return uint16(word >> 72);
    }

    function pack(AuditState state, uint40 until, bytes32 digest_) internal pure returns (uint256) {
        return uint256(digest_) | uint256(until) << 8 | uint256(state);
    }

    function stateOf(uint256 word) internal pure returns (AuditState) {
        return AuditState(uint8(word));
    }

    function untilOf(uint256 word) internal pure returns (uint40) {
        return uint40(word >> 8);
    }

    function digestOf(uint256 word) internal pure returns (bytes32) {
        return bytes32(word >> 48 << 48);
    }
}
