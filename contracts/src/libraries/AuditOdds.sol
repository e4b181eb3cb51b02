// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// How likely an answer is audited: hundredths of a percent, rounded up.
library AuditOdds {
    uint256 internal constant BPS = 10_000;
    /// So many audited answers of the size of the one at stake halve the probability.
    uint256 internal constant HALVING = 10;
    /// After so many halvings less than one hundredth of a percent is left.
    uint256 internal constant MAX_HALVINGS = 14;
    /// 10,000 * 2^(-r/10) for r = 0 to 9, rounded up; 16 bits each, the first lowest.
    uint256 internal constant TENTHS = 0x0014ef1670180c19c61ba01d9b1fbb220224732710;
    /// What makes cheating a loss with certainty, half as much again.
    uint256 internal constant MARGIN_BPS = 15_000;

    /// By the record: what the node's audited answers came to, against the one at stake. Tiny answers do not vouch for
    /// large ones.
    function byRecord(uint256 passed, uint256 value) internal pure returns (uint256) {
        // What costs nothing is worth no lie.
        uint256 passes = value == 0 ? HALVING * MAX_HALVINGS : passed / value;
        uint256 halvings = passes / HALVING;
        if (halvings >= MAX_HALVINGS) return 1;
        uint256 whole = uint16(TENTHS >> (16 * (passes % HALVING)));
        return (whole + (1 << halvings) - 1) >> halvings;
    }

    /// By what the node could gain with all that is open, against the stake that it would lose: with detection of
    /// `powerBps` the probability from which on cheating does not pay, and half of it more. Above `BPS` if no probability
    /// is enough.
    function byExposure(uint256 gain, uint256 atRisk, uint256 powerBps) internal pure returns (uint256) {
        if (gain == 0) return 0;
        uint256 bound = powerBps * (atRisk + gain);
        return (BPS * MARGIN_BPS * gain + bound - 1) / bound;
    }
}
