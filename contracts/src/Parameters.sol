// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetTerms, IParameters, NodeTerms, SessionTerms, Terms} from "./interfaces/IParameters.sol";
import {TermsBounds} from "./libraries/TermsBounds.sol";
import {AssetId} from "./types/Ids.sol";

/// Versions of the tunables, and who may propose the next.
contract Parameters is IParameters {
    /// The governor can be changed, the rest cannot.
    struct Config {
        address governor;
        uint40 delay;
        uint40 drawWindow;
        uint40 longestAudit;
        uint16 maxRoyaltyBps;
    }

    struct Version {
        SessionTerms session;
        NodeTerms node;
        mapping(AssetId => AssetTerms) assets;
        /// Over this version and all before it, seconds.
        uint40 longestLife;
        uint40 shortestUnbonding;
    }

    /// A proposal that holds for nobody for years would be no proposal.
    uint256 internal constant MAX_DELAY = 365 days;
    /// Nobody may hold a stake fast for long, and a draw needs seconds.
    uint256 internal constant MAX_DRAW_WINDOW = 1 days;
    /// The client's money waits for an audit.
    uint256 internal constant MAX_LONGEST_AUDIT = 30 days;
    /// Leaves room for the smallest share of a miner, see `TermsBounds`.
    uint256 internal constant MAX_ROYALTY_BPS = 3000;
    /// As many as `SessionPayment` lists.
    uint256 internal constant MAX_ASSETS = 8;

    /// @inheritdoc IParameters
    uint40 public immutable delay;
    /// @inheritdoc IParameters
    uint40 public immutable drawWindow;
    /// @inheritdoc IParameters
    uint40 public immutable longestAudit;
    /// @inheritdoc IParameters
    uint16 public immutable maxRoyaltyBps;
    /// @inheritdoc IParameters
    uint8 public immutable assetCount;

    /// The last version that was proposed and not withdrawn, and when it holds; unix seconds.
    uint16 internal _latest;
    uint40 internal _effectiveAt;
    /// @inheritdoc IParameters
    address public governor;
    /// @inheritdoc IParameters
    address public successor;
    mapping(uint16 version => Version) internal _versions;

    constructor(Config memory config, Terms memory first) {
        if (config.governor == address(0)) revert Parameters_ZeroAddress();
        TermsBounds.within("delay", config.delay, 1, MAX_DELAY);
        TermsBounds.within("drawWindow", config.drawWindow, TermsBounds.MIN_RESERVATION_TIMEOUT, MAX_DRAW_WINDOW);
        TermsBounds.within("longestAudit", config.longestAudit, 1, MAX_LONGEST_AUDIT);
        TermsBounds.within("maxRoyaltyBps", config.maxRoyaltyBps, 0, MAX_ROYALTY_BPS);
        TermsBounds.within("assetCount", first.assets.length, 1, MAX_ASSETS);
        delay = config.delay;
        drawWindow = config.drawWindow;
        longestAudit = config.longestAudit;
        maxRoyaltyBps = config.maxRoyaltyBps;
        assetCount = uint8(first.assets.length);
        governor = config.governor;
        emit GovernorChanged(address(0), config.governor);
        _store(
            first,
            TermsBounds.Frame({
                assetCount: first.assets.length,
                maxRoyaltyBps: config.maxRoyaltyBps,
                drawWindow: config.drawWindow,
                longestAudit: config.longestAudit,
                longestLife: 0,
                shortestUnbonding: TermsBounds.MAX_UNBONDING
            }),
            uint40(block.timestamp)
        );
    }

    modifier onlyGovernor() {
        if (msg.sender != governor) revert Parameters_NotGovernor(msg.sender);
        _;
    }

    /// @inheritdoc IParameters
    function propose(Terms calldata terms) external onlyGovernor {
        if (block.timestamp < _effectiveAt) revert Parameters_Pending(_latest, _effectiveAt);
        Version storage last = _versions[_latest];
        _store(
            terms,
            TermsBounds.Frame({
                assetCount: assetCount,
                maxRoyaltyBps: maxRoyaltyBps,
                drawWindow: drawWindow,
                longestAudit: longestAudit,
                longestLife: last.longestLife,
                shortestUnbonding: last.shortestUnbonding
            }),
            uint40(block.timestamp) + delay
        );
    }

    /// @inheritdoc IParameters
    function withdrawProposal() external onlyGovernor {
        if (block.timestamp >= _effectiveAt) revert Parameters_NothingPending();
        emit TermsWithdrawn(_latest);
        // The next proposal takes the same number and overwrites all of it.
        (_latest, _effectiveAt) = (_latest - 1, uint40(block.timestamp));
    }

    /// @inheritdoc IParameters
    function proposeGovernor(address successor_) external onlyGovernor {
        emit GovernorProposed(msg.sender, successor_);
        successor = successor_;
    }

    /// @inheritdoc IParameters
    function acceptGovernor() external {
        if (msg.sender != successor) revert Parameters_NotSuccessor(msg.sender);
        emit GovernorChanged(governor, msg.sender);
        (governor, successor) = (msg.sender, address(0));
    }

    /// @inheritdoc IParameters
    function currentVersion() public view returns (uint16) {
        return block.timestamp < _effectiveAt ? _latest - 1 : _latest;
    }

    /// @inheritdoc IParameters
    function termsOf(uint16 version) external view returns (Terms memory terms) {
        Version storage held = _held(version);
        terms.session = held.session;
        terms.node = held.node;
        terms.assets = new AssetTerms[](assetCount);
        for (uint8 i; i < assetCount; ++i) {
            terms.assets[i] = held.assets[AssetId.wrap(i)];
        }
    }

    /// @inheritdoc IParameters
    function sessionTermsOf(uint16 version) external view returns (SessionTerms memory) {
        return _held(version).session;
    }

    /// @inheritdoc IParameters
    function nodeTermsOf(uint16 version) external view returns (NodeTerms memory) {
        return _held(version).node;
    }

    /// @inheritdoc IParameters
    function assetTermsOf(uint16 version, AssetId asset) external view returns (AssetTerms memory) {
        if (AssetId.unwrap(asset) >= assetCount) revert Parameters_UnknownAsset(asset);
        return _held(version).assets[asset];
    }

    function _store(Terms memory terms, TermsBounds.Frame memory frame, uint40 effectiveAt) internal {
        TermsBounds.check(terms, frame);
        uint16 version = _latest + 1;
        (_latest, _effectiveAt) = (version, effectiveAt);
        Version storage stored = _versions[version];
        stored.session = terms.session;
        stored.node = terms.node;
        uint256 life = TermsBounds.lifeOf(terms.session) + longestAudit;
        uint256 unbonding = terms.node.unbondingPeriod;
        stored.longestLife = uint40(life > frame.longestLife ? life : frame.longestLife);
        stored.shortestUnbonding = uint40(unbonding < frame.shortestUnbonding ? unbonding : frame.shortestUnbonding);
        for (uint8 i; i < terms.assets.length; ++i) {
            stored.assets[AssetId.wrap(i)] = terms.assets[i];
        }
        emit TermsProposed(version, effectiveAt, terms);
    }

    /// A version that holds or held.
    function _held(uint16 version) internal view returns (Version storage) {
        if (version == 0 || version > currentVersion()) revert Parameters_UnknownVersion(version);
        return _versions[version];
    }
}
