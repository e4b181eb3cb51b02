// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Answer, Precommit, Task, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {OpenTerms} from "../../src/interfaces/ISession.sol";
import {NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

/// Gas of whole transactions: run with `--isolate`; written to contracts/snapshots. All accounts are in use already,
/// as in a network that has served tasks before.
contract GasTest is Base {
    // What a transaction, or all that a task takes, may cost.
    uint256 internal constant OPEN_TARGET = 200_000;
    uint256 internal constant CARRIED_TARGET = 150_000;
    uint256 internal constant TWO_TRANSACTIONS_TARGET = 200_000;
    uint256 internal constant THREE_MINERS_TARGET = 320_000;

    SessionId internal id;

    function setUp() public override {
        super.setUp();
        newNodes(4, 8);
        id = activeSession(3, 3);
        recordTasks();
        // Lanes, balances, counters and tips leave zero.
        Task[] memory tasks = new Task[](2);
        for (uint64 nonce; nonce < 2; ++nonce) {
            tasks[nonce] = threeMiners(nonce);
        }
        settle(tasks, "");
    }

    function test_gas_open_without_lane() public {
        OpenTerms memory wanted = terms(1, 1);
        delete wanted.lanes;
        vm.prank(client);
        session.open(wanted);
        assertTrue(vm.snapshotGasLastCall("gas", "open session, no router") <= OPEN_TARGET, "target");
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
        skipTime(2);
        beacon.reveal(round, "");
        vm.snapshotGasLastCall("gas", "reveal a beacon round");
        session.activate(fresh);
        vm.snapshotGasLastCall("gas", "activate session, one node");
    }

    function test_gas_register() public {
        fund(ownerOf(9), COLLATERAL);
        vm.prank(ownerOf(9));
        pool.register(registration(9, 1));
        vm.snapshotGasLastCall("gas", "register a node, one slot");
    }

    function test_gas_folded() public {
        Task[] memory tasks = new Task[](10);
        uint256 gas;
        for (uint64 i; i < 10; ++i) {
            TaskRequest memory wanted = request(id, ROUTER_LANE, 2 + i, firstNode(id));
            Answer memory given = answer(wanted.nodeId, 90, 150);
            bytes memory signature = sign(ROUTER_KEY, wanted);
            address operator = operatorOf(wanted.nodeId);
            vm.prank(operator);
            queue.submitAndCommit(wanted, signature, given);
            gas = vm.snapshotGasLastCall("gas", "one miner, request carried with the answer");
            tasks[i] = afterCommit(lastTask(), 0, given);
        }
        gas += settle(tasks, "settle ten carried tasks of one miner") / 10;
        vm.snapshotValue("gas", "one miner, carried, all of it", gas);
        assertTrue(gas <= CARRIED_TARGET, "target");
    }

    function test_gas_two_transactions() public {
        Task[] memory tasks = new Task[](10);
        uint256 gas;
        for (uint64 i; i < 10; ++i) {
            TaskRequest memory wanted = request(id, ROUTER_LANE, 2 + i, firstNode(id));
            vm.prank(router);
            queue.submit(wanted);
            gas = vm.snapshotGasLastCall("gas", "one miner, submit");
            Task memory task = lastTask();
            Answer memory given = answer(wanted.nodeId, 90, 150);
            address operator = operatorOf(wanted.nodeId);
            vm.prank(operator);
            queue.commit(task, only(given));
            gas += vm.snapshotGasLastCall("gas", "one miner, commit");
            tasks[i] = afterCommit(task, 0, given);
        }
        gas += settle(tasks, "settle ten tasks of one miner") / 10;
        vm.snapshotValue("gas", "one miner, two transactions, all of it", gas);
        assertTrue(gas <= TWO_TRANSACTIONS_TARGET, "target");
    }

    function test_gas_three_miners() public {
        Task[] memory tasks = new Task[](10);
        uint256 gas;
        for (uint64 i; i < 10; ++i) {
            tasks[i] = threeMiners(2 + i);
        }
        gas = vm.snapshotGasLastCall("gas", "three miners, commit");
        gas += settle(tasks, "settle ten tasks of three miners") / 10;
        gas += submitted(12);
        Task memory task = lastTask();
        queue.precommit(task, precommits(task));
        gas += vm.snapshotGasLastCall("gas", "three miners, precommit");
        vm.snapshotValue("gas", "three miners, all of it", gas);
    }

    /// The precommitments are signed: whoever carries the request carries them with it, and the openings later.
    function test_gas_three_miners_carried() public {
        Task[] memory tasks = new Task[](10);
        uint256 gas;
        for (uint64 i; i < 10; ++i) {
            TaskRequest memory wanted = request(id, ROUTER_LANE, 2 + i, ANY_NODE);
            wanted.redundancy = 3;
            bytes memory signature = sign(ROUTER_KEY, wanted);
            // Which nodes answer follows from the seed: the router knows it before.
            uint256 before = vm.snapshotState();
            vm.prank(router);
            queue.submit(wanted);
            Precommit[] memory carried = precommits(lastTask());
            vm.revertToState(before);
            vm.prank(router);
            queue.submitAndPrecommit(wanted, signature, carried);
            gas = vm.snapshotGasLastCall("gas", "three miners, request carried with the precommitments");
            Task memory task = lastTask();
            queue.commit(task, openings(task));
            gas += vm.snapshotGasLastCall("gas", "three miners, commit");
            tasks[i] = lastTask();
        }
        gas += settle(tasks, "settle ten tasks of three miners") / 10;
        vm.snapshotValue("gas", "three miners, carried, all of it", gas);
        assertTrue(gas <= THREE_MINERS_TARGET, "target");
    }

    function openings(Task memory task) internal pure returns (Answer[] memory answers) {
        answers = new Answer[](3);
        for (uint256 i; i < 3; ++i) {
            answers[i] = answer(task.parts[i].nodeId, 90, 150);
        }
    }

    function test_gas_advance() public {
        TaskRequest memory wanted = request(id, ROUTER_LANE, 2, firstNode(id));
        vm.prank(router);
        queue.submit(wanted);
        Task memory task = lastTask();
        skipTime(61);
        vm.prank(keeper);
        queue.advance(task);
        vm.snapshotGasLastCall("gas", "refund a task past its deadline");
    }

    /// Bytes that a rollup publishes: what a task costs beside its gas.
    function test_calldata() public {
        TaskRequest memory wanted = request(id, ROUTER_LANE, 2, firstNode(id));
        bytes memory signature = sign(ROUTER_KEY, wanted);
        Answer memory given = answer(wanted.nodeId, 90, 150);
        weigh(
            "one miner, request carried with the answer",
            abi.encodeCall(queue.submitAndCommit, (wanted, signature, given))
        );
        weigh("one miner, submit", abi.encodeCall(queue.submit, (wanted)));
        vm.prank(router);
        queue.submit(wanted);
        Task memory task = lastTask();
        weigh("one miner, commit", abi.encodeCall(queue.commit, (task, only(given))));
        weigh("one miner, settle", abi.encodeCall(queue.settle, (only(afterCommit(task, 0, given)))));
        (wanted.nonce, wanted.nodeId, wanted.redundancy) = (3, ANY_NODE, 3);
        weigh("three miners, submit", abi.encodeCall(queue.submit, (wanted)));
        vm.prank(router);
        queue.submit(wanted);
        task = lastTask();
        weigh("three miners, precommit", abi.encodeCall(queue.precommit, (task, precommits(task))));
        queue.precommit(task, precommits(task));
        task = lastTask();
        weigh("three miners, commit", abi.encodeCall(queue.commit, (task, openings(task))));
        queue.commit(task, openings(task));
        weigh("three miners, settle", abi.encodeCall(queue.settle, (only(lastTask()))));
    }

    function weigh(string memory name, bytes memory data) internal {
        uint256 zeros;
        for (uint256 i; i < data.length; ++i) {
            if (data[i] == 0) ++zeros;
        }
        vm.snapshotValue("calldata", string.concat(name, ", zero bytes"), zeros);
        vm.snapshotValue("calldata", string.concat(name, ", other bytes"), data.length - zeros);
    }

    function submitted(uint64 nonce) internal returns (uint256) {
        TaskRequest memory wanted = request(id, ROUTER_LANE, nonce, ANY_NODE);
        wanted.redundancy = 3;
        vm.prank(router);
        queue.submit(wanted);
        return vm.snapshotGasLastCall("gas", "three miners, submit");
    }

    function threeMiners(uint64 nonce) internal returns (Task memory task) {
        submitted(nonce);
        task = lastTask();
        queue.precommit(task, precommits(task));
        task = lastTask();
        queue.commit(task, openings(task));
        return lastTask();
    }

    function precommits(Task memory task) internal view returns (Precommit[] memory list) {
        TaskId taskId = queue.taskIdOf(task.sessionId, task.lane, task.nonce);
        list = new Precommit[](3);
        for (uint256 i; i < 3; ++i) {
            NodeId nodeId = task.parts[i].nodeId;
            // Node ids are the numbers of their owners.
            list[i] = signedPrecommit(NodeId.unwrap(nodeId), taskId, answer(nodeId, 90, 150));
        }
    }

    function settle(Task[] memory tasks, string memory name) internal returns (uint256) {
        skipTime(SETTLE_DELAY);
        vm.prank(keeper);
        queue.settle(tasks);
        return bytes(name).length == 0 ? 0 : vm.snapshotGasLastCall("gas", name);
    }
}
