// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionTerms} from "../interfaces/IParameters.sol";
import {Reservation, SessionState} from "../interfaces/ISession.sol";
import {AssetId, ModelIndex} from "../types/Ids.sol";
import {NodeSet} from "./NodeSet.sol";

/// Who ordered a session. Written at opening.
struct Deed {
    address owner;
    uint40 openedAt;
    /// Unix seconds; when nodes may be replaced.
    uint40 rotatesAt;
    uint8 minNodes;
    uint8 maxNodes;
}

/// What a session was opened on, and the draw that it waits for. Written at opening.
struct Order {
    ModelIndex model;
    AssetId asset;
    uint16 termsVersion;
    /// Share of the pool that was in use at opening: the price follows from it.
    uint16 utilisationBps;
    /// Beside lane 0.
    uint8 lanes;
    /// Whether the model was calibrated at opening.
    bool isProven;
    /// 0 if no draw waits; then the rest does not count. 32 bits hold drand's rounds for 400 years.
    uint32 drawRound;
    uint40 ticket;
    uint32 slots;
    uint40 asOf;
    /// Seconds after `asOf`.
    uint24 window;
}

/// What tasks read. Written when the session gets its first nodes; until then it is `Open`. Asset, version and the flag
/// are copies, so that a task reads one word.
struct Serving {
    SessionState state;
    AssetId asset;
    uint16 termsVersion;
    /// Reservations so far.
    uint16 reservations;
    /// Named nodes of the current reservation.
    uint8 dedicated;
    uint32 seedRound;
    bool isProven;
    uint80 priceIn;
    uint80 priceOut;
}

/// The end, and the reservation before. Written by the first rotation, or at the end.
struct Past {
    uint40 endsAt;
    uint40 until;
    uint40 seedRound;
    uint8 dedicated;
}

/// Two words at opening, two more with the nodes. Each struct is one word.
struct SessionWords {
    Deed deed;
    Order order;
    Serving serving;
    /// See `NodeSet`; of an open session, those that were named.
    uint256 nodes;
    Past past;
    uint256 formerNodes;
}

/// What tasks need of `Parameters`: one word for each version and asset, so that a task asks no other contract.
struct TaskTerms {
    uint16 minerBps;
    uint16 routerBps;
    uint24 maxDeadline;
    uint24 attemptTime;
    uint24 revealTime;
    uint24 settleDelay;
    uint8 maxAttempts;
    uint24 reservationTimeout;
    uint96 tip;
}

/// How the words of a session read.
library SessionWordsLib {
    using NodeSet for uint256;

    function stateOf(SessionWords storage self) internal view returns (SessionState state) {
        state = self.serving.state;
        if (state == SessionState.None && self.deed.owner != address(0)) return SessionState.Open;
    }

    // Each word is read and written in one place: the compiler repeats the code of every copy of a struct.

    function orderOf(SessionWords storage self) internal view returns (Order memory) {
        return self.order;
    }

    function storeOrder(SessionWords storage self, Order memory order) internal {
        self.order = order;
    }

    function servingOf(SessionWords storage self) internal view returns (Serving memory) {
        return self.serving;
    }

    function pastOf(SessionWords storage self) internal view returns (Past memory) {
        return self.past;
    }

    /// Unix seconds; the last one in which the draw that waits may take place.
    function drawUntil(Order memory order) internal pure returns (uint40) {
        return order.drawRound == 0 ? 0 : order.asOf + order.window;
    }

    function taskTerms(SessionTerms memory terms, uint96 tip) internal pure returns (TaskTerms memory) {
        return TaskTerms({
            minerBps: terms.minerBps,
            routerBps: terms.routerBps,
            maxDeadline: terms.maxDeadline,
            attemptTime: terms.attemptTime,
            revealTime: terms.revealTime,
            settleDelay: terms.settleDelay,
            maxAttempts: terms.maxAttempts,
            reservationTimeout: terms.reservationTimeout,
            tip: tip
        });
    }

    function current(SessionWords storage self) internal view returns (Reservation memory) {
        Serving memory serving = servingOf(self);
        return
            Reservation({
                seedRound: serving.seedRound, nodes: self.nodes.unpack(), dedicated: serving.dedicated, until: 0
            });
    }

    function previous(SessionWords storage self) internal view returns (Reservation memory) {
        Past memory past = pastOf(self);
        return Reservation({
            seedRound: past.seedRound, nodes: self.formerNodes.unpack(), dedicated: past.dedicated, until: past.until
        });
    }

    /// The reservation that `seedRound` names, 0 the current one; zeros if it is not, or no longer, served.
    function serves(SessionWords storage self, uint64 seedRound)
        internal
        view
        returns (uint64 round, uint256 nodes, uint8 dedicated)
    {
        uint40 now_ = self.serving.seedRound;
        if (now_ == 0) return (0, 0, 0);
        if (seedRound == 0 || seedRound == now_) return (now_, self.nodes, self.serving.dedicated);
        Past memory past = pastOf(self);
        if (seedRound != past.seedRound || block.timestamp > past.until) return (0, 0, 0);
        return (seedRound, self.formerNodes, past.dedicated);
    }
}
