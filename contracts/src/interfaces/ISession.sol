// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Lane, ModelId, NodeId, SessionId} from "../types/Ids.sol";

enum SessionState {
    None,
    /// Paid for; waits for its nodes.
    Open,
    /// Has its nodes.
    Active,
    /// Ends at `endsAt`: requests of lanes 1 and up, which may be at work already, are still taken until then; the
    /// owner's are not.
    Draining,
    /// Ended; what was left is in the owner's balance.
    Closed
}

struct SessionInfo {
    address owner;
    SessionState state;
    uint8 minNodes;
    uint8 maxNodes;
    uint40 openedAt;
    /// Unix seconds; 0 unless draining or closed.
    uint40 endsAt;
    /// Beacon round whose value draws the nodes.
    uint64 drawRound;
    /// Beacon round, later than the reservation, whose value seeds every task; 0 while open.
    uint64 seedRound;
    ModelId modelId;
    /// Price of a prompt token, minor units of COR; fixed when the session opens.
    uint96 priceIn;
    /// Price of a generated token.
    uint96 priceOut;
    NodeId[] nodes;
}

struct LaneInfo {
    /// Who signs or sends requests in this lane.
    address holder;
    /// Most that the lane's tasks may cost together, held and paid; lane 0 is bounded by the deposit alone.
    uint128 allotment;
    /// Held or paid so far.
    uint128 used;
    /// One more than the largest nonce used so far.
    uint64 nextNonce;
}

struct LaneTerms {
    address holder;
    /// Above 2^96 - 1, which is more than the supply, it counts as that.
    uint128 allotment;
}

/// What `SessionQueue` needs to know to take a request.
struct Admission {
    SessionState state;
    /// Zero if there is no such lane.
    address holder;
    uint40 endsAt;
    /// One more than the largest nonce used in the lane.
    uint64 nextNonce;
    uint96 priceIn;
    uint96 priceOut;
    /// Eight node ids of 32 bits, the first lowest, zeros behind the last.
    uint256 nodes;
    /// Zero while unknown.
    bytes32 seed;
}

struct OpenTerms {
    ModelId modelId;
    uint8 minNodes;
    uint8 maxNodes;
    /// Opening reverts if the price now is higher.
    uint96 maxPriceIn;
    uint96 maxPriceOut;
    uint128 deposit;
    /// Lanes 1, 2, ... of the session.
    LaneTerms[] lanes;
}

struct Permit {
    uint256 deadline;
    uint8 v;
    bytes32 r;
    bytes32 s;
}

/// Sessions: terms, nodes, lanes, life.
interface ISession {
    event SessionOpened(
        SessionId indexed sessionId,
        address indexed owner,
        ModelId indexed modelId,
        uint8 minNodes,
        uint8 maxNodes,
        uint96 priceIn,
        uint96 priceOut,
        uint128 deposit,
        uint64 drawRound
    );
    event LaneAdded(SessionId indexed sessionId, Lane indexed lane, address indexed holder, uint128 allotment);
    event SessionToppedUp(SessionId indexed sessionId, address indexed from, uint128 amount);
    event SessionActivated(SessionId indexed sessionId, uint64 seedRound, NodeId[] nodes);
    event SessionDraining(SessionId indexed sessionId, uint40 endsAt);
    event SessionClosed(SessionId indexed sessionId, uint128 returned);

    error Session_UnknownSession(SessionId sessionId);
    error Session_NotOwner(SessionId sessionId, address caller);
    error Session_NotQueue(address caller);
    error Session_WrongState(SessionId sessionId, SessionState state);
    error Session_NodesOutOfBounds(uint8 minNodes, uint8 maxNodes, uint8 limit);
    error Session_PriceAboveCap(uint96 price, uint96 cap);
    error Session_DepositTooSmall(uint128 deposit, uint128 minimum);
    error Session_TooManyLanes(uint256 lanes, uint256 limit);
    error Session_ZeroHolder(uint256 lane);
    error Session_UnknownLane(SessionId sessionId, Lane lane);
    error Session_AllotmentExceeded(SessionId sessionId, Lane lane, uint128 wanted, uint128 left);
    error Session_RoundNotReady(SessionId sessionId, uint64 round);
    error Session_NotExpired(SessionId sessionId, uint40 expiresAt);
    error Session_Expired(SessionId sessionId, uint40 expiredAt);
    error Session_ZeroAmount();
    error Session_ZeroAddress();
    error Session_TimeoutTooLong(uint40 reservationTimeout, uint40 slotReuseDelay);
    error Session_StillDraining(SessionId sessionId, uint40 endsAt);
    error Session_TasksOpen(SessionId sessionId, uint128 held);

    /// Opens a session and pays its deposit, in one transaction. The caller must have approved `SessionPayment`.
    function open(OpenTerms calldata terms) external returns (SessionId sessionId);

    /// The same with an ERC-2612 permit for `SessionPayment` instead of an approval.
    function openWithPermit(OpenTerms calldata terms, Permit calldata permit) external returns (SessionId sessionId);

    /// Adds to the deposit. Anyone may.
    function topUp(SessionId sessionId, uint128 amount) external;

    /// Draws the nodes once the draw round has its value. Anyone may.
    function activate(SessionId sessionId) external;

    /// Owner: no new tasks of the owner; ends after the notice. A session without nodes or without a seed closes at once.
    function close(SessionId sessionId) external;

    /// After the notice, and once no task holds money: returns the rest to the owner's balance. Anyone may.
    function finish(SessionId sessionId) external;

    /// A session whose draw or seed round was missed, or whose nodes could not be found in time, closes with a full
    /// refund. Anyone may.
    function expire(SessionId sessionId) external;

    /// Only `SessionQueue`: takes `amount` of the lane's allotment for the request `nonce`.
    function useLane(SessionId sessionId, Lane lane, uint64 nonce, uint128 amount) external;

    /// Only `SessionQueue`: gives `amount` back to the lane's allotment.
    function restoreLane(SessionId sessionId, Lane lane, uint128 amount) external;

    /// The session, or a revert with `Session_UnknownSession`.
    function sessionOf(SessionId sessionId) external view returns (SessionInfo memory);

    /// The lane, or a revert with `Session_UnknownLane`.
    function laneOf(SessionId sessionId, Lane lane) external view returns (LaneInfo memory);

    /// Value that seeds every task of the session; zero while it is unknown.
    function seedOf(SessionId sessionId) external view returns (bytes32);

    /// What decides whether a request is taken, in one call; state `None` if there is no such session.
    function admissionOf(SessionId sessionId, Lane lane) external view returns (Admission memory);

    /// Prices of a prompt token and of a generated token; zeros if there is no such session.
    function pricesOf(SessionId sessionId) external view returns (uint96 priceIn, uint96 priceOut);

    /// Where the shares of a settled task go: the session's model and the lane's holder.
    function payeesOf(SessionId sessionId, Lane lane) external view returns (ModelId modelId, address holder);

    function sessionCount() external view returns (uint64);

    /// Seconds between `close` and `finish`: longer than the longest deadline of a request.
    function noticePeriod() external view returns (uint40);

    /// Seconds after opening in which the nodes must be drawn.
    function reservationTimeout() external view returns (uint40);

    /// Smallest deposit of a new session.
    function minDeposit() external view returns (uint128);

    function models() external view returns (address);

    function pool() external view returns (address);

    function queue() external view returns (address);

    function payment() external view returns (address);

    function beacon() external view returns (address);
}
