// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {Audit, Leaf, Party, Question} from "../interfaces/IProofOfInference.sol";
import {Rule} from "../interfaces/ISessionPayment.sol";
import {ModelIndex, NodeId, NumericClass} from "../types/Ids.sol";
import {Calibration, Calibrations} from "./Calibrations.sol";
import {Clusters} from "./Clusters.sol";
import {Jury} from "./Jury.sol";
import {Verdicts} from "./Verdicts.sol";

/// What a hearing comes to. Parties are bits.
struct Ruling {
    Question question;
    /// Enough of them had a word.
    bool decided;
    /// The answer is false.
    bool guilty;
    /// Who found the answer false.
    uint256 failing;
    /// Who is contradicted by a quorum, and who is the quorum.
    uint256 losers;
    uint256 against;
}

/// How a panel decides. Nothing here is stored.
library Hearings {
    /// Those whose contrasts are compared.
    struct Bench {
        /// Their places among the parties.
        uint256[] places;
        address[] owners;
        NumericClass[] classes;
        uint256[] close;
        uint256 positions;
        ModelIndex model;
        uint40 committedAt;
        IModelRegistry models;
    }

    uint256 internal constant MINER = 0;
    uint256 internal constant ACCUSER = 1;
    uint256 internal constant FIRST_MEMBER = 2;
    /// Members of a panel: with the first validator, one more than the quorum.
    uint256 internal constant MEMBERS = 3;
    /// Members of the panel that an appeal goes to: as many as fit one word, and an odd number.
    uint256 internal constant APPEAL_MEMBERS = 7;

    /// Miner and accuser, and room for so many members.
    function partiesOf(Audit memory audit, uint256 members) internal pure returns (Party[] memory parties) {
        parties = new Party[](FIRST_MEMBER + members);
        (parties[MINER].nodeId, parties[MINER].root) = (audit.nodeId, audit.root);
        (parties[ACCUSER].nodeId, parties[ACCUSER].root) = (audit.validator, audit.validatorRoot);
        (parties[MINER].isSealed, parties[ACCUSER].isSealed) = (true, true);
    }

    function isAppeal(Party[] memory parties) internal pure returns (bool) {
        return parties.length > FIRST_MEMBER + MEMBERS;
    }

    /// Keeps what a party opened: the ids, and margins or contrasts.
    function keep(Party memory party, Leaf[] calldata leaves, bool margins) internal pure {
        bytes memory ids;
        for (uint256 i; i < leaves.length; ++i) {
            ids = abi.encodePacked(ids, leaves[i].id);
            if (margins) party.values[i >> 3] |= uint256(leaves[i].margin) << (224 - 32 * (i & 7));
            else party.values[i >> 2] |= uint256(leaves[i].contrasts) << (192 - 64 * (i & 3));
        }
        party.ids = keccak256(ids);
    }

    /// Those that have opened.
    function openOf(Party[] memory parties) internal pure returns (uint256 open) {
        for (uint256 i; i < parties.length; ++i) {
            if (parties[i].isOpen) open |= 1 << i;
        }
    }

    /// Those that have committed and not opened. The miner and the accuser have to where contrasts are compared.
    function missingOf(Party[] memory parties, Question question) internal pure returns (uint256 missing) {
        for (uint256 i = question == Question.Weights ? MINER : FIRST_MEMBER; i < parties.length; ++i) {
            if (parties[i].isSealed && !parties[i].isOpen) missing |= 1 << i;
        }
    }

    function nodesOf(Party[] memory parties, uint256 bits) internal pure returns (NodeId[] memory nodes) {
        nodes = new NodeId[](Clusters.sizeOf(bits));
        uint256 count;
        for (uint256 i; i < parties.length; ++i) {
            if (bits >> i & 1 == 1) nodes[count++] = parties[i].nodeId;
        }
    }

    function ruleOf(Question question) internal pure returns (Rule) {
        if (question == Question.Weights) return Rule.Fingerprint;
        return question == Question.Sampling ? Rule.Sampling : Rule.Content;
    }

    // ---------------------------------------------------------------- weights

    /// Clusters of those whose contrasts agree: a miner outside of all that win has used other weights.
    function compare(Audit memory audit, Party[] memory parties, Ruling memory ruling, Jury.Contracts memory contracts)
        internal
        view
    {
        Bench memory bench = _benchOf(parties, contracts);
        bench.positions = audit.outputTokens < Verdicts.MANY ? audit.outputTokens : Verdicts.MANY;
        (bench.model, bench.committedAt) = (audit.model, audit.committedAt);
        uint256 size = bench.owners.length;
        for (uint256 i; i < size; ++i) {
            for (uint256 j = i + 1; j < size; ++j) {
                if (!_agree(bench, parties, i, j)) continue;
                bench.close[i] |= 1 << j;
                bench.close[j] |= 1 << i;
            }
        }
        uint256 inside = Clusters.inside(bench.close, bench.owners);
        if (inside == 0) return;
        ruling.decided = true;
        uint256 open;
        for (uint256 i; i < size; ++i) {
            open |= 1 << bench.places[i];
            if (inside >> i & 1 == 1) ruling.against |= 1 << bench.places[i];
        }
        ruling.guilty = ruling.against >> MINER & 1 == 0;
        if (ruling.guilty) ruling.failing = ruling.against;
        // The miner, the first of all, is no witness, neither for itself nor against others.
        ruling.against &= ~(uint256(1) << MINER);
        if (bench.places[0] == MINER) inside &= ~uint256(1);
        if (Clusters.ownersOf(inside, bench.owners) < Clusters.QUORUM) return;
        ruling.losers = open & ~ruling.against & ~(uint256(1) << MINER);
    }

    function _benchOf(Party[] memory parties, Jury.Contracts memory contracts)
        private
        view
        returns (Bench memory bench)
    {
        uint256 open = openOf(parties);
        bench.models = contracts.models;
        uint256 size = Clusters.sizeOf(open);
        (bench.places, bench.close) = (new uint256[](size), new uint256[](size));
        (bench.owners, bench.classes) = (new address[](size), new NumericClass[](size));
        uint256 k;
        for (uint256 i; i < parties.length; ++i) {
            if (open >> i & 1 == 0) continue;
            bench.places[k] = i;
            (bench.owners[k], bench.classes[k]) = contracts.pool.ownerOf(parties[i].nodeId);
            ++k;
        }
    }

    /// Held against what their classes may differ by, whichever of them the pair names first.
    function _agree(Bench memory bench, Party[] memory parties, uint256 i, uint256 j) private view returns (bool) {
        (NumericClass one, NumericClass other) = (bench.classes[i], bench.classes[j]);
        uint256 word = bench.models.calibrationBefore(bench.model, one, other, bench.committedAt);
        if (word == 0) word = bench.models.calibrationBefore(bench.model, other, one, bench.committedAt);
        // Classes that nobody had calibrated cannot be compared: nothing is close.
        if (word == 0) return false;
        Calibration memory limits = Calibrations.unpack(word);
        uint256 limit = bench.positions >= Verdicts.MANY ? limits.tau : limits.spotTau;
        return areClose(parties[bench.places[i]], parties[bench.places[j]], bench.positions, limits.contrasts, limit);
    }

    /// Whether two parties have the same ids and close contrasts.
    function areClose(Party memory one, Party memory other, uint256 positions, uint256 contrasts, uint256 limit)
        internal
        pure
        returns (bool)
    {
        if (one.ids != other.ids) return false;
        uint256 close;
        for (uint256 i; i < 4; ++i) {
            close += Verdicts.closeLanes(one.values[i], other.values[i], limit);
        }
        // What is not there is the same on both sides.
        uint256 compared = positions * contrasts;
        return 2 * (close + compared - 4 * Verdicts.LANES) > compared;
    }

    // ---------------------------------------------------------------- sampling

    /// Medians of the panel's margins at the positions that the accuser named; and what else of its reasons the panel
    /// upholds, for neither a sum over a whole answer nor a false text has to show at sixteen positions.
    function weigh(
        Party[] memory parties,
        Ruling memory ruling,
        uint256 positions,
        uint8 reasons,
        Calibration memory limits
    ) internal pure {
        uint256 members;
        for (uint256 i = FIRST_MEMBER; i < parties.length; ++i) {
            if (!parties[i].isOpen) continue;
            ++members;
            bool fails = Verdicts.failsMargins(_marginsOf(parties[i], positions), limits);
            // One who committed to the same does not contradict the accuser.
            if (!fails) fails = _foundBy(parties[i], limits) & reasons != 0;
            if (fails) ruling.failing |= 1 << i;
            else ruling.against |= 1 << i;
        }
        uint256[] memory medians = new uint256[](positions);
        for (uint256 p; p < positions; ++p) {
            uint256[] memory values = new uint256[](members);
            uint256 k;
            for (uint256 i = FIRST_MEMBER; i < parties.length; ++i) {
                if (parties[i].isOpen) values[k++] = _marginAt(parties[i], p);
            }
            medians[p] = Clusters.lowerMedian(values);
        }
        (ruling.decided, ruling.guilty) = (true, Verdicts.failsMargins(medians, limits));
        if (!ruling.guilty && uphold(parties, reasons, ruling, limits)) return;
        _blame(ruling, members);
    }

    function _marginsOf(Party memory party, uint256 positions) private pure returns (uint256[] memory margins) {
        margins = new uint256[](positions);
        for (uint256 p; p < positions; ++p) {
            margins[p] = _marginAt(party, p);
        }
    }

    function _marginAt(Party memory party, uint256 p) private pure returns (uint256) {
        return uint32(party.values[p >> 3] >> (224 - 32 * (p & 7)));
    }

    // ---------------------------------------------------------------- what was committed

    /// Reasons that a member of the panel committed to, before it knew those of anybody else.
    function _foundBy(Party memory party, Calibration memory limits) private pure returns (uint8) {
        return Verdicts.reasonsOf(party.statistics, 0, limits);
    }

    /// Out of `reasons` those that more than half of the panel that has opened committed to.
    function upheldOf(Party[] memory parties, uint8 reasons, Calibration memory limits)
        internal
        pure
        returns (uint8 upheld)
    {
        uint256 members = Clusters.sizeOf(openOf(parties) >> FIRST_MEMBER);
        for (uint8 flag = Verdicts.HARD_MARGIN; flag != 0; flag <<= 1) {
            uint256 raised;
            for (uint256 i = FIRST_MEMBER; i < parties.length; ++i) {
                if (parties[i].isOpen && _foundBy(parties[i], limits) & flag != 0) ++raised;
            }
            if (reasons & flag != 0 && 2 * raised > members) upheld |= flag;
        }
    }

    /// Whether the panel upholds any of `reasons`: that is what the answer is false for then, and who found it has proven
    /// it, unless a quorum contradicts it in something else.
    function uphold(Party[] memory parties, uint8 reasons, Ruling memory ruling, Calibration memory limits)
        internal
        pure
        returns (bool)
    {
        uint8 upheld = upheldOf(parties, reasons, limits);
        if (upheld == 0) return false;
        (ruling.decided, ruling.guilty) = (true, true);
        (ruling.question, ruling.failing) = (Verdicts.questionOf(upheld), 1 << ACCUSER);
        for (uint256 i = FIRST_MEMBER; i < parties.length; ++i) {
            if (parties[i].isOpen && _foundBy(parties[i], limits) & upheld != 0) ruling.failing |= 1 << i;
        }
        ruling.failing &= ~ruling.losers;
        return true;
    }

    /// Whether the panel upholds what the accuser says of the answer's content.
    function poll(Party[] memory parties, uint8 reasons, Ruling memory ruling, Calibration memory limits)
        internal
        pure
    {
        ruling.decided = true;
        if (uphold(parties, reasons, ruling, limits)) return;
        uint256 open = openOf(parties);
        for (uint256 i = FIRST_MEMBER; i < parties.length; ++i) {
            if (open >> i & 1 == 0) continue;
            if (_foundBy(parties[i], limits) & reasons != 0) ruling.failing |= 1 << i;
            else ruling.against |= 1 << i;
        }
        _blame(ruling, Clusters.sizeOf(open));
    }

    /// The accuser is right with the panel, or, if all of a whole panel are against it, has lied.
    function _blame(Ruling memory ruling, uint256 members) private pure {
        if (ruling.guilty) ruling.failing |= 1 << ACCUSER;
        else if (members >= Clusters.QUORUM && ruling.failing == 0) ruling.losers = 1 << ACCUSER;
    }
}
