// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AuditState} from "../../src/interfaces/IProofOfInference.sol";
import {AuditWords} from "../../src/libraries/AuditWords.sol";
import {Positions} from "../../src/libraries/Positions.sol";
import {Verdicts} from "../../src/libraries/Verdicts.sol";

/// Words and arithmetic of proofs for all values at once: `script/bench/audit` runs these with halmos.
contract ProofSymbolic {
    uint256 internal constant MAX_TOKENS = 65_536;

    /// [V8] What is fixed at a commit comes out of its word as it went in.
    function check_an_exposure_keeps_its_parts(uint96 value, uint40 committedAt, uint32 slots, uint16 probability)
        external
        pure
    {
        uint256 word = AuditWords.exposed(value, committedAt, slots, probability);
        assert(AuditWords.stateOf(word) == AuditState.Exposed);
        assert(AuditWords.valueOf(word) == value && AuditWords.committedAtOf(word) == committedAt);
        assert(AuditWords.slotsOf(word) == slots && AuditWords.probabilityOf(word) == probability);
    }

    /// [V10] So do state, time and digest of an audit.
    function check_an_audit_keeps_its_parts(uint8 state, uint40 until, bytes32 digest) external pure {
        if (state > uint8(AuditState.Closed)) return;
        bytes32 cut = AuditWords.digestOf(uint256(digest));
        uint256 word = AuditWords.pack(AuditState(state), until, cut);
        assert(uint8(AuditWords.stateOf(word)) == state);
        assert(AuditWords.untilOf(word) == until && AuditWords.digestOf(word) == cut);
    }

    /// [V11] The windows of an answer follow one another, the last one to its end, and each has its share of positions.
    function check_windows_cover_an_answer(uint32 n, uint32 index) external pure {
        if (n == 0 || n > MAX_TOKENS) return;
        uint256 blocks = Positions.blocksOf(n);
        uint256 last = blocks == 0 ? 0 : blocks - 1;
        if (index > last) return;
        (uint256 first, uint256 count) = Positions.windowOf(n, index);
        assert(first == uint256(index) * Positions.BLOCK + 1 && count != 0);
        if (index < last) assert(count == Positions.BLOCK && first + count <= n);
        else assert(first + count == uint256(n) + 1 && count < Positions.BLOCK + Positions.BLOCK / 2);
    }

    /// [V11] Two contrasts are close if they differ by no more than the limit, whatever their signs.
    function check_contrasts_are_close_within_the_limit(int16 one, int16 other, uint16 limit) external pure {
        int256 distance = int256(one) - int256(other);
        if (distance < 0) distance = -distance;
        uint256 close = Verdicts.closeLanes(uint16(one), uint16(other), limit);
        assert(close == Verdicts.LANES - (uint256(distance) <= limit ? 0 : 1));
    }
}
