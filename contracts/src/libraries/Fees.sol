// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// What a fee is made of; all of it, to the last unit.
struct Shares {
    uint128 miner;
    uint128 router;
    uint128 royalty;
    uint128 tip;
    uint128 burnt;
}

/// Fees and their division. Shares are rounded down; what rounding leaves over is burnt.
library Fees {
    uint256 internal constant BPS = 10_000;

    /// Price of so many tokens; cannot overflow: 2^32 * 2^96 * 2 < 2^256.
    function feeOf(uint32 promptTokens, uint32 outputTokens, uint96 priceIn, uint96 priceOut)
        internal
        pure
        returns (uint256)
    {
        return uint256(promptTokens) * priceIn + uint256(outputTokens) * priceOut;
    }

    /// `minerBps + routerBps + royaltyBps` must not exceed `BPS`. Of what they leave, up to `maxTip` goes to whoever
    /// settles, the rest is burnt.
    function splitDown(uint128 fee, uint16 minerBps, uint16 routerBps, uint16 royaltyBps, uint128 maxTip)
        internal
        pure
        returns (Shares memory shares)
    {
        shares.miner = _shareDown(fee, minerBps);
        shares.router = _shareDown(fee, routerBps);
        shares.royalty = _shareDown(fee, royaltyBps);
        uint128 rest = fee - shares.miner - shares.router - shares.royalty;
        shares.tip = rest < maxTip ? rest : maxTip;
        shares.burnt = rest - shares.tip;
    }

    function _shareDown(uint128 fee, uint16 bps) private pure returns (uint128) {
        return uint128(uint256(fee) * bps / BPS);
    }
}
