// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Floor, IModelRegistry, Model, ModelRegistration} from "./interfaces/IModelRegistry.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {AssetId, ModelId, ModelIndex} from "./types/Ids.sol";

/// Registered models; whoever registers one first is its publisher.
contract ModelRegistry is IModelRegistry {
    struct Wiring {
        address parameters;
    }

    struct Prices {
        uint80 priceIn;
        uint80 priceOut;
    }

    /// A price of zero would let sessions hold nothing and their tasks work for free.
    uint80 internal constant MIN_FLOOR = 1;
    /// Prices are at most five times the floor, and have 80 bits.
    uint80 internal constant MAX_FLOOR = type(uint80).max / 5;

    /// @inheritdoc IModelRegistry
    uint16 public immutable maxRoyaltyBps;
    /// Assets that sessions may be paid in.
    uint8 internal immutable _assetCount;

    /// @inheritdoc IModelRegistry
    uint32 public modelCount;
    mapping(ModelId => ModelIndex) internal _indices;
    mapping(ModelIndex => Model) internal _models;
    mapping(ModelIndex => mapping(AssetId => Prices)) internal _floors;

    /// The royalty's bound and the number of assets are those of `Parameters`, which checks its sets against them.
    constructor(Wiring memory wiring) {
        if (wiring.parameters == address(0)) revert ModelRegistry_ZeroAddress();
        maxRoyaltyBps = IParameters(wiring.parameters).maxRoyaltyBps();
        _assetCount = IParameters(wiring.parameters).assetCount();
    }

    /// @inheritdoc IModelRegistry
    function register(ModelRegistration calldata registration) external returns (ModelIndex index) {
        ModelId modelId = registration.modelId;
        if (ModelId.unwrap(modelId) == 0 || registration.manifestDigest == 0) revert ModelRegistry_EmptyDigest();
        if (ModelIndex.unwrap(_indices[modelId]) != 0) revert ModelRegistry_AlreadyRegistered(modelId);
        if (registration.royaltyBps > maxRoyaltyBps) {
            revert ModelRegistry_RoyaltyTooHigh(registration.royaltyBps, maxRoyaltyBps);
        }
        uint32 version = _versionAfter(registration.predecessor);

        index = ModelIndex.wrap(++modelCount);
        _indices[modelId] = index;
        _models[index] = Model({
            publisher: msg.sender,
            royaltyBps: registration.royaltyBps,
            registeredAt: uint40(block.timestamp),
            deprecatedAt: 0,
            index: index,
            version: version,
            modelId: modelId,
            predecessor: registration.predecessor,
            manifestDigest: registration.manifestDigest
        });
        _setFloors(index, registration.floors);
        emit ModelRegistered(
            modelId,
            msg.sender,
            index,
            registration.manifestDigest,
            registration.predecessor,
            version,
            registration.royaltyBps,
            registration.floors
        );
    }

    /// @inheritdoc IModelRegistry
    function deprecate(ModelId modelId) external {
        Model storage model = _known(modelId);
        if (model.publisher != msg.sender) revert ModelRegistry_NotPublisher(modelId, msg.sender);
        if (model.deprecatedAt != 0) revert ModelRegistry_Deprecated(modelId);
        model.deprecatedAt = uint40(block.timestamp);
        emit ModelDeprecated(modelId, model.index);
    }

    /// @inheritdoc IModelRegistry
    function modelOf(ModelId modelId) external view returns (Model memory) {
        return _known(modelId);
    }

    /// @inheritdoc IModelRegistry
    function modelAt(ModelIndex index) external view returns (Model memory model) {
        model = _models[index];
        if (model.publisher == address(0)) revert ModelRegistry_UnknownIndex(index);
    }

    /// @inheritdoc IModelRegistry
    function openIndexOf(ModelId modelId) external view returns (ModelIndex index) {
        index = _indexOf(modelId);
        if (_models[index].deprecatedAt != 0) revert ModelRegistry_Deprecated(modelId);
    }

    /// @inheritdoc IModelRegistry
    function floorsOf(ModelIndex index, AssetId asset) external view returns (uint80 priceIn, uint80 priceOut) {
        Prices storage floor = _floors[index][asset];
        (priceIn, priceOut) = (floor.priceIn, floor.priceOut);
        // A floor that was set is at least one.
        if (priceIn == 0) revert ModelRegistry_AssetNotAccepted(index, asset);
    }

    /// @inheritdoc IModelRegistry
    function royaltyOf(ModelIndex index) external view returns (address publisher, uint16 royaltyBps) {
        Model storage model = _models[index];
        return (model.publisher, model.royaltyBps);
    }

    function _setFloors(ModelIndex index, Floor[] calldata floors) internal {
        if (floors.length == 0 || floors.length > _assetCount) {
            revert ModelRegistry_FloorCount(floors.length, _assetCount);
        }
        for (uint256 i; i < floors.length; ++i) {
            Floor calldata floor = floors[i];
            if (AssetId.unwrap(floor.asset) >= _assetCount) revert ModelRegistry_UnknownAsset(floor.asset);
            if (_floors[index][floor.asset].priceIn != 0) revert ModelRegistry_AssetTwice(floor.asset);
            _checkFloor(floor.asset, floor.priceIn);
            _checkFloor(floor.asset, floor.priceOut);
            _floors[index][floor.asset] = Prices(floor.priceIn, floor.priceOut);
        }
    }

    /// Version number of what follows `predecessor`, which the caller must have published.
    function _versionAfter(ModelId predecessor) internal view returns (uint32) {
        if (ModelId.unwrap(predecessor) == 0) return 1;
        Model storage model = _known(predecessor);
        if (model.publisher != msg.sender) revert ModelRegistry_NotPublisher(predecessor, msg.sender);
        return model.version + 1;
    }

    function _known(ModelId modelId) internal view returns (Model storage) {
        return _models[_indexOf(modelId)];
    }

    function _indexOf(ModelId modelId) internal view returns (ModelIndex index) {
        index = _indices[modelId];
        if (ModelIndex.unwrap(index) == 0) revert ModelRegistry_UnknownModel(modelId);
    }

    function _checkFloor(AssetId asset, uint80 floor) internal pure {
        if (floor < MIN_FLOOR || floor > MAX_FLOOR) {
            revert ModelRegistry_FloorOutOfBounds(asset, floor, MIN_FLOOR, MAX_FLOOR);
        }
    }
}
