// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BLS} from "@kevincharm/bls-bn254/contracts/BLS.sol";

import {DrandBeacon} from "../src/DrandBeacon.sol";
import {DrandNetwork} from "../src/interfaces/IDrandBeacon.sol";
import {IVm} from "./IVm.sol";

/// Beacons without the rest of the network, and the vectors of `script/beacon-vectors`.
abstract contract BeaconBase {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    bytes internal constant DOMAIN = "BLS_SIG_BN254G1_XMD:KECCAK-256_SVDW_RO_NUL_";
    uint256 internal constant MODULUS = 0x30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd47;
    /// The order of G1 and G2.
    uint256 internal constant ORDER = 0x30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001;
    uint64 internal constant GENESIS = 1_700_000_000;
    uint64 internal constant PERIOD = 3;
    uint64 internal constant DRIFT = 60;
    uint64 internal constant MOST_DRIFT = 1 hours;

    string internal json;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        json = vm.readFile("contracts/test/vectors/beacon.json");
    }

    /// What a relay would hand over, and what it is worth.
    struct Round {
        uint64 number;
        bytes messagePoint;
        bytes signature;
        bytes32 randomness;
    }

    function evmnet() internal view returns (DrandNetwork memory) {
        return DrandNetwork(
            keyAt(".evmnet.publicKey"),
            uint64(vm.parseJsonUint(json, ".evmnet.genesis")),
            uint64(vm.parseJsonUint(json, ".evmnet.period"))
        );
    }

    /// A network of one, whose secret everyone knows.
    function testNetwork() internal view returns (DrandNetwork memory) {
        return DrandNetwork(keyAt(".test.publicKey"), GENESIS, PERIOD);
    }

    function keyAt(string memory key) internal view returns (uint256[4] memory) {
        return abi.decode(vm.parseJsonBytes(json, key), (uint256[4]));
    }

    /// Vector number `i` of `evmnet` or `test`; its number is zero behind the last.
    function vectorAt(string memory net, uint256 i) internal view returns (Round memory round) {
        string memory path = string.concat(".", net, ".rounds[", vm.toString(i), "]");
        if (!vm.keyExistsJson(json, path)) return round;
        round.number = uint64(vm.parseJsonUint(json, string.concat(path, ".round")));
        round.messagePoint = vm.parseJsonBytes(json, string.concat(path, ".messagePoint"));
        round.signature = vm.parseJsonBytes(json, string.concat(path, ".signature"));
        round.randomness = vm.parseJsonBytes32(json, string.concat(path, ".randomness"));
    }

    function messagePoint(uint64 round) internal view returns (bytes memory) {
        return abi.encode(BLS.hashToPoint(DOMAIN, bytes.concat(keccak256(abi.encodePacked(round)))));
    }

    /// A point of G1 times a scalar, by the precompile.
    function multiply(bytes memory point, uint256 scalar) internal view returns (bytes memory product) {
        bool called;
        (called, product) = address(7).staticcall(bytes.concat(point, bytes32(scalar)));
        require(called, "not a point");
    }

    /// The test network's signature of any round.
    function signed(uint64 round) internal view returns (bytes memory) {
        return multiply(messagePoint(round), vm.parseJsonUint(json, ".test.secret"));
    }

    function coordinates(bytes memory point) internal pure returns (uint256 x, uint256 y) {
        return abi.decode(point, (uint256, uint256));
    }

    /// Goes to the second at which the beacon's network publishes `round`.
    function warpTo(DrandBeacon beacon, uint64 round) internal {
        vm.warp(beacon.readyAt(round));
    }

    /// The next call to `reveal` has to fail with `error_`, and store nothing.
    function refused(DrandBeacon beacon, uint64 round, bytes memory proof, bytes memory error_) internal {
        bytes32 before = beacon.valueOf(round);
        vm.expectRevert(error_);
        beacon.reveal(round, proof);
        assertEq(beacon.valueOf(round), before, "value after a refusal");
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function assertEq(uint256 a, uint256 b, string memory what) internal pure {
        if (a != b) revert(string.concat(what, ": ", vm.toString(a), " != ", vm.toString(b)));
    }

    function assertEq(bytes32 a, bytes32 b, string memory what) internal pure {
        assertEq(uint256(a), uint256(b), what);
    }

    function assertEq(bytes memory a, bytes memory b, string memory what) internal pure {
        assertEq(keccak256(a), keccak256(b), what);
    }

    function assertTrue(bool condition, string memory what) internal pure {
        require(condition, what);
    }
}
