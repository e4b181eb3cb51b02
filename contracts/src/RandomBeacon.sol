// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// Block hashes as rounds of randomness: round = block number. Whoever makes blocks chooses them, so this contract
/// exists on development chains only.
contract RandomBeacon {
    /// `round` has `value` for ever.
    event RoundCaptured(uint64 indexed round, bytes32 value);

    error RandomBeacon_NotDevelopmentChain(uint256 chainId);
    error RandomBeacon_RoundNotReady(uint64 round, uint64 readyAtBlock);
    error RandomBeacon_RoundMissed(uint64 round);
    error RandomBeacon_AlreadyCaptured(uint64 round);

    /// Chain ids of anvil, hardhat and the embedded chain; and of geth's development mode.
    uint256 internal constant DEVELOPMENT_CHAIN = 31337;
    uint256 internal constant GETH_DEVELOPMENT_CHAIN = 1337;
    /// The EVM knows the hashes of this many blocks.
    uint256 internal constant BLOCKHASH_WINDOW = 256;

    mapping(uint64 round => bytes32) internal _values;

    constructor() {
        if (block.chainid != DEVELOPMENT_CHAIN && block.chainid != GETH_DEVELOPMENT_CHAIN) {
            revert RandomBeacon_NotDevelopmentChain(block.chainid);
        }
    }

    /// Stores the value of `round`. Anyone may call.
    function capture(uint64 round) external returns (bytes32 value) {
        if (_values[round] != 0) revert RandomBeacon_AlreadyCaptured(round);
        if (block.number <= round) revert RandomBeacon_RoundNotReady(round, round + 1);
        value = blockhash(round);
        if (value == 0) revert RandomBeacon_RoundMissed(round);
        _values[round] = value;
        emit RoundCaptured(round, value);
    }

    /// The first round whose value nobody can know in this block.
    function nextRound() external view returns (uint64 round) {
        return uint64(block.number) + 1;
    }

    /// The value of `round`; zero while it is unknown.
    function valueOf(uint64 round) external view returns (bytes32 value) {
        return _values[round];
    }

    /// True once the value of `round` can never be had.
    function isMissed(uint64 round) external view returns (bool) {
        return _values[round] == 0 && block.number > uint256(round) + BLOCKHASH_WINDOW;
    }
}
