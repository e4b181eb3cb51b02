// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {NodeId, SessionId} from "../../../src/types/Ids.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolReleaseTest is PoolBase {
    /// [D4]
    function testFuzz_frees_the_place_for_draws_after_this_second(bytes32 seed) public {
        newNodes(1, 1);
        NodeId nodeId = drawOne(5);
        vm.expectEmit();
        emit INodePool.NodeReleased(nodeId, SessionId.wrap(5), INDEX);
        release(5, only(nodeId));
        assertPool(1, 1, 0);
        assertEq(draw(6, seed, 1).length, 0, "in the same second");
        skipTime(1);
        drawOne(7);
        assertEq(pool.reservationsOf(nodeId), 1, "again");
    }

    function testFuzz_frees_the_place_of_that_session_alone(uint8 sessions, uint8 which) public {
        sessions = uint8(bound(sessions, 2, 8));
        uint64 gone = uint64(bound(which, 1, sessions));
        newNodes(1, 8);
        for (uint64 i = 1; i <= sessions; ++i) {
            drawOne(i);
        }
        release(gone, only(id(1)));
        assertEq(pool.reservationsOf(id(1)), sessions - 1, "others stay");
        for (uint64 i = 1; i <= sessions; ++i) {
            if (i != gone) release(i, only(id(1)));
        }
        assertPool(8, 8, 0);
    }

    function test_a_node_that_does_not_serve_the_session_is_refused() public {
        newNodes(1, 1);
        bytes memory reason = abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, id(1), INDEX);
        vm.expectRevert(reason);
        release(5, only(id(1)));
        drawOne(5);
        vm.expectRevert(reason);
        release(6, only(id(1)));
        release(5, only(id(1)));
        vm.expectRevert(reason);
        release(5, only(id(1)));
    }

    function testFuzz_refuses_who_is_not_the_session(address caller) public {
        vm.assume(caller != SESSION);
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_NotSession.selector, caller));
        vm.prank(caller);
        pool.release(SessionId.wrap(1), INDEX, new NodeId[](0));
    }
}
