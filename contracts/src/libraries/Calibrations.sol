// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// What two honest nodes of a pair of numeric classes differ by at most, unpacked from the registry's word.
struct Calibration {
    /// Distance of contrasts, 1/256 nat: for sixteen positions and more, and for fewer.
    uint256 tau;
    uint256 spotTau;
    /// Failing blocks from which an answer fails.
    uint256 blockLimit;
    /// Contrasts that are recorded at each position: 2 or 4.
    uint256 contrasts;
    /// Largest margin of an honest token, and what capped margins at the positions that an accuser names may come to;
    /// 1/65536 nat.
    uint256 hardMargin;
    uint256 marginBar;
    /// What capped margins of a whole answer may come to, see `threshold`.
    uint256 thrBase;
    uint256 thrSlope;
    uint256 thrSpread;
    /// What margins of a node may come to over many answers: 2^-32 nat a token, 1/65536 nat.
    uint256 drift;
    uint256 driftLimit;
}

/// The word that the registry stores of a pair of numeric classes.
library Calibrations {
    uint256 internal constant MAX_TAU = 1024;
    uint256 internal constant MAX_SPOT_TAU = 4096;
    uint256 internal constant MAX_BLOCK_LIMIT = 2048;
    /// 8 nat, and 16 capped margins.
    uint256 internal constant MAX_MARGIN = 524_288;
    /// 64 nat.
    uint256 internal constant MAX_THR_BASE = 4_194_304;
    /// A quarter and a half of a nat for each token.
    uint256 internal constant MAX_THR_SLOPE = 1 << 30;
    uint256 internal constant MAX_DRIFT = 1 << 31;

    function unpack(uint256 word) internal pure returns (Calibration memory result) {
        result.tau = uint16(word);
        result.spotTau = uint16(word >> 16);
        result.blockLimit = uint16(word >> 32);
        result.contrasts = uint8(word >> 48);
        result.hardMargin = uint24(word >> 56);
        result.marginBar = uint24(word >> 80);
        result.thrBase = uint24(word >> 104);
        result.thrSlope = uint32(word >> 128);
        result.thrSpread = uint32(word >> 160);
        result.drift = uint32(word >> 192);
        result.driftLimit = uint32(word >> 224);
    }

    /// Whether every field is inside its bounds.
    function isValid(uint256 word) internal pure returns (bool) {
        Calibration memory given = unpack(word);
        return _within(given.tau, 1, MAX_TAU) && _within(given.spotTau, given.tau, MAX_SPOT_TAU)
            && _within(given.blockLimit, 1, MAX_BLOCK_LIMIT) && (given.contrasts == 2 || given.contrasts == 4)
            && _within(given.hardMargin, 1, MAX_MARGIN) && _within(given.marginBar, 1, MAX_MARGIN)
            && given.thrBase <= MAX_THR_BASE && given.thrSlope <= MAX_THR_SLOPE
            && _within(given.drift, given.thrSlope, MAX_DRIFT) && given.driftLimit != 0;
    }

    /// What the capped margins of `n` tokens may come to, 1/65536 nat: a part for each token and one for its noise.
    function threshold(Calibration memory self, uint256 n) internal pure returns (uint256) {
        uint256 noise = self.thrSpread * Math.sqrt(n << 16) >> 8;
        return self.thrBase + (self.thrSlope * n + noise >> 16);
    }

    function _within(uint256 value, uint256 min, uint256 max) private pure returns (bool) {
        return value >= min && value <= max;
    }
}
