// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// Rounds of public randomness that nobody knows when they are named.
interface IRandomBeacon {
    /// `round` has `value` for ever.
    event RoundCaptured(uint64 indexed round, bytes32 value);

    error RandomBeacon_NotDevelopmentChain(uint256 chainId);
    error RandomBeacon_RoundNotReady(uint64 round, uint64 readyAtBlock);
    error RandomBeacon_RoundMissed(uint64 round);
    error RandomBeacon_AlreadyCaptured(uint64 round);

    /// The first round whose value nobody can know in this block.
    function nextRound() external view returns (uint64 round);

    /// The value of `round`; zero while it is unknown.
    function valueOf(uint64 round) external view returns (bytes32 value);

    /// True once the value of `round` can never be had; what waits for it is refunded, never drawn again.
    function isMissed(uint64 round) external view returns (bool);

    /// Stores the value of `round`. Anyone may call.
    function capture(uint64 round) external returns (bytes32 value);
}
