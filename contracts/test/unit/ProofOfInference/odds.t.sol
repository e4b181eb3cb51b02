// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AuditOdds} from "../../../src/libraries/AuditOdds.sol";

/// How likely an answer is audited.
contract OddsTest {
    uint256 internal constant BPS = 10_000;

    /// [V8]
    function testFuzz_a_record_halves_the_probability_every_ten_answers(uint96 value, uint8 passes) public pure {
        if (value == 0) return;
        uint256 now_ = AuditOdds.byRecord(uint256(value) * passes, value);
        uint256 later = AuditOdds.byRecord(uint256(value) * (uint256(passes) + 10), value);
        require(later == (now_ + 1) / 2 || later == now_ / 2 || now_ == 1, "half, rounded up");
        require(AuditOdds.byRecord(uint256(value) * (uint256(passes) + 1), value) <= now_, "never more");
        require(now_ >= 1 && now_ <= BPS, "a probability");
    }

    function test_known_probabilities() public pure {
        require(AuditOdds.byRecord(0, 1) == BPS, "nothing passed");
        require(AuditOdds.byRecord(9, 10) == BPS, "less than one answer of the size");
        require(AuditOdds.byRecord(1, 1) == 9331, "one");
        require(AuditOdds.byRecord(10, 1) == 5000, "ten");
        require(AuditOdds.byRecord(43, 1) == 508, "forty-three");
        require(AuditOdds.byRecord(140, 1) == 1, "the most that counts");
        // Six tenths of a fee against twelve fees, found with 95 %: 1.5 * 0.6 / (0.95 * 12.6).
        require(AuditOdds.byExposure(0.6e18, 12e18, 9500) == 752, "seven and a half percent");
        require(AuditOdds.byExposure(0, 0, 9500) == 0, "nothing to gain");
        require(AuditOdds.byExposure(1, 0, 9500) > BPS, "nothing to lose");
    }

    /// Tiny answers do not vouch for large ones. [V8]
    function testFuzz_what_passed_counts_by_its_value(uint64 value, uint8 times) public pure {
        if (value == 0 || times == 0) return;
        uint256 passed = uint256(value) * times;
        require(AuditOdds.byRecord(passed, passed + 1) == BPS, "all together less than this one");
    }

    /// The more is open, and the less at risk, the likelier; with `BPS` cheating never pays. [V8]
    function testFuzz_exposure(uint96 gain, uint96 more, uint96 atRisk) public pure {
        uint256 now_ = AuditOdds.byExposure(gain, atRisk, 9500);
        require(AuditOdds.byExposure(uint256(gain) + more, atRisk, 9500) >= now_, "more open");
        require(AuditOdds.byExposure(gain, uint256(atRisk) + more, 9500) <= now_, "more at risk");
        if (now_ > BPS || gain == 0) return;
        // Expected loss above expected gain: q * atRisk > (1 - q) * gain, q = p * power.
        uint256 q = now_ * 9500;
        require(q * atRisk > (BPS * BPS - q) * gain || atRisk == 0, "cheating loses");
    }
}
