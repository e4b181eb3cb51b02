// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetId, ModelId, ModelIndex, NodeId, NumericClass} from "../types/Ids.sol";

/// A version of a model. Nothing of it changes once it is registered, except that it may be deprecated, and that pairs of
/// numeric classes are calibrated.
struct Model {
    address publisher;
    uint16 royaltyBps;
    /// Unix seconds.
    uint40 registeredAt;
    /// Unix seconds; 0 while it takes new sessions.
    uint40 deprecatedAt;
    ModelIndex index;
    /// Counted from 1 along the chain of predecessors.
    uint32 version;
    /// Pairs of numeric classes that are calibrated: with one, sessions of it that open from then on are proven.
    uint16 pairs;
    /// Contrasts that its miners record at each position: the same for all pairs; 0 without one.
    uint8 contrasts;
    ModelId modelId;
    /// The version before this one; zero for a first version.
    ModelId predecessor;
    /// sha-256 of the manifest's bytes: the digest of its CID.
    bytes32 manifestDigest;
}

/// Smallest prices in one asset, minor units per million tokens.
struct Floor {
    AssetId asset;
    uint80 priceIn;
    uint80 priceOut;
}

struct ModelRegistration {
    ModelId modelId;
    bytes32 manifestDigest;
    /// Zero, or an earlier version by the same publisher.
    ModelId predecessor;
    uint16 royaltyBps;
    /// One for each asset that sessions of the model may be paid in.
    Floor[] floors;
}

/// Registered models and their versions.
interface IModelRegistry {
    event ModelRegistered(
        ModelId indexed modelId,
        address indexed publisher,
        ModelIndex indexed index,
        bytes32 manifestDigest,
        ModelId predecessor,
        uint32 version,
        uint16 royaltyBps,
        Floor[] floors
    );
    event ModelDeprecated(ModelId indexed modelId, ModelIndex indexed index);
    /// What an honest miner and an honest validator of these classes differ by; see `Calibrations` for the word.
    event PairCalibrated(
        ModelIndex indexed index, NumericClass indexed minerClass, NumericClass indexed validatorClass, uint256 word
    );
    /// `owner`, by its node, has measured the same; `attested` owners have by now.
    event PairAttested(
        ModelIndex indexed index,
        NodeId indexed nodeId,
        address indexed owner,
        NumericClass minerClass,
        NumericClass validatorClass,
        uint8 attested
    );

    error ModelRegistry_AlreadyRegistered(ModelId modelId);
    error ModelRegistry_UnknownModel(ModelId modelId);
    error ModelRegistry_UnknownIndex(ModelIndex index);
    error ModelRegistry_NotPublisher(ModelId modelId, address caller);
    error ModelRegistry_Deprecated(ModelId modelId);
    error ModelRegistry_RoyaltyTooHigh(uint16 royaltyBps, uint16 maxBps);
    error ModelRegistry_FloorOutOfBounds(AssetId asset, uint80 floor, uint80 min, uint80 max);
    error ModelRegistry_FloorCount(uint256 floors, uint256 max);
    error ModelRegistry_UnknownAsset(AssetId asset);
    error ModelRegistry_AssetTwice(AssetId asset);
    error ModelRegistry_AssetNotAccepted(ModelIndex index, AssetId asset);
    error ModelRegistry_EmptyDigest();
    error ModelRegistry_EmptyClass();
    error ModelRegistry_AlreadyCalibrated(ModelIndex index, NumericClass minerClass, NumericClass validatorClass);
    error ModelRegistry_NotCalibrated(ModelIndex index, NumericClass minerClass, NumericClass validatorClass);
    error ModelRegistry_TooManyPairs(ModelIndex index, uint256 limit);
    /// A field of the word is outside its bounds.
    error ModelRegistry_BadCalibration(uint256 word);
    /// Miners record as many contrasts as the first pair has.
    error ModelRegistry_OtherContrasts(ModelIndex index, uint256 contrasts, uint8 wanted);
    error ModelRegistry_OtherMeasurement(uint256 word, uint256 registered);
    /// It is not staked, does not offer the model, or is of neither class.
    error ModelRegistry_NotAbleToAttest(NodeId nodeId);
    error ModelRegistry_NotOperator(NodeId nodeId, address caller);
    error ModelRegistry_AlreadyAttested(ModelIndex index, address owner);
    error ModelRegistry_ZeroAddress();

    /// Registers a model or a new version of one; the caller becomes its publisher and earns its royalty.
    function register(ModelRegistration calldata registration) external returns (ModelIndex index);

    /// Publisher: no new sessions and no new nodes; what is open goes on.
    function deprecate(ModelId modelId) external;

    /// Publisher: what honest nodes of these classes differ by, once for each pair. From the first pair on new sessions of
    /// the model are proven. Only of a model with a price in COR: what is at stake in other assets is told by it.
    function calibrate(ModelId modelId, NumericClass minerClass, NumericClass validatorClass, uint256 word) external;

    /// The operator of a staked node of one of the classes that offers the model: it has measured the pair, too, and
    /// found the registered word. Counts each owner once.
    function attest(ModelId modelId, NumericClass minerClass, NumericClass validatorClass, uint256 word, NodeId nodeId)
        external;

    /// The model, or a revert with `ModelRegistry_UnknownModel`.
    function modelOf(ModelId modelId) external view returns (Model memory);

    /// The model, or a revert with `ModelRegistry_UnknownIndex`.
    function modelAt(ModelIndex index) external view returns (Model memory);

    /// The index of a model that takes new sessions and nodes; reverts if it is unknown or deprecated.
    function openIndexOf(ModelId modelId) external view returns (ModelIndex);

    /// Smallest prices per million tokens; reverts with `ModelRegistry_AssetNotAccepted` if there are none.
    function floorsOf(ModelIndex index, AssetId asset) external view returns (uint80 priceIn, uint80 priceOut);

    /// Who earns the royalty of a model and how much of each fee; zeros if there is no such model.
    function royaltyOf(ModelIndex index) external view returns (address publisher, uint16 royaltyBps);

    /// The word of a pair; 0 if it is not calibrated.
    function calibrationOf(ModelIndex index, NumericClass minerClass, NumericClass validatorClass)
        external
        view
        returns (uint256 word);

    /// The same as it was before second `time`: 0 if the pair was calibrated in it or later.
    function calibrationBefore(ModelIndex index, NumericClass minerClass, NumericClass validatorClass, uint40 time)
        external
        view
        returns (uint256 word);

    /// Owners that attested a pair.
    function attestedOf(ModelIndex index, NumericClass minerClass, NumericClass validatorClass)
        external
        view
        returns (uint8);

    /// Whether what a validator of a pair finds may cost stake: three owners attested it.
    function isSlashable(ModelIndex index, NumericClass minerClass, NumericClass validatorClass)
        external
        view
        returns (bool);

    /// Whether new sessions of the model are proven: a pair is calibrated.
    function isProven(ModelIndex index) external view returns (bool);

    function modelCount() external view returns (uint32);

    /// Largest royalty that a model may take.
    function maxRoyaltyBps() external view returns (uint16);

    /// Whose nodes attest.
    function pool() external view returns (address);
}
