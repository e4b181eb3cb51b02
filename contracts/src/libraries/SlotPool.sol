// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ModelId, NodeId} from "../types/Ids.sol";

/// A place in a model's draw.
struct Slot {
    NodeId nodeId;
    /// Unix seconds, the first included, the second not.
    uint40 activeFrom;
    uint40 activeUntil;
}

/// The places of one model. Places are appended and reused, never moved: an index keeps its meaning for as long as a
/// draw may wait for its seed.
library SlotPool {
    struct State {
        Slot[] slots;
        /// Places that were left, first left first.
        mapping(uint32 => uint32) freed;
        uint32 freedHead;
        uint32 freedTail;
    }

    /// Gives a node a place that counts from `activeFrom` on. A place that was left less than `reuseDelay` seconds
    /// ago is not given again.
    function take(State storage self, NodeId nodeId, uint40 activeFrom, uint40 reuseDelay)
        internal
        returns (uint32 index)
    {
        Slot memory slot = Slot(nodeId, activeFrom, type(uint40).max);
        uint32 head = self.freedHead;
        if (head != self.freedTail) {
            index = self.freed[head];
            if (block.timestamp > uint256(self.slots[index].activeUntil) + reuseDelay) {
                delete self.freed[head];
                self.freedHead = head + 1;
                self.slots[index] = slot;
                return index;
            }
        }
        index = uint32(self.slots.length);
        self.slots.push(slot);
    }

    /// The place stops to count at `activeUntil`; calls come in the order of that time.
    function vacate(State storage self, uint32 index, uint40 activeUntil) internal {
        self.slots[index].activeUntil = activeUntil;
        self.freed[self.freedTail++] = index;
    }

    /// The node that try number `index` of a draw finds among the first `slots` places; 0 if the place was not active
    /// at `asOf`.
    function draw(State storage self, ModelId modelId, bytes32 seed, uint256 index, uint32 slots, uint40 asOf)
        internal
        view
        returns (NodeId)
    {
        Slot memory slot = self.slots[uint256(keccak256(abi.encode(seed, modelId, index))) % slots];
        if (asOf < slot.activeFrom || asOf >= slot.activeUntil) return NodeId.wrap(0);
        return slot.nodeId;
    }
}
