// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IProofOfInference, Leaf, Question} from "../interfaces/IProofOfInference.sol";
import {Calibration, Calibrations} from "./Calibrations.sol";
import {Leaves} from "./Leaves.sol";
import {Multiproof} from "./Multiproof.sol";
import {Positions} from "./Positions.sol";

/// What a validator found, one word: tokens in the lowest 32 bits, the largest margin, the sum of the capped margins
/// (32 bits each, 1/65536 nat), and eight flags. A verdict is a set of reasons; none of them: the answer passes.
library Verdicts {
    using Calibrations for Calibration;

    uint8 internal constant FINGERPRINT = 0x01;
    uint8 internal constant SPOT = 0x02;
    uint8 internal constant HARD_MARGIN = 0x04;
    uint8 internal constant MARGIN_SUM = 0x08;
    /// End reason, text, prompt or ids are not what they should be: told by the validator, in the word.
    uint8 internal constant FLAGS = 0xf0;
    uint8 internal constant END = 0x10;
    uint8 internal constant IDS = 0x80;
    uint8 internal constant WEIGHTS = FINGERPRINT | SPOT;

    /// Half a nat: one token cannot fail an answer by its margin's size.
    uint256 internal constant MARGIN_CAP = 32_768;
    /// Positions from which on contrasts are held against `tau`, fewer against `spotTau`.
    uint256 internal constant MANY = 16;
    /// Contrasts that fit a word.
    uint256 internal constant LANES = 16;
    /// Positions of a spot check.
    uint256 internal constant SPOTS = 4;

    /// Reverts unless the word is one that honest arithmetic can give for `n` tokens.
    function check(uint256 word, uint256 n) internal pure {
        (uint256 largest, uint256 sum) = (maxMarginOf(word), marginSumOf(word));
        if (largest > MARGIN_CAP) largest = MARGIN_CAP;
        bool valid = n != 0 && n <= Multiproof.MAX_TOKENS && word >> 104 == 0 && uint32(word) == n && sum <= largest * n
            && sum >= largest && flagsOf(word) & ~FLAGS == 0;
        if (!valid) revert IProofOfInference.ProofOfInference_BadStatistics(word, n);
    }

    function maxMarginOf(uint256 word) internal pure returns (uint256) {
        return uint32(word >> 32);
    }

    function marginSumOf(uint256 word) internal pure returns (uint256) {
        return uint32(word >> 64);
    }

    function flagsOf(uint256 word) internal pure returns (uint8) {
        return uint8(word >> 96);
    }

    /// The reasons apart from the spot check, of a word that was checked.
    function reasonsOf(uint256 word, uint256 failingBlocks, Calibration memory limits)
        internal
        pure
        returns (uint8 reasons)
    {
        uint256 n = uint32(word);
        uint256 blocks = Positions.blocksOf(n);
        uint256 enough = limits.blockLimit < blocks ? limits.blockLimit : blocks;
        if (blocks != 0 && failingBlocks != 0 && failingBlocks >= enough) reasons |= FINGERPRINT;
        if (maxMarginOf(word) > limits.hardMargin) reasons |= HARD_MARGIN;
        if (marginSumOf(word) > limits.threshold(n)) reasons |= MARGIN_SUM;
        return reasons | flagsOf(word);
    }

    /// What a panel has to decide: weights before sampling, which says nothing if the weights are others.
    function questionOf(uint8 reasons) internal pure returns (Question) {
        if (reasons == 0) return Question.None;
        if (reasons & WEIGHTS != 0) return Question.Weights;
        return reasons & FLAGS == reasons ? Question.Content : Question.Sampling;
    }

    /// Whether a miner's leaves and a validator's, at the same positions and as many as a spot check has at most, can come
    /// from the same weights. Both must have been hashed.
    function spotAgrees(Leaf[] calldata ours, Leaf[] calldata theirs, Calibration memory limits)
        internal
        pure
        returns (bool)
    {
        uint256 one;
        uint256 other;
        for (uint256 i; i < ours.length; ++i) {
            (uint256 id, uint256 contrasts,) = Leaves.wordsAt(ours, i);
            (uint256 otherId, uint256 otherContrasts,) = Leaves.wordsAt(theirs, i);
            if (id != otherId) return false;
            (one, other) = (one << 64 | contrasts, other << 64 | otherContrasts);
        }
        // Fewer positions than a spot check has tell nothing but their ids.
        if (ours.length < SPOTS) return true;
        uint256 compared = SPOTS * limits.contrasts;
        return 2 * (closeLanes(one, other, limits.spotTau) + compared - LANES) > compared;
    }

    /// How many of the contrasts of a position differ by no more than `limit`.
    function closeContrasts(uint64 ours, uint64 theirs, uint256 contrasts, uint256 limit)
        internal
        pure
        returns (uint256)
    {
        // What is not there is the same on both sides.
        return closeLanes(ours, theirs, limit) + contrasts - LANES;
    }

    /// How many of the sixteen int16 of two words differ by no more than `limit`.
    function closeLanes(uint256 ours, uint256 theirs, uint256 limit) internal pure returns (uint256 close) {
        assembly ("memory-safe") {
            let bound := add(shl(1, limit), 1)
            for { let i := 0 } lt(i, LANES) { i := add(i, 1) } {
                // The distance plus the limit, as a number without a sign: small if it is from -limit to limit.
                let shifted := add(sub(signextend(1, ours), signextend(1, theirs)), limit)
                close := add(close, lt(shifted, bound))
                ours := shr(16, ours)
                theirs := shr(16, theirs)
            }
        }
    }

    /// Whether margins at positions that an accuser named are no honest sampling's.
    function failsMargins(uint256[] memory margins, Calibration memory limits) internal pure returns (bool) {
        uint256 sum;
        for (uint256 i; i < margins.length; ++i) {
            if (margins[i] > limits.hardMargin) return true;
            sum += margins[i] < MARGIN_CAP ? margins[i] : MARGIN_CAP;
        }
        return sum > limits.marginBar;
    }

    /// The running sum of a node's margins after one more answer, and whether it has left its limit.
    function drifted(uint32 sum, uint256 word, Calibration memory limits) internal pure returns (uint32, bool) {
        uint256 total = uint256(sum) + marginSumOf(word);
        if (total > type(uint32).max) total = type(uint32).max;
        uint256 allowed = limits.drift * uint32(word) >> 16;
        total = total <= allowed ? 0 : total - allowed;
        return (uint32(total), total > limits.driftLimit);
    }
}
