// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IBlockhashBeacon} from "./interfaces/IBlockhashBeacon.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";

/// Hashes of blocks, captured while the EVM knows them; see `IBlockhashBeacon`.
contract BlockhashBeacon is IBlockhashBeacon {
    /// Chain id of anvil, hardhat and the embedded chain.
    uint256 internal constant DEVELOPMENT_CHAIN = 31337;
    /// Chain id of geth's development mode.
    uint256 internal constant GETH_DEVELOPMENT_CHAIN = 1337;
    /// The EVM knows the hashes of this many blocks.
    uint256 internal constant BLOCKHASH_WINDOW = 256;

    mapping(uint64 round => bytes32) internal _values;

    constructor() {
        if (block.chainid != DEVELOPMENT_CHAIN && block.chainid != GETH_DEVELOPMENT_CHAIN) {
            revert BlockhashBeacon_NotDevelopmentChain(block.chainid);
        }
    }

    /// @inheritdoc IRandomBeacon
    function reveal(uint64 round, bytes calldata proof) external returns (bytes32 value) {
        if (_values[round] != 0) revert RandomBeacon_AlreadyRevealed(round);
        if (proof.length != 0) revert BlockhashBeacon_ProofNotEmpty(proof.length);
        if (block.number <= round) revert BlockhashBeacon_RoundNotReady(round, uint256(round) + 1);
        value = blockhash(round);
        if (value == 0) revert BlockhashBeacon_RoundMissed(round, uint256(round) + BLOCKHASH_WINDOW);
        _values[round] = value;
        emit RoundRevealed(round, value);
    }

    /// @inheritdoc IRandomBeacon
    function nextRound() external view returns (uint64 round) {
        return uint64(block.number) + 1;
    }

    /// @inheritdoc IRandomBeacon
    function valueOf(uint64 round) external view returns (bytes32 value) {
        return _values[round];
    }

    /// @inheritdoc IRandomBeacon
    function isMissed(uint64 round) external view returns (bool) {
        return _values[round] == 0 && block.number > uint256(round) + BLOCKHASH_WINDOW;
    }
}
