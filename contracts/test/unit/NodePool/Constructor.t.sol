// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodePool} from "../../../src/NodePool.sol";
import {NodeStats} from "../../../src/NodeStats.sol";
import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {PoolBase} from "./PoolBase.sol";

contract NodePoolConstructorTest is PoolBase {
    function test_wires_what_it_is_given() public view {
        assertEq(pool.session(), SESSION, "session");
        assertEq(pool.queue(), QUEUE, "queue");
        assertEq(pool.models(), address(models), "models");
        assertEq(pool.payment(), address(payment), "payment");
        assertEq(pool.stats(), address(stats), "stats");
        assertEq(pool.parameters(), address(parameters), "parameters");
        assertEq(pool.proof(), PROOF, "proof");
        assertEq(pool.slotReuseDelay(), WINDOW, "a place is reused after the longest draw");
        assertEq(pool.keyGrace(), KEY_GRACE, "grace");
    }

    function testFuzz_refuses_the_zero_address(uint256 which) public {
        NodePool.Wiring memory wanted = wiring();
        which = bound(which, 0, 6);
        // A struct of addresses is one word each.
        assembly {
            mstore(add(wanted, mul(32, which)), 0)
        }
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_ZeroAddress.selector));
        new NodePool(wanted);
    }

    function testFuzz_refuses_epochs_that_end_while_a_draw_waits(uint40 epoch) public {
        epoch = uint40(bound(epoch, 1, WINDOW - 1));
        NodePool.Wiring memory wanted = wiring();
        wanted.stats = address(new NodeStats(NodeStats.Wiring(QUEUE), NodeStats.Config(epoch, LEVEL_PERIOD)));
        vm.expectRevert(abi.encodeWithSelector(INodePool.NodePool_DelaysTooShort.selector, epoch, WINDOW));
        new NodePool(wanted);
        wanted.stats = address(new NodeStats(NodeStats.Wiring(QUEUE), NodeStats.Config(WINDOW, LEVEL_PERIOD)));
        new NodePool(wanted);
    }
}
