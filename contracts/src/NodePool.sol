// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {Draw, INodePool, Node, NodeRegistration, NodeState} from "./interfaces/INodePool.sol";
import {ISessionPayment} from "./interfaces/ISessionPayment.sol";
import {SlotPool} from "./libraries/SlotPool.sol";
import {ModelId, NodeId, NumericClass} from "./types/Ids.sol";

/// Nodes, their stake and their places in the draw.
contract NodePool is INodePool {
    using SlotPool for SlotPool.State;

    struct Config {
        uint40 activationDelay;
        uint40 slotReuseDelay;
        uint40 unbondingPeriod;
        uint256 collateralPerSlot;
    }

    /// More places than this would not fit the word that remembers them.
    uint8 internal constant MAX_CAPACITY = 8;
    /// Tries for each node of a draw: bounds the gas of a draw in a pool full of busy nodes.
    uint256 internal constant MAX_TRIES = 32;

    /// @inheritdoc INodePool
    address public immutable session;
    /// @inheritdoc INodePool
    address public immutable models;
    /// @inheritdoc INodePool
    address public immutable payment;
    /// @inheritdoc INodePool
    uint40 public immutable activationDelay;
    /// @inheritdoc INodePool
    uint40 public immutable slotReuseDelay;
    /// @inheritdoc INodePool
    uint40 public immutable unbondingPeriod;
    /// @inheritdoc INodePool
    uint256 public immutable collateralPerSlot;

    /// @inheritdoc INodePool
    uint32 public nodeCount;
    /// @inheritdoc INodePool
    mapping(address operator => NodeId) public nodeByOperator;
    mapping(NodeId => Node) internal _nodes;
    /// Indices of a node's places, 32 bits each, the first lowest; as many as its capacity.
    mapping(NodeId => uint256) internal _places;
    mapping(ModelId => SlotPool.State) internal _pools;

    constructor(address session_, address models_, address payment_, Config memory config) {
        if (session_ == address(0) || models_ == address(0) || payment_ == address(0)) revert NodePool_ZeroAddress();
        (session, models, payment) = (session_, models_, payment_);
        activationDelay = config.activationDelay;
        slotReuseDelay = config.slotReuseDelay;
        unbondingPeriod = config.unbondingPeriod;
        collateralPerSlot = config.collateralPerSlot;
    }

    modifier onlySession() {
        if (msg.sender != session) revert NodePool_NotSession(msg.sender);
        _;
    }

    /// @inheritdoc INodePool
    function register(NodeRegistration calldata registration) external returns (NodeId nodeId) {
        uint8 capacity = registration.capacity;
        if (capacity == 0 || capacity > MAX_CAPACITY) revert NodePool_CapacityOutOfBounds(capacity, 1, MAX_CAPACITY);
        if (registration.operator == address(0) || registration.payout == address(0)) revert NodePool_ZeroAddress();
        if (NumericClass.unwrap(registration.numericClass) == 0) revert NodePool_EmptyClass();
        // Reverts if there is no such model.
        IModelRegistry(models).floorsOf(registration.modelId);

        nodeId = NodeId.wrap(++nodeCount);
        _claimOperator(registration.operator, nodeId);
        _nodes[nodeId] = Node({
            owner: msg.sender,
            capacity: capacity,
            reservations: 0,
            state: NodeState.Ephemeral,
            exitAt: 0,
            operator: registration.operator,
            payout: registration.payout,
            modelId: registration.modelId,
            numericClass: registration.numericClass
        });
        uint40 activeFrom = uint40(block.timestamp) + activationDelay;
        _takePlaces(registration.modelId, nodeId, capacity, activeFrom);
        uint256 stake = collateralPerSlot * capacity;
        emit NodeRegistered(
            nodeId,
            msg.sender,
            registration.modelId,
            registration.operator,
            registration.payout,
            registration.numericClass,
            capacity,
            stake,
            activeFrom
        );
        emit NodeStateChanged(nodeId, NodeState.None, NodeState.Ephemeral);
        ISessionPayment(payment).stake(nodeId, msg.sender, stake);
    }

    /// @inheritdoc INodePool
    function setOperator(NodeId nodeId, address operator) external {
        Node storage node = _owned(nodeId);
        if (node.state == NodeState.Exited) revert NodePool_WrongState(nodeId, node.state);
        if (operator == address(0)) revert NodePool_ZeroAddress();
        address old = node.operator;
        _claimOperator(operator, nodeId);
        nodeByOperator[old] = NodeId.wrap(0);
        node.operator = operator;
        emit OperatorChanged(nodeId, old, operator);
    }

    /// @inheritdoc INodePool
    function setPayout(NodeId nodeId, address payout) external {
        Node storage node = _owned(nodeId);
        if (payout == address(0)) revert NodePool_ZeroAddress();
        emit PayoutChanged(nodeId, node.payout, payout);
        node.payout = payout;
    }

    /// @inheritdoc INodePool
    function exit(NodeId nodeId) external {
        Node storage node = _owned(nodeId);
        if (node.state != NodeState.Ephemeral && node.state != NodeState.Reserved) {
            revert NodePool_WrongState(nodeId, node.state);
        }
        _setState(node, nodeId, NodeState.Exiting);
        node.exitAt = uint40(block.timestamp) + unbondingPeriod;
        uint40 activeUntil = uint40(block.timestamp) + activationDelay;
        SlotPool.State storage places = _pools[node.modelId];
        uint256 indices = _places[nodeId];
        for (uint256 i; i < node.capacity; ++i) {
            places.vacate(uint32(indices >> (32 * i)), activeUntil);
        }
    }

    /// @inheritdoc INodePool
    function releaseStake(NodeId nodeId) external {
        Node storage node = _known(nodeId);
        if (node.state != NodeState.Exiting || node.reservations != 0) {
            revert NodePool_WrongState(nodeId, node.state);
        }
        if (block.timestamp < node.exitAt) revert NodePool_StillBonded(nodeId, node.exitAt);
        _setState(node, nodeId, NodeState.Exited);
        nodeByOperator[node.operator] = NodeId.wrap(0);
        ISessionPayment(payment).releaseStake(nodeId, node.owner);
    }

    /// @inheritdoc INodePool
    function reserve(Draw calldata wanted) external onlySession returns (NodeId[] memory nodes) {
        nodes = new NodeId[](wanted.count);
        uint256 found;
        uint256 tried;
        while (found < wanted.count && wanted.slots != 0) {
            (NodeId nodeId, uint256 next) = _drawOne(wanted, nodes, found, tried);
            if (NodeId.unwrap(nodeId) == 0) break;
            (nodes[found++], tried) = (nodeId, next);
        }
        if (found < wanted.min) revert NodePool_NoEligible(wanted.modelId, found, wanted.min);
        assembly ("memory-safe") {
            mstore(nodes, found)
        }
        for (uint256 i; i < found; ++i) {
            Node storage node = _nodes[nodes[i]];
            ++node.reservations;
            if (node.state != NodeState.Reserved) _setState(node, nodes[i], NodeState.Reserved);
        }
    }

    /// @inheritdoc INodePool
    function release(NodeId[] calldata nodes) external onlySession {
        for (uint256 i; i < nodes.length; ++i) {
            Node storage node = _nodes[nodes[i]];
            --node.reservations;
            if (node.reservations == 0 && node.state == NodeState.Reserved) {
                _setState(node, nodes[i], NodeState.Ephemeral);
            }
        }
    }

    /// @inheritdoc INodePool
    function nodeOf(NodeId nodeId) external view returns (Node memory) {
        return _known(nodeId);
    }

    /// @inheritdoc INodePool
    function slotCount(ModelId modelId) external view returns (uint32) {
        return uint32(_pools[modelId].slots.length);
    }

    /// @inheritdoc INodePool
    function committerOf(NodeId nodeId) external view returns (address operator, NumericClass numericClass) {
        Node storage node = _nodes[nodeId];
        return (node.operator, node.numericClass);
    }

    /// @inheritdoc INodePool
    function payoutOf(NodeId nodeId) external view returns (address) {
        return _nodes[nodeId].payout;
    }

    /// One node that is not among the first `found` of `nodes`, after at most `MAX_TRIES` tries; 0 if none.
    function _drawOne(Draw calldata wanted, NodeId[] memory nodes, uint256 found, uint256 tried)
        internal
        view
        returns (NodeId, uint256)
    {
        SlotPool.State storage places = _pools[wanted.modelId];
        for (uint256 end = tried + MAX_TRIES; tried < end; ++tried) {
            NodeId nodeId = places.draw(wanted.modelId, wanted.seed, tried, wanted.slots, wanted.asOf);
            if (NodeId.unwrap(nodeId) != 0 && _eligible(nodeId, nodes, found)) return (nodeId, tried + 1);
        }
        return (NodeId.wrap(0), tried);
    }

    /// In the pool, with room, and of an owner who is not drawn yet (so the node itself is not drawn yet).
    function _eligible(NodeId nodeId, NodeId[] memory nodes, uint256 found) internal view returns (bool) {
        Node storage node = _nodes[nodeId];
        if (node.state != NodeState.Ephemeral && node.state != NodeState.Reserved) return false;
        if (node.reservations >= node.capacity) return false;
        for (uint256 i; i < found; ++i) {
            if (_nodes[nodes[i]].owner == node.owner) return false;
        }
        return true;
    }

    function _takePlaces(ModelId modelId, NodeId nodeId, uint8 capacity, uint40 activeFrom) internal {
        SlotPool.State storage places = _pools[modelId];
        uint256 indices;
        for (uint256 i; i < capacity; ++i) {
            indices |= uint256(places.take(nodeId, activeFrom, slotReuseDelay)) << (32 * i);
        }
        _places[nodeId] = indices;
    }

    function _claimOperator(address operator, NodeId nodeId) internal {
        NodeId user = nodeByOperator[operator];
        if (NodeId.unwrap(user) != 0) revert NodePool_OperatorInUse(operator, user);
        nodeByOperator[operator] = nodeId;
    }

    function _setState(Node storage node, NodeId nodeId, NodeState state) internal {
        emit NodeStateChanged(nodeId, node.state, state);
        node.state = state;
    }

    function _known(NodeId nodeId) internal view returns (Node storage node) {
        node = _nodes[nodeId];
        if (node.state == NodeState.None) revert NodePool_UnknownNode(nodeId);
    }

    function _owned(NodeId nodeId) internal view returns (Node storage node) {
        node = _known(nodeId);
        if (node.owner != msg.sender) revert NodePool_NotOwner(nodeId, msg.sender);
    }
}
