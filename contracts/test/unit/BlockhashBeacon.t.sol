// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BlockhashBeacon} from "../../src/BlockhashBeacon.sol";
import {IBlockhashBeacon} from "../../src/interfaces/IBlockhashBeacon.sol";
import {IRandomBeacon} from "../../src/interfaces/IRandomBeacon.sol";
import {BeaconBase} from "../BeaconBase.sol";

contract BlockhashBeaconTest is BeaconBase {
    BlockhashBeacon internal beacon;

    function setUp() public override {
        super.setUp();
        vm.roll(1000);
        beacon = new BlockhashBeacon();
    }

    function notReady(uint64 round) internal pure returns (bytes memory) {
        return
            abi.encodeWithSelector(IBlockhashBeacon.BlockhashBeacon_RoundNotReady.selector, round, uint256(round) + 1);
    }

    function missed(uint64 round) internal pure returns (bytes memory) {
        return
            abi.encodeWithSelector(IBlockhashBeacon.BlockhashBeacon_RoundMissed.selector, round, uint256(round) + 256);
    }

    function test_deploys_on_development_chains_alone() public {
        vm.chainId(1337);
        new BlockhashBeacon();
        uint256[5] memory others = [uint256(1), 10, 8453, 42161, 31338];
        for (uint256 i; i < others.length; ++i) {
            vm.chainId(others[i]);
            vm.expectRevert(
                abi.encodeWithSelector(IBlockhashBeacon.BlockhashBeacon_NotDevelopmentChain.selector, others[i])
            );
            new BlockhashBeacon();
        }
    }

    function test_reveal_takes_the_hash_of_the_rounds_block() public {
        uint64 round = beacon.nextRound();
        assertEq(round, block.number + 1, "next round");
        vm.roll(round + 1);
        vm.setBlockhash(round, "hash");
        vm.expectEmit();
        emit IRandomBeacon.RoundRevealed(round, "hash");
        assertEq(beacon.reveal(round, ""), "hash", "value");
        assertEq(beacon.valueOf(round), "hash", "value");
    }

    function test_reveal_before_the_block_after_the_rounds_own_reverts() public {
        uint64 round = beacon.nextRound();
        vm.expectRevert(notReady(round));
        beacon.reveal(round, "");
        vm.roll(round);
        vm.expectRevert(notReady(round));
        beacon.reveal(round, "");
        assertEq(beacon.valueOf(round), bytes32(0), "unknown");
        vm.expectRevert(notReady(type(uint64).max));
        beacon.reveal(type(uint64).max, "");
    }

    function test_reveal_twice_reverts() public {
        uint64 round = beacon.nextRound();
        vm.roll(round + 1);
        bytes32 value = beacon.reveal(round, "");
        vm.expectRevert(abi.encodeWithSelector(IRandomBeacon.RandomBeacon_AlreadyRevealed.selector, round));
        beacon.reveal(round, "");
        vm.roll(round + 10_000);
        vm.expectRevert(abi.encodeWithSelector(IRandomBeacon.RandomBeacon_AlreadyRevealed.selector, round));
        beacon.reveal(round, "");
        assertEq(beacon.valueOf(round), value, "unchanged");
    }

    function test_reveal_with_a_proof_reverts() public {
        uint64 round = beacon.nextRound();
        vm.roll(round + 1);
        bytes4 notEmpty = IBlockhashBeacon.BlockhashBeacon_ProofNotEmpty.selector;
        vm.expectRevert(abi.encodeWithSelector(notEmpty, 1));
        beacon.reveal(round, hex"00");
        vm.expectRevert(abi.encodeWithSelector(notEmpty, 64));
        beacon.reveal(round, new bytes(64));
        beacon.reveal(round, "");
    }

    /// [D7]
    function test_reveal_works_for_256_blocks_and_never_again() public {
        uint64 round = beacon.nextRound();
        vm.roll(round + 256);
        assertTrue(!beacon.isMissed(round), "not missed yet");
        vm.roll(round + 257);
        assertTrue(beacon.isMissed(round), "missed");
        vm.expectRevert(missed(round));
        beacon.reveal(round, "");
        vm.roll(round + 256);
        beacon.reveal(round, "");
        vm.roll(round + 10_000);
        assertTrue(!beacon.isMissed(round), "revealed for ever");
    }

    function test_round_zero_is_an_old_block() public {
        assertTrue(beacon.isMissed(0), "missed");
        vm.expectRevert(missed(0));
        beacon.reveal(0, "");
    }

    function test_anyone_reveals() public {
        uint64 round = beacon.nextRound();
        vm.roll(round + 1);
        vm.prank(address(0xA11));
        beacon.reveal(round, "");
        assertTrue(beacon.valueOf(round) != 0, "revealed");
    }

    function test_a_future_round_is_not_missed() public view {
        assertTrue(!beacon.isMissed(beacon.nextRound()), "next");
        assertTrue(!beacon.isMissed(type(uint64).max), "last");
    }
}
