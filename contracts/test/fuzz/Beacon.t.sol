// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BlockhashBeacon} from "../../src/BlockhashBeacon.sol";
import {DrandBeacon} from "../../src/DrandBeacon.sol";
import {IBlockhashBeacon} from "../../src/interfaces/IBlockhashBeacon.sol";
import {DrandNetwork, IDrandBeacon} from "../../src/interfaces/IDrandBeacon.sol";
import {IRandomBeacon} from "../../src/interfaces/IRandomBeacon.sol";
import {BeaconBase} from "../BeaconBase.sol";

/// Any round, any signature, any clock.
contract BeaconFuzzTest is BeaconBase {
    DrandBeacon internal beacon;

    function setUp() public override {
        super.setUp();
        beacon = new DrandBeacon(testNetwork(), DRIFT);
    }

    /// A round that 64 bits of seconds can reach, published now.
    function published(uint64 number) internal returns (uint64 round) {
        round = uint64(bound(number, 1, beacon.roundAt(type(uint64).max)));
        warpTo(beacon, round);
    }

    function wrong(uint64 round, bytes memory proof) internal pure returns (bytes memory) {
        (uint256 x, uint256 y) = coordinates(proof);
        return abi.encodeWithSelector(IDrandBeacon.DrandBeacon_WrongSignature.selector, round, x, y);
    }

    /// [D7]
    function testFuzz_every_signed_round_is_revealed_once(uint64 number) public {
        uint64 round = published(number);
        bytes memory signature = signed(round);
        assertEq(beacon.reveal(round, signature), sha256(signature), "value");
        refused(
            beacon, round, signature, abi.encodeWithSelector(IRandomBeacon.RandomBeacon_AlreadyRevealed.selector, round)
        );
    }

    /// One flipped bit makes a coordinate too large or leaves the curve.
    function testFuzz_an_altered_signature_is_refused(uint64 number, uint256 bit) public {
        uint64 round = published(number);
        bytes memory proof = signed(round);
        bit = bound(bit, 0, 511);
        proof[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        (uint256 x, uint256 y) = coordinates(proof);
        bytes4 tooLarge = IDrandBeacon.DrandBeacon_CoordinateTooLarge.selector;
        bytes memory error_ = x >= MODULUS
            ? abi.encodeWithSelector(tooLarge, x, MODULUS)
            : y >= MODULUS
                ? abi.encodeWithSelector(tooLarge, y, MODULUS)
                : abi.encodeWithSelector(IDrandBeacon.DrandBeacon_NotOnCurve.selector, x, y);
        refused(beacon, round, proof, error_);
    }

    /// Of all points on the curve only one is the signature: here the message times any other scalar.
    function testFuzz_a_signature_by_another_key_is_refused(uint64 number, uint256 secret) public {
        uint64 round = published(number);
        secret = bound(secret, 1, ORDER - 1);
        vm.assume(secret != vm.parseJsonUint(json, ".test.secret"));
        bytes memory forged = multiply(messagePoint(round), secret);
        refused(beacon, round, forged, wrong(round, forged));
    }

    function testFuzz_a_signature_of_another_round_is_refused(uint64 number, uint64 other) public {
        uint64 round = published(number);
        vm.assume(other != round);
        bytes memory borrowed = signed(other);
        refused(beacon, round, borrowed, wrong(round, borrowed));
    }

    /// Points whose relation to the message nobody knows.
    function testFuzz_any_point_of_the_group_is_refused(uint64 number, uint256 scalar) public {
        uint64 round = published(number);
        bytes memory point = multiply(abi.encode(1, 2), bound(scalar, 1, ORDER - 1));
        refused(beacon, round, point, wrong(round, point));
    }

    function testFuzz_random_coordinates_are_refused(uint64 number, uint256 x, uint256 y) public {
        uint64 round = published(number);
        bytes4 tooLarge = IDrandBeacon.DrandBeacon_CoordinateTooLarge.selector;
        refused(beacon, round, abi.encode(x | 1 << 255, y), abi.encodeWithSelector(tooLarge, x | 1 << 255, MODULUS));
        x %= MODULUS;
        refused(beacon, round, abi.encode(x, y | 1 << 255), abi.encodeWithSelector(tooLarge, y | 1 << 255, MODULUS));
        y %= MODULUS;
        // The fuzzer knows the generator: a point that is on the curve is refused as somebody else's signature.
        uint256 cube = mulmod(mulmod(x, x, MODULUS), x, MODULUS);
        bool onCurve = mulmod(y, y, MODULUS) == addmod(cube, 3, MODULUS);
        bytes memory reason = onCurve
            ? abi.encodeWithSelector(IDrandBeacon.DrandBeacon_WrongSignature.selector, round, x, y)
            : abi.encodeWithSelector(IDrandBeacon.DrandBeacon_NotOnCurve.selector, x, y);
        refused(beacon, round, abi.encode(x, y), reason);
    }

    function testFuzz_other_lengths_are_refused(uint64 number, bytes calldata proof) public {
        vm.assume(proof.length != 64);
        uint64 round = published(number);
        bytes4 length = IDrandBeacon.DrandBeacon_ProofLength.selector;
        refused(beacon, round, proof, abi.encodeWithSelector(length, proof.length, 64));
    }

    /// Whatever the network's clock: a round's time and the round of a time are inverse.
    function testFuzz_rounds_and_times_agree(uint64 genesis, uint64 period, uint64 time, uint64 number) public {
        DrandBeacon other = clocked(genesis, period, MOST_DRIFT);
        DrandNetwork memory network = other.network();
        uint64 round = other.roundAt(time);
        if (time < network.genesis) {
            assertEq(round, 0, "no round yet");
        } else {
            assertTrue(other.readyAt(round) <= time, "published");
            if (round != type(uint64).max) assertTrue(other.readyAt(round + 1) > time, "the latest");
        }
        number = uint64(bound(number, 1, type(uint64).max));
        uint256 ready = other.readyAt(number);
        if (ready <= type(uint64).max) assertEq(other.roundAt(uint64(ready)), number, "its own time");
    }

    /// The round that a block names comes later than the drift, and no earlier one does.
    function testFuzz_next_round_is_the_first_after_the_drift(uint64 genesis, uint64 period, uint64 drift, uint64 time)
        public
    {
        DrandBeacon other = clocked(genesis, period, drift);
        vm.warp(bound(time, 1, type(uint40).max));
        uint256 known = block.timestamp + other.maxDrift();
        uint64 next = other.nextRound();
        assertTrue(other.readyAt(next) > known, "nobody can know it");
        if (next > 1) assertTrue(other.readyAt(next - 1) <= known, "the first");
    }

    /// [D2] What `nextRound` names cannot be revealed in the same second, and what was revealed is never named.
    function testFuzz_next_round_is_not_revealed(uint64 time, uint64 later) public {
        vm.warp(bound(time, 1, type(uint40).max));
        uint64 next = beacon.nextRound();
        uint256 from = beacon.readyAt(next) - DRIFT;
        refused(
            beacon,
            next,
            signed(next),
            abi.encodeWithSelector(IDrandBeacon.DrandBeacon_RoundNotReady.selector, next, from)
        );
        vm.warp(from);
        beacon.reveal(next, signed(next));
        assertTrue(beacon.nextRound() > next, "later at once");
        vm.warp(bound(later, from, type(uint40).max));
        assertTrue(beacon.nextRound() > next, "later for ever");
    }

    /// A beacon with any clock that the constructor takes.
    function clocked(uint64 genesis, uint64 period, uint64 drift) internal returns (DrandBeacon) {
        DrandNetwork memory network = testNetwork();
        network.genesis = uint64(bound(genesis, 1, block.timestamp));
        network.period = uint64(bound(period, 1, MOST_DRIFT));
        return new DrandBeacon(network, uint64(bound(drift, network.period, MOST_DRIFT)));
    }

    /// A block's hash is a round from the next block on, for 256 blocks, and missed after them.
    function testFuzz_block_hashes_are_ready_then_missed(uint64 round, uint256 blocks) public {
        BlockhashBeacon hashes = new BlockhashBeacon();
        round = uint64(bound(round, 300, type(uint40).max));
        vm.roll(round - 300 + bound(blocks, 0, 900));
        bytes32 value = keccak256(abi.encode(round));
        bool missed = block.number > uint256(round) + 256;
        assertTrue(hashes.isMissed(round) == missed, "missed");
        if (block.number <= round) {
            value = 0;
            bytes4 notReady = IBlockhashBeacon.BlockhashBeacon_RoundNotReady.selector;
            vm.expectRevert(abi.encodeWithSelector(notReady, round, uint256(round) + 1));
        } else if (missed) {
            value = 0;
            bytes4 tooLate = IBlockhashBeacon.BlockhashBeacon_RoundMissed.selector;
            vm.expectRevert(abi.encodeWithSelector(tooLate, round, uint256(round) + 256));
        } else {
            vm.setBlockhash(round, value);
        }
        hashes.reveal(round, "");
        assertEq(hashes.valueOf(round), value, "value");
    }
}
