// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Draw, INodePool} from "./interfaces/INodePool.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {
    Admission, ISession, LaneInfo, LaneTerms, OpenTerms, Permit, SessionInfo, SessionState
} from "./interfaces/ISession.sol";
import {ISessionPayment} from "./interfaces/ISessionPayment.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Lane, ModelId, NodeId, SessionId} from "./types/Ids.sol";

/// Sessions: terms, nodes, lanes, life.
contract Session is ISession {
    using SafeCast for uint256;
    using NodeSet for uint256;

    struct Config {
        uint40 reservationTimeout;
        uint40 noticePeriod;
        uint128 minDeposit;
    }

    /// Three words at opening, one more with the nodes.
    struct Stored {
        address owner;
        SessionState state;
        uint8 minNodes;
        uint8 maxNodes;
        uint40 openedAt;
        /// Seconds from `openedAt` to the end; 0 unless draining or closed.
        uint32 endsAfter;
        // New word. The registry's bound on floors keeps prices below 2^72.
        uint72 priceIn;
        uint72 priceOut;
        uint40 drawRound;
        uint40 seedRound;
        /// Places of the model's pool when the session opened.
        uint32 slots;
        // New word.
        ModelId modelId;
        // New word, see `NodeSet`.
        uint256 nodes;
    }

    /// One word at opening, one more with the first task.
    struct StoredLane {
        address holder;
        uint96 allotment;
        // New word.
        uint128 used;
        uint64 nextNonce;
    }

    /// Lanes of a session beside the owner's: one for each router that an application could sensibly use.
    uint256 internal constant MAX_LANES = 8;

    /// @inheritdoc ISession
    address public immutable models;
    /// @inheritdoc ISession
    address public immutable pool;
    /// @inheritdoc ISession
    address public immutable queue;
    /// @inheritdoc ISession
    address public immutable payment;
    /// @inheritdoc ISession
    address public immutable beacon;
    /// @inheritdoc ISession
    uint40 public immutable reservationTimeout;
    /// @inheritdoc ISession
    uint40 public immutable noticePeriod;
    /// @inheritdoc ISession
    uint128 public immutable minDeposit;

    /// @inheritdoc ISession
    uint64 public sessionCount;
    mapping(SessionId => Stored) internal _sessions;
    mapping(SessionId => mapping(Lane => StoredLane)) internal _lanes;

    struct Wiring {
        address models;
        address pool;
        address queue;
        address payment;
        address beacon;
    }

    constructor(Wiring memory wiring, Config memory config) {
        if (
            wiring.models == address(0) || wiring.pool == address(0) || wiring.queue == address(0)
                || wiring.payment == address(0) || wiring.beacon == address(0)
        ) revert Session_ZeroAddress();
        uint40 slotReuseDelay = INodePool(wiring.pool).slotReuseDelay();
        if (config.reservationTimeout > slotReuseDelay) {
            revert Session_TimeoutTooLong(config.reservationTimeout, slotReuseDelay);
        }
        (models, pool, queue) = (wiring.models, wiring.pool, wiring.queue);
        (payment, beacon) = (wiring.payment, wiring.beacon);
        reservationTimeout = config.reservationTimeout;
        noticePeriod = config.noticePeriod;
        minDeposit = config.minDeposit;
    }

    modifier onlyQueue() {
        if (msg.sender != queue) revert Session_NotQueue(msg.sender);
        _;
    }

    /// @inheritdoc ISession
    function open(OpenTerms calldata terms) external returns (SessionId sessionId) {
        return _open(terms);
    }

    /// @inheritdoc ISession
    function openWithPermit(OpenTerms calldata terms, Permit calldata permit) external returns (SessionId sessionId) {
        IERC20Permit token = IERC20Permit(ISessionPayment(payment).token());
        // Anyone may have sent the permit before: what counts is the allowance, which the transfer checks.
        try token.permit(msg.sender, payment, terms.deposit, permit.deadline, permit.v, permit.r, permit.s) {} catch {}
        return _open(terms);
    }

    /// @inheritdoc ISession
    function topUp(SessionId sessionId, uint128 amount) external {
        Stored storage stored = _known(sessionId);
        if (stored.state == SessionState.Closed) revert Session_WrongState(sessionId, stored.state);
        if (amount == 0) revert Session_ZeroAmount();
        emit SessionToppedUp(sessionId, msg.sender, amount);
        ISessionPayment(payment).deposit(sessionId, msg.sender, amount);
    }

    /// @inheritdoc ISession
    function activate(SessionId sessionId) external {
        Stored storage stored = _known(sessionId);
        if (stored.state != SessionState.Open) revert Session_WrongState(sessionId, stored.state);
        uint40 expiresAt = stored.openedAt + reservationTimeout;
        if (block.timestamp > expiresAt) revert Session_Expired(sessionId, expiresAt);
        bytes32 seed = IRandomBeacon(beacon).valueOf(stored.drawRound);
        if (seed == 0) revert Session_RoundNotReady(sessionId, stored.drawRound);
        uint64 seedRound = IRandomBeacon(beacon).nextRound();
        stored.state = SessionState.Active;
        stored.seedRound = uint256(seedRound).toUint40();
        NodeId[] memory nodes = INodePool(pool).reserve(
            Draw({
                modelId: stored.modelId,
                seed: seed,
                asOf: stored.openedAt,
                slots: stored.slots,
                min: stored.minNodes,
                count: stored.maxNodes
            })
        );
        stored.nodes = NodeSet.pack(nodes);
        emit SessionActivated(sessionId, seedRound, nodes);
    }

    /// @inheritdoc ISession
    function close(SessionId sessionId) external {
        Stored storage stored = _known(sessionId);
        if (stored.owner != msg.sender) revert Session_NotOwner(sessionId, msg.sender);
        if (stored.state == SessionState.Open || _seedMissed(stored)) return _end(sessionId, stored);
        if (stored.state != SessionState.Active) revert Session_WrongState(sessionId, stored.state);
        uint40 endsAt = uint40(block.timestamp) + noticePeriod;
        stored.state = SessionState.Draining;
        stored.endsAfter = uint32(endsAt - stored.openedAt);
        emit SessionDraining(sessionId, endsAt);
    }

    /// @inheritdoc ISession
    function finish(SessionId sessionId) external {
        Stored storage stored = _known(sessionId);
        if (stored.state != SessionState.Draining) revert Session_WrongState(sessionId, stored.state);
        uint40 endsAt = _endsAt(stored);
        if (block.timestamp <= endsAt) revert Session_StillDraining(sessionId, endsAt);
        _end(sessionId, stored);
    }

    /// @inheritdoc ISession
    function expire(SessionId sessionId) external {
        Stored storage stored = _known(sessionId);
        if (stored.state == SessionState.Open) {
            uint40 expiresAt = stored.openedAt + reservationTimeout;
            if (block.timestamp <= expiresAt && !IRandomBeacon(beacon).isMissed(stored.drawRound)) {
                revert Session_NotExpired(sessionId, expiresAt);
            }
        } else if (!_seedMissed(stored)) {
            revert Session_WrongState(sessionId, stored.state);
        }
        _end(sessionId, stored);
    }

    /// @inheritdoc ISession
    function useLane(SessionId sessionId, Lane lane, uint64 nonce, uint128 amount) external onlyQueue {
        StoredLane storage stored = _lanes[sessionId][lane];
        uint128 used = stored.used;
        if (Lane.unwrap(lane) != 0) {
            uint128 left = stored.allotment - used;
            if (amount > left) revert Session_AllotmentExceeded(sessionId, lane, amount, left);
        }
        stored.used = used + amount;
        if (nonce >= stored.nextNonce) stored.nextNonce = nonce + 1;
    }

    /// @inheritdoc ISession
    function restoreLane(SessionId sessionId, Lane lane, uint128 amount) external onlyQueue {
        _lanes[sessionId][lane].used -= amount;
    }

    /// @inheritdoc ISession
    function sessionOf(SessionId sessionId) external view returns (SessionInfo memory) {
        Stored storage stored = _known(sessionId);
        return SessionInfo({
            owner: stored.owner,
            state: stored.state,
            minNodes: stored.minNodes,
            maxNodes: stored.maxNodes,
            openedAt: stored.openedAt,
            endsAt: _endsAt(stored),
            drawRound: stored.drawRound,
            seedRound: stored.seedRound,
            modelId: stored.modelId,
            priceIn: stored.priceIn,
            priceOut: stored.priceOut,
            nodes: stored.nodes.unpack()
        });
    }

    /// @inheritdoc ISession
    function laneOf(SessionId sessionId, Lane lane) external view returns (LaneInfo memory) {
        Stored storage stored = _known(sessionId);
        StoredLane storage storedLane = _lanes[sessionId][lane];
        bool owners = Lane.unwrap(lane) == 0;
        if (!owners && storedLane.holder == address(0)) revert Session_UnknownLane(sessionId, lane);
        return LaneInfo({
            holder: owners ? stored.owner : storedLane.holder,
            allotment: owners ? type(uint128).max : storedLane.allotment,
            used: storedLane.used,
            nextNonce: storedLane.nextNonce
        });
    }

    /// @inheritdoc ISession
    function seedOf(SessionId sessionId) external view returns (bytes32) {
        return _seedOf(_known(sessionId));
    }

    /// @inheritdoc ISession
    function admissionOf(SessionId sessionId, Lane lane) external view returns (Admission memory) {
        Stored storage stored = _sessions[sessionId];
        StoredLane storage storedLane = _lanes[sessionId][lane];
        return Admission({
            state: stored.state,
            holder: Lane.unwrap(lane) == 0 ? stored.owner : storedLane.holder,
            endsAt: _endsAt(stored),
            nextNonce: storedLane.nextNonce,
            priceIn: stored.priceIn,
            priceOut: stored.priceOut,
            nodes: stored.nodes,
            seed: _seedOf(stored)
        });
    }

    /// @inheritdoc ISession
    function pricesOf(SessionId sessionId) external view returns (uint96 priceIn, uint96 priceOut) {
        Stored storage stored = _sessions[sessionId];
        return (stored.priceIn, stored.priceOut);
    }

    /// @inheritdoc ISession
    function payeesOf(SessionId sessionId, Lane lane) external view returns (ModelId modelId, address holder) {
        Stored storage stored = _sessions[sessionId];
        return (stored.modelId, Lane.unwrap(lane) == 0 ? stored.owner : _lanes[sessionId][lane].holder);
    }

    function _open(OpenTerms calldata terms) internal returns (SessionId sessionId) {
        _checkTerms(terms);
        (uint96 priceIn, uint96 priceOut) = IModelRegistry(models).floorsOf(terms.modelId);
        if (priceIn > terms.maxPriceIn) revert Session_PriceAboveCap(priceIn, terms.maxPriceIn);
        if (priceOut > terms.maxPriceOut) revert Session_PriceAboveCap(priceOut, terms.maxPriceOut);

        sessionId = SessionId.wrap(++sessionCount);
        Stored storage stored = _sessions[sessionId];
        stored.owner = msg.sender;
        stored.state = SessionState.Open;
        stored.minNodes = terms.minNodes;
        stored.maxNodes = terms.maxNodes;
        stored.openedAt = uint40(block.timestamp);
        stored.priceIn = uint256(priceIn).toUint72();
        stored.priceOut = uint256(priceOut).toUint72();
        uint64 drawRound = IRandomBeacon(beacon).nextRound();
        stored.drawRound = uint256(drawRound).toUint40();
        stored.slots = INodePool(pool).slotCount(terms.modelId);
        stored.modelId = terms.modelId;
        emit SessionOpened(
            sessionId,
            msg.sender,
            terms.modelId,
            terms.minNodes,
            terms.maxNodes,
            priceIn,
            priceOut,
            terms.deposit,
            drawRound
        );
        _addLanes(sessionId, terms.lanes);
        ISessionPayment(payment).deposit(sessionId, msg.sender, terms.deposit);
    }

    function _checkTerms(OpenTerms calldata terms) internal view {
        if (terms.minNodes == 0 || terms.minNodes > terms.maxNodes || terms.maxNodes > NodeSet.MAX) {
            revert Session_NodesOutOfBounds(terms.minNodes, terms.maxNodes, uint8(NodeSet.MAX));
        }
        if (terms.deposit < minDeposit) revert Session_DepositTooSmall(terms.deposit, minDeposit);
        if (terms.lanes.length > MAX_LANES) revert Session_TooManyLanes(terms.lanes.length, MAX_LANES);
    }

    function _addLanes(SessionId sessionId, LaneTerms[] calldata lanes) internal {
        for (uint256 i; i < lanes.length; ++i) {
            Lane lane = Lane.wrap(uint32(i + 1));
            if (lanes[i].holder == address(0)) revert Session_ZeroHolder(i + 1);
            uint96 allotment = uint96(Math.min(lanes[i].allotment, type(uint96).max));
            StoredLane storage stored = _lanes[sessionId][lane];
            (stored.holder, stored.allotment) = (lanes[i].holder, allotment);
            emit LaneAdded(sessionId, lane, lanes[i].holder, allotment);
        }
    }

    /// Frees the nodes and returns what is left; no task may hold money.
    function _end(SessionId sessionId, Stored storage stored) internal {
        (uint128 free, uint128 held) = ISessionPayment(payment).sessionFunds(sessionId);
        if (held != 0) revert Session_TasksOpen(sessionId, held);
        stored.state = SessionState.Closed;
        stored.endsAfter = uint32(block.timestamp - stored.openedAt);
        emit SessionClosed(sessionId, free);
        uint256 nodes = stored.nodes;
        if (nodes != 0) INodePool(pool).release(nodes.unpack());
        ISessionPayment(payment).returnRest(sessionId, stored.owner);
    }

    /// True for a session with nodes that can never have a task.
    function _seedMissed(Stored storage stored) internal view returns (bool) {
        return (stored.state == SessionState.Active || stored.state == SessionState.Draining)
            && IRandomBeacon(beacon).isMissed(stored.seedRound);
    }

    function _seedOf(Stored storage stored) internal view returns (bytes32) {
        uint64 round = stored.seedRound;
        return round == 0 ? bytes32(0) : IRandomBeacon(beacon).valueOf(round);
    }

    function _endsAt(Stored storage stored) internal view returns (uint40) {
        uint32 endsAfter = stored.endsAfter;
        return endsAfter == 0 ? 0 : stored.openedAt + endsAfter;
    }

    function _known(SessionId sessionId) internal view returns (Stored storage stored) {
        stored = _sessions[sessionId];
        if (stored.state == SessionState.None) revert Session_UnknownSession(sessionId);
    }
}
