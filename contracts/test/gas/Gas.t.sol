// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Commit, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {OpenTerms} from "../../src/interfaces/ISession.sol";
import {NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

/// Gas of whole transactions: run with `--isolate`; written to contracts/snapshots. All accounts are in use already,
/// as in a network that has served tasks before.
contract GasTest is Base {
    SessionId internal id;
    NodeId internal nodeId;

    function setUp() public override {
        super.setUp();
        newNodes(4, 8);
        id = activeSession(1, 1);
        nodeId = session.sessionOf(id).nodes[0];
        // Lanes, balances and tips leave zero.
        queue_(folded(0));
        queue_(folded(1));
        skipTime(SETTLE_DELAY);
        settleRange(0, 2);
    }

    function test_gas_open_without_lane() public {
        OpenTerms memory wanted = terms(1, 1);
        delete wanted.lanes;
        vm.prank(client);
        session.open(wanted);
        vm.snapshotGasLastCall("gas", "open session, no router");
    }

    function test_gas_open_with_lane() public {
        OpenTerms memory wanted = terms(1, 1);
        vm.prank(client);
        session.open(wanted);
        vm.snapshotGasLastCall("gas", "open session, one router");
    }

    function test_gas_activate() public {
        SessionId fresh = openSession(1, 1);
        uint64 round = session.sessionOf(fresh).drawRound;
        vm.roll(round + 1);
        beacon.capture(round);
        vm.snapshotGasLastCall("gas", "capture a beacon round");
        session.activate(fresh);
        vm.snapshotGasLastCall("gas", "activate session, one node");
    }

    function test_gas_folded_task() public {
        queue_(folded(2));
        vm.snapshotGasLastCall("gas", "task, signed request carried with the commit");
    }

    function test_gas_two_transactions() public {
        TaskRequest memory wanted = request(id, ROUTER_LANE, 2, nodeId);
        vm.prank(router);
        TaskId taskId = queue.submit(wanted);
        vm.snapshotGasLastCall("gas", "task, submitted");
        vm.prank(operatorOf(nodeId));
        queue.commit(taskId, answer(90, 150));
        vm.snapshotGasLastCall("gas", "task, committed");
    }

    function test_gas_settle() public {
        for (uint64 nonce = 2; nonce < 12; ++nonce) {
            queue_(folded(nonce));
        }
        skipTime(SETTLE_DELAY);
        settleRange(2, 12);
        vm.snapshotGasLastCall("gas", "settle ten folded tasks");
    }

    function test_gas_settle_bounded() public {
        for (uint64 nonce = 2; nonce < 12; ++nonce) {
            TaskRequest memory wanted = request(id, ROUTER_LANE, nonce, nodeId);
            vm.prank(router);
            TaskId taskId = queue.submit(wanted);
            vm.prank(operatorOf(nodeId));
            queue.commit(taskId, answer(90, 150));
        }
        skipTime(SETTLE_DELAY);
        settleRange(2, 12);
        vm.snapshotGasLastCall("gas", "settle ten tasks of two transactions");
    }

    function test_gas_advance() public {
        TaskRequest memory wanted = request(id, ROUTER_LANE, 2, nodeId);
        vm.prank(router);
        TaskId taskId = queue.submit(wanted);
        skipTime(61);
        vm.prank(keeper);
        queue.advance(taskId);
        vm.snapshotGasLastCall("gas", "refund a task past its deadline");
    }

    function test_gas_register() public {
        fund(ownerOf(9), COLLATERAL);
        vm.prank(ownerOf(9));
        pool.register(registration(9, 1));
        vm.snapshotGasLastCall("gas", "register a node, one slot");
    }

    function folded(uint64 nonce) internal view returns (TaskRequest memory) {
        return request(id, ROUTER_LANE, nonce, nodeId);
    }

    function queue_(TaskRequest memory wanted) internal returns (TaskId) {
        bytes memory signature = sign(ROUTER_KEY, wanted);
        Commit memory given = answer(90, 150);
        vm.prank(operatorOf(nodeId));
        return queue.submitAndCommit(wanted, signature, given);
    }

    function settleRange(uint64 from, uint64 to) internal {
        TaskId[] memory taskIds = new TaskId[](to - from);
        for (uint64 nonce = from; nonce < to; ++nonce) {
            taskIds[nonce - from] = queue.taskIdOf(id, ROUTER_LANE, nonce);
        }
        vm.prank(keeper);
        queue.settle(taskIds);
    }
}
