// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Fees} from "../../src/libraries/Fees.sol";

/// Arithmetic of money for all values at once: `script/bench/audit` runs these with halmos. `assert` is what it looks
/// at. Quotients of products of large unknown numbers are beyond solvers: prices are proven for the floor that tests use;
/// those of other floors, shares and growth are fuzzed in contracts/test/fuzz/Money.t.sol.
contract MoneySymbolic {
    uint80 internal constant PRICE = 3e19;

    /// [M3] A fee fits the 113 bits that `SessionQueue` relies on, and nothing overflows on the way.
    function check_fee_fits(uint32 prompt, uint32 output, uint80 priceIn, uint80 priceOut) external pure {
        assert(Fees.feeUp(prompt, output, priceIn, priceOut) < 1 << 113);
    }

    /// A price is between its floor and five times it.
    function check_price_has_bounds(uint16 utilisationBps) external pure {
        if (utilisationBps > 10_000) return;
        uint256 price = Fees.priceDown(PRICE, utilisationBps);
        assert(price >= PRICE);
        assert(price <= uint256(PRICE) * 5);
    }
}
