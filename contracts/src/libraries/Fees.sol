// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// What a fee is made of; all of it, to the last unit.
struct Shares {
    uint96 miner;
    uint96 router;
    uint96 royalty;
    uint96 tip;
    uint96 burnt;
}

/// Prices, fees and their division. A fee is rounded up, its shares down; what rounding leaves over is burnt.
library Fees {
    uint256 internal constant BPS = 10_000;
    /// Prices are for so many tokens.
    uint256 internal constant PRICED_TOKENS = 1_000_000;
    /// A pool in full use costs so many times its floor more.
    uint256 internal constant STEEPNESS = 4;

    /// The floor times 1 + 4 * u^2, for the share `u` of the pool that is in use. At most five times the floor.
    function priceDown(uint80 floor, uint16 utilisationBps) internal pure returns (uint256) {
        uint256 more = uint256(floor) * STEEPNESS * utilisationBps * utilisationBps / (BPS * BPS);
        return floor + more;
    }

    /// Price of so many tokens; cannot overflow: 2^32 * 2^80 * 2 < 2^256.
    function feeUp(uint32 promptTokens, uint32 outputTokens, uint80 priceIn, uint80 priceOut)
        internal
        pure
        returns (uint256)
    {
        unchecked {
            uint256 millionfold = uint256(promptTokens) * priceIn + uint256(outputTokens) * priceOut;
            return (millionfold + PRICED_TOKENS - 1) / PRICED_TOKENS;
        }
    }

    /// `minerBps + routerBps + royaltyBps` must not exceed `BPS`. Of what they leave, up to `maxTip` goes to whoever
    /// settles, the rest is burnt.
    function splitDown(uint96 fee, uint16 minerBps, uint16 routerBps, uint16 royaltyBps, uint96 maxTip)
        internal
        pure
        returns (Shares memory shares)
    {
        shares.miner = _shareDown(fee, minerBps);
        shares.router = _shareDown(fee, routerBps);
        shares.royalty = _shareDown(fee, royaltyBps);
        // Rounded down, the three are not more than the fee.
        unchecked {
            uint96 rest = fee - shares.miner - shares.router - shares.royalty;
            shares.tip = rest < maxTip ? rest : maxTip;
            shares.burnt = rest - shares.tip;
        }
    }

    function _shareDown(uint96 fee, uint16 bps) private pure returns (uint96) {
        // 2^96 * 2^16 at most.
        unchecked {
            return uint96(uint256(fee) * bps / BPS);
        }
    }
}
