// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Draw, INodePool, NodeState} from "./interfaces/INodePool.sol";
import {AssetTerms, IParameters, SessionTerms} from "./interfaces/IParameters.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {
    Admission,
    ISession,
    LaneInfo,
    LaneTerms,
    OpenTerms,
    Payees,
    Permit,
    Progress,
    SessionInfo,
    SessionState
} from "./interfaces/ISession.sol";
import {ISessionPayment, LaneFunds} from "./interfaces/ISessionPayment.sol";
import {Fees} from "./libraries/Fees.sol";
import {NodeSet} from "./libraries/NodeSet.sol";
import {Deed, Order, Past, Serving, SessionWords, SessionWordsLib, TaskTerms} from "./libraries/SessionWords.sol";
import {AssetId, Lane, ModelIndex, NodeId, SessionId} from "./types/Ids.sol";

/// Sessions: terms, nodes, lanes, life.
contract Session is ISession {
    using SafeCast for uint256;
    using NodeSet for uint256;
    using SessionWordsLib for SessionWords;
    using SessionWordsLib for Order;

    struct Wiring {
        address beacon;
        address models;
        address parameters;
        address payment;
        address pool;
    }

    Lane internal constant OWNER_LANE = Lane.wrap(0);
    /// Lanes of a session beside the owner's: one for each router that an application could sensibly use. Lanes that
    /// were taken back count.
    uint256 internal constant MAX_LANES = 8;

    /// @inheritdoc ISession
    address public immutable beacon;
    /// @inheritdoc ISession
    address public immutable models;
    /// @inheritdoc ISession
    address public immutable parameters;
    /// @inheritdoc ISession
    address public immutable payment;
    /// @inheritdoc ISession
    address public immutable pool;

    /// @inheritdoc ISession
    uint64 public sessionCount;
    mapping(SessionId => SessionWords) internal _sessions;
    /// Lanes from 1 on.
    mapping(SessionId => mapping(Lane => LaneInfo)) internal _lanes;
    mapping(uint16 version => mapping(AssetId => TaskTerms)) internal _taskTerms;

    constructor(Wiring memory wiring) {
        if (
            wiring.beacon == address(0) || wiring.models == address(0) || wiring.parameters == address(0)
                || wiring.payment == address(0) || wiring.pool == address(0)
        ) revert Session_ZeroAddress();
        uint40 slotReuseDelay = INodePool(wiring.pool).slotReuseDelay();
        uint40 drawWindow = IParameters(wiring.parameters).drawWindow();
        // A place keeps its meaning for as long as a draw may wait.
        if (slotReuseDelay < drawWindow) revert Session_DelayTooShort(slotReuseDelay, drawWindow);
        (beacon, models) = (wiring.beacon, wiring.models);
        (parameters, payment, pool) = (wiring.parameters, wiring.payment, wiring.pool);
    }

    /// @inheritdoc ISession
    function open(OpenTerms calldata terms) external returns (SessionId sessionId) {
        return _open(terms);
    }

    /// @inheritdoc ISession
    function openWithPermit(OpenTerms calldata terms, Permit calldata permit) external returns (SessionId sessionId) {
        IERC20Permit token = IERC20Permit(ISessionPayment(payment).tokenOf(terms.asset));
        // Anyone may have sent the permit before: what counts is the allowance, which the transfer checks.
        try token.permit(msg.sender, payment, terms.deposit, permit.deadline, permit.v, permit.r, permit.s) {} catch {}
        return _open(terms);
    }

    function _open(OpenTerms calldata terms) internal returns (SessionId sessionId) {
        uint16 version = IParameters(parameters).currentVersion();
        TaskTerms memory taskTerms = _checkTerms(version, terms);
        sessionId = SessionId.wrap(++sessionCount);
        SessionWords storage words = _sessions[sessionId];
        Order memory order;
        order.model = IModelRegistry(models).openIndexOf(terms.modelId);
        order.isProven = IModelRegistry(models).isProven(order.model);
        order.asset = terms.asset;
        order.termsVersion = version;
        order.lanes = uint8(terms.lanes.length);
        if (terms.maxNodes == 0) order.utilisationBps = _utilisationOf(order.model);
        else order.utilisationBps = _enterDraw(order, taskTerms.reservationTimeout);

        words.storeOrder(order);
        words.deed = Deed(msg.sender, uint40(block.timestamp), 0, terms.minNodes, terms.maxNodes);
        _tellOpened(sessionId, terms, order);
        if (terms.maxNodes != 0) emit SessionDrawing(sessionId, order.drawRound, order.ticket, order.drawUntil());
        if (terms.dedicated.length != 0) {
            words.nodes = NodeSet.pack(terms.dedicated);
            INodePool(pool).reserveNamed(sessionId, order.model, msg.sender, terms.dedicated);
        }
        if (terms.maxNodes == 0) _begin(sessionId, words, terms.dedicated, terms.dedicated.length);
        _openLanes(sessionId, terms);
    }

    function _tellOpened(SessionId sessionId, OpenTerms calldata terms, Order memory order) internal {
        (uint80 priceIn, uint80 priceOut) = _pricesOf(order);
        if (priceIn > terms.maxPriceIn) revert Session_PriceAboveCap(priceIn, terms.maxPriceIn);
        if (priceOut > terms.maxPriceOut) revert Session_PriceAboveCap(priceOut, terms.maxPriceOut);
        emit SessionOpened(
            sessionId,
            msg.sender,
            order.model,
            order.asset,
            order.termsVersion,
            terms.minNodes,
            terms.maxNodes,
            priceIn,
            priceOut,
            terms.deposit
        );
    }

    function _checkTerms(uint16 version, OpenTerms calldata terms) internal returns (TaskTerms memory taskTerms) {
        (uint256 min, uint256 max, uint256 named) = (terms.minNodes, terms.maxNodes, terms.dedicated.length);
        // Drawn nodes need a minimum; without them, somebody must be named.
        bool sensible = max == 0 ? min == 0 && named != 0 : min != 0 && min <= max;
        if (!sensible || max + named > NodeSet.MAX) revert Session_NodesOutOfBounds(min, max, named, NodeSet.MAX);
        if (terms.lanes.length > MAX_LANES) revert Session_TooManyLanes(terms.lanes.length, MAX_LANES);
        AssetTerms memory asset = IParameters(parameters).assetTermsOf(version, terms.asset);
        if (terms.deposit < asset.minDeposit) revert Session_DepositTooSmall(terms.deposit, asset.minDeposit);
        taskTerms = _taskTerms[version][terms.asset];
        // No set has a deadline of zero.
        if (taskTerms.maxDeadline == 0) taskTerms = _fetchTerms(version, terms.asset, asset.tip);
    }

    /// What is never changed is read from `Parameters` once.
    function _fetchTerms(uint16 version, AssetId asset, uint96 tip) internal returns (TaskTerms memory taskTerms) {
        taskTerms = SessionWordsLib.taskTerms(_sessionTerms(version), tip);
        _taskTerms[version][asset] = taskTerms;
    }

    function _openLanes(SessionId sessionId, OpenTerms calldata terms) internal {
        uint256 count = terms.lanes.length;
        uint96[] memory allotments = new uint96[](count);
        uint256 sum;
        for (uint256 i; i < count; ++i) {
            allotments[i] = terms.lanes[i].allotment;
            sum += allotments[i];
            _openLane(sessionId, Lane.wrap(uint32(i + 1)), terms.lanes[i]);
        }
        if (sum > terms.deposit) revert Session_AllotmentsAboveDeposit(sum, terms.deposit);
        ISessionPayment(payment).deposit(sessionId, terms.asset, msg.sender, terms.deposit, allotments);
    }

    function _openLane(SessionId sessionId, Lane lane, LaneTerms calldata terms) internal {
        if (terms.holder == address(0)) revert Session_ZeroHolder(Lane.unwrap(lane));
        _lanes[sessionId][lane].holder = terms.holder;
        emit LaneAdded(sessionId, lane, terms.holder, terms.allotment);
    }

    /// Share of the pool's places that is in use, as `enterDraw` tells it.
    function _utilisationOf(ModelIndex model) internal view returns (uint16) {
        (, uint32 taken, uint32 used) = INodePool(pool).poolOf(model);
        return taken == 0 ? 0 : uint16(uint256(used) * Fees.BPS / taken);
    }

    /// Prices of a session; the registry bounds floors so that five times one fits.
    function _pricesOf(Order memory order) internal view returns (uint80 priceIn, uint80 priceOut) {
        (priceIn, priceOut) = IModelRegistry(models).floorsOf(order.model, order.asset);
        priceIn = uint80(Fees.priceDown(priceIn, order.utilisationBps));
        priceOut = uint80(Fees.priceDown(priceOut, order.utilisationBps));
    }

    /// @inheritdoc ISession
    function topUp(SessionId sessionId, Lane lane, uint96 amount) external {
        SessionWords storage words = _unclosed(sessionId);
        uint40 reclaimAt = _laneOf(sessionId, words, lane).reclaimAt;
        if (reclaimAt != 0) revert Session_LaneReclaimed(sessionId, lane, reclaimAt);
        if (amount == 0) revert Session_ZeroAmount();
        emit SessionToppedUp(sessionId, lane, msg.sender, amount);
        ISessionPayment(payment).topUp(sessionId, lane, words.order.asset, msg.sender, amount);
    }

    /// @inheritdoc ISession
    function addLane(SessionId sessionId, LaneTerms calldata terms) external returns (Lane lane) {
        SessionWords storage words = _owned(sessionId);
        SessionState state = words.stateOf();
        if (state == SessionState.Draining) revert Session_WrongState(sessionId, state);
        uint256 count = uint256(words.order.lanes) + 1;
        if (count > MAX_LANES) revert Session_TooManyLanes(count, MAX_LANES);
        words.order.lanes = uint8(count);
        lane = Lane.wrap(uint32(count));
        _openLane(sessionId, lane, terms);
        if (terms.allotment != 0) ISessionPayment(payment).move(sessionId, OWNER_LANE, lane, terms.allotment);
    }

    /// @inheritdoc ISession
    function reclaimLane(SessionId sessionId, Lane lane) external {
        SessionWords storage words = _owned(sessionId);
        uint40 reclaimAt = _laneOf(sessionId, words, lane).reclaimAt;
        if (Lane.unwrap(lane) == 0) revert Session_NotReclaimable(sessionId, lane, 0);
        if (reclaimAt != 0) revert Session_LaneReclaimed(sessionId, lane, reclaimAt);
        reclaimAt = _noticeOf(words);
        _lanes[sessionId][lane].reclaimAt = reclaimAt;
        emit LaneReclaimed(sessionId, lane, reclaimAt);
    }

    /// @inheritdoc ISession
    function finishReclaim(SessionId sessionId, Lane lane) external {
        SessionWords storage words = _unclosed(sessionId);
        uint40 reclaimAt = _laneOf(sessionId, words, lane).reclaimAt;
        if (reclaimAt == 0 || block.timestamp <= reclaimAt) revert Session_NotReclaimable(sessionId, lane, reclaimAt);
        LaneFunds memory funds = ISessionPayment(payment).fundsOf(sessionId, lane);
        if (funds.held != 0) revert Session_TasksOpen(sessionId, lane, funds.held);
        if (funds.free == 0) revert Session_ZeroAmount();
        ISessionPayment(payment).move(sessionId, lane, OWNER_LANE, funds.free);
    }

    /// @inheritdoc ISession
    function activate(SessionId sessionId) external {
        SessionWords storage words = _unclosed(sessionId);
        Order memory order = words.orderOf();
        if (order.drawRound == 0) revert Session_NoDrawWaits(sessionId);
        if (block.timestamp > order.drawUntil()) revert Session_DrawExpired(sessionId, order.drawUntil());
        bytes32 seed = IRandomBeacon(beacon).valueOf(order.drawRound);
        if (seed == 0) revert Session_RoundNotReady(sessionId, order.drawRound);

        SessionState state = words.stateOf();
        NodeId[] memory named = _namedOf(words, state);
        NodeId[] memory drawn = _reserve(sessionId, words, order, seed, named);
        if (state == SessionState.Draining) {
            // The draw took place all the same, so that closing does not rearrange those behind it.
            if (drawn.length != 0) INodePool(pool).release(sessionId, order.model, drawn);
            return _dropRotation(sessionId, words);
        }
        if (drawn.length == 0) return _drawAgain(sessionId, words, order);
        words.order.drawRound = 0;
        if (state == SessionState.Active) _retire(sessionId, words, named = _staying(named));
        _begin(sessionId, words, NodeSet.joined(named, drawn), named.length);
        ISessionPayment(payment).payTip(sessionId, order.asset, msg.sender, _termsOf(order).tip);
    }

    /// @inheritdoc ISession
    function rotate(SessionId sessionId, Lane lane) external {
        SessionWords storage words = _unclosed(sessionId);
        SessionState state = words.stateOf();
        if (state != SessionState.Active) revert Session_WrongState(sessionId, state);
        _laneOf(sessionId, words, lane);
        Order memory order = words.orderOf();
        if (order.drawRound != 0) revert Session_DrawWaits(sessionId, order.drawUntil());
        _checkDue(sessionId, words, lane);
        if (words.deed.maxNodes != 0) {
            _enterDraw(order, _termsOf(order).reservationTimeout);
            words.storeOrder(order);
            emit SessionDrawing(sessionId, order.drawRound, order.ticket, order.drawUntil());
            return;
        }
        NodeId[] memory named = _staying(_namedOf(words, state));
        // Nobody would be left: as if the owner had closed it.
        if (named.length == 0) return _drain(sessionId, words);
        _retire(sessionId, words, named);
        _begin(sessionId, words, named, named.length);
    }

    /// @inheritdoc ISession
    function expire(SessionId sessionId) external {
        SessionWords storage words = _unclosed(sessionId);
        Order memory order = words.orderOf();
        if (order.drawRound == 0) revert Session_NoDrawWaits(sessionId);
        if (block.timestamp <= order.drawUntil() && !IRandomBeacon(beacon).isMissed(order.drawRound)) {
            revert Session_DrawNotExpired(sessionId, order.drawUntil());
        }
        Draw memory pass;
        (pass.sessionId, pass.model, pass.ticket) = (sessionId, order.model, order.ticket);
        INodePool(pool).reserve(pass);
        SessionState state = words.stateOf();
        if (state != SessionState.Open) {
            _dropRotation(sessionId, words);
            // Nobody follows a node that wants to leave: the session lets it go by its end.
            if (state == SessionState.Active && _someLeave(words.nodes)) _drain(sessionId, words);
            return;
        }
        words.order.drawRound = 0;
        words.past.endsAt = uint40(block.timestamp);
        _end(sessionId, words);
    }

    /// The nodes that the session's draw finds. Nodes that were drawn before stay until the new ones are there.
    function _reserve(
        SessionId sessionId,
        SessionWords storage words,
        Order memory order,
        bytes32 seed,
        NodeId[] memory named
    ) internal returns (NodeId[] memory) {
        Draw memory draw = Draw({
            sessionId: sessionId,
            model: order.model,
            seed: seed,
            ticket: order.ticket,
            slots: order.slots,
            asOf: order.asOf,
            min: words.deed.minNodes,
            count: words.deed.maxNodes,
            taken: named
        });
        return INodePool(pool).reserve(draw);
    }

    /// Too few nodes were found: the next draw, within the same time limit.
    function _drawAgain(SessionId sessionId, SessionWords storage words, Order memory order) internal {
        _enterDraw(order, uint24(order.drawUntil() - block.timestamp));
        words.storeOrder(order);
        emit SessionDrawing(sessionId, order.drawRound, order.ticket, order.drawUntil());
    }

    /// Asks the pool for a ticket, and the beacon for a round that nobody knows. Only the first changes the price.
    function _enterDraw(Order memory order, uint24 window) internal returns (uint16 utilisationBps) {
        (order.ticket, order.slots, utilisationBps) = INodePool(pool).enterDraw(order.model);
        order.drawRound = uint256(IRandomBeacon(beacon).nextRound()).toUint32();
        order.asOf = uint40(block.timestamp);
        order.window = window;
    }

    /// The nodes that the session named, of its current reservation, whatever they do now: a draw leaves out their
    /// owners, and must not change when one of them drains once its seed is known.
    function _namedOf(SessionWords storage words, SessionState state) internal view returns (NodeId[] memory) {
        return state == SessionState.Open ? words.nodes.unpack() : words.nodes.first(words.serving.dedicated);
    }

    /// Those of `named` that serve the next reservation, in the same memory.
    function _staying(NodeId[] memory named) internal view returns (NodeId[] memory) {
        uint256 kept;
        for (uint256 i; i < named.length; ++i) {
            if (!_leaves(named[i])) named[kept++] = named[i];
        }
        assembly ("memory-safe") {
            mstore(named, kept)
        }
        return named;
    }

    function _someLeave(uint256 nodes) internal view returns (bool) {
        for (; nodes != 0; nodes >>= 32) {
            if (_leaves(nodes.nodeAt(0))) return true;
        }
        return false;
    }

    /// Whether a node that is reserved takes nothing new: it drains, or is jailed.
    function _leaves(NodeId nodeId) internal view returns (bool) {
        NodeState state = INodePool(pool).nodeOf(nodeId).state;
        return state != NodeState.Dedicated && state != NodeState.Ephemeral;
    }

    /// The current reservation becomes the one before; who is not `staying` is released.
    function _retire(SessionId sessionId, SessionWords storage words, NodeId[] memory staying) internal {
        uint256 nodes = words.nodes;
        Serving memory serving = words.servingOf();
        // A reservation whose seed was missed served nothing: what the one before still serves is more.
        if (!IRandomBeacon(beacon).isMissed(serving.seedRound)) {
            TaskTerms memory terms = _termsOf(words.orderOf());
            uint256 until =
                block.timestamp + terms.maxDeadline + uint256(terms.maxAttempts) * terms.attemptTime + terms.revealTime;
            words.past = Past(words.past.endsAt, uint40(until), serving.seedRound, serving.dedicated);
            words.formerNodes = nodes;
        }
        uint256 kept = NodeSet.pack(staying);
        NodeId[] memory leaving = nodes.without(kept);
        if (leaving.length != 0) INodePool(pool).release(sessionId, words.order.model, leaving);
    }

    /// A reservation of these nodes begins.
    function _begin(SessionId sessionId, SessionWords storage words, NodeId[] memory nodes, uint256 dedicated)
        internal
    {
        Order memory order = words.orderOf();
        Serving memory serving = words.servingOf();
        if (serving.reservations == 0) {
            (serving.asset, serving.termsVersion) = (order.asset, order.termsVersion);
            serving.isProven = order.isProven;
            (serving.priceIn, serving.priceOut) = _pricesOf(order);
            serving.state = SessionState.Active;
        }
        // A full counter only makes rotation by tasks rarer than it need be.
        if (serving.reservations != type(uint16).max) ++serving.reservations;
        serving.dedicated = uint8(dedicated);
        serving.seedRound = uint256(IRandomBeacon(beacon).nextRound()).toUint32();
        words.serving = serving;
        words.nodes = NodeSet.pack(nodes);
        words.deed.rotatesAt = uint40(block.timestamp) + _sessionTerms(order.termsVersion).reservePeriod;
        emit SessionActivated(sessionId, serving.seedRound, nodes, uint8(dedicated), words.past.until);
    }

    function _dropRotation(SessionId sessionId, SessionWords storage words) internal {
        words.order.drawRound = 0;
        emit RotationDropped(sessionId);
    }

    /// Nodes may be replaced after their time or their tasks, but not while the reservation before still serves; or at
    /// once if their seed can never be known.
    function _checkDue(SessionId sessionId, SessionWords storage words, Lane lane) internal view {
        Serving memory serving = words.servingOf();
        if (IRandomBeacon(beacon).isMissed(serving.seedRound)) return;
        (uint40 until, uint40 rotatesAt) = (words.past.until, words.deed.rotatesAt);
        uint64 nonce = ISessionPayment(payment).fundsOf(sessionId, lane).nextNonce;
        uint256 maxTasks = _sessionTerms(serving.termsVersion).maxTasks;
        bool due = block.timestamp >= rotatesAt || nonce >= maxTasks * serving.reservations;
        if (due && block.timestamp > until) return;
        revert Session_RotationNotDue(sessionId, rotatesAt > until ? rotatesAt : until + 1, nonce);
    }

    /// @inheritdoc ISession
    function close(SessionId sessionId) external {
        SessionWords storage words = _owned(sessionId);
        SessionState state = words.stateOf();
        if (state != SessionState.Active) revert Session_WrongState(sessionId, state);
        _drain(sessionId, words);
    }

    /// @inheritdoc ISession
    function finish(SessionId sessionId) external {
        SessionWords storage words = _unclosed(sessionId);
        SessionState state = words.stateOf();
        if (state != SessionState.Draining) revert Session_WrongState(sessionId, state);
        uint40 endsAt = words.past.endsAt;
        if (block.timestamp <= endsAt) revert Session_StillDraining(sessionId, endsAt);
        Order memory order = words.orderOf();
        if (order.drawRound != 0) revert Session_DrawWaits(sessionId, order.drawUntil());
        for (uint256 i; i <= order.lanes; ++i) {
            Lane lane = Lane.wrap(uint32(i));
            uint96 held = ISessionPayment(payment).fundsOf(sessionId, lane).held;
            if (held != 0) revert Session_TasksOpen(sessionId, lane, held);
        }
        _end(sessionId, words);
    }

    function _drain(SessionId sessionId, SessionWords storage words) internal {
        uint40 endsAt = _noticeOf(words);
        words.serving.state = SessionState.Draining;
        words.past.endsAt = endsAt;
        emit SessionDraining(sessionId, endsAt);
    }

    /// Frees the nodes, pays whoever called, and returns the rest.
    function _end(SessionId sessionId, SessionWords storage words) internal {
        Order memory order = words.orderOf();
        words.serving.state = SessionState.Closed;
        uint256 nodes = words.nodes;
        if (nodes != 0) INodePool(pool).release(sessionId, order.model, nodes.unpack());
        ISessionPayment(payment).payTip(sessionId, order.asset, msg.sender, _termsOf(order).tip);
        uint256 returned =
            ISessionPayment(payment).returnRest(sessionId, order.asset, uint256(order.lanes) + 1, words.deed.owner);
        emit SessionClosed(sessionId, returned);
    }

    /// Unix seconds; when a notice that is given now is over.
    function _noticeOf(SessionWords storage words) internal view returns (uint40) {
        return uint40(block.timestamp) + _sessionTerms(words.order.termsVersion).noticePeriod;
    }

    /// @inheritdoc ISession
    function sessionOf(SessionId sessionId) external view returns (SessionInfo memory info) {
        SessionWords storage words = _known(sessionId);
        Deed memory deed = words.deed;
        Order memory order = words.orderOf();
        (info.owner, info.state) = (deed.owner, words.stateOf());
        (info.termsVersion, info.asset) = (order.termsVersion, order.asset);
        (info.minNodes, info.maxNodes) = (deed.minNodes, deed.maxNodes);
        (info.openedAt, info.endsAt, info.model) = (deed.openedAt, words.past.endsAt, order.model);
        (info.priceIn, info.priceOut) = _pricesOf(order);
        if (order.drawRound != 0) {
            (info.drawRound, info.drawTicket, info.drawUntil) = (order.drawRound, order.ticket, order.drawUntil());
        }
        (info.rotatesAt, info.reservations) = (deed.rotatesAt, words.serving.reservations);
        info.isProven = order.isProven;
        info.current = words.current();
        info.previous = words.previous();
    }

    /// @inheritdoc ISession
    function laneOf(SessionId sessionId, Lane lane) external view returns (LaneInfo memory) {
        return _laneOf(sessionId, _known(sessionId), lane);
    }

    /// @inheritdoc ISession
    function laneCount(SessionId sessionId) external view returns (uint256) {
        return uint256(_known(sessionId).order.lanes) + 1;
    }

    /// @inheritdoc ISession
    function admissionOf(SessionId sessionId, Lane lane, uint64 seedRound)
        external
        view
        returns (Admission memory admission)
    {
        SessionWords storage words = _sessions[sessionId];
        LaneInfo storage info = _lanes[sessionId][lane];
        (admission.state, admission.endsAt) = (words.stateOf(), info.reclaimAt);
        admission.holder = Lane.unwrap(lane) == 0 ? words.deed.owner : info.holder;
        if (admission.state > SessionState.Active) {
            uint40 endsAt = words.past.endsAt;
            if (admission.endsAt == 0 || endsAt < admission.endsAt) admission.endsAt = endsAt;
        }
        Serving storage serving = words.serving;
        (admission.asset, admission.isProven) = (serving.asset, serving.isProven);
        (admission.priceIn, admission.priceOut) = (serving.priceIn, serving.priceOut);
        (admission.seedRound, admission.nodes, admission.dedicated) = words.serves(seedRound);
        TaskTerms storage terms = _taskTerms[serving.termsVersion][serving.asset];
        (admission.maxDeadline, admission.attemptTime) = (terms.maxDeadline, terms.attemptTime);
        (admission.revealTime, admission.settleDelay) = (terms.revealTime, terms.settleDelay);
        (admission.maxAttempts, admission.tip) = (terms.maxAttempts, terms.tip);
        // Every task asks: the words of the struct are its encoding, which need not be written a second time.
        assembly ("memory-safe") {
            return(admission, 512)
        }
    }

    /// @inheritdoc ISession
    function nodesOf(SessionId sessionId, uint64 seedRound) external view returns (uint256 nodes, uint8 dedicated) {
        (, nodes, dedicated) = _sessions[sessionId].serves(seedRound);
    }

    /// @inheritdoc ISession
    function progressOf(SessionId sessionId) external view returns (Progress memory progress) {
        Serving storage serving = _sessions[sessionId].serving;
        (progress.priceIn, progress.priceOut) = (serving.priceIn, serving.priceOut);
        TaskTerms storage terms = _taskTerms[serving.termsVersion][serving.asset];
        (progress.attemptTime, progress.revealTime) = (terms.attemptTime, terms.revealTime);
        (progress.settleDelay, progress.tip, progress.isProven) = (terms.settleDelay, terms.tip, serving.isProven);
        assembly ("memory-safe") {
            return(progress, 224)
        }
    }

    /// @inheritdoc ISession
    function payeesOf(SessionId sessionId, Lane lane) external view returns (Payees memory) {
        SessionWords storage words = _sessions[sessionId];
        Order memory order = words.orderOf();
        TaskTerms memory terms = _termsOf(order);
        address owner = words.deed.owner;
        return Payees({
            asset: order.asset,
            model: order.model,
            owner: owner,
            holder: Lane.unwrap(lane) == 0 ? owner : _lanes[sessionId][lane].holder,
            minerBps: terms.minerBps,
            routerBps: terms.routerBps,
            tip: terms.tip,
            isProven: order.isProven
        });
    }

    function _termsOf(Order memory order) internal view returns (TaskTerms memory) {
        return _taskTerms[order.termsVersion][order.asset];
    }

    function _sessionTerms(uint16 version) internal view returns (SessionTerms memory) {
        return IParameters(parameters).sessionTermsOf(version);
    }

    function _laneOf(SessionId sessionId, SessionWords storage words, Lane lane)
        internal
        view
        returns (LaneInfo memory info)
    {
        if (Lane.unwrap(lane) > words.order.lanes) revert Session_UnknownLane(sessionId, lane);
        info = _lanes[sessionId][lane];
        if (Lane.unwrap(lane) == 0) info.holder = words.deed.owner;
    }

    function _known(SessionId sessionId) internal view returns (SessionWords storage words) {
        words = _sessions[sessionId];
        if (words.deed.owner == address(0)) revert Session_UnknownSession(sessionId);
    }

    function _unclosed(SessionId sessionId) internal view returns (SessionWords storage words) {
        words = _known(sessionId);
        if (words.serving.state == SessionState.Closed) revert Session_WrongState(sessionId, SessionState.Closed);
    }

    function _owned(SessionId sessionId) internal view returns (SessionWords storage words) {
        words = _unclosed(sessionId);
        if (words.deed.owner != msg.sender) revert Session_NotOwner(sessionId, msg.sender);
    }
}
