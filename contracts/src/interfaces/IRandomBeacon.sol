// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// Rounds of public randomness that nobody knows when they are named. Whoever needs a value stores `nextRound()`, anyone
/// reveals that round once it is known, and one revealed round serves everything that waits for it.
interface IRandomBeacon {
    /// `round` has `value` for ever.
    event RoundRevealed(uint64 indexed round, bytes32 value);

    error RandomBeacon_AlreadyRevealed(uint64 round);

    /// The first round whose value nobody can know in this block.
    function nextRound() external view returns (uint64 round);

    /// The value of `round`; zero while it is not revealed.
    function valueOf(uint64 round) external view returns (bytes32 value);

    /// True once the value of `round` can never be had; what waits for it is refunded, never drawn again.
    function isMissed(uint64 round) external view returns (bool);

    /// Stores the value of `round`, once. Anyone may call. What `proof` has to be, and the errors, stand with the
    /// implementation: `IBlockhashBeacon`, `IDrandBeacon`.
    function reveal(uint64 round, bytes calldata proof) external returns (bytes32 value);
}
