// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ModelId} from "../types/Ids.sol";

/// A version of a model; nothing of it changes once it is registered.
struct Model {
    address publisher;
    uint16 royaltyBps;
    uint40 registeredAt;
    /// Smallest price of a prompt token, in minor units of COR.
    uint96 floorIn;
    /// Smallest price of a generated token, in minor units of COR.
    uint96 floorOut;
    /// sha-256 of the manifest's bytes: the digest of its CID.
    bytes32 manifestDigest;
}

/// Registered models.
interface IModelRegistry {
    event ModelRegistered(
        ModelId indexed modelId,
        address indexed publisher,
        bytes32 manifestDigest,
        uint96 floorIn,
        uint96 floorOut,
        uint16 royaltyBps
    );

    error ModelRegistry_AlreadyRegistered(ModelId modelId);
    error ModelRegistry_UnknownModel(ModelId modelId);
    error ModelRegistry_RoyaltyTooHigh(uint16 royaltyBps, uint16 maxBps);
    error ModelRegistry_FloorOutOfBounds(uint96 floor, uint96 min, uint96 max);
    error ModelRegistry_EmptyDigest();

    /// Registers a model; the caller becomes its publisher and earns its royalty.
    function register(ModelId modelId, bytes32 manifestDigest, uint96 floorIn, uint96 floorOut, uint16 royaltyBps)
        external;

    /// The model, or a revert with `ModelRegistry_UnknownModel`.
    function modelOf(ModelId modelId) external view returns (Model memory);

    /// Smallest prices of a model, or a revert with `ModelRegistry_UnknownModel`.
    function floorsOf(ModelId modelId) external view returns (uint96 floorIn, uint96 floorOut);

    /// Who earns the royalty of a model and how much of each fee; zeros if there is no such model.
    function royaltyOf(ModelId modelId) external view returns (address publisher, uint16 royaltyBps);

    /// Largest royalty that a model may take.
    function maxRoyaltyBps() external view returns (uint16);
}
