// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ModelId, NodeId, NumericClass} from "../types/Ids.sol";

/// Where a node stands.
enum NodeState {
    None,
    /// In the pool, in no session.
    Ephemeral,
    /// In at least one session.
    Reserved,
    /// Takes nothing new; its stake is still slashable until `exitAt`.
    Exiting,
    /// Stake returned.
    Exited
}

struct Node {
    /// Whose stake it is; may exit.
    address owner;
    /// Sessions that it is reserved for at most at once, and its number of slots in the draw: 1 to 8.
    uint8 capacity;
    /// Sessions that it is reserved for now.
    uint8 reservations;
    NodeState state;
    /// Unix seconds; when the stake of an exiting node is free.
    uint40 exitAt;
    /// Hot key: signs and sends commits.
    address operator;
    /// Receives what the node earns.
    address payout;
    ModelId modelId;
    NumericClass numericClass;
}

struct NodeRegistration {
    address operator;
    address payout;
    ModelId modelId;
    NumericClass numericClass;
    uint8 capacity;
}

/// A draw of nodes. What it can find is fixed before its seed is known.
struct Draw {
    ModelId modelId;
    bytes32 seed;
    /// Unix seconds; only slots that were active then count.
    uint40 asOf;
    /// `slotCount` of the model at that time: slots added later do not move the others.
    uint32 slots;
    uint8 min;
    uint8 count;
}

/// Nodes, their stake and their places in the draw.
interface INodePool {
    event NodeRegistered(
        NodeId indexed nodeId,
        address indexed owner,
        ModelId indexed modelId,
        address operator,
        address payout,
        NumericClass numericClass,
        uint8 capacity,
        uint256 stake,
        uint40 activeFrom
    );
    event OperatorChanged(NodeId indexed nodeId, address oldOperator, address newOperator);
    event PayoutChanged(NodeId indexed nodeId, address oldPayout, address newPayout);
    event NodeStateChanged(NodeId indexed nodeId, NodeState oldState, NodeState newState);

    error NodePool_NotOwner(NodeId nodeId, address caller);
    error NodePool_NotSession(address caller);
    error NodePool_UnknownNode(NodeId nodeId);
    error NodePool_EmptyClass();
    error NodePool_CapacityOutOfBounds(uint8 capacity, uint8 min, uint8 max);
    error NodePool_ZeroAddress();
    error NodePool_OperatorInUse(address operator, NodeId nodeId);
    error NodePool_WrongState(NodeId nodeId, NodeState state);
    error NodePool_StillBonded(NodeId nodeId, uint40 exitAt);
    error NodePool_NoEligible(ModelId modelId, uint256 found, uint256 wanted);

    /// Registers a node for one model. Pulls `capacity * collateralPerSlot()` COR from the caller, who must
    /// have approved `SessionPayment` for it. Its slots count in draws after `activationDelay()`.
    function register(NodeRegistration calldata registration) external returns (NodeId nodeId);

    function setOperator(NodeId nodeId, address operator) external;

    function setPayout(NodeId nodeId, address payout) external;

    /// Leaves every draw at once (after the pool's delay) and starts unbonding; sessions keep the node until they end.
    function exit(NodeId nodeId) external;

    /// After unbonding, and with no session left: credits the stake to the owner's balance in `SessionPayment`.
    function releaseStake(NodeId nodeId) external;

    /// Only `Session`: reserves up to `draw.count` nodes of different owners. Reverts with `NodePool_NoEligible` when
    /// fewer than `draw.min` are found.
    function reserve(Draw calldata draw) external returns (NodeId[] memory nodes);

    /// Only `Session`: the session no longer needs these nodes.
    function release(NodeId[] calldata nodes) external;

    /// The node, or a revert with `NodePool_UnknownNode`.
    function nodeOf(NodeId nodeId) external view returns (Node memory);

    /// The node whose operator key this is; 0 if none.
    function nodeByOperator(address operator) external view returns (NodeId);

    function nodeCount() external view returns (uint32);

    function collateralPerSlot() external view returns (uint256);

    /// Places of a model's pool, used and free: the draw's modulus.
    function slotCount(ModelId modelId) external view returns (uint32);

    /// Who commits for a node and in which class; zeros if there is no such node.
    function committerOf(NodeId nodeId) external view returns (address operator, NumericClass numericClass);

    /// Who is paid for a node; zero if there is no such node.
    function payoutOf(NodeId nodeId) external view returns (address);

    /// Seconds after which the place of a node that left may be given to another: longer than any draw waits.
    function slotReuseDelay() external view returns (uint40);

    /// The `Session` that reserves nodes.
    function session() external view returns (address);

    /// The `ModelRegistry` that knows what may be served.
    function models() external view returns (address);

    /// The `SessionPayment` that holds the stakes.
    function payment() external view returns (address);

    /// Seconds from registration until a slot counts in a draw.
    function activationDelay() external view returns (uint40);

    /// Seconds that the stake of an exiting node stays slashable.
    function unbondingPeriod() external view returns (uint40);
}
