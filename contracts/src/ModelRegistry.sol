// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry, Model} from "./interfaces/IModelRegistry.sol";
import {ModelId} from "./types/Ids.sol";

/// Registered models; whoever registers one first is its publisher.
contract ModelRegistry is IModelRegistry {
    /// A price of zero would let sessions hold nothing and the draw work for free.
    uint96 internal constant MIN_FLOOR = 1;
    /// 1000 COR a token: far above any use, and small enough for `Session` to pack.
    uint96 internal constant MAX_FLOOR = 1000e18;

    /// @inheritdoc IModelRegistry
    uint16 public immutable maxRoyaltyBps;

    mapping(ModelId => Model) internal _models;

    constructor(uint16 maxRoyaltyBps_) {
        maxRoyaltyBps = maxRoyaltyBps_;
    }

    /// @inheritdoc IModelRegistry
    function register(ModelId modelId, bytes32 manifestDigest, uint96 floorIn, uint96 floorOut, uint16 royaltyBps)
        external
    {
        if (ModelId.unwrap(modelId) == 0 || manifestDigest == 0) revert ModelRegistry_EmptyDigest();
        if (_models[modelId].publisher != address(0)) revert ModelRegistry_AlreadyRegistered(modelId);
        if (royaltyBps > maxRoyaltyBps) revert ModelRegistry_RoyaltyTooHigh(royaltyBps, maxRoyaltyBps);
        _checkFloor(floorIn);
        _checkFloor(floorOut);
        _models[modelId] = Model({
            publisher: msg.sender,
            royaltyBps: royaltyBps,
            registeredAt: uint40(block.timestamp),
            floorIn: floorIn,
            floorOut: floorOut,
            manifestDigest: manifestDigest
        });
        emit ModelRegistered(modelId, msg.sender, manifestDigest, floorIn, floorOut, royaltyBps);
    }

    /// @inheritdoc IModelRegistry
    function modelOf(ModelId modelId) external view returns (Model memory model) {
        model = _models[modelId];
        if (model.publisher == address(0)) revert ModelRegistry_UnknownModel(modelId);
    }

    /// @inheritdoc IModelRegistry
    function floorsOf(ModelId modelId) external view returns (uint96 floorIn, uint96 floorOut) {
        Model storage model = _models[modelId];
        (floorIn, floorOut) = (model.floorIn, model.floorOut);
        // A registered model has floors of at least one.
        if (floorIn == 0) revert ModelRegistry_UnknownModel(modelId);
    }

    /// @inheritdoc IModelRegistry
    function royaltyOf(ModelId modelId) external view returns (address publisher, uint16 royaltyBps) {
        Model storage model = _models[modelId];
        return (model.publisher, model.royaltyBps);
    }

    function _checkFloor(uint96 floor) internal pure {
        if (floor < MIN_FLOOR || floor > MAX_FLOOR) {
            revert ModelRegistry_FloorOutOfBounds(floor, MIN_FLOOR, MAX_FLOOR);
        }
    }
}
