// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Draw, Eligibility, INodePool, Node, NodeRegistration, NodeState, Offer} from "./interfaces/INodePool.sol";
import {INodeStats} from "./interfaces/INodeStats.sol";
import {IParameters, NodeTerms} from "./interfaces/IParameters.sol";
import {ISessionPayment} from "./interfaces/ISessionPayment.sol";
import {Place, SlotPool} from "./libraries/SlotPool.sol";
import {ModelIndex, NodeId, NumericClass, SessionId} from "./types/Ids.sol";

/// Nodes, their stake and their places in the draws.
contract NodePool is INodePool {
    using SlotPool for SlotPool.State;
    using SlotPool for Place;

    struct Wiring {
        address session;
        address queue;
        address models;
        address payment;
        address stats;
        address parameters;
        address proof;
    }

    struct StoredNode {
        address owner;
        NodeState state;
        uint40 exitAt;
        uint16 termsVersion;
        /// Places of all its offers.
        uint8 places;
        bool isDedicated;
        address operator;
        uint40 operatorSince;
        address payout;
        NumericClass numericClass;
        address previousOperator;
        address dedicatedTo;
        /// Of each place its index and its model, 32 bits each, the first lowest. Places of one offer are neighbours.
        uint256 indices;
        uint256 models;
    }

    /// Places of a node while it registers, as in `StoredNode`.
    struct NodePlaces {
        uint256 count;
        uint256 indices;
        uint256 models;
    }

    /// What a draw has found so far.
    struct Found {
        uint256 length;
        NodeId[] nodes;
        uint32[] indices;
        /// Of the nodes that the session has already, then of those found.
        address[] owners;
    }

    /// The largest weight in a draw is so many times the smallest; and one word remembers so many places.
    uint256 internal constant MAX_CAPACITY = 8;
    /// Tries for each node of a draw: bounds the gas of a draw in a pool full of busy nodes.
    uint256 internal constant MAX_TRIES = 32;
    /// Chance that a try takes what it finds, hundredths of a percent: at level 0, and for each level more.
    uint256 internal constant BASE_ACCEPTANCE_BPS = 5000;
    uint256 internal constant LEVEL_ACCEPTANCE_BPS = 500;

    /// @inheritdoc INodePool
    /// @dev Longer than a task can live by the bounds of `Parameters`: what an old key signed is evidence until then.
    uint40 public constant keyGrace = 3 days;
    /// @inheritdoc INodePool
    uint40 public immutable slotReuseDelay;
    /// @inheritdoc INodePool
    address public immutable session;
    /// @inheritdoc INodePool
    address public immutable queue;
    /// @inheritdoc INodePool
    address public immutable models;
    /// @inheritdoc INodePool
    address public immutable payment;
    /// @inheritdoc INodePool
    address public immutable stats;
    /// @inheritdoc INodePool
    address public immutable parameters;
    /// @inheritdoc INodePool
    address public immutable proof;

    /// @inheritdoc INodePool
    uint32 public nodeCount;
    /// @inheritdoc INodePool
    mapping(address operator => NodeId) public nodeByOperator;
    mapping(NodeId => StoredNode) internal _nodes;
    /// Places of nodes that take part in draws, and, apart, of dedicated ones.
    mapping(ModelIndex => mapping(bool isDedicated => SlotPool.State)) internal _pools;

    /// `stats` and `parameters` must be deployed already.
    constructor(Wiring memory wiring) {
        if (wiring.session == address(0) || wiring.queue == address(0) || wiring.models == address(0)) {
            revert NodePool_ZeroAddress();
        }
        if (wiring.payment == address(0) || wiring.stats == address(0) || wiring.parameters == address(0)) {
            revert NodePool_ZeroAddress();
        }
        if (wiring.proof == address(0)) revert NodePool_ZeroAddress();
        proof = wiring.proof;
        (session, queue, models) = (wiring.session, wiring.queue, wiring.models);
        (payment, stats, parameters) = (wiring.payment, wiring.stats, wiring.parameters);
        slotReuseDelay = IParameters(wiring.parameters).drawWindow();
        uint40 epochLength = INodeStats(wiring.stats).epochLength();
        if (epochLength < slotReuseDelay) revert NodePool_DelaysTooShort(epochLength, slotReuseDelay);
    }

    modifier onlySession() {
        if (msg.sender != session) revert NodePool_NotSession(msg.sender);
        _;
    }

    /// @inheritdoc INodePool
    function register(NodeRegistration calldata registration) external returns (NodeId nodeId) {
        if (registration.operator == address(0) || registration.payout == address(0)) revert NodePool_ZeroAddress();
        if (NumericClass.unwrap(registration.numericClass) == 0) revert NodePool_EmptyClass();
        uint16 version = IParameters(parameters).currentVersion();
        NodeTerms memory terms = IParameters(parameters).nodeTermsOf(version);

        nodeId = NodeId.wrap(++nodeCount);
        _claimOperator(registration.operator, nodeId);
        StoredNode storage node = _nodes[nodeId];
        node.owner = msg.sender;
        node.termsVersion = version;
        node.operator = registration.operator;
        node.payout = registration.payout;
        node.numericClass = registration.numericClass;
        if (registration.dedicatedTo != address(0)) {
            (node.isDedicated, node.dedicatedTo) = (true, registration.dedicatedTo);
        }
        emit NodeRegistered(
            nodeId,
            msg.sender,
            registration.operator,
            registration.payout,
            registration.dedicatedTo,
            registration.numericClass,
            version
        );
        _takePart(node, nodeId);
        _offer(node, nodeId, registration.offers, uint40(block.timestamp) + terms.activationDelay);
        ISessionPayment(payment).stake(nodeId, msg.sender, uint256(terms.collateralPerSlot) * node.places);
    }

    /// @inheritdoc INodePool
    function setOperator(NodeId nodeId, address operator) external {
        StoredNode storage node = _owned(nodeId);
        if (node.state == NodeState.Exited) revert NodePool_WrongState(nodeId, node.state);
        if (operator == address(0)) revert NodePool_ZeroAddress();
        uint40 next = node.operatorSince + keyGrace;
        if (block.timestamp < next) revert NodePool_KeyChangedLately(nodeId, next);
        address old = node.operator;
        _claimOperator(operator, nodeId);
        nodeByOperator[old] = NodeId.wrap(0);
        (node.operator, node.operatorSince, node.previousOperator) = (operator, uint40(block.timestamp), old);
        emit OperatorChanged(nodeId, old, operator);
    }

    /// @inheritdoc INodePool
    function setPayout(NodeId nodeId, address payout) external {
        StoredNode storage node = _owned(nodeId);
        if (payout == address(0)) revert NodePool_ZeroAddress();
        emit PayoutChanged(nodeId, node.payout, payout);
        node.payout = payout;
    }

    /// @inheritdoc INodePool
    function drain(NodeId nodeId) external {
        StoredNode storage node = _owned(nodeId);
        if (node.state != NodeState.Ephemeral && node.state != NodeState.Dedicated) {
            revert NodePool_WrongState(nodeId, node.state);
        }
        _setState(node, nodeId, NodeState.Draining);
        _vacate(node);
    }

    /// @inheritdoc INodePool
    function resume(NodeId nodeId) external {
        StoredNode storage node = _owned(nodeId);
        if (node.state != NodeState.Draining) revert NodePool_WrongState(nodeId, node.state);
        _checkNotDrawn(node, nodeId);
        _takePart(node, nodeId);
        uint40 activeFrom =
            uint40(block.timestamp) + IParameters(parameters).nodeTermsOf(node.termsVersion).activationDelay;
        for (uint256 i; i < node.places; ++i) {
            _poolOf(node, i).reopen(_at(node.indices, i), activeFrom);
        }
        (ModelIndex[] memory indices, uint8[] memory capacities) = _offersOf(node);
        for (uint256 i; i < indices.length; ++i) {
            emit Offered(nodeId, indices[i], capacities[i], activeFrom);
        }
    }

    /// @inheritdoc INodePool
    function exit(NodeId nodeId) external {
        StoredNode storage node = _owned(nodeId);
        if (node.state != NodeState.Draining && node.state != NodeState.Jailed) {
            revert NodePool_WrongState(nodeId, node.state);
        }
        uint256 reservations = _reservationsOf(node);
        if (reservations != 0) revert NodePool_StillReserved(nodeId, reservations);
        // No draw finds a jailed node.
        if (node.state == NodeState.Draining) _checkNotDrawn(node, nodeId);
        _setState(node, nodeId, NodeState.Exiting);
        node.exitAt = uint40(block.timestamp) + IParameters(parameters).nodeTermsOf(node.termsVersion).unbondingPeriod;
        for (uint256 i; i < node.places; ++i) {
            _poolOf(node, i).giveBack(_at(node.indices, i));
        }
        (node.places, node.indices, node.models) = (0, 0, 0);
    }

    /// @inheritdoc INodePool
    function releaseStake(NodeId nodeId) external {
        StoredNode storage node = _known(nodeId);
        if (node.state != NodeState.Exiting) revert NodePool_WrongState(nodeId, node.state);
        if (block.timestamp < node.exitAt) revert NodePool_StillBonded(nodeId, node.exitAt);
        _setState(node, nodeId, NodeState.Exited);
        nodeByOperator[node.operator] = NodeId.wrap(0);
        ISessionPayment(payment).releaseStake(nodeId, node.owner);
    }

    /// @inheritdoc INodePool
    function enterDraw(ModelIndex model)
        external
        onlySession
        returns (uint40 ticket, uint32 slots, uint16 utilisationBps)
    {
        (ticket, slots, utilisationBps) = _pools[model][false].enter();
        emit DrawEntered(model, ticket, slots);
    }

    /// @inheritdoc INodePool
    function reserve(Draw calldata draw) external onlySession returns (NodeId[] memory nodes) {
        SlotPool.State storage pool = _pools[draw.model][false];
        SlotPool.Counts memory counts = pool.countsOf();
        uint40 next = counts.ticketsPassed + 1;
        if (draw.ticket != next || next > counts.ticketsGiven) {
            revert NodePool_DrawNotNext(draw.model, draw.ticket, next);
        }
        counts.ticketsPassed = next;
        Found memory found = _find(pool, draw);
        uint256 length = found.length < draw.min ? 0 : found.length;
        nodes = found.nodes;
        assembly ("memory-safe") {
            mstore(nodes, length)
        }
        for (uint256 i; i < length; ++i) {
            pool.occupy(counts, found.indices[i], draw.sessionId);
            emit NodeReserved(nodes[i], draw.sessionId, draw.model);
        }
        pool.store(counts);
        emit DrawPassed(draw.model, next);
    }

    /// @inheritdoc INodePool
    function reserveNamed(SessionId sessionId, ModelIndex model, address client, NodeId[] calldata nodes)
        external
        onlySession
    {
        SlotPool.State storage pool = _pools[model][true];
        SlotPool.Counts memory counts = pool.countsOf();
        for (uint256 i; i < nodes.length; ++i) {
            StoredNode storage node = _nodes[nodes[i]];
            if (node.state != NodeState.Dedicated || node.dedicatedTo != client) {
                revert NodePool_NotDedicated(nodes[i], client);
            }
            // A session has one place of a node at most.
            (bool isServing,) = _placeWith(node, model, sessionId);
            (bool isFree, uint32 index) = _placeWith(node, model, SessionId.wrap(0));
            if (isServing || !isFree) revert NodePool_NoPlace(nodes[i], model);
            pool.occupy(counts, index, sessionId);
            emit NodeReserved(nodes[i], sessionId, model);
        }
        pool.store(counts);
    }

    /// @inheritdoc INodePool
    function release(SessionId sessionId, ModelIndex model, NodeId[] calldata nodes) external onlySession {
        for (uint256 i; i < nodes.length; ++i) {
            StoredNode storage node = _nodes[nodes[i]];
            (bool isServing, uint32 index) = _placeWith(node, model, sessionId);
            if (!isServing) revert NodePool_NoPlace(nodes[i], model);
            // A draw of the same second does not find the place, whichever came first.
            _pools[model][node.isDedicated].free(index, uint40(block.timestamp) + 1);
            emit NodeReleased(nodes[i], sessionId, model);
        }
    }

    /// @inheritdoc INodePool
    function jail(NodeId nodeId) external {
        if (msg.sender != queue && msg.sender != proof) revert NodePool_NotProtocol(msg.sender);
        StoredNode storage node = _known(nodeId);
        if (node.state == NodeState.Exited) revert NodePool_WrongState(nodeId, node.state);
        if (node.state == NodeState.Jailed) return;
        _setState(node, nodeId, NodeState.Jailed);
        _vacate(node);
    }

    /// @inheritdoc INodePool
    function nodeOf(NodeId nodeId) external view returns (Node memory) {
        StoredNode storage node = _known(nodeId);
        return Node({
            owner: node.owner,
            state: node.state,
            exitAt: node.exitAt,
            termsVersion: node.termsVersion,
            operator: node.operator,
            operatorSince: node.operatorSince,
            previousOperator: node.previousOperator,
            payout: node.payout,
            dedicatedTo: node.dedicatedTo,
            numericClass: node.numericClass
        });
    }

    /// @inheritdoc INodePool
    function offersOf(NodeId nodeId) external view returns (ModelIndex[] memory, uint8[] memory) {
        return _offersOf(_known(nodeId));
    }

    /// @inheritdoc INodePool
    function reservationsOf(NodeId nodeId) external view returns (uint256) {
        return _reservationsOf(_known(nodeId));
    }

    /// @inheritdoc INodePool
    function eligibilityOf(NodeId nodeId, ModelIndex model, uint40 asOf)
        external
        view
        returns (Eligibility memory result)
    {
        StoredNode storage node = _known(nodeId);
        result.state = node.state;
        result.acceptanceBps = uint16(_acceptanceBps(nodeId, asOf));
        bool drawable = !node.isDedicated && node.state != NodeState.Jailed;
        for (uint256 i; i < node.places; ++i) {
            if (_at(node.models, i) != ModelIndex.unwrap(model)) continue;
            Place memory place = _placeOf(node, i);
            if (result.places++ == 0) result.activeFrom = place.activeFrom;
            if (drawable && place.isActive(asOf)) ++result.active;
            if (drawable && place.isOpen(asOf)) ++result.free;
        }
    }

    /// @inheritdoc INodePool
    function committerOf(NodeId nodeId) external view returns (address operator, NumericClass numericClass) {
        StoredNode storage node = _nodes[nodeId];
        return (node.operator, node.numericClass);
    }

    /// @inheritdoc INodePool
    function operatorOf(NodeId nodeId) external view returns (address) {
        return _nodes[nodeId].operator;
    }

    /// @inheritdoc INodePool
    function classOf(NodeId nodeId) external view returns (NumericClass) {
        return _nodes[nodeId].numericClass;
    }

    /// @inheritdoc INodePool
    function answersFor(NodeId nodeId, address key) external view returns (bool) {
        if (key == address(0)) return false;
        StoredNode storage node = _nodes[nodeId];
        if (key == node.operator) return true;
        return key == node.previousOperator && block.timestamp < node.operatorSince + keyGrace;
    }

    /// @inheritdoc INodePool
    function candidateAt(ModelIndex model, uint32 index, uint40 asOf)
        external
        view
        returns (NodeId, address, NumericClass)
    {
        Place memory place = _pools[model][false].placeAt(index);
        StoredNode storage node = _nodes[place.nodeId];
        if (!place.isActive(asOf) || node.state == NodeState.Jailed) {
            return (NodeId.wrap(0), address(0), NumericClass.wrap(0));
        }
        return (place.nodeId, node.owner, node.numericClass);
    }

    /// @inheritdoc INodePool
    function ownerOf(NodeId nodeId) external view returns (address owner, NumericClass numericClass) {
        StoredNode storage node = _nodes[nodeId];
        return (node.owner, node.numericClass);
    }

    /// @inheritdoc INodePool
    function payoutOf(NodeId nodeId) external view returns (address) {
        return _nodes[nodeId].payout;
    }

    /// @inheritdoc INodePool
    function poolOf(ModelIndex model) external view returns (uint32 slots, uint32 taken, uint32 used) {
        SlotPool.Counts storage counts = _pools[model][false].counts;
        return (counts.slots, counts.taken, counts.used);
    }

    /// @inheritdoc INodePool
    function ticketsOf(ModelIndex model) external view returns (uint40 next, uint40 head) {
        SlotPool.Counts storage counts = _pools[model][false].counts;
        return (counts.ticketsGiven + 1, counts.ticketsPassed + 1);
    }

    /// As many nodes as the draw wants, each after at most `MAX_TRIES` tries.
    function _find(SlotPool.State storage pool, Draw calldata draw) internal view returns (Found memory found) {
        found.nodes = new NodeId[](draw.count);
        found.indices = new uint32[](draw.count);
        found.owners = new address[](draw.taken.length + draw.count);
        if (draw.count == 0 || draw.slots == 0) return found;
        for (uint256 i; i < draw.taken.length; ++i) {
            found.owners[i] = _nodes[draw.taken[i]].owner;
        }
        uint256 tries;
        while (found.length < draw.count) {
            uint256 end = tries + MAX_TRIES;
            bool hit;
            while (!hit && tries < end) {
                hit = _try(pool, draw, found, tries++);
            }
            if (!hit) break;
        }
    }

    /// Adds the node of the place that this try hits to `found`, if the draw may have it. Everything that decides was
    /// fixed when the draw was entered, or by the draws before it.
    function _try(SlotPool.State storage pool, Draw calldata draw, Found memory found, uint256 number)
        internal
        view
        returns (bool)
    {
        uint256 hash = uint256(keccak256(abi.encode(draw.seed, draw.model, draw.ticket, number)));
        // The lower half chooses the place, the upper half whether it is taken.
        uint32 index = uint32(uint128(hash) % draw.slots);
        Place memory place = pool.placeAt(index);
        if (!place.isOpen(draw.asOf)) return false;
        uint256 roll = (hash >> 128) % SlotPool.BPS;
        // Half of the tries need no level.
        if (roll >= BASE_ACCEPTANCE_BPS && roll >= _acceptanceBps(place.nodeId, draw.asOf)) return false;
        StoredNode storage node = _nodes[place.nodeId];
        if (node.state == NodeState.Jailed) return false;
        address owner = node.owner;
        uint256 known = draw.taken.length + found.length;
        for (uint256 i; i < known; ++i) {
            if (found.owners[i] == owner) return false;
        }
        found.nodes[found.length] = place.nodeId;
        found.indices[found.length] = index;
        found.owners[known] = owner;
        ++found.length;
        return true;
    }

    function _acceptanceBps(NodeId nodeId, uint40 asOf) internal view returns (uint256) {
        return BASE_ACCEPTANCE_BPS + LEVEL_ACCEPTANCE_BPS * INodeStats(stats).drawLevelOf(nodeId, asOf);
    }

    /// Takes the places of a new node's offers.
    function _offer(StoredNode storage node, NodeId nodeId, Offer[] calldata offers, uint40 activeFrom) internal {
        if (offers.length == 0 || offers.length > MAX_CAPACITY) {
            revert NodePool_OfferCount(offers.length, 1, MAX_CAPACITY);
        }
        NodePlaces memory places;
        for (uint256 i; i < offers.length; ++i) {
            Offer calldata offer = offers[i];
            // Reverts if there is no such model, or no longer.
            ModelIndex model = IModelRegistry(models).openIndexOf(offer.modelId);
            for (uint256 j; j < places.count; ++j) {
                if (_at(places.models, j) == ModelIndex.unwrap(model)) revert NodePool_ModelTwice(offer.modelId);
            }
            uint256 end = places.count + offer.capacity;
            if (offer.capacity == 0) revert NodePool_CapacityOutOfBounds(0, 1, MAX_CAPACITY);
            if (end > MAX_CAPACITY) revert NodePool_CapacityOutOfBounds(end, 1, MAX_CAPACITY);
            SlotPool.State storage pool = _pools[model][node.isDedicated];
            for (uint256 j = places.count; j < end; ++j) {
                places.indices |= uint256(pool.take(nodeId, activeFrom)) << (32 * j);
                places.models |= uint256(ModelIndex.unwrap(model)) << (32 * j);
            }
            places.count = end;
            emit Offered(nodeId, model, offer.capacity, activeFrom);
        }
        (node.places, node.indices, node.models) = (uint8(places.count), places.indices, places.models);
    }

    /// Draws that are entered after this second do not find the node.
    function _vacate(StoredNode storage node) internal {
        uint40 activeUntil = uint40(block.timestamp) + 1;
        for (uint256 i; i < node.places; ++i) {
            _poolOf(node, i).vacate(_at(node.indices, i), activeUntil);
        }
    }

    function _takePart(StoredNode storage node, NodeId nodeId) internal {
        _setState(node, nodeId, node.isDedicated ? NodeState.Dedicated : NodeState.Ephemeral);
    }

    function _claimOperator(address operator, NodeId nodeId) internal {
        NodeId user = nodeByOperator[operator];
        if (NodeId.unwrap(user) != 0) revert NodePool_OperatorInUse(operator, user);
        nodeByOperator[operator] = nodeId;
    }

    function _setState(StoredNode storage node, NodeId nodeId, NodeState state) internal {
        emit NodeStateChanged(nodeId, node.state, state);
        node.state = state;
    }

    /// Reverts while a draw may wait that was entered before the node drained.
    function _checkNotDrawn(StoredNode storage node, NodeId nodeId) internal view {
        if (node.isDedicated) return;
        // All places of a node are vacated together.
        uint40 until = _placeOf(node, 0).activeUntil + slotReuseDelay;
        if (block.timestamp < until) revert NodePool_StillDrawn(nodeId, until);
    }

    function _reservationsOf(StoredNode storage node) internal view returns (uint256 reservations) {
        for (uint256 i; i < node.places; ++i) {
            if (!_placeOf(node, i).isFree()) ++reservations;
        }
    }

    function _offersOf(StoredNode storage node)
        internal
        view
        returns (ModelIndex[] memory indices, uint8[] memory capacities)
    {
        uint256 places = node.places;
        (indices, capacities) = (new ModelIndex[](places), new uint8[](places));
        uint256 offers;
        for (uint256 i; i < places; ++i) {
            uint32 model = _at(node.models, i);
            if (i == 0 || _at(node.models, i - 1) != model) indices[offers++] = ModelIndex.wrap(model);
            ++capacities[offers - 1];
        }
        assembly ("memory-safe") {
            mstore(indices, offers)
            mstore(capacities, offers)
        }
    }

    /// The node's first place for the model that the session has; with session 0 the first free one.
    function _placeWith(StoredNode storage node, ModelIndex model, SessionId sessionId)
        internal
        view
        returns (bool, uint32)
    {
        for (uint256 i; i < node.places; ++i) {
            if (_at(node.models, i) != ModelIndex.unwrap(model)) continue;
            if (SessionId.unwrap(_placeOf(node, i).sessionId) != SessionId.unwrap(sessionId)) continue;
            return (true, _at(node.indices, i));
        }
        return (false, 0);
    }

    function _poolOf(StoredNode storage node, uint256 place) internal view returns (SlotPool.State storage) {
        return _pools[ModelIndex.wrap(_at(node.models, place))][node.isDedicated];
    }

    function _placeOf(StoredNode storage node, uint256 place) internal view returns (Place memory) {
        return _poolOf(node, place).placeAt(_at(node.indices, place));
    }

    function _known(NodeId nodeId) internal view returns (StoredNode storage node) {
        node = _nodes[nodeId];
        if (node.state == NodeState.None) revert NodePool_UnknownNode(nodeId);
    }

    function _owned(NodeId nodeId) internal view returns (StoredNode storage node) {
        node = _known(nodeId);
        if (node.owner != msg.sender) revert NodePool_NotOwner(nodeId, msg.sender);
    }

    /// Number `i` of the eight of 32 bits in a word, the first lowest.
    function _at(uint256 word, uint256 i) internal pure returns (uint32) {
        return uint32(word >> (32 * i));
    }
}
