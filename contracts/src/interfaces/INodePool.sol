// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ModelId, ModelIndex, NodeId, NumericClass, SessionId} from "../types/Ids.sol";

/// Where a node stands. Whether it is reserved is told by its places, see `INodePool.reservationsOf`.
enum NodeState {
    None,
    /// Takes part in draws.
    Ephemeral,
    /// Serves one client, who names it; in no draw.
    Dedicated,
    /// Takes nothing new; serves what has reserved it.
    Draining,
    /// In no session; its stake is still slashable until `exitAt`.
    Exiting,
    /// Stake returned.
    Exited,
    /// Proven to have lied: no draw finds it, and it may only exit with what is left of its stake. A session that has it
    /// keeps it until its rotation: tasks are still assigned to it, what it answers is paid, and its silence is followed
    /// like any other's. To skip it would cost every assignment a look at every node; to rotate at once would let whoever
    /// gives up a stake choose the moment of a draw.
    Jailed
}

struct Node {
    /// Whose stake it is; may drain and exit.
    address owner;
    NodeState state;
    /// Unix seconds; when the stake of an exiting node is free.
    uint40 exitAt;
    /// Version of `Parameters` that it registered under.
    uint16 termsVersion;
    /// Hot key: signs and sends precommits and commits.
    address operator;
    /// Unix seconds; when the operator was last changed.
    uint40 operatorSince;
    /// The operator before; what it signed stays evidence for `keyGrace()` after the change.
    address previousOperator;
    /// Receives what the node earns.
    address payout;
    /// The client whom a dedicated node serves; zero for one that takes part in draws.
    address dedicatedTo;
    NumericClass numericClass;
}

/// A model that a node serves, for so many sessions at once.
struct Offer {
    ModelId modelId;
    /// Places: 1 to 8 for all offers of a node together.
    uint8 capacity;
}

struct NodeRegistration {
    address operator;
    address payout;
    /// Zero: takes part in draws.
    address dedicatedTo;
    NumericClass numericClass;
    Offer[] offers;
}

/// A draw of nodes. What it can find is fixed when its ticket is given, before its seed is known.
struct Draw {
    SessionId sessionId;
    ModelIndex model;
    bytes32 seed;
    /// From `enterDraw`. Draws of a model happen in the order of their tickets.
    uint40 ticket;
    /// Places of the pool at that time: places added later do not move the others.
    uint32 slots;
    /// Unix seconds of that time: only places that were active and free then count.
    uint40 asOf;
    uint8 min;
    uint8 count;
    /// Nodes that the session has already: their owners are not drawn.
    NodeId[] taken;
}

/// Nodes, their stake and their places.
interface INodePool {
    event NodeRegistered(
        NodeId indexed nodeId,
        address indexed owner,
        address indexed operator,
        address payout,
        address dedicatedTo,
        NumericClass numericClass,
        uint16 termsVersion
    );
    /// The node serves the model in `capacity` places, which count in draws from `activeFrom` (unix seconds) on.
    event Offered(NodeId indexed nodeId, ModelIndex indexed model, uint8 capacity, uint40 activeFrom);
    event OperatorChanged(NodeId indexed nodeId, address oldOperator, address newOperator);
    event PayoutChanged(NodeId indexed nodeId, address oldPayout, address newPayout);
    event NodeStateChanged(NodeId indexed nodeId, NodeState oldState, NodeState newState);
    event DrawEntered(ModelIndex indexed model, uint40 indexed ticket, uint32 slots);
    /// Every ticket up to and including this one is through.
    event DrawPassed(ModelIndex indexed model, uint40 indexed ticket);
    event NodeReserved(NodeId indexed nodeId, SessionId indexed sessionId, ModelIndex indexed model);
    event NodeReleased(NodeId indexed nodeId, SessionId indexed sessionId, ModelIndex indexed model);

    error NodePool_NotOwner(NodeId nodeId, address caller);
    error NodePool_NotSession(address caller);
    error NodePool_NotProtocol(address caller);
    error NodePool_UnknownNode(NodeId nodeId);
    error NodePool_EmptyClass();
    error NodePool_OfferCount(uint256 offers, uint256 min, uint256 max);
    error NodePool_CapacityOutOfBounds(uint256 capacity, uint256 min, uint256 max);
    error NodePool_ModelTwice(ModelId modelId);
    error NodePool_ZeroAddress();
    error NodePool_OperatorInUse(address operator, NodeId nodeId);
    error NodePool_KeyChangedLately(NodeId nodeId, uint40 next);
    error NodePool_WrongState(NodeId nodeId, NodeState state);
    error NodePool_StillReserved(NodeId nodeId, uint256 reservations);
    error NodePool_StillDrawn(NodeId nodeId, uint40 until);
    error NodePool_StillBonded(NodeId nodeId, uint40 exitAt);
    error NodePool_DrawNotNext(ModelIndex model, uint40 ticket, uint40 next);
    error NodePool_NotDedicated(NodeId nodeId, address client);
    error NodePool_NoPlace(NodeId nodeId, ModelIndex model);
    error NodePool_DelaysTooShort(uint40 epochLength, uint40 drawWindow);

    /// Registers a node. Pulls `collateralPerSlot` COR for each place from the caller, who must have approved
    /// `SessionPayment` for it. Its places count in draws after the activation delay.
    function register(NodeRegistration calldata registration) external returns (NodeId nodeId);

    /// Owner: at most once in `keyGrace()`. The old key's signatures stay evidence for that long.
    function setOperator(NodeId nodeId, address operator) external;

    function setPayout(NodeId nodeId, address payout) external;

    /// Owner: takes part in no draw that is entered after this second. Draws that wait already may still reserve it.
    function drain(NodeId nodeId) external;

    /// Owner: a draining node takes part again; its places count in draws after the activation delay. Not while a draw
    /// that waits can find it: that draw would lose it.
    function resume(NodeId nodeId) external;

    /// Owner of a draining or jailed node that is in no session and that no waiting draw can find: starts unbonding.
    function exit(NodeId nodeId) external;

    /// After unbonding: credits the stake to the owner's balance in `SessionPayment`. Anyone may.
    function releaseStake(NodeId nodeId) external;

    /// Only `Session`: a place in the order of the model's draws, the number of its places now, and how much of the
    /// pool is in use, in hundredths of a percent (0 for a pool without nodes).
    function enterDraw(ModelIndex model) external returns (uint40 ticket, uint32 slots, uint16 utilisationBps);

    /// Only `Session`: reserves up to `draw.count` nodes of different owners, or none if fewer than `draw.min` are
    /// found. The ticket is through in either case; `count` 0 just passes it.
    function reserve(Draw calldata draw) external returns (NodeId[] memory nodes);

    /// Only `Session`: reserves nodes that are dedicated to `client`; reverts if one is not, or has no free place.
    function reserveNamed(SessionId sessionId, ModelIndex model, address client, NodeId[] calldata nodes) external;

    /// Only `Session`: the session no longer needs these nodes.
    function release(SessionId sessionId, ModelIndex model, NodeId[] calldata nodes) external;

    /// Only `SessionQueue` and `ProofOfInference`: the node was proven to have lied. No draw finds it from now on; does nothing to one that is
    /// jailed already.
    function jail(NodeId nodeId) external;

    /// The node, or a revert with `NodePool_UnknownNode`.
    function nodeOf(NodeId nodeId) external view returns (Node memory);

    /// What a node serves.
    function offersOf(NodeId nodeId) external view returns (ModelIndex[] memory models, uint8[] memory capacities);

    /// Sessions that have reserved the node now, over all models.
    function reservationsOf(NodeId nodeId) external view returns (uint256);

    /// Whether a draw as of `asOf` can find the node for the model, and if not, why; with the node's own words for
    /// "online but no tasks".
    function eligibilityOf(NodeId nodeId, ModelIndex model, uint40 asOf) external view returns (Eligibility memory);

    /// The node whose operator key this is; 0 if none.
    function nodeByOperator(address operator) external view returns (NodeId);

    /// Who commits for a node and in which class; zeros if there is no such node.
    function committerOf(NodeId nodeId) external view returns (address operator, NumericClass numericClass);

    /// The two alone: each is one word of storage.
    function operatorOf(NodeId nodeId) external view returns (address);

    function classOf(NodeId nodeId) external view returns (NumericClass);

    /// Whether a signature by `key` counts as the node's: its operator, or the one before within `keyGrace()`.
    function answersFor(NodeId nodeId, address key) external view returns (bool);

    /// The node that had place `index` of the model's draws as of `asOf` and drains at most, whose it is, and its numeric
    /// class; zeros if there is none.
    function candidateAt(ModelIndex model, uint32 index, uint40 asOf)
        external
        view
        returns (NodeId nodeId, address owner, NumericClass numericClass);

    /// Whose node it is and its numeric class; neither ever changes. Zeros if there is no such node.
    function ownerOf(NodeId nodeId) external view returns (address owner, NumericClass numericClass);

    /// Who is paid for a node; zero if there is no such node.
    function payoutOf(NodeId nodeId) external view returns (address);

    function nodeCount() external view returns (uint32);

    /// Places of a model's draw, active or not: the draw's modulus; how many of them belong to nodes that take part or
    /// still serve; and how many of those a session has reserved.
    function poolOf(ModelIndex model) external view returns (uint32 slots, uint32 taken, uint32 used);

    /// The next ticket to be given, and the next to be drawn: equal if no draw waits.
    function ticketsOf(ModelIndex model) external view returns (uint40 next, uint40 head);

    /// Seconds after which the place of a node that left may be given to another: longer than any draw waits.
    function slotReuseDelay() external view returns (uint40);

    /// Seconds between two changes of an operator key.
    function keyGrace() external view returns (uint40);

    function session() external view returns (address);

    function queue() external view returns (address);

    function models() external view returns (address);

    function payment() external view returns (address);

    function stats() external view returns (address);

    function parameters() external view returns (address);

    function proof() external view returns (address);
}

/// Why a node can, or cannot, be drawn for a model.
struct Eligibility {
    NodeState state;
    /// Places for this model, all, active as of the time asked for, and free of those.
    uint8 places;
    uint8 active;
    uint8 free;
    /// Unix seconds from which on its first place counts.
    uint40 activeFrom;
    /// Chance, in hundredths of a percent, that a try which finds one of its free places takes it: 50 % at level 0,
    /// 100 % at level 10.
    uint16 acceptanceBps;
}
