// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IRandomBeacon} from "./IRandomBeacon.sol";

/// The beacon of development chains: round n is the hash of block n. Whoever makes blocks chooses it, so this beacon
/// cannot be deployed on any other chain. `reveal` takes an empty proof, from the block after the round's own until 256
/// blocks after it; then the EVM has forgotten the hash, and the round is missed.
interface IBlockhashBeacon is IRandomBeacon {
    error BlockhashBeacon_NotDevelopmentChain(uint256 chainId);
    error BlockhashBeacon_ProofNotEmpty(uint256 length);
    error BlockhashBeacon_RoundNotReady(uint64 round, uint256 readyAtBlock);
    error BlockhashBeacon_RoundMissed(uint64 round, uint256 lastBlock);
}
