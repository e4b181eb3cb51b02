// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration} from "../../src/interfaces/INodePool.sol";
import {Outcome, Series} from "../../src/interfaces/INodeStats.sol";
import {Answer, Task, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {NodeId, SessionId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

/// [G1] Whole lives of sessions in a small and in a large network: what each transaction costs on average does not
/// depend on how many nodes, sessions and tasks there are, nor on how unevenly the stake lies.
///
/// `ASSAY_FLAT_SIZE` nodes, sessions and tasks, and `ASSAY_FLAT_CALLS` lives; 10,000 and 1,000 before a release.
/// Everybody has worked before: an account's first payment and a node's first count write a new word, whatever the
/// size of the network.
contract FlatTest is Base {
    uint256 internal constant SMALL = 10;
    /// Hundredths of a percent.
    uint256 internal constant TOLERANCE_BPS = 200;
    uint256 internal constant OPERATIONS = 8;

    /// What forge prints with `-vv`.
    event log(string line);

    function setUp() public override {}

    function test_even_stakes() public {
        compare(false);
    }

    function test_skewed_stakes() public {
        compare(true);
    }

    function compare(bool skewed) internal {
        uint256 size = vm.envOr("ASSAY_FLAT_SIZE", uint256(100));
        uint256 calls = vm.envOr("ASSAY_FLAT_CALLS", uint256(400));
        uint256[OPERATIONS] memory small = meansOf(SMALL, calls, skewed);
        uint256[OPERATIONS] memory large = meansOf(size, calls, skewed);
        string[OPERATIONS] memory names =
            ["open", "activate", "submit", "commit", "settle", "advance", "close", "finish"];
        for (uint256 i; i < OPERATIONS; ++i) {
            string memory line =
                string.concat(names[i], ": ", vm.toString(small[i]), " gas, ", vm.toString(large[i]), " gas");
            emit log(line);
            uint256 apart = small[i] > large[i] ? small[i] - large[i] : large[i] - small[i];
            assertTrue(apart * 10_000 <= small[i] * TOLERANCE_BPS, line);
        }
    }

    /// Mean gas of each operation, in a network of so many nodes, past sessions and past tasks.
    function meansOf(uint256 size, uint256 calls, bool skewed) internal returns (uint256[OPERATIONS] memory sums) {
        Base.setUp();
        fund(client, 200_000_000e18);
        populate(size, skewed);
        recordTasks();
        // So many sessions, and two tasks of each, have been.
        uint256[OPERATIONS] memory ignored;
        for (uint256 i; i < size; ++i) {
            freshly(ignored);
        }
        for (uint256 i; i < calls; ++i) {
            freshly(sums);
        }
        for (uint256 i; i < OPERATIONS; ++i) {
            sums[i] /= calls;
        }
    }

    /// Stakes are places: all have four, or one in ten has eight and the others have one.
    function populate(uint256 size, bool skewed) internal {
        for (uint256 i = 1; i <= size; ++i) {
            NodeRegistration memory wanted = registration(i, skewed ? (i % 10 == 0 ? 8 : 1) : 4);
            wanted.payout = payoutOf(1);
            NodeId nodeId = register(i, wanted);
            vm.prank(address(queue));
            stats.count(nodeId, Series.Drawn, Outcome.Declined, 1);
        }
        skipTime(ACTIVATION_DELAY + 1);
    }

    /// A life whose memory is used again: a test that keeps all of it pays for it with the square.
    function freshly(uint256[OPERATIONS] memory sums) internal {
        uint256 free;
        assembly {
            free := mload(0x40)
        }
        live(sums);
        assembly {
            mstore(0x40, free)
        }
    }

    /// The whole life of a session.
    function live(uint256[OPERATIONS] memory sums) internal {
        SessionId id = openSession(1, 1);
        sums[0] += lastGas();
        reveal(session.sessionOf(id).drawRound);
        vm.prank(keeper);
        session.activate(id);
        sums[1] += lastGas();
        reveal(session.sessionOf(id).current.seedRound);
        nextBlock();
        work(id, sums);
        vm.prank(client);
        session.close(id);
        sums[6] += lastGas();
        skipTime(NOTICE + 1);
        vm.prank(keeper);
        session.finish(id);
        sums[7] += lastGas();
    }

    /// A task that is answered, and one that is not.
    function work(SessionId id, uint256[OPERATIONS] memory sums) internal {
        TaskRequest memory wanted = request(id, ROUTER_LANE, 0, ANY_NODE);
        vm.prank(router);
        queue.submit(wanted);
        sums[2] += lastGas();
        Task memory task = lastTask();
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        vm.prank(operatorOf(given.nodeId));
        queue.commit(task, only(given));
        sums[3] += lastGas();
        task = afterCommit(task, 0, given);
        skipTime(SETTLE_DELAY);
        vm.prank(keeper);
        queue.settle(only(task));
        sums[4] += lastGas();
        wanted = request(id, ROUTER_LANE, 1, ANY_NODE);
        vm.prank(router);
        queue.submit(wanted);
        task = lastTask();
        vm.warp(uint256(task.finalBy) + 1);
        vm.prank(keeper);
        queue.advance(task);
        sums[5] += lastGas();
    }

    function lastGas() internal view returns (uint256) {
        return vm.lastCallGas().gasTotalUsed;
    }
}
