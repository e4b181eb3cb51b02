// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BLS} from "@kevincharm/bls-bn254/contracts/BLS.sol";

import {DrandBeacon} from "../../src/DrandBeacon.sol";
import {DrandNetwork, IDrandBeacon} from "../../src/interfaces/IDrandBeacon.sol";
import {IRandomBeacon} from "../../src/interfaces/IRandomBeacon.sol";
import {BeaconBase} from "../BeaconBase.sol";

/// The library's hash to the curve and the beacon, against what an independent implementation says.
contract DrandVectorsTest is BeaconBase {
    /// Every input takes the branch that the map takes it to; among them are the exceptional ones and all three branches.
    function test_map_to_the_curve() public view {
        uint256 i;
        for (;; ++i) {
            string memory path = string.concat(".maps[", vm.toString(i), "]");
            if (!vm.keyExistsJson(json, path)) break;
            uint256 u = uint256(vm.parseJsonBytes32(json, string.concat(path, ".u")));
            bytes memory point = vm.parseJsonBytes(json, string.concat(path, ".point"));
            assertEq(abi.encode(BLS.mapToPoint(u)), point, string.concat("map ", vm.toString(i)));
        }
        assertTrue(i >= 24, "too few vectors");
    }

    function checkRounds(DrandBeacon beacon, string memory net, uint256 least) internal {
        uint256 i;
        for (;; ++i) {
            Round memory round = vectorAt(net, i);
            if (round.number == 0) break;
            assertEq(messagePoint(round.number), round.messagePoint, "hash to the curve");
            warpTo(beacon, round.number);
            assertEq(beacon.reveal(round.number, round.signature), round.randomness, "returned");
            assertEq(beacon.valueOf(round.number), round.randomness, "stored");
        }
        assertTrue(i >= least, "too few vectors");
    }

    function test_rounds_that_drand_published() public {
        checkRounds(new DrandBeacon(evmnet(), DRIFT), "evmnet", 4);
    }

    function test_rounds_of_the_test_network() public {
        // The last round of 64 bits is due in the last second of 64 bits.
        DrandNetwork memory network = testNetwork();
        (network.genesis, network.period) = (1, 1);
        checkRounds(new DrandBeacon(network, DRIFT), "test", 22);
    }

    /// The constants of drand's announcement, apart from the file of vectors.
    function test_round_513() public {
        uint256[4] memory key = abi.decode(
            hex"07e1d1d335df83fa98462005690372c643340060d205306a9aa8106b6bd0b3820557ec32c2ad488e4d4f6008f89a346f18492092ccc0d594610de2732c8b808f0095685ae3a85ba243747b1b2f426049010f6b73a0cf1d389351d5aaaa1047f6297d3a4f9749b33eb2d904c9d9ebf17224150ddd7abd7567a9bec6c74480ee0b",
            (uint256[4])
        );
        DrandBeacon beacon = new DrandBeacon(DrandNetwork(key, 1727521075, 3), DRIFT);
        bytes memory signature =
            hex"06ded8c05af23042a0caf9b404c6140f9ec64adbaf82f04d5c37153e8412ed580f827c7d5ac7d02ca0bbd989d07594729bdcde7d6dc1001191c59dc9033d31b2";
        assertEq(beacon.reveal(513, signature), sha256(signature), "value");
        assertEq(keccak256(abi.encode(evmnet())), keccak256(abi.encode(beacon.network())), "the file says the same");
    }
}

contract DrandBeaconTest is BeaconBase {
    uint64 internal constant ROUND = 7;
    DrandBeacon internal beacon;
    Round internal vector;

    function setUp() public override {
        super.setUp();
        beacon = new DrandBeacon(testNetwork(), DRIFT);
        vector = vectorAt("test", ROUND - 1);
        assertEq(vector.number, ROUND, "vector");
    }

    function wrong(uint64 round, bytes memory proof) internal pure returns (bytes memory) {
        (uint256 x, uint256 y) = coordinates(proof);
        return abi.encodeWithSelector(IDrandBeacon.DrandBeacon_WrongSignature.selector, round, x, y);
    }

    function test_reveal_stores_the_sha256_of_the_signature() public {
        assertEq(beacon.valueOf(ROUND), bytes32(0), "unknown");
        bytes32 value = sha256(vector.signature);
        vm.expectEmit();
        emit IRandomBeacon.RoundRevealed(ROUND, value);
        assertEq(beacon.reveal(ROUND, vector.signature), value, "returned");
        assertEq(beacon.valueOf(ROUND), value, "stored");
        assertEq(beacon.valueOf(ROUND + 1), bytes32(0), "alone");
    }

    function test_anyone_reveals() public {
        vm.prank(address(0xA11));
        beacon.reveal(ROUND, vector.signature);
        assertTrue(beacon.valueOf(ROUND) != 0, "revealed");
    }

    /// [D7]
    function test_reveal_twice_reverts() public {
        beacon.reveal(ROUND, vector.signature);
        bytes memory already = abi.encodeWithSelector(IRandomBeacon.RandomBeacon_AlreadyRevealed.selector, ROUND);
        refused(beacon, ROUND, vector.signature, already);
        refused(beacon, ROUND, "", already);
        vm.warp(block.timestamp + 365 days);
        refused(beacon, ROUND, vector.signature, already);
    }

    function test_round_zero_reverts() public {
        bytes memory zero = abi.encodeWithSelector(IDrandBeacon.DrandBeacon_RoundZero.selector);
        refused(beacon, 0, signed(0), zero);
        vm.expectRevert(zero);
        beacon.readyAt(0);
    }

    function test_other_lengths_revert() public {
        bytes4 length = IDrandBeacon.DrandBeacon_ProofLength.selector;
        bytes memory point = vector.signature;
        refused(beacon, ROUND, "", abi.encodeWithSelector(length, 0, 64));
        refused(beacon, ROUND, bytes.concat(point, hex"00"), abi.encodeWithSelector(length, 65, 64));
        refused(beacon, ROUND, bytes.concat(point, point), abi.encodeWithSelector(length, 128, 64));
        // drand's compressed form of other schemes.
        (uint256 x,) = coordinates(point);
        refused(beacon, ROUND, abi.encode(x), abi.encodeWithSelector(length, 32, 64));
    }

    /// One value has one encoding: a coordinate plus the modulus is the same point to careless arithmetic.
    function test_coordinates_beyond_the_field_revert() public {
        bytes4 tooLarge = IDrandBeacon.DrandBeacon_CoordinateTooLarge.selector;
        (uint256 x, uint256 y) = coordinates(vector.signature);
        refused(beacon, ROUND, abi.encode(x + MODULUS, y), abi.encodeWithSelector(tooLarge, x + MODULUS, MODULUS));
        refused(beacon, ROUND, abi.encode(x, y + MODULUS), abi.encodeWithSelector(tooLarge, y + MODULUS, MODULUS));
        refused(beacon, ROUND, abi.encode(MODULUS, y), abi.encodeWithSelector(tooLarge, MODULUS, MODULUS));
        uint256 most = type(uint256).max;
        refused(beacon, ROUND, abi.encode(most, most), abi.encodeWithSelector(tooLarge, most, MODULUS));
    }

    function test_points_beside_the_curve_revert() public {
        bytes4 notOnCurve = IDrandBeacon.DrandBeacon_NotOnCurve.selector;
        (uint256 x, uint256 y) = coordinates(vector.signature);
        refused(beacon, ROUND, abi.encode(x, y + 1), abi.encodeWithSelector(notOnCurve, x, y + 1));
        refused(beacon, ROUND, abi.encode(y, x), abi.encodeWithSelector(notOnCurve, y, x));
        uint256 last = MODULUS - 1;
        refused(beacon, ROUND, abi.encode(last, last), abi.encodeWithSelector(notOnCurve, last, last));
    }

    /// The pairing of the point at infinity is one with every key.
    function test_the_point_at_infinity_reverts() public {
        bytes memory notOnCurve = abi.encodeWithSelector(IDrandBeacon.DrandBeacon_NotOnCurve.selector, 0, 0);
        refused(beacon, ROUND, new bytes(64), notOnCurve);
    }

    function test_the_negated_signature_reverts() public {
        (uint256 x, uint256 y) = coordinates(vector.signature);
        bytes memory negated = abi.encode(x, MODULUS - y);
        refused(beacon, ROUND, negated, wrong(ROUND, negated));
    }

    function test_the_signature_of_another_round_reverts() public {
        refused(beacon, ROUND + 1, vector.signature, wrong(ROUND + 1, vector.signature));
        beacon.reveal(ROUND + 1, signed(ROUND + 1));
    }

    function test_the_signature_of_another_network_reverts() public {
        DrandBeacon other = new DrandBeacon(evmnet(), DRIFT);
        refused(other, ROUND, vector.signature, wrong(ROUND, vector.signature));
        Round memory published = vectorAt("evmnet", 0);
        refused(beacon, published.number, published.signature, wrong(published.number, published.signature));
    }

    function test_the_unsigned_message_reverts() public {
        refused(beacon, ROUND, vector.messagePoint, wrong(ROUND, vector.messagePoint));
    }

    /// The hash to the curve fits into this gas, the pairing does not.
    function test_too_little_gas_reverts() public {
        vm.expectRevert(abi.encodeWithSelector(IDrandBeacon.DrandBeacon_PairingFailed.selector, ROUND));
        beacon.reveal{gas: 120_000}(ROUND, vector.signature);
        assertEq(beacon.valueOf(ROUND), bytes32(0), "not revealed");
    }

    function test_a_round_is_never_missed() public {
        assertTrue(!beacon.isMissed(ROUND), "unknown");
        vm.warp(block.timestamp + 100 * 365 days);
        assertTrue(!beacon.isMissed(ROUND), "a century later");
        beacon.reveal(ROUND, vector.signature);
        assertTrue(!beacon.isMissed(ROUND), "revealed");
    }

    function test_rounds_follow_the_clock() public view {
        assertEq(beacon.roundAt(0), 0, "before");
        assertEq(beacon.roundAt(GENESIS - 1), 0, "the second before");
        assertEq(beacon.roundAt(GENESIS), 1, "genesis");
        assertEq(beacon.roundAt(GENESIS + PERIOD - 1), 1, "the last second of round 1");
        assertEq(beacon.roundAt(GENESIS + PERIOD), 2, "round 2");
        assertEq(beacon.roundAt(type(uint64).max), (type(uint64).max - GENESIS) / PERIOD + 1, "the last second");
        assertEq(beacon.readyAt(1), GENESIS, "round 1");
        assertEq(beacon.readyAt(2), GENESIS + PERIOD, "round 2");
        uint256 last = GENESIS + uint256(type(uint64).max - 1) * PERIOD;
        assertEq(beacon.readyAt(type(uint64).max), last, "the last round");
    }

    /// drand's own clock: evmnet published round 513 at 1727521075 + 512 * 3.
    function test_rounds_of_evmnet_follow_drands_clock() public {
        DrandBeacon real = new DrandBeacon(evmnet(), DRIFT);
        assertEq(real.readyAt(513), 1727522611, "time of round 513");
        assertEq(real.roundAt(1727522611), 513, "round");
        assertEq(real.roundAt(1727522610), 512, "the second before");
    }

    function test_next_round_is_published_after_the_drift() public {
        uint64 start = GENESIS + 1000 * PERIOD;
        vm.warp(start);
        uint64 next = beacon.nextRound();
        assertEq(next, 1000 + 1 + DRIFT / PERIOD + 1, "next");
        assertEq(beacon.readyAt(next), start + DRIFT + PERIOD, "a whole period after the drift");
        vm.warp(start + PERIOD - 1);
        assertEq(beacon.nextRound(), next, "same round");
        assertEq(beacon.readyAt(next), block.timestamp + DRIFT + 1, "a second after the drift");
        vm.warp(start + PERIOD);
        assertEq(beacon.nextRound(), next + 1, "one later");
    }

    function test_a_round_is_refused_until_the_drift_before_its_time() public {
        vm.warp(GENESIS + 1000 * PERIOD);
        uint64 next = beacon.nextRound();
        uint256 from = beacon.readyAt(next) - DRIFT;
        bytes memory notReady = abi.encodeWithSelector(IDrandBeacon.DrandBeacon_RoundNotReady.selector, next, from);
        refused(beacon, next, signed(next), notReady);
        vm.warp(from - 1);
        refused(beacon, next, signed(next), notReady);
        vm.warp(from);
        assertTrue(beacon.nextRound() == next + 1, "nobody waits for it any more");
        beacon.reveal(next, signed(next));
    }

    function test_gas_of_a_reveal() public {
        beacon.reveal(ROUND, vector.signature);
        vm.snapshotGasLastCall("beacon", "reveal a drand round");
    }
}

contract DrandDeploymentTest is BeaconBase {
    /// Gas of a block: the pairing precompile takes all that it is given when its input is no point.
    uint256 internal constant BLOCK_GAS = 30_000_000;

    function deploy(DrandNetwork memory network, uint64 maxDrift, bytes memory error_) internal {
        vm.expectRevert(error_);
        this.make{gas: BLOCK_GAS}(network, maxDrift);
    }

    function make(DrandNetwork memory network, uint64 maxDrift) external {
        new DrandBeacon(network, maxDrift);
    }

    function test_tells_what_it_was_given() public {
        DrandBeacon beacon = new DrandBeacon(testNetwork(), DRIFT);
        assertEq(keccak256(abi.encode(beacon.network())), keccak256(abi.encode(testNetwork())), "network");
        assertEq(beacon.maxDrift(), DRIFT, "drift");
    }

    function test_drift_has_bounds() public {
        new DrandBeacon(testNetwork(), PERIOD);
        new DrandBeacon(testNetwork(), MOST_DRIFT);
        uint64[4] memory drifts = [0, PERIOD - 1, MOST_DRIFT + 1, type(uint64).max];
        for (uint256 i; i < drifts.length; ++i) {
            bytes4 bounds = IDrandBeacon.DrandBeacon_DriftOutOfBounds.selector;
            deploy(testNetwork(), drifts[i], abi.encodeWithSelector(bounds, drifts[i], PERIOD, MOST_DRIFT));
        }
    }

    function test_genesis_has_bounds() public {
        DrandNetwork memory network = testNetwork();
        bytes4 bounds = IDrandBeacon.DrandBeacon_GenesisOutOfBounds.selector;
        network.genesis = 0;
        deploy(network, DRIFT, abi.encodeWithSelector(bounds, 0, block.timestamp));
        network.genesis = uint64(block.timestamp) + 1;
        deploy(network, DRIFT, abi.encodeWithSelector(bounds, network.genesis, block.timestamp));
        network.genesis = uint64(block.timestamp);
        new DrandBeacon(network, DRIFT);
    }

    function test_period_has_bounds() public {
        DrandNetwork memory network = testNetwork();
        network.period = 0;
        deploy(network, DRIFT, abi.encodeWithSelector(IDrandBeacon.DrandBeacon_PeriodZero.selector));
        network.period = MOST_DRIFT + 1;
        bytes4 bounds = IDrandBeacon.DrandBeacon_DriftOutOfBounds.selector;
        deploy(network, MOST_DRIFT, abi.encodeWithSelector(bounds, MOST_DRIFT, MOST_DRIFT + 1, MOST_DRIFT));
    }

    function refusedKey(uint256[4] memory key) internal {
        DrandNetwork memory network = testNetwork();
        network.publicKey = key;
        deploy(network, DRIFT, abi.encodeWithSelector(IDrandBeacon.DrandBeacon_InvalidPublicKey.selector, key));
    }

    function test_the_zero_key_reverts() public {
        refusedKey([uint256(0), 0, 0, 0]);
    }

    function test_keys_beside_the_curve_revert() public {
        uint256[4] memory key = keyAt(".test.publicKey");
        for (uint256 i; i < 4; ++i) {
            uint256[4] memory altered = [key[0], key[1], key[2], key[3]];
            altered[i] ^= 1;
            refusedKey(altered);
        }
        // Halves in the other order: what a library that puts the real half first would hand over.
        refusedKey([key[1], key[0], key[3], key[2]]);
    }

    function test_keys_beyond_the_field_revert() public {
        uint256[4] memory key = keyAt(".test.publicKey");
        for (uint256 i; i < 4; ++i) {
            uint256[4] memory altered = [key[0], key[1], key[2], key[3]];
            altered[i] += MODULUS;
            refusedKey(altered);
        }
    }

    /// A point of the twist whose order is not that of G2.
    function test_keys_outside_the_group_revert() public {
        uint256[4] memory key = keyAt(".outsideSubgroup");
        assertTrue(BLS.isOnCurveG2([key[1], key[0], key[3], key[2]]), "on the curve");
        refusedKey(key);
    }
}
