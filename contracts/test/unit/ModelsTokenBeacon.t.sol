// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {CorToken} from "../../src/CorToken.sol";
import {RandomBeacon} from "../../src/RandomBeacon.sol";
import {IModelRegistry, Model} from "../../src/interfaces/IModelRegistry.sol";
import {ModelId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

contract CorTokenTest is Base {
    function test_supply_goes_to_the_holder() public {
        CorToken fresh = new CorToken(keeper, 5e18);
        assertEq(fresh.balanceOf(keeper), 5e18, "balance");
        assertEq(fresh.totalSupply(), 5e18, "supply");
        assertEq(fresh.decimals(), 18, "decimals");
        assertEq(keccak256(bytes(fresh.symbol())), keccak256("COR"), "symbol");
    }

    function test_supply_must_fit_96_bits() public {
        uint256 tooMuch = uint256(type(uint96).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(CorToken.CorToken_SupplyTooLarge.selector, tooMuch, type(uint96).max));
        new CorToken(keeper, tooMuch);
    }

    function test_burn_shrinks_the_supply() public {
        uint256 before = token.totalSupply();
        token.burn(7);
        assertEq(token.totalSupply(), before - 7, "supply");
    }
}

contract ModelRegistryTest is Base {
    ModelId internal constant OTHER = ModelId.wrap(keccak256("other"));

    function test_register_stores_and_tells() public {
        vm.expectEmit();
        emit IModelRegistry.ModelRegistered(OTHER, keeper, "digest", 1, 1000e18, 300);
        vm.prank(keeper);
        models.register(OTHER, "digest", 1, 1000e18, 300);
        Model memory model = models.modelOf(OTHER);
        assertEq(model.publisher, keeper, "publisher");
        assertEq(model.royaltyBps, 300, "royalty");
        assertEq(model.registeredAt, block.timestamp, "time");
        assertEq(model.manifestDigest, "digest", "digest");
        (uint96 floorIn, uint96 floorOut) = models.floorsOf(OTHER);
        assertEq(floorIn, 1, "floor in");
        assertEq(floorOut, 1000e18, "floor out");
        (address publisher_, uint16 bps) = models.royaltyOf(OTHER);
        assertEq(publisher_, keeper, "publisher");
        assertEq(bps, 300, "bps");
    }

    function test_register_twice_reverts() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_AlreadyRegistered.selector, MODEL));
        models.register(MODEL, "digest", 1, 1, 0);
    }

    function test_register_checks_its_bounds() public {
        bytes4 floor = IModelRegistry.ModelRegistry_FloorOutOfBounds.selector;
        vm.expectRevert(abi.encodeWithSelector(floor, 0, 1, 1000e18));
        models.register(OTHER, "digest", 0, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(floor, 1000e18 + 1, 1, 1000e18));
        models.register(OTHER, "digest", 1, 1000e18 + 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_RoyaltyTooHigh.selector, 301, 300));
        models.register(OTHER, "digest", 1, 1, 301);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_EmptyDigest.selector));
        models.register(OTHER, 0, 1, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_EmptyDigest.selector));
        models.register(ModelId.wrap(0), "digest", 1, 1, 0);
    }

    function test_unknown_model_reverts() public {
        bytes memory unknown = abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, OTHER);
        vm.expectRevert(unknown);
        models.modelOf(OTHER);
        vm.expectRevert(unknown);
        models.floorsOf(OTHER);
    }
}

contract RandomBeaconTest is Base {
    function test_only_on_development_chains() public {
        vm.chainId(1337);
        new RandomBeacon();
        vm.chainId(1);
        vm.expectRevert(abi.encodeWithSelector(RandomBeacon.RandomBeacon_NotDevelopmentChain.selector, 1));
        new RandomBeacon();
    }

    function test_capture_takes_the_hash_of_the_rounds_block() public {
        uint64 round = beacon.nextRound();
        assertEq(round, block.number + 1, "next round");
        vm.expectRevert(abi.encodeWithSelector(RandomBeacon.RandomBeacon_RoundNotReady.selector, round, round + 1));
        beacon.capture(round);
        vm.roll(round);
        vm.expectRevert(abi.encodeWithSelector(RandomBeacon.RandomBeacon_RoundNotReady.selector, round, round + 1));
        beacon.capture(round);
        assertEq(beacon.valueOf(round), bytes32(0), "unknown");
        vm.roll(round + 1);
        vm.setBlockhash(round, "hash");
        vm.expectEmit();
        emit RandomBeacon.RoundCaptured(round, "hash");
        assertEq(beacon.capture(round), "hash", "value");
        assertEq(beacon.valueOf(round), "hash", "value");
        vm.expectRevert(abi.encodeWithSelector(RandomBeacon.RandomBeacon_AlreadyCaptured.selector, round));
        beacon.capture(round);
    }

    function test_capture_works_for_256_blocks_and_never_again() public {
        uint64 round = beacon.nextRound();
        vm.roll(round + 256);
        assertTrue(!beacon.isMissed(round), "not missed yet");
        vm.roll(round + 257);
        assertTrue(beacon.isMissed(round), "missed");
        vm.expectRevert(abi.encodeWithSelector(RandomBeacon.RandomBeacon_RoundMissed.selector, round));
        beacon.capture(round);
        vm.roll(round + 256);
        beacon.capture(round);
        vm.roll(round + 10_000);
        assertTrue(!beacon.isMissed(round), "captured for ever");
    }
}
