// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// Who of those that looked at the same positions agrees with whom. Members are bits of a word.
library Clusters {
    /// Owners whose word is a quorum.
    uint256 internal constant QUORUM = 3;

    /// Members of any cluster that wins: everyone close to one member, that one included, if these are a strict majority
    /// and of three owners at least. `close[i]` are the members near `i`.
    function inside(uint256[] memory close, address[] memory owners) internal pure returns (uint256 members) {
        for (uint256 i; i < close.length; ++i) {
            uint256 cluster = close[i] | 1 << i;
            if (2 * sizeOf(cluster) > close.length && ownersOf(cluster, owners) >= QUORUM) members |= cluster;
        }
    }

    function sizeOf(uint256 members) internal pure returns (uint256 size) {
        for (; members != 0; members &= members - 1) {
            ++size;
        }
    }

    /// Different owners among the members.
    function ownersOf(uint256 members, address[] memory owners) internal pure returns (uint256 count) {
        for (uint256 i; i < owners.length; ++i) {
            if (members >> i & 1 == 0) continue;
            bool known;
            for (uint256 k; k < i && !known; ++k) {
                known = members >> k & 1 == 1 && owners[k] == owners[i];
            }
            if (!known) ++count;
        }
    }

    /// The lower median; `values` is sorted by it.
    function lowerMedian(uint256[] memory values) internal pure returns (uint256) {
        for (uint256 i = 1; i < values.length; ++i) {
            uint256 value = values[i];
            uint256 k = i;
            for (; k > 0 && values[k - 1] > value; --k) {
                values[k] = values[k - 1];
            }
            values[k] = value;
        }
        return values[(values.length - 1) / 2];
    }
}
