// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry, Floor, Model, ModelRegistration} from "../../../src/interfaces/IModelRegistry.sol";
import {AssetId, ModelId, ModelIndex} from "../../../src/types/Ids.sol";
import {RegistryBase} from "./RegistryBase.sol";

contract ModelRegistryRegisterTest is RegistryBase {
    function refused(ModelRegistration memory wanted, bytes memory reason) internal {
        vm.expectRevert(reason);
        vm.prank(PUBLISHER);
        models.register(wanted);
        assertEq(models.modelCount(), 0, "models");
    }

    function testFuzz_stores_and_tells(ModelId modelId, bytes32 digest, uint16 royaltyBps, address publisher) public {
        vm.assume(ModelId.unwrap(modelId) != 0 && digest != 0 && publisher != address(0));
        ModelRegistration memory wanted = registration(modelId);
        (wanted.manifestDigest, wanted.royaltyBps) = (digest, uint16(royaltyBps % (MAX_ROYALTY_BPS + 1)));
        vm.expectEmit();
        emit IModelRegistry.ModelRegistered(
            modelId, publisher, ModelIndex.wrap(1), digest, ModelId.wrap(0), 1, wanted.royaltyBps, wanted.floors
        );
        vm.prank(publisher);
        assertEq(ModelIndex.unwrap(models.register(wanted)), 1, "index");
        Model memory model = models.modelOf(modelId);
        assertEq(keccak256(abi.encode(model)), keccak256(abi.encode(models.modelAt(ModelIndex.wrap(1)))), "by index");
        assertEq(model.publisher, publisher, "publisher");
        assertEq(model.royaltyBps, wanted.royaltyBps, "royalty");
        assertEq(model.registeredAt, START, "time");
        assertEq(model.deprecatedAt, 0, "open");
        assertEq(ModelIndex.unwrap(model.index), 1, "index");
        assertEq(model.version, 1, "version");
        assertEq(ModelId.unwrap(model.modelId), ModelId.unwrap(modelId), "id");
        assertEq(ModelId.unwrap(model.predecessor), 0, "predecessor");
        assertEq(model.manifestDigest, digest, "digest");
        (address earner, uint16 bps) = models.royaltyOf(ModelIndex.wrap(1));
        assertEq(earner, publisher, "earner");
        assertEq(bps, wanted.royaltyBps, "royalty");
        assertEq(ModelIndex.unwrap(models.openIndexOf(modelId)), 1, "open index");
        assertEq(models.modelCount(), 1, "models");
    }

    function testFuzz_stores_the_floors_of_each_asset(uint80 priceIn, uint80 priceOut, bool both) public {
        (priceIn, priceOut) = (floor(priceIn), floor(priceOut));
        ModelRegistration memory wanted = registration(FIRST);
        wanted.floors = new Floor[](both ? 2 : 1);
        wanted.floors[0] = Floor(AssetId.wrap(1), priceIn, priceOut);
        if (both) wanted.floors[1] = Floor(AssetId.wrap(0), priceOut, priceIn);
        vm.prank(PUBLISHER);
        ModelIndex index = models.register(wanted);
        (uint80 in_, uint80 out) = models.floorsOf(index, AssetId.wrap(1));
        assertEq(in_, priceIn, "in");
        assertEq(out, priceOut, "out");
        if (!both) {
            vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_AssetNotAccepted.selector, index, 0));
        }
        (in_, out) = models.floorsOf(index, AssetId.wrap(0));
        if (both) assertEq(in_, priceOut, "in of the other asset");
    }

    function testFuzz_versions_count_along_the_chain(uint8 versions) public {
        versions = uint8(bound(versions, 1, 12));
        ModelId last = ModelId.wrap(0);
        for (uint256 i = 1; i <= versions; ++i) {
            ModelRegistration memory wanted = registration(ModelId.wrap(bytes32(i)));
            wanted.predecessor = last;
            last = wanted.modelId;
            vm.prank(PUBLISHER);
            models.register(wanted);
            assertEq(models.modelOf(last).version, i, "version");
            assertEq(ModelId.unwrap(models.modelOf(last).predecessor), bytes32(i - 1), "predecessor");
        }
    }

    function testFuzz_refuses_a_predecessor_of_somebody_else(address caller) public {
        vm.assume(caller != PUBLISHER);
        vm.prank(PUBLISHER);
        models.register(registration(FIRST));
        ModelRegistration memory wanted = registration(SECOND);
        wanted.predecessor = FIRST;
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotPublisher.selector, FIRST, caller));
        vm.prank(caller);
        models.register(wanted);
    }

    function test_refuses_an_unknown_predecessor_and_itself() public {
        ModelRegistration memory wanted = registration(SECOND);
        wanted.predecessor = FIRST;
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, FIRST));
        wanted.predecessor = SECOND;
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, SECOND));
    }

    function testFuzz_refuses_a_model_twice(address caller) public {
        vm.prank(PUBLISHER);
        models.register(registration(FIRST));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_AlreadyRegistered.selector, FIRST));
        vm.prank(caller);
        models.register(registration(FIRST));
    }

    function test_refuses_empty_digests() public {
        bytes memory empty = abi.encodeWithSelector(IModelRegistry.ModelRegistry_EmptyDigest.selector);
        refused(registration(ModelId.wrap(0)), empty);
        ModelRegistration memory wanted = registration(FIRST);
        wanted.manifestDigest = 0;
        refused(wanted, empty);
    }

    function testFuzz_refuses_a_royalty_above_the_bound(uint16 royaltyBps) public {
        ModelRegistration memory wanted = registration(FIRST);
        wanted.royaltyBps = uint16(bound(royaltyBps, MAX_ROYALTY_BPS + 1, type(uint16).max));
        bytes4 tooHigh = IModelRegistry.ModelRegistry_RoyaltyTooHigh.selector;
        refused(wanted, abi.encodeWithSelector(tooHigh, wanted.royaltyBps, MAX_ROYALTY_BPS));
    }

    function testFuzz_refuses_a_floor_out_of_bounds(uint80 price, bool out) public {
        price = uint80(bound(price, uint256(MAX_FLOOR) + 1, type(uint80).max));
        refusedFloor(price, out);
        refusedFloor(0, out);
    }

    function refusedFloor(uint80 price, bool out) internal {
        ModelRegistration memory wanted = registration(FIRST);
        if (out) wanted.floors[0].priceOut = price;
        else wanted.floors[0].priceIn = price;
        bytes4 reason = IModelRegistry.ModelRegistry_FloorOutOfBounds.selector;
        refused(wanted, abi.encodeWithSelector(reason, 0, price, 1, MAX_FLOOR));
    }

    /// Five times the floor, the highest price of a session, has the 80 bits that prices have.
    function test_the_largest_floor_leaves_room_for_the_largest_factor() public pure {
        assertTrue(uint256(MAX_FLOOR) * 5 <= type(uint80).max, "fits");
    }

    function test_refuses_no_floors_and_too_many() public {
        ModelRegistration memory wanted = registration(FIRST);
        wanted.floors = new Floor[](0);
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_FloorCount.selector, 0, 2));
        wanted.floors = new Floor[](3);
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_FloorCount.selector, 3, 2));
    }

    function testFuzz_refuses_an_unknown_asset_and_one_twice(uint8 asset) public {
        asset = uint8(bound(asset, 2, 255));
        ModelRegistration memory wanted = registration(FIRST);
        wanted.floors[0].asset = AssetId.wrap(asset);
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownAsset.selector, asset));
        wanted.floors = new Floor[](2);
        wanted.floors[0] = wanted.floors[1] = Floor(AssetId.wrap(1), 1, 1);
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_AssetTwice.selector, 1));
    }
}
