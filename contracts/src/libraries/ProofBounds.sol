// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodeStats} from "../interfaces/INodeStats.sol";
import {IProofOfInference, ProofConfig, ProofWiring} from "../interfaces/IProofOfInference.sol";

/// What no configuration of the proof may leave. Seconds, hundredths of a percent.
library ProofBounds {
    uint256 internal constant BPS = 10_000;
    /// The client's money waits for it.
    uint256 internal constant MAX_TIME = 1 days;
    /// With a smaller one an audit would find nothing worth its name.
    uint256 internal constant MIN_POWER_BPS = 5000;
    /// What is left of the smallest share of a miner stays his.
    uint256 internal constant MAX_LEVY_BPS = 5000;
    /// The rest is burnt: who has himself proven a liar does not get his stake back.
    uint256 internal constant MAX_AWARDS_BPS = 9000;
    /// A duty that was not done is no lie.
    uint256 internal constant MAX_DUTY_BPS = 1000;

    function checkWiring(ProofWiring memory wiring) internal pure {
        if (wiring.beacon == address(0) || wiring.models == address(0) || wiring.parameters == address(0)) {
            revert IProofOfInference.ProofOfInference_ZeroAddress();
        }
        if (wiring.payment == address(0) || wiring.pool == address(0) || wiring.queue == address(0)) {
            revert IProofOfInference.ProofOfInference_ZeroAddress();
        }
    }

    /// Seconds of an epoch of `NodeStats`.
    function failureEpochOf(address stats) internal view returns (uint40) {
        if (stats == address(0)) revert IProofOfInference.ProofOfInference_ZeroAddress();
        return INodeStats(stats).epochLength();
    }

    /// The longest that audits take, which may be `allowed` at most: unbonding covers no more.
    function check(ProofConfig memory config, uint256 allowed, uint256 validators) internal pure returns (uint40) {
        within("epochLength", config.epochLength, 1, MAX_TIME);
        within("roundTimeout", config.roundTimeout, 1, MAX_TIME);
        within("sealTime", config.sealTime, 1, MAX_TIME);
        within("openTime", config.openTime, 1, MAX_TIME);
        within("revealTime", config.revealTime, 1, MAX_TIME);
        within("appealTime", config.appealTime, 1, MAX_TIME);
        within("minProbabilityBps", config.minProbabilityBps, 1, BPS);
        within("gainBps", config.gainBps, 1, BPS);
        within("powerBps", config.powerBps, MIN_POWER_BPS, BPS);
        within("auditBps", uint256(config.auditShareBps) + config.auditPayBps, 0, MAX_LEVY_BPS);
        within("slashBps", config.slashBps, 1, BPS);
        within("dutyBps", config.dutyBps, 0, MAX_DUTY_BPS);
        within("awardsBps", uint256(config.proverBps) + config.clientBps, 0, MAX_AWARDS_BPS);
        within("appealBps", config.appealBps, 0, BPS);
        // The draw; validators one after the other, the miner, the validator; the panel's draw, its commitments and
        // openings; the same of a second panel, and the time to ask for it; once, that data are demanded and published.
        uint256 longest = uint256(config.epochLength) + 3 * uint256(config.roundTimeout) + (validators + 3)
            * config.sealTime + 2 * uint256(config.openTime) + 3 * uint256(config.revealTime) + config.appealTime;
        within("longestAudit", longest, 0, allowed);
        return uint40(longest);
    }

    function within(bytes32 name, uint256 value, uint256 min, uint256 max) internal pure {
        if (value < min || value > max) {
            revert IProofOfInference.ProofOfInference_OutOfBounds(name, value, min, max);
        }
    }
}
