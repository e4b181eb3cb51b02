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
    /// Nodes or lives of one step. At each call forge copies all that the step has touched: one long step would take the
    /// square of its length.
    uint256 internal constant STEP = 50;

    uint256[OPERATIONS] internal sums;
    /// Means of the small network, then of the large one.
    uint256[OPERATIONS][2] internal means;
    /// When the last step ended.
    uint256 internal timestamp;
    uint256 internal number;

    /// What forge prints with `-vv`.
    event log(string line);

    modifier step() {
        if (timestamp != 0) {
            vm.warp(timestamp);
            vm.roll(number);
        }
        _;
        (timestamp, number) = (block.timestamp, block.number);
    }

    function setUp() public override {}

    /// Transactions that forge makes before the test: both networks with their past, and what is measured in them.
    function beforeTestSetup(bytes4 test) external returns (bytes[] memory steps) {
        bool skewed = test == this.test_skewed_stakes.selector;
        uint256[2] memory sizes = [SMALL, vm.envOr("ASSAY_FLAT_SIZE", uint256(100))];
        uint256 calls = vm.envOr("ASSAY_FLAT_CALLS", uint256(400));
        uint256 count;
        for (uint256 network; network < 2; ++network) {
            count += 2 + 2 * stepsOf(sizes[network]) + stepsOf(calls);
        }
        steps = new bytes[](count);
        count = 0;
        for (uint256 network; network < 2; ++network) {
            uint256 size = sizes[network];
            steps[count++] = abi.encodeCall(this.begin, ());
            for (uint256 i; i < size; i += STEP) {
                steps[count++] = abi.encodeCall(this.join, (i + 1, min(size, i + STEP), skewed));
            }
            // So many sessions, and two tasks of each, have been.
            for (uint256 i; i < size; i += STEP) {
                steps[count++] = abi.encodeCall(this.pass, (min(STEP, size - i), false));
            }
            for (uint256 i; i < calls; i += STEP) {
                steps[count++] = abi.encodeCall(this.pass, (min(STEP, calls - i), true));
            }
            steps[count++] = abi.encodeCall(this.conclude, (network, calls));
        }
    }

    function stepsOf(uint256 count) internal pure returns (uint256) {
        return (count + STEP - 1) / STEP;
    }

    function min(uint256 a, uint256 b) internal pure returns (uint256) {
        return a < b ? a : b;
    }

    function test_even_stakes() public {
        compare();
    }

    function test_skewed_stakes() public {
        compare();
    }

    function compare() internal {
        string[OPERATIONS] memory names =
            ["open", "activate", "submit", "commit", "settle", "advance", "close", "finish"];
        for (uint256 i; i < OPERATIONS; ++i) {
            (uint256 small, uint256 large) = (means[0][i], means[1][i]);
            string memory line = string.concat(names[i], ": ", vm.toString(small), " gas, ", vm.toString(large), " gas");
            emit log(line);
            uint256 apart = small > large ? small - large : large - small;
            assertTrue(small != 0 && apart * 10_000 <= small * TOLERANCE_BPS, line);
        }
    }

    /// A network without nodes.
    function begin() external step {
        Base.setUp();
        fund(client, 200_000_000e18);
        delete sums;
    }

    /// Nodes of these numbers. Stakes are places: all have four, or one in ten has eight and the others have one.
    function join(uint256 first, uint256 last, bool skewed) external step {
        for (uint256 i = first; i <= last; ++i) {
            NodeRegistration memory wanted = registration(i, skewed ? (i % 10 == 0 ? 8 : 1) : 4);
            wanted.payout = payoutOf(1);
            NodeId nodeId = register(i, wanted);
            vm.prank(address(queue));
            stats.count(nodeId, Series.Drawn, Outcome.Declined, 1);
        }
        skipTime(ACTIVATION_DELAY + 1);
    }

    /// So many lives.
    function pass(uint256 lives, bool measured) external step {
        recordTasks();
        uint256[OPERATIONS] memory spent;
        for (uint256 i; i < lives; ++i) {
            freshly(spent);
        }
        for (uint256 i; measured && i < OPERATIONS; ++i) {
            sums[i] += spent[i];
        }
    }

    /// Mean gas of each operation over so many lives.
    function conclude(uint256 network, uint256 lives) external {
        for (uint256 i; i < OPERATIONS; ++i) {
            means[network][i] = sums[i] / lives;
        }
    }

    /// A life whose memory is used again: a test that keeps all of it pays for it with the square.
    function freshly(uint256[OPERATIONS] memory spent) internal {
        uint256 free;
        assembly {
            free := mload(0x40)
        }
        live(spent);
        assembly {
            mstore(0x40, free)
        }
    }

    /// The whole life of a session.
    function live(uint256[OPERATIONS] memory spent) internal {
        SessionId id = openSession(1, 1);
        spent[0] += lastGas();
        reveal(session.sessionOf(id).drawRound);
        vm.prank(keeper);
        session.activate(id);
        spent[1] += lastGas();
        reveal(session.sessionOf(id).current.seedRound);
        nextBlock();
        work(id, spent);
        vm.prank(client);
        session.close(id);
        spent[6] += lastGas();
        skipTime(NOTICE + 1);
        vm.prank(keeper);
        session.finish(id);
        spent[7] += lastGas();
    }

    /// A task that is answered, and one that is not.
    function work(SessionId id, uint256[OPERATIONS] memory spent) internal {
        TaskRequest memory wanted = request(id, ROUTER_LANE, 0, ANY_NODE);
        vm.prank(router);
        queue.submit(wanted);
        spent[2] += lastGas();
        Task memory task = lastTask();
        Answer memory given = answer(task.parts[0].nodeId, 90, 150);
        vm.prank(operatorOf(given.nodeId));
        queue.commit(task, only(given));
        spent[3] += lastGas();
        task = afterCommit(task, 0, given);
        skipTime(SETTLE_DELAY);
        vm.prank(keeper);
        queue.settle(only(task));
        spent[4] += lastGas();
        wanted = request(id, ROUTER_LANE, 1, ANY_NODE);
        vm.prank(router);
        queue.submit(wanted);
        task = lastTask();
        vm.warp(uint256(task.finalBy) + 1);
        vm.prank(keeper);
        queue.advance(task);
        spent[5] += lastGas();
    }

    function lastGas() internal view returns (uint256) {
        return vm.lastCallGas().gasTotalUsed;
    }
}
