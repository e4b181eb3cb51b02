// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ModelRegistry} from "../../../src/ModelRegistry.sol";
import {IParameters} from "../../../src/interfaces/IParameters.sol";
import {Floor, ModelRegistration} from "../../../src/interfaces/IModelRegistry.sol";
import {AssetId, ModelId} from "../../../src/types/Ids.sol";
import {PoolBase} from "../NodePool/PoolBase.sol";

/// An empty registry of two assets.
abstract contract RegistryBase is PoolBase {
    ModelId internal constant FIRST = ModelId.wrap(keccak256("first"));
    ModelId internal constant SECOND = ModelId.wrap(keccak256("second"));
    uint80 internal constant MAX_FLOOR = type(uint80).max / 5;

    function setUp() public virtual override {
        super.setUp();
        vm.mockCall(address(parameters), abi.encodeCall(IParameters.assetCount, ()), abi.encode(2));
        models = new ModelRegistry(ModelRegistry.Wiring({parameters: address(parameters), pool: address(pool)}));
    }

    function registration(ModelId modelId) internal pure returns (ModelRegistration memory wanted) {
        (wanted.modelId, wanted.manifestDigest) = (modelId, "manifest");
        wanted.floors = new Floor[](1);
        wanted.floors[0] = Floor(AssetId.wrap(0), 1, MAX_FLOOR);
    }

    function floor(uint80 price) internal pure returns (uint80) {
        return uint80(bound(price, 1, MAX_FLOOR));
    }
}
