// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetId, Lane, ModelId, ModelIndex, NodeId, SessionId} from "../types/Ids.sol";

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

/// Nodes that serve a session for a time. A rotation begins the next one.
struct Reservation {
    /// Beacon round whose value seeds every task of the reservation; later than the reservation itself. It also names
    /// the reservation.
    uint64 seedRound;
    /// Named nodes first, then drawn ones.
    NodeId[] nodes;
    /// How many of them were named.
    uint8 dedicated;
    /// Unix seconds; requests are taken until then. 0 for the current one: until the session ends.
    uint40 until;
}

struct SessionInfo {
    address owner;
    SessionState state;
    /// Version of `Parameters` that it lives by.
    uint16 termsVersion;
    AssetId asset;
    uint8 minNodes;
    uint8 maxNodes;
    /// Unix seconds.
    uint40 openedAt;
    /// Unix seconds; 0 unless draining or closed.
    uint40 endsAt;
    ModelIndex model;
    /// Prices of a prompt and of a generated token, minor units per million tokens; fixed when the session opens.
    uint80 priceIn;
    uint80 priceOut;
    /// While a draw waits: its beacon round, ticket and time limit (unix seconds). Else 0.
    uint64 drawRound;
    uint40 drawTicket;
    uint40 drawUntil;
    /// Unix seconds from which on its nodes may be replaced; 0 while open.
    uint40 rotatesAt;
    /// Counted from 1; 0 while open.
    uint16 reservations;
    /// Whether its answers are proven: the model was calibrated when it opened.
    bool isProven;
    Reservation current;
    /// The reservation before, whose nodes still answer requests that were signed for it.
    Reservation previous;
}

struct LaneInfo {
    /// Who signs or sends requests in this lane.
    address holder;
    /// Unix seconds; requests are taken until then. 0 unless the owner takes the allotment back.
    uint40 reclaimAt;
}

struct LaneTerms {
    address holder;
    /// Money reserved for the lane, out of the deposit.
    uint96 allotment;
}

/// What `SessionQueue` needs to know to take a request.
struct Admission {
    SessionState state;
    AssetId asset;
    /// Zero if there is no such lane.
    address holder;
    /// Unix seconds after which nothing of the lane is taken; 0 if that is open.
    uint40 endsAt;
    /// The reservation asked for: its round, eight node ids of 32 bits, the first lowest, zeros behind the last, and how
    /// many of the first were named. Round 0 if it is not, or no longer, served.
    uint64 seedRound;
    uint256 nodes;
    uint8 dedicated;
    /// What its tasks live by.
    uint24 maxDeadline;
    uint8 maxAttempts;
    /// The members of `Progress`, in its order: whoever has the one has the other.
    uint80 priceIn;
    uint80 priceOut;
    uint24 attemptTime;
    uint24 revealTime;
    uint24 settleDelay;
    uint96 tip;
    bool isProven;
}

/// What `SessionQueue` needs to know to go on with a task.
struct Progress {
    uint80 priceIn;
    uint80 priceOut;
    uint24 attemptTime;
    uint24 revealTime;
    uint24 settleDelay;
    uint96 tip;
    /// Whether answers are subject to `ProofOfInference`.
    bool isProven;
}

/// What `SessionQueue` needs to know to settle a task.
struct Payees {
    AssetId asset;
    ModelIndex model;
    address owner;
    address holder;
    uint16 minerBps;
    uint16 routerBps;
    uint96 tip;
    bool isProven;
}

struct OpenTerms {
    ModelId modelId;
    AssetId asset;
    /// Drawn nodes: the session becomes active with at least `minNodes` of them. Both 0 for a dedicated session.
    uint8 minNodes;
    uint8 maxNodes;
    /// Nodes that are dedicated to the caller and shall serve it; with drawn ones beside them it is a hybrid session.
    NodeId[] dedicated;
    /// Opening reverts if a price per million tokens is higher now.
    uint80 maxPriceIn;
    uint80 maxPriceOut;
    /// All money of the session: the allotments, and the rest for lane 0.
    uint96 deposit;
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
        ModelIndex indexed model,
        AssetId asset,
        uint16 termsVersion,
        uint8 minNodes,
        uint8 maxNodes,
        uint80 priceIn,
        uint80 priceOut,
        uint96 deposit
    );
    event LaneAdded(SessionId indexed sessionId, Lane indexed lane, address indexed holder, uint96 allotment);
    event LaneReclaimed(SessionId indexed sessionId, Lane indexed lane, uint40 reclaimAt);
    event SessionToppedUp(SessionId indexed sessionId, Lane indexed lane, address indexed from, uint96 amount);
    /// The session waits for a draw of nodes; also after a draw that found too few.
    event SessionDrawing(SessionId indexed sessionId, uint64 drawRound, uint40 ticket, uint40 drawUntil);
    /// A new reservation serves the session; the one before it answers requests signed for it until `previousUntil`.
    event SessionActivated(
        SessionId indexed sessionId, uint64 indexed seedRound, NodeId[] nodes, uint8 dedicated, uint40 previousUntil
    );
    /// The rotation that was waited for does not take place.
    event RotationDropped(SessionId indexed sessionId);
    event SessionDraining(SessionId indexed sessionId, uint40 endsAt);
    event SessionClosed(SessionId indexed sessionId, uint256 returned);

    error Session_UnknownSession(SessionId sessionId);
    error Session_NotOwner(SessionId sessionId, address caller);
    error Session_WrongState(SessionId sessionId, SessionState state);
    error Session_NodesOutOfBounds(uint256 minNodes, uint256 maxNodes, uint256 dedicated, uint256 limit);
    error Session_PriceAboveCap(uint80 price, uint80 cap);
    error Session_DepositTooSmall(uint96 deposit, uint96 minimum);
    error Session_AllotmentsAboveDeposit(uint256 allotments, uint96 deposit);
    error Session_TooManyLanes(uint256 lanes, uint256 limit);
    error Session_ZeroHolder(uint256 lane);
    error Session_UnknownLane(SessionId sessionId, Lane lane);
    error Session_LaneReclaimed(SessionId sessionId, Lane lane, uint40 reclaimAt);
    error Session_NotReclaimable(SessionId sessionId, Lane lane, uint40 reclaimAt);
    error Session_RoundNotReady(SessionId sessionId, uint64 round);
    error Session_NoDrawWaits(SessionId sessionId);
    error Session_DrawWaits(SessionId sessionId, uint40 drawUntil);
    error Session_DrawExpired(SessionId sessionId, uint40 expiredAt);
    error Session_DrawNotExpired(SessionId sessionId, uint40 expiresAt);
    error Session_RotationNotDue(SessionId sessionId, uint40 rotatesAt, uint64 nonce);
    error Session_ZeroAmount();
    error Session_ZeroAddress();
    error Session_DelayTooShort(uint40 slotReuseDelay, uint40 wanted);
    error Session_StillDraining(SessionId sessionId, uint40 endsAt);
    error Session_TasksOpen(SessionId sessionId, Lane lane, uint96 held);

    /// Opens a session and pays its deposit, in one transaction. The caller must have approved `SessionPayment`.
    function open(OpenTerms calldata terms) external returns (SessionId sessionId);

    /// The same with an ERC-2612 permit for `SessionPayment` instead of an approval.
    function openWithPermit(OpenTerms calldata terms, Permit calldata permit) external returns (SessionId sessionId);

    /// Adds to the money of a lane. Anyone may.
    function topUp(SessionId sessionId, Lane lane, uint96 amount) external;

    /// Owner: a further lane, its allotment out of lane 0.
    function addLane(SessionId sessionId, LaneTerms calldata terms) external returns (Lane lane);

    /// Owner: the lane takes no request that ends after the notice; then `finishReclaim`.
    function reclaimLane(SessionId sessionId, Lane lane) external;

    /// After the notice, and once no task of the lane holds money: what is left in it goes to lane 0. Anyone may.
    function finishReclaim(SessionId sessionId, Lane lane) external;

    /// Draws the nodes that the session waits for, once the draw's round has its value and the draws before it are
    /// through. Anyone may, and earns the tip when nodes are found. Finding too few enters the next draw.
    function activate(SessionId sessionId) external;

    /// Asks for new drawn nodes once `rotatesAt` is reached, once `lane` has used `maxTasks` nonces a reservation, or
    /// if the seed round of the current reservation was missed; but not while the reservation before still answers. A
    /// session without drawn nodes begins its next reservation at once. Anyone may. Named nodes that drain are left out
    /// of the next reservation; if nobody is left, the session ends after the notice, as if its owner had closed it.
    function rotate(SessionId sessionId, Lane lane) external;

    /// Gives up a draw whose time is over, or whose round was missed: a session without nodes closes with a full
    /// refund (less the tip of whoever calls), another keeps the nodes that it has; if one of these drains or is jailed,
    /// the session ends after the notice, as if its owner had closed it. Anyone may.
    function expire(SessionId sessionId) external;

    /// Owner: no new tasks of the owner; ends after the notice. Not while the session is still open: that ends by
    /// `activate` or `expire`, so that nobody can withdraw from a draw whose seed is known.
    function close(SessionId sessionId) external;

    /// After the notice, with no draw waiting, and once no task holds money: returns the rest to the owner's balance.
    /// Anyone may.
    function finish(SessionId sessionId) external;

    /// The session, or a revert with `Session_UnknownSession`.
    function sessionOf(SessionId sessionId) external view returns (SessionInfo memory);

    /// The lane, or a revert with `Session_UnknownLane`.
    function laneOf(SessionId sessionId, Lane lane) external view returns (LaneInfo memory);

    /// Lanes of a session, lane 0 included.
    function laneCount(SessionId sessionId) external view returns (uint256);

    /// What decides whether a request is taken, in one call; state `None` if there is no such session. `seedRound` 0
    /// asks for the current reservation.
    function admissionOf(SessionId sessionId, Lane lane, uint64 seedRound) external view returns (Admission memory);

    /// The nodes of a reservation as in `Admission`; zeros if it is neither the current nor the one before.
    function nodesOf(SessionId sessionId, uint64 seedRound) external view returns (uint256 nodes, uint8 dedicated);

    /// Prices and times of a session's tasks; zeros if there is no such session.
    function progressOf(SessionId sessionId) external view returns (Progress memory);

    /// Where the shares of a settled task go; zeros if there is no such session.
    function payeesOf(SessionId sessionId, Lane lane) external view returns (Payees memory);

    function sessionCount() external view returns (uint64);

    function models() external view returns (address);

    function pool() external view returns (address);

    function payment() external view returns (address);

    function beacon() external view returns (address);

    function parameters() external view returns (address);
}
