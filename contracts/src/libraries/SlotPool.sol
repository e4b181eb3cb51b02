// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeId, SessionId} from "../types/Ids.sol";

/// A place in a model's draw. One word. All times in unix seconds.
struct Place {
    /// 0 if it belongs to nobody.
    NodeId nodeId;
    /// It counts in draws as of `activeFrom` up to, and without, `activeUntil`.
    uint40 activeFrom;
    uint40 activeUntil;
    /// Draws as of an earlier time do not find it: a session had it then.
    uint40 freeFrom;
    /// The session that has reserved it; 0 if none.
    SessionId sessionId;
    /// While it belongs to nobody: one more than the index of the next such place; 0 for the last.
    uint32 nextFree;
}

/// The places of one model, and the order of the draws that look at them. Places are appended and given again, never
/// moved: an index keeps its meaning for as long as a draw may wait for its seed.
library SlotPool {
    /// One word.
    struct Counts {
        /// Tickets are counted from 1.
        uint40 ticketsGiven;
        uint40 ticketsPassed;
        /// All places.
        uint32 slots;
        /// Those whose node takes part, or still serves a session.
        uint32 taken;
        /// Those of `taken` that a session has reserved.
        uint32 used;
        /// One more than the index of the first place that belongs to nobody; 0 if there is none.
        uint32 firstFree;
    }

    struct State {
        Counts counts;
        mapping(uint256 index => Place) places;
    }

    uint256 internal constant BPS = 10_000;
    uint40 internal constant FOREVER = type(uint40).max;

    function enter(State storage self) internal returns (uint40 ticket, uint32 slots, uint16 utilisationBps) {
        Counts memory counts = countsOf(self);
        ticket = ++counts.ticketsGiven;
        slots = counts.slots;
        if (counts.taken != 0) utilisationBps = uint16(BPS * counts.used / counts.taken);
        store(self, counts);
    }

    /// Gives a node a place that counts from `activeFrom` on.
    function take(State storage self, NodeId nodeId, uint40 activeFrom) internal returns (uint32 index) {
        Counts memory counts = countsOf(self);
        if (counts.firstFree == 0) {
            index = counts.slots++;
        } else {
            index = counts.firstFree - 1;
            counts.firstFree = self.places[index].nextFree;
        }
        ++counts.taken;
        store(self, counts);
        Place storage place = self.places[index];
        (place.nodeId, place.activeFrom, place.activeUntil, place.nextFree) = (nodeId, activeFrom, FOREVER, 0);
    }

    /// The place counts in no draw as of `activeUntil` or later. It still serves who has it, and whoever may draw it.
    function vacate(State storage self, uint32 index, uint40 activeUntil) internal {
        Place storage place = self.places[index];
        if (place.activeUntil != FOREVER) return;
        place.activeUntil = activeUntil;
        if (SessionId.unwrap(place.sessionId) == 0) --self.counts.taken;
    }

    /// A vacated place counts again, from `activeFrom` on.
    function reopen(State storage self, uint32 index, uint40 activeFrom) internal {
        Place storage place = self.places[index];
        (place.activeFrom, place.activeUntil) = (activeFrom, FOREVER);
        if (SessionId.unwrap(place.sessionId) == 0) ++self.counts.taken;
    }

    /// A vacated, free place belongs to nobody from now on: the next `take` gets it.
    function giveBack(State storage self, uint32 index) internal {
        delete self.places[index];
        self.places[index].nextFree = self.counts.firstFree;
        self.counts.firstFree = index + 1;
    }

    /// Reserves a free place; the caller stores `counts`.
    function occupy(State storage self, Counts memory counts, uint32 index, SessionId sessionId) internal {
        Place storage place = self.places[index];
        place.sessionId = sessionId;
        if (place.activeUntil != FOREVER) ++counts.taken;
        ++counts.used;
    }

    /// The session no longer needs the place; draws as of `freeFrom` or later find it.
    function free(State storage self, uint32 index, uint40 freeFrom) internal {
        Place storage place = self.places[index];
        (place.sessionId, place.freeFrom) = (SessionId.wrap(0), freeFrom);
        --self.counts.used;
        if (place.activeUntil != FOREVER) --self.counts.taken;
    }

    /// The word as a whole: one read.
    function countsOf(State storage self) internal view returns (Counts memory) {
        return self.counts;
    }

    function store(State storage self, Counts memory counts) internal {
        self.counts = counts;
    }

    function placeAt(State storage self, uint32 index) internal view returns (Place memory) {
        return self.places[index];
    }

    function isFree(Place memory place) internal pure returns (bool) {
        return SessionId.unwrap(place.sessionId) == 0;
    }

    function isActive(Place memory place, uint40 asOf) internal pure returns (bool) {
        return place.activeFrom <= asOf && asOf < place.activeUntil;
    }

    /// Whether a draw as of `asOf` may have the place: nothing that happened to it since then made it so.
    function isOpen(Place memory place, uint40 asOf) internal pure returns (bool) {
        return isActive(place, asOf) && isFree(place) && place.freeFrom <= asOf;
    }
}
