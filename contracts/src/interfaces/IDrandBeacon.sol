// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRandomBeacon} from "./IRandomBeacon.sol";

/// A drand network of the scheme `bls-bn254-unchained-on-g1`.
struct DrandNetwork {
    /// Point of G2 as drand serialises it and the pairing precompile reads it: x before y, and of each coordinate the
    /// imaginary half first.
    uint256[4] publicKey;
    /// Unix seconds at which round 1 is published.
    uint64 genesis;
    /// Seconds between two rounds.
    uint64 period;
}

/// The values of a drand network, which anyone relays. `reveal` takes the round's signature: the 64 bytes that drand
/// publishes, a point of G1, x before y. It is verified against the network's public key, and since exactly one
/// signature verifies, a relay chooses nothing. The value is the sha-256 of these bytes, drand's own `randomness`.
///
/// `isMissed` is always false: drand's nodes keep every round, so that a round can be relayed at any later time, by
/// anyone. What waits for a round therefore needs a deadline of its own, for the case that drand stops.
interface IDrandBeacon is IRandomBeacon {
    /// The constructor: a coordinate beyond the field, a point that is not of G2, or its zero.
    error DrandBeacon_InvalidPublicKey(uint256[4] publicKey);
    /// The constructor: zero, or later than the block.
    error DrandBeacon_GenesisOutOfBounds(uint64 genesis, uint256 timestamp);
    error DrandBeacon_PeriodZero();
    error DrandBeacon_DriftOutOfBounds(uint64 maxDrift, uint64 least, uint64 most);

    /// drand counts rounds from 1.
    error DrandBeacon_RoundZero();
    /// `round` may be revealed from `acceptedAt` on, in unix seconds.
    error DrandBeacon_RoundNotReady(uint64 round, uint256 acceptedAt);
    error DrandBeacon_ProofLength(uint256 length, uint256 wanted);
    /// Coordinates are less than the field's modulus; a point has one encoding.
    error DrandBeacon_CoordinateTooLarge(uint256 coordinate, uint256 modulus);
    error DrandBeacon_NotOnCurve(uint256 x, uint256 y);
    /// A point of G1, and not the network's signature of `round`.
    error DrandBeacon_WrongSignature(uint64 round, uint256 x, uint256 y);
    /// The call of the pairing precompile failed: the transaction carried too little gas.
    error DrandBeacon_PairingFailed(uint64 round);

    /// What the constructor was given.
    function network() external view returns (DrandNetwork memory);

    /// Seconds by which this chain's clock may trail the time. `nextRound()` is the first round that drand publishes
    /// later than `maxDrift` after the block's timestamp, and `reveal` takes a round from `maxDrift` before its time on:
    /// so `nextRound()` never names a round that is revealed already.
    function maxDrift() external view returns (uint64);

    /// The latest round that is published at `timestamp`, in unix seconds; 0 before the first one.
    function roundAt(uint64 timestamp) external view returns (uint64 round);

    /// Unix seconds at which `round` is published: from then on relays can have its signature.
    function readyAt(uint64 round) external view returns (uint256 timestamp);
}
