// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetTerms, IParameters, NodeTerms, SessionTerms, Terms} from "../interfaces/IParameters.sol";

/// What no set of tunables may leave. Seconds, minor units, hundredths of a percent.
library TermsBounds {
    uint256 internal constant BPS = 10_000;
    /// Miners invest before they earn: most of a fee is always theirs.
    uint256 internal constant MIN_MINER_BPS = 5000;
    uint256 internal constant MAX_ROUTER_BPS = 3000;
    /// Inclusion of a transaction alone takes seconds.
    uint256 internal constant MIN_DEADLINE = 10;
    /// `NodePool.keyGrace()` is longer than the longest life of a task that this and the next four allow.
    uint256 internal constant MAX_DEADLINE = 1 days;
    uint256 internal constant MAX_ATTEMPT_TIME = 1 hours;
    uint256 internal constant MAX_REVEAL_TIME = 1 hours;
    uint256 internal constant MAX_SETTLE_DELAY = 1 days;
    /// As many as nodes fit a reservation.
    uint256 internal constant MAX_ATTEMPTS = 8;
    /// A client who closes has the rest of his money back within this.
    uint256 internal constant MAX_NOTICE = 30 days;
    /// A draw waits for a beacon's round, which takes seconds.
    uint256 internal constant MIN_RESERVATION_TIMEOUT = 10;
    /// Each rotation costs the client a tip.
    uint256 internal constant MIN_RESERVE_PERIOD = 1 minutes;
    uint256 internal constant MAX_RESERVE_PERIOD = 90 days;
    /// A place never counts in a draw that was entered before it, not even in the same second.
    uint256 internal constant MIN_ACTIVATION_DELAY = 1;
    uint256 internal constant MAX_ACTIVATION_DELAY = 30 days;
    uint256 internal constant MAX_UNBONDING = 365 days;
    /// Ten million COR: eight of them are far below the supply's 96 bits.
    uint256 internal constant MAX_COLLATERAL = 1e25;
    /// Half of a slash is burnt at least: who reports himself does not get his stake back.
    uint256 internal constant MAX_REPORTER_BPS = 5000;
    /// A million tokens of 18 decimals: a set cannot shut new sessions out.
    uint256 internal constant MAX_MIN_DEPOSIT = 1e24;

    /// What a set is checked against beside itself.
    struct Frame {
        uint256 assetCount;
        uint256 maxRoyaltyBps;
        uint256 drawWindow;
        /// From the first second in which a task could be settled until its last answer is judged.
        uint256 longestAudit;
        /// Over all sets so far, see `lifeOf`.
        uint256 longestLife;
        uint256 shortestUnbonding;
    }

    /// Reverts with `Parameters_OutOfBounds` or `Parameters_AssetCount`.
    function check(Terms memory terms, Frame memory frame) internal pure {
        if (terms.assets.length != frame.assetCount) {
            revert IParameters.Parameters_AssetCount(terms.assets.length, frame.assetCount);
        }
        _checkSession(terms.session, frame);
        _checkNode(terms.node, frame, lifeOf(terms.session) + frame.longestAudit);
        for (uint256 i; i < terms.assets.length; ++i) {
            AssetTerms memory asset = terms.assets[i];
            within("minDeposit", asset.minDeposit, 1, MAX_MIN_DEPOSIT);
            within("tip", asset.tip, 0, asset.minDeposit);
        }
    }

    /// From the request of a task until it is settled, at the longest, seconds.
    function lifeOf(SessionTerms memory terms) internal pure returns (uint256) {
        return _answerTime(terms) + terms.settleDelay;
    }

    function within(bytes32 name, uint256 value, uint256 min, uint256 max) internal pure {
        if (value < min || value > max) revert IParameters.Parameters_OutOfBounds(name, value, min, max);
    }

    function _checkSession(SessionTerms memory terms, Frame memory frame) private pure {
        // The royalty is bounded far below half, so that there is always room for the smallest share of a miner.
        within("minerBps", terms.minerBps, MIN_MINER_BPS, BPS - frame.maxRoyaltyBps);
        uint256 left = BPS - frame.maxRoyaltyBps - terms.minerBps;
        within("routerBps", terms.routerBps, 0, left < MAX_ROUTER_BPS ? left : MAX_ROUTER_BPS);
        within("maxDeadline", terms.maxDeadline, MIN_DEADLINE, MAX_DEADLINE);
        within("attemptTime", terms.attemptTime, 1, MAX_ATTEMPT_TIME);
        within("revealTime", terms.revealTime, 1, MAX_REVEAL_TIME);
        within("settleDelay", terms.settleDelay, 1, MAX_SETTLE_DELAY);
        within("maxAttempts", terms.maxAttempts, 1, MAX_ATTEMPTS);
        // A request that was signed before the notice can still be served within it.
        within("noticePeriod", terms.noticePeriod, _answerTime(terms) + 1, MAX_NOTICE);
        within("reservationTimeout", terms.reservationTimeout, MIN_RESERVATION_TIMEOUT, frame.drawWindow);
        within("reservePeriod", terms.reservePeriod, MIN_RESERVE_PERIOD, MAX_RESERVE_PERIOD);
        within("maxTasks", terms.maxTasks, 1, type(uint32).max);
    }

    /// Sessions and nodes of different sets meet: every unbonding must outlast every task of any set, and its audit.
    function _checkNode(NodeTerms memory terms, Frame memory frame, uint256 life) private pure {
        within("taskLife", life, 0, frame.shortestUnbonding);
        uint256 longest = life > frame.longestLife ? life : frame.longestLife;
        within("unbondingPeriod", terms.unbondingPeriod, longest, MAX_UNBONDING);
        within("activationDelay", terms.activationDelay, MIN_ACTIVATION_DELAY, MAX_ACTIVATION_DELAY);
        within("collateralPerSlot", terms.collateralPerSlot, 1, MAX_COLLATERAL);
        within("slashBps", terms.slashBps, 1, BPS);
        within("reporterBps", terms.reporterBps, 0, MAX_REPORTER_BPS);
    }

    function _answerTime(SessionTerms memory terms) private pure returns (uint256) {
        return uint256(terms.maxDeadline) + uint256(terms.maxAttempts) * terms.attemptTime + terms.revealTime;
    }
}
