// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaf, Party} from "../src/interfaces/IProofOfInference.sol";
import {Calibration, Calibrations} from "../src/libraries/Calibrations.sol";
import {Clusters} from "../src/libraries/Clusters.sol";
import {Hearings, Ruling} from "../src/libraries/Hearings.sol";
import {Multiproof} from "../src/libraries/Multiproof.sol";
import {Positions} from "../src/libraries/Positions.sol";
import {Verdicts} from "../src/libraries/Verdicts.sol";
import {NodeId, TaskId} from "../src/types/Ids.sol";
import {IVm} from "./IVm.sol";
import {Trees} from "./Trees.sol";

/// `vectors/proof.json`, which the Rust tests read too and a third implementation writes.
contract ProofVectorsTest {
    using Calibrations for uint256;
    using Calibrations for Calibration;

    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    string internal json;

    function setUp() public {
        json = vm.readFile("contracts/test/vectors/proof.json");
    }

    // ---------------------------------------------------------------- what the libraries take from calldata

    function hashOf(uint256[] memory positions, Leaf[] calldata leaves, uint256 contrasts, bool margins)
        external
        pure
        returns (bytes32)
    {
        return Multiproof.hashesOf(positions, leaves, contrasts, margins)[0];
    }

    function rootOf(uint256 n, uint256[] memory positions, bytes32[] memory hashes, bytes32[] calldata nodes)
        external
        pure
        returns (bytes32)
    {
        return Multiproof.rootOf(n, positions, hashes, nodes);
    }

    function check(uint256 packed) external pure {
        Verdicts.check(packed, uint32(packed));
    }

    function kept(Leaf[] calldata leaves) external pure returns (Party memory party) {
        Hearings.keep(party, leaves, false);
    }

    // ---------------------------------------------------------------- leaves and trees

    function test_leaves() public view {
        uint256 i;
        for (; has("leaves", i); ++i) {
            uint256 contrasts = number("leaves", i, "contrasts");
            uint256[] memory positions = new uint256[](1);
            positions[0] = number("leaves", i, "position");
            Leaf[] memory leaves = new Leaf[](1);
            uint64 packed = uint64(number("leaves", i, "packed"));
            leaves[0] = Leaf(uint32(number("leaves", i, "token")), packed, uint32(number("leaves", i, "margin")));
            same(this.hashOf(positions, leaves, contrasts, false), word("leaves", i, "leaf"), "leaf", i);
            same(this.hashOf(positions, leaves, contrasts, true), word("leaves", i, "auditLeaf"), "audit leaf", i);
        }
        many(i, 10);
    }

    function test_proofs() public view {
        uint256 i;
        for (; has("proofs", i); ++i) {
            same(rootAt("proofs", i), word("proofs", i, "root"), "root", i);
        }
        many(i, 30);
    }

    function test_bad_proofs_are_refused() public view {
        uint256 i;
        for (; has("badProofs", i); ++i) {
            try this.rootAt("badProofs", i) returns (bytes32 root) {
                require(root != word("badProofs", i, "root"), vm.toString(i));
            } catch {}
        }
        many(i, 15);
    }

    function rootAt(string memory list, uint256 i) public view returns (bytes32) {
        bytes32[] memory hashes = vm.parseJsonBytes32Array(json, path(list, i, "opened"));
        bytes32[] memory nodes = vm.parseJsonBytes32Array(json, path(list, i, "nodes"));
        uint256[] memory positions = vm.parseJsonUintArray(json, path(list, i, "positions"));
        return this.rootOf(number(list, i, "leaves"), positions, hashes, nodes);
    }

    /// The roots that miners seal.
    function test_records() public view {
        uint256 i;
        for (; has("records", i); ++i) {
            uint256 contrasts = number("records", i, "contrasts");
            uint256[] memory ids = vm.parseJsonUintArray(json, path("records", i, "ids"));
            bytes memory proofBlock = vm.parseJsonBytes(json, path("records", i, "proofBlock"));
            Leaf[] memory leaves = new Leaf[](ids.length);
            for (uint256 t; t < ids.length; ++t) {
                uint64 packed;
                for (uint256 k; k < 2 * contrasts; ++k) {
                    packed = packed << 8 | uint8(proofBlock[2 * contrasts * t + k]);
                }
                leaves[t] = Leaf(uint32(ids[t]), packed, 0);
            }
            bytes32 root = Trees.rootOf(Trees.hashesOf(leaves, contrasts, false));
            same(root, word("records", i, "root"), "root", i);
        }
        many(i, 3);
    }

    // ---------------------------------------------------------------- positions

    function test_draws() public view {
        uint256 i;
        for (; has("draws", i); ++i) {
            uint256[] memory drawn = Positions.draw(
                word("draws", i, "seed"),
                number("draws", i, "first"),
                number("draws", i, "count"),
                number("draws", i, "wanted")
            );
            same(drawn, vm.parseJsonUintArray(json, path("draws", i, "positions")), "positions", i);
        }
        many(i, 11);
    }

    function test_blocks() public view {
        uint256 i;
        for (; has("blocks", i); ++i) {
            uint256 n = number("blocks", i, "tokens");
            uint256 k;
            string memory windows = path("blocks", i, "windows");
            for (; vm.keyExistsJson(json, string.concat(windows, "[", vm.toString(k), "]")); ++k) {
                uint256[] memory wanted = vm.parseJsonUintArray(json, string.concat(windows, "[", vm.toString(k), "]"));
                (uint256 first, uint256 count) = Positions.windowOf(n, k);
                same(first, wanted[0], "first", i);
                same(count, wanted[1], "count", i);
            }
            same(Positions.blocksOf(n), k, "blocks", i);
        }
        many(i, 15);
    }

    function test_agreements() public view {
        uint256 i;
        for (; has("agreements", i); ++i) {
            uint256[] memory ours = vm.parseJsonUintArray(json, path("agreements", i, "ours"));
            uint256[] memory theirs = vm.parseJsonUintArray(json, path("agreements", i, "theirs"));
            (uint256 contrasts, uint256 close) = (number("agreements", i, "contrasts"), 0);
            for (uint256 k; k < ours.length; ++k) {
                uint256 limit = number("agreements", i, "limit");
                close += Verdicts.closeContrasts(uint64(ours[k]), uint64(theirs[k]), contrasts, limit);
            }
            bool agree = vm.parseJsonBool(json, path("agreements", i, "agree"));
            require((2 * close > contrasts * ours.length) == agree, vm.toString(i));
        }
        many(i, 9);
    }

    // ---------------------------------------------------------------- words

    function test_calibrations() public view {
        uint256 i;
        for (; has("calibrations", i); ++i) {
            uint256 packed = uint256(word("calibrations", i, "word"));
            require(packed.isValid(), "valid");
            Calibration memory got = packed.unpack();
            same(got.tau, number("calibrations", i, "tau"), "tau", i);
            same(got.spotTau, number("calibrations", i, "spotTau"), "spotTau", i);
            same(got.blockLimit, number("calibrations", i, "blockLimit"), "blockLimit", i);
            same(got.contrasts, number("calibrations", i, "contrasts"), "contrasts", i);
            same(got.hardMargin, number("calibrations", i, "hardMargin"), "hardMargin", i);
            same(got.marginBar, number("calibrations", i, "marginBar"), "marginBar", i);
            same(got.thrBase, number("calibrations", i, "thrBase"), "thrBase", i);
            same(got.thrSlope, number("calibrations", i, "thrSlope"), "thrSlope", i);
            same(got.thrSpread, number("calibrations", i, "thrSpread"), "thrSpread", i);
            same(got.drift, number("calibrations", i, "drift"), "drift", i);
            same(got.driftLimit, number("calibrations", i, "driftLimit"), "driftLimit", i);
            uint256[] memory tokens = vm.parseJsonUintArray(json, path("calibrations", i, "tokens"));
            uint256[] memory thr = vm.parseJsonUintArray(json, path("calibrations", i, "thr"));
            for (uint256 k; k < tokens.length; ++k) {
                same(got.threshold(tokens[k]), thr[k], "thr", i);
            }
        }
        many(i, 3);
        for (i = 0; has("badCalibrations", i); ++i) {
            require(!uint256(word("badCalibrations", i, "word")).isValid(), vm.toString(i));
        }
        many(i, 19);
    }

    function test_statistics() public view {
        uint256 i;
        for (; has("statistics", i); ++i) {
            uint256 packed = uint256(word("statistics", i, "word"));
            this.check(packed);
            same(uint32(packed), number("statistics", i, "tokens"), "tokens", i);
            same(Verdicts.maxMarginOf(packed), number("statistics", i, "maxMargin"), "maxMargin", i);
            same(Verdicts.marginSumOf(packed), number("statistics", i, "marginSum"), "marginSum", i);
            same(Verdicts.flagsOf(packed), number("statistics", i, "faults"), "faults", i);
        }
        many(i, 5);
        for (i = 0; has("badStatistics", i); ++i) {
            try this.check(uint256(word("badStatistics", i, "word"))) {
                revert(vm.toString(i));
            } catch {}
        }
        many(i, 7);
    }

    function test_seals() public view {
        uint256 i;
        for (; has("seals", i); ++i) {
            TaskId taskId = TaskId.wrap(word("seals", i, "taskId"));
            uint256 miner = number("seals", i, "minerId");
            bytes32 seed = Positions.seedOf(word("seals", i, "round"), taskId, NodeId.wrap(uint32(miner)));
            same(seed, word("seals", i, "positionSeed"), "seed", i);
            bytes memory head = abi.encode(
                keccak256("assay.commit.audit.v1"),
                number("seals", i, "chainId"),
                vm.parseJsonAddress(json, path("seals", i, "queue")),
                taskId
            );
            bytes memory tail = abi.encode(
                number("seals", i, "validatorId"),
                miner,
                word("seals", i, "root"),
                word("seals", i, "statistics"),
                word("seals", i, "salt")
            );
            same(keccak256(bytes.concat(head, tail)), word("seals", i, "seal"), "seal", i);
        }
        many(i, 3);
    }

    function test_verdicts() public view {
        uint256 i;
        for (; has("verdicts", i); ++i) {
            uint256 packed = uint256(word("verdicts", i, "statistics"));
            Calibration memory limits = uint256(word("verdicts", i, "calibration")).unpack();
            uint256 failing = number("verdicts", i, "failingBlocks");
            uint8 reasons = Verdicts.reasonsOf(packed, failing, limits);
            if (!vm.parseJsonBool(json, path("verdicts", i, "spotAgrees"))) reasons |= Verdicts.SPOT;
            same(reasons, number("verdicts", i, "reasons"), "reasons", i);
            bool possible = Positions.canFail(uint32(packed), failing, number("verdicts", i, "worstBlock"));
            require(possible == vm.parseJsonBool(json, path("verdicts", i, "possible")), vm.toString(i));
        }
        many(i, 22);
    }

    function test_drifts() public view {
        uint256 i;
        for (; has("cusums", i); ++i) {
            (uint32 sum, bool alarm) = Verdicts.drifted(
                uint32(number("cusums", i, "before")),
                uint256(word("cusums", i, "statistics")),
                uint256(word("cusums", i, "calibration")).unpack()
            );
            same(sum, number("cusums", i, "after"), "after", i);
            require(alarm == vm.parseJsonBool(json, path("cusums", i, "alarms")), vm.toString(i));
        }
        many(i, 8);
    }

    // ---------------------------------------------------------------- panels

    function test_clusters() public view {
        uint256 i;
        for (; has("clusters", i); ++i) {
            uint256 inside = Clusters.inside(closeAt(i), vm.parseJsonAddressArray(json, path("clusters", i, "owners")));
            bool[] memory wanted = vm.parseJsonBoolArray(json, path("clusters", i, "inside"));
            for (uint256 k; k < wanted.length; ++k) {
                require((inside >> k & 1 == 1) == wanted[k], vm.toString(i));
            }
            require((inside != 0) == vm.parseJsonBool(json, path("clusters", i, "decided")), vm.toString(i));
        }
        many(i, 15);
    }

    /// Who is near whom.
    function closeAt(uint256 i) internal view returns (uint256[] memory close) {
        uint256 contrasts = number("clusters", i, "contrasts");
        uint256 size = vm.parseJsonAddressArray(json, path("clusters", i, "owners")).length;
        close = new uint256[](size);
        Party[] memory parties = new Party[](size);
        uint256 positions;
        for (uint256 k; k < size; ++k) {
            uint256[] memory ids = listed(i, "tokens", k);
            uint256[] memory values = listed(i, "leaves", k);
            Leaf[] memory leaves = new Leaf[](positions = ids.length);
            for (uint256 p; p < positions; ++p) {
                leaves[p] = Leaf(uint32(ids[p]), uint64(values[p]), 0);
            }
            parties[k] = this.kept(leaves);
        }
        for (uint256 k; k < size; ++k) {
            uint256[] memory limits = listed(i, "limits", k);
            for (uint256 j; j < size; ++j) {
                if (j != k && Hearings.areClose(parties[k], parties[j], positions, contrasts, limits[j])) {
                    close[k] |= 1 << j;
                }
            }
        }
    }

    function listed(uint256 i, string memory key, uint256 k) internal view returns (uint256[] memory) {
        return vm.parseJsonUintArray(json, string.concat(path("clusters", i, key), "[", vm.toString(k), "]"));
    }

    function test_panels_of_margins() public view {
        uint256 i;
        for (; has("marginPanels", i); ++i) {
            uint256[] memory medians = vm.parseJsonUintArray(json, path("marginPanels", i, "medians"));
            for (uint256 p; p < medians.length; ++p) {
                string memory at_ = string.concat(path("marginPanels", i, "margins"), "[", vm.toString(p), "]");
                same(Clusters.lowerMedian(vm.parseJsonUintArray(json, at_)), medians[p], "median", i);
            }
            Calibration memory limits = uint256(word("marginPanels", i, "calibration")).unpack();
            bool convicted = vm.parseJsonBool(json, path("marginPanels", i, "convicted"));
            require(Verdicts.failsMargins(medians, limits) == convicted, vm.toString(i));
        }
        many(i, 8);
    }

    function test_upheld_flags() public view {
        uint256 i;
        for (; has("upheld", i); ++i) {
            bytes32[] memory words = vm.parseJsonBytes32Array(json, path("upheld", i, "statistics"));
            Party[] memory parties = new Party[](Hearings.FIRST_MEMBER + words.length);
            for (uint256 k; k < words.length; ++k) {
                Party memory party = parties[Hearings.FIRST_MEMBER + k];
                (party.isOpen, party.statistics) = (true, uint256(words[k]));
            }
            uint256 faults = number("upheld", i, "faults");
            // Flags need none.
            Calibration memory limits;
            same(Hearings.upheldOf(parties, Verdicts.FLAGS, limits), faults, "faults", i);
            Ruling memory ruling;
            Hearings.poll(parties, Verdicts.FLAGS, ruling, limits);
            require(ruling.guilty == (faults != 0), vm.toString(i));
        }
        many(i, 5);
    }

    // ---------------------------------------------------------------- the file

    function path(string memory list, uint256 i) internal pure returns (string memory) {
        return string.concat(".", list, "[", vm.toString(i), "]");
    }

    function path(string memory list, uint256 i, string memory key) internal pure returns (string memory) {
        return string.concat(path(list, i), ".", key);
    }

    function has(string memory list, uint256 i) internal view returns (bool) {
        return vm.keyExistsJson(json, path(list, i));
    }

    function number(string memory list, uint256 i, string memory key) internal view returns (uint256) {
        return vm.parseJsonUint(json, path(list, i, key));
    }

    function word(string memory list, uint256 i, string memory key) internal view returns (bytes32) {
        return vm.parseJsonBytes32(json, path(list, i, key));
    }

    function same(uint256 got, uint256 wanted, string memory what, uint256 i) internal pure {
        require(got == wanted, string.concat(what, " of ", vm.toString(i)));
    }

    function same(bytes32 got, bytes32 wanted, string memory what, uint256 i) internal pure {
        same(uint256(got), uint256(wanted), what, i);
    }

    function same(uint256[] memory got, uint256[] memory wanted, string memory what, uint256 i) internal pure {
        same(keccak256(abi.encode(got)), keccak256(abi.encode(wanted)), what, i);
    }

    function many(uint256 found, uint256 least) internal pure {
        require(found >= least, "too few vectors");
    }
}
