// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

/// `candidateAt`, `ownerOf`: what draws of validators read.
contract NodePoolCandidatesTest is PoolBase {
    function candidate(uint32 index, uint40 asOf) internal view returns (uint32) {
        (NodeId nodeId, address owner, NumericClass class_) = pool.candidateAt(INDEX, index, asOf);
        (address told, NumericClass toldClass) = pool.ownerOf(nodeId);
        assertEq(owner, told, "owner");
        assertEq(NumericClass.unwrap(class_), NumericClass.unwrap(toldClass), "class");
        return NodeId.unwrap(nodeId);
    }

    /// [V2]
    function test_a_place_counts_from_its_activation_on() public {
        newNode(1, 1);
        uint40 from = uint40(block.timestamp) + ACTIVATION_DELAY;
        assertEq(candidate(0, from - 1), 0, "before");
        assertEq(candidate(0, from), 1, "from then on");
        assertEq(candidate(1, from), 0, "no such place");
    }

    /// [V2]
    function test_who_drains_later_was_there() public {
        newNode(1, 1);
        skipTime(ACTIVATION_DELAY);
        uint40 asOf = uint40(block.timestamp);
        skipTime(10);
        drain(1);
        assertEq(candidate(0, asOf), 1, "then");
        assertEq(candidate(0, uint40(block.timestamp) + 1), 0, "not later");
    }

    function test_a_jailed_node_is_no_validator() public {
        newNode(1, 1);
        skipTime(ACTIVATION_DELAY);
        uint40 asOf = uint40(block.timestamp);
        vm.prank(PROOF);
        pool.jail(id(1));
        assertEq(candidate(0, asOf), 0, "jailed");
    }

    function test_nobody_owns_what_is_not_there() public view {
        (address owner, NumericClass class_) = pool.ownerOf(id(7));
        assertEq(owner, address(0), "owner");
        assertEq(NumericClass.unwrap(class_), 0, "class");
    }
}
