// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {NodeSet} from "../../src/libraries/NodeSet.sol";
import {Place, SlotPool} from "../../src/libraries/SlotPool.sol";
import {TaskWords} from "../../src/libraries/TaskWords.sol";
import {NodeId, SessionId} from "../../src/types/Ids.sol";

/// Words that hold several values, for all values at once: `script/bench/audit` runs these with halmos.
contract PackingSymbolic {
    using SlotPool for SlotPool.State;
    using SlotPool for Place;

    SlotPool.State internal pool;

    /// Node ids come out of a set as they went in.
    function check_node_set_keeps_ids(uint32 a, uint32 b, uint32 c) external pure {
        if (a == 0 || b == 0 || c == 0) return;
        NodeId[] memory nodes = new NodeId[](3);
        (nodes[0], nodes[1], nodes[2]) = (NodeId.wrap(a), NodeId.wrap(b), NodeId.wrap(c));
        uint256 set = NodeSet.pack(nodes);
        assert(NodeSet.length(set) == 3);
        assert(NodeId.unwrap(NodeSet.nodeAt(set, 0)) == a);
        assert(NodeId.unwrap(NodeSet.nodeAt(set, 1)) == b);
        assert(NodeId.unwrap(NodeSet.nodeAt(set, 2)) == c);
        assert(NodeSet.contains(set, nodes[1]));
        assert(NodeSet.first(set, 2).length == 2);
    }

    /// A task's word gives back its state, its time and its digest, whether it is delivered or not.
    function check_task_word_keeps_its_parts(uint8 state, uint40 until, bytes32 digest) external pure {
        if (state > uint8(TaskState.Refunded)) return;
        bytes32 cut = bytes32(uint256(digest) >> 48 << 48);
        uint256 word = TaskWords.pack(TaskState(state), until, cut);
        assert(uint8(TaskWords.stateOf(word)) == state);
        assert(TaskWords.untilOf(word) == until);
        assert(TaskWords.digestOf(word) == cut);
        assert(!TaskWords.isDelivered(word));
        word |= TaskWords.DELIVERED;
        assert(TaskWords.isDelivered(word));
        assert(uint8(TaskWords.stateOf(word)) == state && TaskWords.untilOf(word) == until);
    }

    /// [D4] A place is found only by draws of its own time, and never while a session has it.
    function check_place_is_open_in_its_time_alone(Place memory place, uint40 asOf) external pure {
        bool open = place.isOpen(asOf);
        assert(!open || (place.activeFrom <= asOf && asOf < place.activeUntil && place.freeFrom <= asOf));
        assert(!open || SessionId.unwrap(place.sessionId) == 0);
    }

    /// [D5] Whatever a node's place goes through, places in use are among those taken, and these among all.
    function check_places_are_counted(uint40 from, uint40 until, uint40 freeFrom, bool drainsFirst) external {
        // No clock shows the largest time: it stands for "for ever".
        if (until == type(uint40).max) return;
        uint32 index = pool.take(NodeId.wrap(1), from);
        if (drainsFirst) pool.vacate(index, until);
        SlotPool.Counts memory counts = pool.countsOf();
        pool.occupy(counts, index, SessionId.wrap(7));
        pool.store(counts);
        assert(pool.counts.used == 1 && pool.counts.taken == 1);
        if (!drainsFirst) pool.vacate(index, until);
        assert(pool.counts.used == 1 && pool.counts.taken == 1);
        pool.free(index, freeFrom);
        assert(pool.counts.used == 0 && pool.counts.taken == 0);
        assert(pool.counts.slots == 1);
    }
}
