// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Record} from "../interfaces/INodeStats.sol";

/// How a node's level rises, falls and decays. All times in seconds.
library Levels {
    uint8 internal constant MAX = 10;
    /// What silence or an unopened precommitment costs.
    uint8 internal constant FAULT = 2;

    /// The level at `time`, not before `updatedAt`: one less for each whole period since.
    function decayed(Record memory self, uint256 time, uint256 period) internal pure returns (uint8) {
        uint256 lost = (time - self.updatedAt) / period;
        return lost >= self.level ? 0 : uint8(self.level - lost);
    }

    /// The level when the epoch of `asOf` began, which may be the epoch of `updatedAt`, the one before it, or any
    /// later one.
    function atEpochOf(Record memory self, uint256 asOf, uint256 epochLength, uint256 period)
        internal
        pure
        returns (uint8)
    {
        uint256 epoch = asOf / epochLength;
        uint256 current = self.updatedAt / epochLength;
        if (epoch > current) return decayed(self, epoch * epochLength, period);
        return epoch == current ? self.levelAtEpoch : self.levelBefore;
    }

    /// Brings the level, and what draws look at, up to `time`.
    function touch(Record memory self, uint40 time, uint256 epochLength, uint256 period) internal pure {
        if (time / epochLength > self.updatedAt / epochLength) {
            uint8 before = atEpochOf(self, time - epochLength, epochLength, period);
            self.levelAtEpoch = atEpochOf(self, time, epochLength, period);
            self.levelBefore = before;
        }
        uint8 level = decayed(self, time, period);
        if (level != self.level) (self.level, self.streak) = (level, 0);
        self.updatedAt = time;
    }

    /// A level more after 2^level consecutive successes.
    function succeed(Record memory self, uint32 times) internal pure {
        uint256 streak = uint256(self.streak) + times;
        uint8 level = self.level;
        for (; level < MAX && streak >= 1 << level; ++level) {
            streak -= 1 << level;
        }
        self.level = level;
        self.streak = streak > type(uint16).max ? type(uint16).max : uint16(streak);
    }

    function fail(Record memory self, uint32 times) internal pure {
        uint256 lost = uint256(times) * FAULT;
        self.level = lost >= self.level ? 0 : uint8(self.level - lost);
        self.streak = 0;
    }
}
