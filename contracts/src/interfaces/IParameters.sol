// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetId} from "../types/Ids.sol";

/// What sessions and their tasks live by. Times in seconds, shares in hundredths of a percent. One word.
struct SessionTerms {
    /// Share of a fee that the miner earns.
    uint16 minerBps;
    /// Share of the lane's holder; the miner's in lane 0.
    uint16 routerBps;
    /// Furthest that a request's deadline may lie ahead.
    uint24 maxDeadline;
    /// What a node that takes over a task has for its answer.
    uint24 attemptTime;
    /// What redundant miners have to open their commitments.
    uint24 revealTime;
    /// From the last answer to the settlement.
    uint24 settleDelay;
    /// Nodes that may be asked one after the other for one answer.
    uint8 maxAttempts;
    /// From `close` to the end: longer than the longest life of a task.
    uint24 noticePeriod;
    /// What the draw of a session's nodes may take.
    uint24 reservationTimeout;
    /// After this a session's drawn nodes may be replaced.
    uint24 reservePeriod;
    /// After so many tasks in one lane they may be replaced, too.
    uint32 maxTasks;
}

/// What nodes live by. Amounts in minor units of COR. One word.
struct NodeTerms {
    /// From registration until a place counts in draws.
    uint32 activationDelay;
    /// How long the stake of an exiting node stays slashable.
    uint32 unbondingPeriod;
    /// Stake of one place.
    uint128 collateralPerSlot;
    /// Share of the stake that a proven lie costs.
    uint16 slashBps;
    /// Share of a slash that goes to whoever proved it; the rest is burnt.
    uint16 reporterBps;
}

/// Amounts that depend on the token that a session is paid in, minor units.
struct AssetTerms {
    /// What whoever moves a task or session on earns at most.
    uint96 tip;
    /// Smallest deposit of a new session.
    uint96 minDeposit;
}

/// A whole set of tunables.
struct Terms {
    SessionTerms session;
    NodeTerms node;
    /// One for each asset of `SessionPayment`, in its order.
    AssetTerms[] assets;
}

/// Every tunable, inside bounds that are code. A new set is told `delay()` before it holds, replaces the one before
/// it as a whole, and never touches what is open: sessions and nodes name the version that they began under.
interface IParameters {
    /// `version` will hold from `effectiveAt` (unix seconds) on.
    event TermsProposed(uint16 indexed version, uint40 effectiveAt, Terms terms);
    /// What was proposed as `version` will not hold.
    event TermsWithdrawn(uint16 indexed version);
    event GovernorProposed(address indexed governor, address indexed successor);
    event GovernorChanged(address indexed oldGovernor, address indexed newGovernor);

    error Parameters_NotGovernor(address caller);
    error Parameters_NotSuccessor(address caller);
    error Parameters_ZeroAddress();
    error Parameters_UnknownVersion(uint16 version);
    error Parameters_UnknownAsset(AssetId asset);
    error Parameters_Pending(uint16 version, uint40 effectiveAt);
    error Parameters_NothingPending();
    error Parameters_AssetCount(uint256 assets, uint256 wanted);
    /// `name` is the member of the struct, or `taskLife`, the longest life of a task that the set allows, which must not
    /// exceed the unbonding of any node; ASCII, left-aligned.
    error Parameters_OutOfBounds(bytes32 name, uint256 value, uint256 min, uint256 max);

    /// Governor: announces a set that holds after `delay()`. Reverts with `Parameters_Pending` while another waits.
    function propose(Terms calldata terms) external;

    /// Governor: takes back what does not hold yet.
    function withdrawProposal() external;

    /// Governor: names a successor, who must accept.
    function proposeGovernor(address successor) external;

    function acceptGovernor() external;

    /// The version that holds now, counted from 1.
    function currentVersion() external view returns (uint16);

    /// The set of a version that holds or held; reverts with `Parameters_UnknownVersion` otherwise.
    function termsOf(uint16 version) external view returns (Terms memory);

    function sessionTermsOf(uint16 version) external view returns (SessionTerms memory);

    function nodeTermsOf(uint16 version) external view returns (NodeTerms memory);

    function assetTermsOf(uint16 version, AssetId asset) external view returns (AssetTerms memory);

    /// Longest `reservationTimeout` of any set, seconds: how long a draw may wait for its seed. Places are not reused, and
    /// levels of draws do not move, for that long.
    function drawWindow() external view returns (uint40);

    /// Seconds that the audits of a task may take once it could be settled: no unbonding is shorter than the longest life
    /// of a task and this.
    function longestAudit() external view returns (uint40);

    /// Largest royalty that a model may take; no set gives away more than what it leaves.
    function maxRoyaltyBps() external view returns (uint16);

    /// Seconds from a proposal until it holds.
    function delay() external view returns (uint40);

    function governor() external view returns (address);

    /// Who may become governor; zero if nobody.
    function successor() external view returns (address);

    /// Number of assets that every set has terms for.
    function assetCount() external view returns (uint8);
}
