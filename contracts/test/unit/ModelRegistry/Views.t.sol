// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ModelRegistry} from "../../../src/ModelRegistry.sol";
import {IModelRegistry} from "../../../src/interfaces/IModelRegistry.sol";
import {AssetId, ModelId, ModelIndex} from "../../../src/types/Ids.sol";
import {RegistryBase} from "./RegistryBase.sol";

contract ModelRegistryViewsTest is RegistryBase {
    function testFuzz_unknown_models(ModelId modelId, uint32 index) public {
        bytes memory unknown = abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, modelId);
        vm.expectRevert(unknown);
        models.modelOf(modelId);
        vm.expectRevert(unknown);
        models.openIndexOf(modelId);
        vm.expectRevert(unknown);
        models.deprecate(modelId);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownIndex.selector, index));
        models.modelAt(ModelIndex.wrap(index));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_AssetNotAccepted.selector, index, 0));
        models.floorsOf(ModelIndex.wrap(index), AssetId.wrap(0));
        (address publisher, uint16 bps) = models.royaltyOf(ModelIndex.wrap(index));
        assertEq(publisher, address(0), "nobody");
        assertEq(bps, 0, "nothing");
    }

    function test_takes_its_bounds_from_the_parameters() public {
        assertEq(models.maxRoyaltyBps(), MAX_ROYALTY_BPS, "royalty");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_ZeroAddress.selector));
        new ModelRegistry(ModelRegistry.Wiring({parameters: address(0), pool: address(pool)}));
    }
}
