// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaf, Party} from "../../src/interfaces/IProofOfInference.sol";
import {AuditOdds} from "../../src/libraries/AuditOdds.sol";
import {Calibration} from "../../src/libraries/Calibrations.sol";
import {Clusters} from "../../src/libraries/Clusters.sol";
import {Hearings, Ruling} from "../../src/libraries/Hearings.sol";
import {Multiproof} from "../../src/libraries/Multiproof.sol";
import {Verdicts} from "../../src/libraries/Verdicts.sol";
import {Trees} from "../Trees.sol";

/// The arithmetic of proofs against a second one, written as plainly as it can be.
contract ProofFuzz {
    uint256 internal constant BPS = 10_000;
    uint256 internal constant MEMBERS = 3;

    // ---------------------------------------------------------------- what the libraries take from calldata

    function rootOf(uint256 n, uint256[] memory positions, bytes32[] memory hashes, bytes32[] calldata nodes)
        external
        pure
        returns (bytes32)
    {
        return Multiproof.rootOf(n, positions, hashes, nodes);
    }

    function agrees(Leaf[] calldata ours, Leaf[] calldata theirs, Calibration memory limits)
        external
        pure
        returns (bool)
    {
        return Verdicts.spotAgrees(ours, theirs, limits);
    }

    // ---------------------------------------------------------------- probabilities

    /// By the record: 2^(-passes / 10), from below and from above, for every number of passes. [V8]
    function test_the_probability_of_every_record() public pure {
        for (uint256 passes; passes < 200; ++passes) {
            checkRecord(passes, AuditOdds.byRecord(passes, 1));
        }
    }

    /// Passes are counted by the value at stake. [V8]
    function testFuzz_the_probability_of_a_record(uint96 value, uint256 passed) public pure {
        if (value == 0) return;
        passed %= uint256(value) * 200;
        checkRecord(passed / value, AuditOdds.byRecord(passed, value));
    }

    function checkRecord(uint256 passes, uint256 p) internal pure {
        require(p >= 1 && p <= BPS, "a probability");
        // (p / 10,000)^10 against 2^-passes; after more passes less than a hundredth of a percent is left.
        if (passes > 120) return require(p <= 3, "next to nothing");
        require(p ** 10 << passes >= 10 ** 40, "never below");
        require(p < 3 || (p - 2) ** 10 << passes < 10 ** 40, "hardly above");
    }

    /// By what is open: 1.5 * gain / (power * (at risk + gain)), rounded up. [V8]
    function testFuzz_the_probability_of_an_exposure(uint96 gain, uint96 atRisk, uint16 powerBps) public pure {
        uint256 power = 5000 + uint256(powerBps) % 5001;
        uint256 p = AuditOdds.byExposure(gain, atRisk, power);
        uint256 lost = power * (uint256(atRisk) + gain);
        require(p * lost >= 15_000 * BPS * uint256(gain), "never below");
        require(p == 0 || (p - 1) * lost < 15_000 * BPS * uint256(gain), "never above");
    }

    // ---------------------------------------------------------------- leaves

    function treeOf(uint256 seed) internal pure returns (bytes32[] memory hashes, uint256[] memory positions) {
        hashes = new bytes32[](seed % 90 + 1);
        for (uint256 i; i < hashes.length; ++i) {
            hashes[i] = keccak256(abi.encode(seed, i));
        }
        uint256 wanted = (seed >> 8) % 16 + 1;
        positions = new uint256[](hashes.length);
        uint256 count;
        for (uint256 i; i < hashes.length && count < wanted; ++i) {
            // Some of each answer, the last ones if few were taken.
            bool taken = uint256(keccak256(abi.encode(seed, "taken", i))) % hashes.length < wanted;
            if (taken || hashes.length - i <= 1 && count == 0) positions[count++] = i + 1;
        }
        assembly ("memory-safe") {
            mstore(positions, count)
        }
    }

    function pick(bytes32[] memory hashes, uint256[] memory positions) internal pure returns (bytes32[] memory picked) {
        picked = new bytes32[](positions.length);
        for (uint256 i; i < positions.length; ++i) {
            picked[i] = hashes[positions[i] - 1];
        }
    }

    /// What is of the tree verifies, and nothing else does: another leaf, another place, other nodes, more or fewer.
    /// [V6]
    function testFuzz_forged_proofs_never_verify(uint256 seed, uint8 forgery, uint256 where, bytes32 what) public view {
        (bytes32[] memory hashes, uint256[] memory positions) = treeOf(seed);
        bytes32 root = Trees.rootOf(hashes);
        bytes32[] memory nodes = Trees.proofOf(hashes, positions);
        bytes32[] memory leaves = pick(hashes, positions);
        require(this.rootOf(hashes.length, positions, leaves, nodes) == root, "of the tree");
        if (!forge(forgery, where, what, hashes.length, positions, leaves, nodes)) return;
        // Overwritten by the library.
        try this.rootOf(hashes.length, positions, leaves, forgery % 5 > 2 ? resized(nodes, forgery) : nodes) returns (
            bytes32 found
        ) {
            require(found != root, "forged");
        } catch {}
    }

    /// False if there is nothing to forge.
    function forge(
        uint8 forgery,
        uint256 where,
        bytes32 what,
        uint256 n,
        uint256[] memory positions,
        bytes32[] memory leaves,
        bytes32[] memory nodes
    ) internal pure returns (bool) {
        uint256 kind = forgery % 5;
        if (kind == 0) {
            if (leaves[where % leaves.length] == what) return false;
            leaves[where % leaves.length] = what;
        } else if (kind == 1) {
            if (nodes.length == 0 || nodes[where % nodes.length] == what) return false;
            nodes[where % nodes.length] = what;
        } else if (kind == 2) {
            uint256 i = where % positions.length;
            uint256 other = uint256(what) % n + 1;
            if (other == positions[i]) return false;
            positions[i] = other;
        }
        // Fewer, or one more.
        return kind != 3 || nodes.length != 0;
    }

    function resized(bytes32[] memory nodes, uint8 forgery) internal pure returns (bytes32[] memory list) {
        list = new bytes32[](forgery % 5 == 3 ? nodes.length - 1 : nodes.length + 1);
        for (uint256 i; i < list.length && i < nodes.length; ++i) {
            list[i] = nodes[i];
        }
    }

    // ---------------------------------------------------------------- one verdict

    function limitsOf(uint256 seed) internal pure returns (Calibration memory limits) {
        limits.tau = seed % 1024 + 1;
        limits.spotTau = limits.tau + (seed >> 16) % 1024;
        limits.blockLimit = (seed >> 32) % 4 + 1;
        limits.contrasts = (seed >> 40) % 2 == 0 ? 2 : 4;
        limits.hardMargin = (seed >> 48) % 60_000 + 1;
        limits.marginBar = (seed >> 72) % 500_000 + 1;
        limits.thrBase = (seed >> 96) % 500_000;
        limits.thrSlope = (seed >> 128) % (1 << 30);
        limits.thrSpread = (seed >> 160) % (1 << 26);
    }

    /// [V6]
    function testFuzz_a_spot_check(uint256 seed, uint64[4] memory ours, uint64[4] memory noise, uint8 count)
        public
        view
    {
        Calibration memory limits = limitsOf(seed);
        Leaf[] memory one = new Leaf[](count % 5);
        Leaf[] memory other = new Leaf[](one.length);
        uint64 mask = limits.contrasts == 2 ? type(uint32).max : type(uint64).max;
        uint256 close;
        for (uint256 i; i < one.length; ++i) {
            one[i].contrasts = ours[i] & mask;
            // Near, or anywhere.
            other[i].contrasts = (noise[i] & 1 == 0 ? ours[i] ^ (noise[i] & 0x03ff03ff03ff03ff) : noise[i]) & mask;
            close += closeIn(one[i].contrasts, other[i].contrasts, limits.contrasts, limits.spotTau);
        }
        bool wanted = one.length < 4 || 2 * close > 4 * limits.contrasts;
        require(this.agrees(one, other, limits) == wanted, "median of four positions");
        if (one.length == 0) return;
        ++other[seed % one.length].id;
        require(!this.agrees(one, other, limits), "another token");
    }

    function closeIn(uint64 one, uint64 other, uint256 contrasts, uint256 limit) internal pure returns (uint256 close) {
        for (uint256 k; k < contrasts; ++k) {
            int256 distance = int256(int16(uint16(one >> (16 * k)))) - int16(uint16(other >> (16 * k)));
            if (uint256(distance < 0 ? -distance : distance) <= limit) ++close;
        }
    }

    function testFuzz_reasons(uint256 seed, uint16 tokens, uint32 most, uint32 sum, uint8 flags, uint8 failing)
        public
        pure
    {
        Calibration memory limits = limitsOf(seed);
        uint256 n = uint256(tokens) + 1;
        uint256 word = n | uint256(most) << 32 | uint256(sum) << 64 | uint256(flags & 0xf0) << 96;
        uint8 reasons = Verdicts.reasonsOf(word, failing, limits);
        require(reasons & 0xf0 == flags & 0xf0, "what it told");
        require((reasons & 0x04 != 0) == (most > limits.hardMargin), "one margin");
        require((reasons & 0x08 != 0) == (sum > threshold(limits, n)), "sum");
        uint256 blocks = n < 4 ? 0 : n < 48 ? 1 : (n + 16) / 32;
        uint256 enough = blocks < limits.blockLimit ? blocks : limits.blockLimit;
        require((reasons & 0x01 != 0) == (blocks != 0 && failing != 0 && failing >= enough), "blocks");
        require(reasons & 0x02 == 0, "no spot check");
    }

    function testFuzz_drift(uint32 before, uint16 tokens, uint32 sum, uint32 drift, uint32 limit) public pure {
        Calibration memory limits;
        (limits.drift, limits.driftLimit) = (drift, limit);
        uint256 n = uint256(tokens) + 1;
        (uint32 total, bool alarm) = Verdicts.drifted(before, n | uint256(sum) << 64, limits);
        uint256 larger = uint256(before) + sum;
        if (larger > type(uint32).max) larger = type(uint32).max;
        uint256 forgiven = uint256(drift) * n / 65_536;
        uint256 left = larger > forgiven ? larger - forgiven : 0;
        require(total == left && alarm == (left > limit), "running sum");
    }

    // ---------------------------------------------------------------- a panel

    /// Any cluster that wins: a member, all that are close to it, more than half of all, of three owners. [V11]
    function testFuzz_clusters(uint256 seed, uint8 count) public pure {
        uint256 n = count % 5 + 1;
        address[] memory owners = new address[](n);
        uint256[] memory close = new uint256[](n);
        for (uint256 i; i < n; ++i) {
            // Some have the same one.
            owners[i] = address(uint160(1 + (seed >> (200 + 4 * i)) % 7));
            for (uint256 k = i + 1; k < n; ++k) {
                if (seed >> (i * 5 + k) & 1 == 0) continue;
                close[i] |= 1 << k;
                close[k] |= 1 << i;
            }
        }
        uint256 wanted;
        for (uint256 i; i < n; ++i) {
            (uint256 size, uint256 members, uint256 known) = (0, 0, 0);
            for (uint256 k; k < n; ++k) {
                if (k != i && close[i] >> k & 1 == 0) continue;
                (size, members) = (size + 1, members | 1 << k);
                known |= 1 << uint160(owners[k]);
            }
            uint256 different;
            for (uint256 bit; bit < 8; ++bit) {
                if (known >> bit & 1 == 1) ++different;
            }
            if (size * 2 > n && different >= 3) wanted |= members;
        }
        require(Clusters.inside(close, owners) == wanted, "inside");
    }

    /// At least half of the values are not below the lower median, and more than half are not above it. [V14]
    function testFuzz_a_lower_median(uint256[] memory values) public pure {
        if (values.length == 0) return;
        uint256[] memory copy = new uint256[](values.length);
        for (uint256 i; i < values.length; ++i) {
            copy[i] = values[i];
        }
        uint256 median = Clusters.lowerMedian(copy);
        uint256 below;
        uint256 above;
        bool there;
        for (uint256 i; i < values.length; ++i) {
            if (values[i] < median) ++below;
            else if (values[i] > median) ++above;
            else there = true;
        }
        require(there && 2 * below < values.length && 2 * above <= values.length, "median");
    }

    function partiesOf(uint256 seed, uint256 positions, uint256 n) internal pure returns (Party[] memory parties) {
        parties = new Party[](2 + MEMBERS);
        for (uint256 i = 2; i < parties.length; ++i) {
            parties[i].isOpen = seed >> i & 3 != 0;
            for (uint256 p; p < positions; ++p) {
                parties[i].values[p / 8] |= uint256(marginOf(seed, i, p)) << (224 - 32 * (p % 8));
            }
            uint256 random = uint256(keccak256(abi.encode(seed, "word", i)));
            // Margins and their sum, small or not, and flags.
            uint256 most = random % 4 == 0 ? 70_000 : 10;
            parties[i].statistics = n | most << 32 | (random >> 8) % 1_000_000 << 64 | (random >> 64 & 0xf) << 100;
        }
    }

    function marginOf(uint256 seed, uint256 party, uint256 position) internal pure returns (uint32) {
        uint256 random = uint256(keccak256(abi.encode(seed, party, position)));
        return random % 8 == 0 ? uint32(random >> 200) : uint32((random >> 8) % 40_000);
    }

    /// What a member committed to, apart from weights.
    function foundBy(Party memory party, Calibration memory limits) internal pure returns (uint256 found) {
        (uint256 n, uint256 most) = (uint32(party.statistics), uint32(party.statistics >> 32));
        found = party.statistics >> 96 & 0xf0;
        if (most > limits.hardMargin) found |= 0x04;
        if (uint32(party.statistics >> 64) > threshold(limits, n)) found |= 0x08;
    }

    /// Out of `reasons` those that more than half of who has opened committed to.
    function upheldOf(Party[] memory parties, uint256 reasons, Calibration memory limits)
        internal
        pure
        returns (uint256 upheld)
    {
        for (uint256 flag = 0x04; flag <= 0x80; flag *= 2) {
            (uint256 raised, uint256 open) = (0, 0);
            for (uint256 i = 2; i < parties.length; ++i) {
                if (!parties[i].isOpen) continue;
                ++open;
                if (foundBy(parties[i], limits) & flag != 0) ++raised;
            }
            if (reasons & flag != 0 && raised * 2 > open) upheld |= flag;
        }
    }

    /// Who has opened and found any of `reasons`.
    function findersOf(Party[] memory parties, uint256 reasons, Calibration memory limits)
        internal
        pure
        returns (uint256 finders)
    {
        for (uint256 i = 2; i < parties.length; ++i) {
            if (parties[i].isOpen && foundBy(parties[i], limits) & reasons != 0) finders |= 1 << i;
        }
    }

    /// Medians of who has opened, or what more than half of them committed to; who fails by itself, or found what the
    /// accuser did, does not contradict it. [V13, V14]
    function testFuzz_sampling(uint256 seed, uint8 count, uint16 tokens, uint8 reasons) public pure {
        uint256 positions = count % 16 + 1;
        reasons &= 0xfc;
        Calibration memory limits = limitsOf(seed);
        Party[] memory parties = partiesOf(seed, positions, uint256(tokens) + 16);
        if (Hearings.openOf(parties) == 0) return;
        Ruling memory ruling;
        Hearings.weigh(parties, ruling, positions, reasons, limits);
        uint256 failing = findersOf(parties, reasons, limits);
        for (uint256 i = 2; i < parties.length; ++i) {
            if (parties[i].isOpen && failsIn(marginsOf(seed, i, positions), limits)) failing |= 1 << i;
        }
        uint256 upheld = upheldOf(parties, reasons, limits);
        bool guilty = failsIn(mediansOf(seed, parties, positions), limits);
        require(ruling.decided && ruling.guilty == (guilty || upheld != 0), "guilty");
        require(ruling.against == (Hearings.openOf(parties) & ~failing), "who found it true");
        checkFailing(parties, ruling, failing, guilty ? 0 : findersOf(parties, upheld, limits));
    }

    /// Of one who is guilty the accuser is right too; else it has lied if nobody of a whole panel agrees.
    function checkFailing(Party[] memory parties, Ruling memory ruling, uint256 failing, uint256 finders)
        internal
        pure
    {
        uint256 wanted = finders != 0 ? finders : failing;
        require(ruling.failing == (ruling.guilty ? wanted | 2 : wanted), "who found it false");
        uint256 open = Clusters.sizeOf(Hearings.openOf(parties));
        bool lied = !ruling.guilty && open == MEMBERS && failing == 0;
        require(ruling.losers == (lied ? 2 : 0), "who lied");
    }

    /// What more than half of those who have opened committed to, out of what the accuser did. [V13, V15]
    function testFuzz_content(uint256 seed, uint8 reasons) public pure {
        reasons &= 0xf0;
        if (reasons == 0) return;
        Calibration memory limits = limitsOf(seed);
        Party[] memory parties = partiesOf(seed, 0, 100);
        Ruling memory ruling;
        Hearings.poll(parties, reasons, ruling, limits);
        uint256 upheld = upheldOf(parties, reasons, limits);
        require(ruling.guilty == (upheld != 0), "upheld");
        uint256 failing = findersOf(parties, reasons, limits);
        checkFailing(parties, ruling, failing, findersOf(parties, upheld, limits));
    }

    function marginsOf(uint256 seed, uint256 party, uint256 positions)
        internal
        pure
        returns (uint256[] memory margins)
    {
        margins = new uint256[](positions);
        for (uint256 p; p < positions; ++p) {
            margins[p] = marginOf(seed, party, p);
        }
    }

    /// The noise grows with the square root, found by bisection.
    function threshold(Calibration memory limits, uint256 n) internal pure returns (uint256) {
        (uint256 root, uint256 tooLarge) = (0, 1 << 17);
        while (tooLarge - root > 1) {
            uint256 middle = (root + tooLarge) / 2;
            if (middle * middle <= n << 16) root = middle;
            else tooLarge = middle;
        }
        return limits.thrBase + (limits.thrSlope * n + (limits.thrSpread * root >> 8) >> 16);
    }

    function mediansOf(uint256 seed, Party[] memory parties, uint256 positions)
        internal
        pure
        returns (uint256[] memory medians)
    {
        medians = new uint256[](positions);
        for (uint256 p; p < positions; ++p) {
            // The one that half of the others, rounded down, are below: counted, not sorted.
            for (uint256 i = 2; i < parties.length; ++i) {
                if (!parties[i].isOpen) continue;
                (uint256 below, uint256 open) = (0, 0);
                for (uint256 k = 2; k < parties.length; ++k) {
                    if (!parties[k].isOpen) continue;
                    ++open;
                    (uint256 one, uint256 other) = (marginOf(seed, k, p), marginOf(seed, i, p));
                    if (one < other || (one == other && k < i)) ++below;
                }
                if (below == (open - 1) / 2) medians[p] = marginOf(seed, i, p);
            }
        }
    }

    function failsIn(uint256[] memory margins, Calibration memory limits) internal pure returns (bool fails) {
        uint256 sum;
        for (uint256 i; i < margins.length; ++i) {
            fails = fails || margins[i] > limits.hardMargin;
            sum += margins[i] > 32_768 ? 32_768 : margins[i];
        }
        return fails || sum > limits.marginBar;
    }
}
