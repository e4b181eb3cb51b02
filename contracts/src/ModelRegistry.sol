// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Floor, IModelRegistry, Model, ModelRegistration} from "./interfaces/IModelRegistry.sol";
import {INodePool, Node, NodeState} from "./interfaces/INodePool.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {Calibrations} from "./libraries/Calibrations.sol";
import {AssetId, ModelId, ModelIndex, NodeId, NumericClass} from "./types/Ids.sol";

/// Registered models; whoever registers one first is its publisher.
contract ModelRegistry is IModelRegistry {
    struct Wiring {
        address parameters;
        address pool;
    }

    struct Prices {
        uint80 priceIn;
        uint80 priceOut;
    }

    /// What is known of a pair of numeric classes.
    struct Pair {
        uint256 word;
        uint8 attested;
        /// Unix seconds.
        uint40 calibratedAt;
        mapping(address owner => bool) attestedBy;
    }

    /// A price of zero would let sessions hold nothing and their tasks work for free.
    uint80 internal constant MIN_FLOOR = 1;
    /// Prices are at most five times the floor, and have 80 bits.
    uint80 internal constant MAX_FLOOR = type(uint80).max / 5;

    AssetId internal constant COR = AssetId.wrap(0);
    /// Owners that must have measured a pair before it can cost anybody stake: the publisher alone cannot.
    uint8 internal constant ATTESTATIONS = 3;
    /// Pairs of a model: sixteen classes with one another.
    uint16 internal constant MAX_PAIRS = 256;

    /// @inheritdoc IModelRegistry
    uint16 public immutable maxRoyaltyBps;
    /// @inheritdoc IModelRegistry
    address public immutable pool;
    /// Assets that sessions may be paid in.
    uint8 internal immutable _assetCount;

    /// @inheritdoc IModelRegistry
    uint32 public modelCount;
    mapping(ModelId => ModelIndex) internal _indices;
    mapping(ModelIndex => Model) internal _models;
    mapping(ModelIndex => mapping(AssetId => Prices)) internal _floors;
    mapping(ModelIndex => mapping(NumericClass miner => mapping(NumericClass validator => Pair))) internal _pairs;

    /// The royalty's bound and the number of assets are those of `Parameters`, which checks its sets against them.
    constructor(Wiring memory wiring) {
        if (wiring.parameters == address(0) || wiring.pool == address(0)) revert ModelRegistry_ZeroAddress();
        pool = wiring.pool;
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
            pairs: 0,
            contrasts: 0,
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
    function calibrate(ModelId modelId, NumericClass minerClass, NumericClass validatorClass, uint256 word) external {
        Model storage model = _known(modelId);
        if (model.publisher != msg.sender) revert ModelRegistry_NotPublisher(modelId, msg.sender);
        if (NumericClass.unwrap(minerClass) == 0 || NumericClass.unwrap(validatorClass) == 0) {
            revert ModelRegistry_EmptyClass();
        }
        if (!Calibrations.isValid(word)) revert ModelRegistry_BadCalibration(word);
        ModelIndex index = model.index;
        Pair storage pair = _pairs[index][minerClass][validatorClass];
        if (pair.word != 0) revert ModelRegistry_AlreadyCalibrated(index, minerClass, validatorClass);
        if (model.pairs == MAX_PAIRS) revert ModelRegistry_TooManyPairs(index, MAX_PAIRS);
        if (_floors[index][COR].priceIn == 0) revert ModelRegistry_AssetNotAccepted(index, COR);
        uint8 contrasts = uint8(Calibrations.unpack(word).contrasts);
        if (model.pairs++ == 0) model.contrasts = contrasts;
        if (contrasts != model.contrasts) {
            revert ModelRegistry_OtherContrasts(index, contrasts, model.contrasts);
        }
        (pair.word, pair.calibratedAt) = (word, uint40(block.timestamp));
        emit PairCalibrated(index, minerClass, validatorClass, word);
    }

    /// @inheritdoc IModelRegistry
    function attest(ModelId modelId, NumericClass minerClass, NumericClass validatorClass, uint256 word, NodeId nodeId)
        external
    {
        ModelIndex index = _indexOf(modelId);
        Pair storage pair = _pairs[index][minerClass][validatorClass];
        uint256 registered = pair.word;
        if (registered == 0) revert ModelRegistry_NotCalibrated(index, minerClass, validatorClass);
        if (word != registered) revert ModelRegistry_OtherMeasurement(word, registered);
        Node memory node = INodePool(pool).nodeOf(nodeId);
        if (node.operator != msg.sender) revert ModelRegistry_NotOperator(nodeId, msg.sender);
        bytes32 class_ = NumericClass.unwrap(node.numericClass);
        bool measures = class_ == NumericClass.unwrap(minerClass) || class_ == NumericClass.unwrap(validatorClass);
        bool staked = node.state == NodeState.Ephemeral || node.state == NodeState.Dedicated;
        if (!measures || !staked || !_offers(nodeId, index)) revert ModelRegistry_NotAbleToAttest(nodeId);
        if (pair.attestedBy[node.owner]) revert ModelRegistry_AlreadyAttested(index, node.owner);
        pair.attestedBy[node.owner] = true;
        // A counter that is full stays full: three are enough.
        if (pair.attested != type(uint8).max) ++pair.attested;
        emit PairAttested(index, nodeId, node.owner, minerClass, validatorClass, pair.attested);
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

    /// @inheritdoc IModelRegistry
    function calibrationOf(ModelIndex index, NumericClass minerClass, NumericClass validatorClass)
        external
        view
        returns (uint256)
    {
        return _pairs[index][minerClass][validatorClass].word;
    }

    /// @inheritdoc IModelRegistry
    function calibrationBefore(ModelIndex index, NumericClass minerClass, NumericClass validatorClass, uint40 time)
        external
        view
        returns (uint256)
    {
        Pair storage pair = _pairs[index][minerClass][validatorClass];
        return pair.calibratedAt < time ? pair.word : 0;
    }

    /// @inheritdoc IModelRegistry
    function attestedOf(ModelIndex index, NumericClass minerClass, NumericClass validatorClass)
        external
        view
        returns (uint8)
    {
        return _pairs[index][minerClass][validatorClass].attested;
    }

    /// @inheritdoc IModelRegistry
    function isSlashable(ModelIndex index, NumericClass minerClass, NumericClass validatorClass)
        external
        view
        returns (bool)
    {
        return _pairs[index][minerClass][validatorClass].attested >= ATTESTATIONS;
    }

    /// @inheritdoc IModelRegistry
    function isProven(ModelIndex index) external view returns (bool) {
        return _models[index].pairs != 0;
    }

    function _offers(NodeId nodeId, ModelIndex index) internal view returns (bool) {
        (ModelIndex[] memory offered,) = INodePool(pool).offersOf(nodeId);
        for (uint256 i; i < offered.length; ++i) {
            if (ModelIndex.unwrap(offered[i]) == ModelIndex.unwrap(index)) return true;
        }
        return false;
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
