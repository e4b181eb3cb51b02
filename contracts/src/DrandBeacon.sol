// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BLS} from "@kevincharm/bls-bn254/contracts/BLS.sol";

import {DrandNetwork, IDrandBeacon} from "./interfaces/IDrandBeacon.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";

/// Rounds of a drand network, verified with the pairing precompile; see `IDrandBeacon`.
contract DrandBeacon is IDrandBeacon {
    /// drand's domain of hashes to G1.
    bytes internal constant DOMAIN = "BLS_SIG_BN254G1_XMD:KECCAK-256_SVDW_RO_NUL_";
    /// Modulus of the field of BN254.
    uint256 internal constant MODULUS = 0x30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47;
    /// Two coordinates.
    uint256 internal constant PROOF_LENGTH = 64;
    address internal constant PAIRING = address(8);
    /// Everything that draws waits this long, and a chain whose clock trails by more than an hour has stopped: what
    /// waits for its draws has long been refunded.
    uint64 internal constant MAX_DRIFT = 1 hours;

    /// @inheritdoc IDrandBeacon
    uint64 public immutable maxDrift;
    uint64 internal immutable _genesis;
    uint64 internal immutable _period;
    uint256 internal immutable _keyX1;
    uint256 internal immutable _keyX0;
    uint256 internal immutable _keyY1;
    uint256 internal immutable _keyY0;

    mapping(uint64 round => bytes32) internal _values;

    constructor(DrandNetwork memory network_, uint64 maxDrift_) {
        if (network_.genesis == 0 || network_.genesis > block.timestamp) {
            revert DrandBeacon_GenesisOutOfBounds(network_.genesis, block.timestamp);
        }
        if (network_.period == 0) revert DrandBeacon_PeriodZero();
        // A block may come a period after its timestamp on any chain.
        if (maxDrift_ < network_.period || maxDrift_ > MAX_DRIFT) {
            revert DrandBeacon_DriftOutOfBounds(maxDrift_, network_.period, MAX_DRIFT);
        }
        if (!_isPublicKey(network_.publicKey)) revert DrandBeacon_InvalidPublicKey(network_.publicKey);
        (maxDrift, _genesis, _period) = (maxDrift_, network_.genesis, network_.period);
        (_keyX1, _keyX0) = (network_.publicKey[0], network_.publicKey[1]);
        (_keyY1, _keyY0) = (network_.publicKey[2], network_.publicKey[3]);
    }

    /// @inheritdoc IRandomBeacon
    function reveal(uint64 round, bytes calldata proof) external returns (bytes32 value) {
        if (_values[round] != 0) revert RandomBeacon_AlreadyRevealed(round);
        uint256 published = readyAt(round);
        if (published > block.timestamp + maxDrift) revert DrandBeacon_RoundNotReady(round, published - maxDrift);
        _verify(round, proof);
        value = sha256(proof);
        _values[round] = value;
        emit RoundRevealed(round, value);
    }

    /// @inheritdoc IRandomBeacon
    function nextRound() external view returns (uint64 round) {
        return roundAt(uint64(block.timestamp) + maxDrift) + 1;
    }

    /// @inheritdoc IRandomBeacon
    function valueOf(uint64 round) external view returns (bytes32 value) {
        return _values[round];
    }

    /// @inheritdoc IRandomBeacon
    function isMissed(uint64) external pure returns (bool) {
        return false;
    }

    /// @inheritdoc IDrandBeacon
    function network() external view returns (DrandNetwork memory) {
        return DrandNetwork([_keyX1, _keyX0, _keyY1, _keyY0], _genesis, _period);
    }

    /// @inheritdoc IDrandBeacon
    function roundAt(uint64 timestamp) public view returns (uint64 round) {
        return timestamp < _genesis ? 0 : (timestamp - _genesis) / _period + 1;
    }

    /// @inheritdoc IDrandBeacon
    function readyAt(uint64 round) public view returns (uint256 timestamp) {
        if (round == 0) revert DrandBeacon_RoundZero();
        return _genesis + uint256(round - 1) * _period;
    }

    function _verify(uint64 round, bytes calldata proof) internal view {
        if (proof.length != PROOF_LENGTH) revert DrandBeacon_ProofLength(proof.length, PROOF_LENGTH);
        uint256[2] memory signature = abi.decode(proof, (uint256[2]));
        (uint256 x, uint256 y) = (signature[0], signature[1]);
        if (x >= MODULUS) revert DrandBeacon_CoordinateTooLarge(x, MODULUS);
        if (y >= MODULUS) revert DrandBeacon_CoordinateTooLarge(y, MODULUS);
        // The zero of G1, which the precompile encodes as (0, 0), is not on the curve either.
        if (!BLS.isOnCurveG1(signature)) revert DrandBeacon_NotOnCurve(x, y);
        uint256[2] memory message = BLS.hashToPoint(DOMAIN, bytes.concat(keccak256(abi.encodePacked(round))));
        (bool valid, bool called) = BLS.verifySingle(signature, [_keyX0, _keyX1, _keyY0, _keyY1], message);
        if (!called) revert DrandBeacon_PairingFailed(round);
        if (!valid) revert DrandBeacon_WrongSignature(round, x, y);
    }

    /// The precompile itself checks that the coordinates are canonical and that the point is on the curve and in the
    /// group of the right order; on a chain without it nothing is a key.
    function _isPublicKey(uint256[4] memory key) internal view returns (bool) {
        if (key[0] | key[1] | key[2] | key[3] == 0) return false;
        (bool called, bytes memory answer) = PAIRING.staticcall(abi.encode(0, 0, key));
        return called && answer.length == 32 && bytes32(answer) == bytes32(uint256(1));
    }
}
