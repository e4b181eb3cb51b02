// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {OpenTerms, SessionInfo, SessionState} from "../../src/interfaces/ISession.sol";
import {Commit, Task, TaskRequest, TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {NodeState} from "../../src/interfaces/INodePool.sol";
import {Base} from "../Base.sol";

/// What clients, routers, miners and keepers may do, in any order and with any silence between. Calls that the
/// contracts refuse are part of it: they must change nothing.
contract Network is Base {
    uint256 internal constant NODES = 4;

    SessionId[] public sessions;
    TaskId[] public tasks;
    /// How much happened, for whoever tunes the handlers.
    uint256 public settledTasks;
    uint256 public refundedTasks;

    function setUp() public override {
        super.setUp();
        newNodes(NODES, 4);
        SessionId id = activeSession(1, 2);
        sessions.push(id);
    }

    /// Runs a call as the protocol's user would: a refusal is not an error of this test.
    function tryCall(address from, address to, bytes memory data) internal returns (bool ok, bytes memory result) {
        vm.prank(from);
        (ok, result) = to.call(data);
    }

    function open(uint8 minNodes, uint8 maxNodes) external {
        OpenTerms memory wanted = terms(minNodes % 3 + 1, maxNodes % 4 + 1);
        (bool ok, bytes memory result) = tryCall(client, address(session), abi.encodeCall(session.open, (wanted)));
        if (ok) sessions.push(abi.decode(result, (SessionId)));
    }

    /// The same with everything that leads to its first task, unless the nodes are all busy.
    function openActive(uint8 minNodes, uint8 maxNodes) external {
        OpenTerms memory wanted = terms(minNodes % 2 + 1, maxNodes % 3 + 2);
        (bool ok, bytes memory result) = tryCall(client, address(session), abi.encodeCall(session.open, (wanted)));
        if (!ok) return;
        SessionId id = abi.decode(result, (SessionId));
        sessions.push(id);
        reveal(session.sessionOf(id).drawRound);
        (ok,) = tryCall(keeper, address(session), abi.encodeCall(session.activate, (id)));
        if (ok) reveal(session.sessionOf(id).seedRound);
    }

    function capture(uint256 i) external {
        SessionInfo memory info = session.sessionOf(pick(i));
        (bool ok,) = address(beacon).call(
            abi.encodeCall(beacon.capture, (info.seedRound == 0 ? info.drawRound : info.seedRound))
        );
        ok;
    }

    function activate(uint256 i) external {
        tryCall(keeper, address(session), abi.encodeCall(session.activate, (pick(i))));
    }

    function submit(uint256 i, uint8 lane, uint8 ahead, uint8 node, uint8 seconds_) external {
        (SessionId id, Lane lane_) = (living(i), Lane.wrap(lane % 2));
        TaskRequest memory task = request(id, lane_, nonceFrom(id, lane_, ahead), nodeFrom(id, node));
        task.deadline = uint64(block.timestamp) + seconds_;
        address from = lane % 2 == 0 ? client : router;
        (bool ok, bytes memory result) = tryCall(from, address(queue), abi.encodeCall(queue.submit, (task)));
        if (ok) tasks.push(abi.decode(result, (TaskId)));
    }

    function submitAndCommit(uint256 i, uint8 ahead, uint8 node, uint32 prompt, uint32 output) external {
        SessionId id = living(i);
        NodeId nodeId = nodeFrom(id, node);
        TaskRequest memory task = request(id, ROUTER_LANE, nonceFrom(id, ROUTER_LANE, ahead), nodeId);
        bytes memory data = abi.encodeCall(
            queue.submitAndCommit, (task, sign(ROUTER_KEY, task), answer(prompt % 102, output % 202))
        );
        address from = NodeId.unwrap(nodeId) == 0 ? keeper : operatorOf(nodeId);
        (bool ok, bytes memory result) = tryCall(from, address(queue), data);
        if (ok) tasks.push(abi.decode(result, (TaskId)));
    }

    /// The first session from number `i` on that takes requests, or session `i`.
    function living(uint256 i) internal view returns (SessionId) {
        i = i % sessions.length;
        for (uint256 k; k < sessions.length; ++k) {
            SessionId id = sessions[(i + k) % sessions.length];
            SessionState state = session.sessionOf(id).state;
            if (state == SessionState.Active || state == SessionState.Draining) return id;
        }
        return sessions[i];
    }

    /// A nonce not far from the largest used: new, skipping some, or used before.
    function nonceFrom(SessionId id, Lane lane, uint8 ahead) internal view returns (uint64) {
        uint64 next = session.laneOf(id, lane).nextNonce;
        return ahead > 200 && next > 0 ? next - 1 : next + ahead % 5;
    }

    /// A node of the session, now and then another or none.
    function nodeFrom(SessionId id, uint8 node) internal view returns (NodeId) {
        NodeId[] memory nodes = session.sessionOf(id).nodes;
        if (node % 8 == 0 || nodes.length == 0) return NodeId.wrap(uint32(node / 8 % (NODES + 1)));
        return nodes[node % nodes.length];
    }

    function commit(uint256 i, uint32 prompt, uint32 output) external {
        if (tasks.length == 0) return;
        TaskId taskId = openTask(i);
        Commit memory given = answer(prompt % 102, output % 202);
        address operator = operatorOf(queue.taskOf(taskId).nodeId);
        tryCall(operator, address(queue), abi.encodeCall(queue.commit, (taskId, given)));
    }

    /// The first assigned task from number `i` on, or task `i`.
    function openTask(uint256 i) internal view returns (TaskId) {
        i = i % tasks.length;
        for (uint256 k; k < tasks.length; ++k) {
            TaskId taskId = tasks[(i + k) % tasks.length];
            if (queue.taskOf(taskId).state == TaskState.Assigned) return taskId;
        }
        return tasks[i];
    }

    function settle(uint256 from, uint256 count) external {
        if (tasks.length == 0) return;
        TaskId[] memory some = new TaskId[](count % 8);
        for (uint256 i; i < some.length; ++i) {
            some[i] = tasks[(from % tasks.length + i) % tasks.length];
        }
        (bool ok, bytes memory result) = tryCall(keeper, address(queue), abi.encodeCall(queue.settle, (some)));
        assertTrue(ok, "settle never reverts");
        settledTasks += abi.decode(result, (uint256));
    }

    function advance(uint256 i) external {
        if (tasks.length == 0) return;
        TaskId taskId = openTask(i);
        (bool ok,) = tryCall(keeper, address(queue), abi.encodeCall(queue.advance, (taskId)));
        if (ok) ++refundedTasks;
    }

    function close(uint256 i) external {
        if (i % 4 != 0) return;
        i /= 4;
        tryCall(client, address(session), abi.encodeCall(session.close, (pick(i))));
    }

    function finish(uint256 i) external {
        tryCall(keeper, address(session), abi.encodeCall(session.finish, (pick(i))));
    }

    function expire(uint256 i) external {
        tryCall(keeper, address(session), abi.encodeCall(session.expire, (pick(i))));
    }

    function topUp(uint256 i, uint64 amount) external {
        tryCall(client, address(session), abi.encodeCall(session.topUp, (pick(i), amount)));
    }

    function exit(uint8 node) external {
        if (node % 8 != 0) return;
        node /= 8;
        // One node stays, so that sessions go on.
        NodeId nodeId = NodeId.wrap(uint32(node % (NODES - 1) + 1));
        tryCall(pool.nodeOf(nodeId).owner, address(pool), abi.encodeCall(pool.exit, (nodeId)));
    }

    function releaseStake(uint8 node) external {
        tryCall(keeper, address(pool), abi.encodeCall(pool.releaseStake, (NodeId.wrap(uint32(node % NODES + 1)))));
    }

    function withdraw(uint8 who, uint256 amount) external {
        address account = accountOf(who % accounts());
        amount = amount % (payment.balanceOf(account) + 2);
        tryCall(account, address(payment), abi.encodeCall(payment.withdraw, (account, amount)));
    }

    function pass(uint8 seconds_) external {
        skipTime(uint256(seconds_) % 90);
    }

    /// Long enough for notices, unbonding and missed rounds, now and then.
    function passLong(uint8 odds, uint16 seconds_) external {
        if (odds % 8 == 0) skipTime(uint256(seconds_) % 700);
    }

    function pick(uint256 i) internal view returns (SessionId) {
        return sessions[i % sessions.length];
    }

    function accounts() public pure returns (uint256) {
        return 4 + 2 * NODES;
    }

    function accountOf(uint256 i) public view returns (address) {
        if (i < 4) return [client, router, publisher, keeper][i];
        return i < 4 + NODES ? payoutOf(i - 3) : ownerOf(i - 3 - NODES);
    }

    /// I1: the sum of all accounts is the running total and the token balance.
    function checkConservation() external view {
        uint256 sum;
        for (uint256 i; i < sessions.length; ++i) {
            (uint128 free, uint128 held) = payment.sessionFunds(sessions[i]);
            sum += uint256(free) + held;
        }
        for (uint32 i = 1; i <= NODES; ++i) {
            sum += payment.stakeOf(NodeId.wrap(i));
        }
        for (uint256 i; i < accounts(); ++i) {
            sum += payment.balanceOf(accountOf(i));
        }
        assertEq(sum, payment.totalAccounts(), "I1: accounts and total");
        assertEq(sum, token.balanceOf(address(payment)), "I1: accounts and tokens");
    }

    /// I2: what a session holds is what its open tasks are worth.
    function checkHeld() external view {
        for (uint256 s; s < sessions.length; ++s) {
            uint256 sum;
            for (uint256 i; i < tasks.length; ++i) {
                Task memory task = queue.taskOf(tasks[i]);
                bool ours = SessionId.unwrap(task.sessionId) == SessionId.unwrap(sessions[s]);
                if (ours && (task.state == TaskState.Assigned || task.state == TaskState.Committed)) sum += task.amount;
            }
            (, uint128 held) = payment.sessionFunds(sessions[s]);
            assertEq(sum, held, "I2: held");
            if (session.sessionOf(sessions[s]).state == SessionState.Closed) assertEq(held, 0, "I2: closed");
        }
    }

    /// I3: no allotment is overdrawn.
    function checkLanes() external view {
        for (uint256 s; s < sessions.length; ++s) {
            uint256 used = session.laneOf(sessions[s], ROUTER_LANE).used;
            assertTrue(used <= ALLOTMENT, "I3: allotment");
        }
    }

    /// I4: reservations are those of the sessions that live, and never above capacity.
    function checkReservations() external view {
        for (uint32 n = 1; n <= NODES; ++n) {
            uint256 count;
            for (uint256 s; s < sessions.length; ++s) {
                SessionInfo memory info = session.sessionOf(sessions[s]);
                if (info.state == SessionState.Closed) continue;
                for (uint256 i; i < info.nodes.length; ++i) {
                    if (NodeId.unwrap(info.nodes[i]) == n) ++count;
                }
            }
            assertEq(count, pool.nodeOf(NodeId.wrap(n)).reservations, "I4: reservations");
            assertTrue(count <= 4, "I4: capacity");
            bool reserved = pool.nodeOf(NodeId.wrap(n)).state == NodeState.Reserved;
            if (reserved) assertTrue(count > 0, "I4: state");
        }
    }

    /// I5: no task is stuck: some time after everything stopped, a stranger ends every task and every session that
    /// its owner closed, and all money of those is somebody's balance.
    function checkNothingIsStuck() external {
        skipTime(uint256(NOTICE) + MAX_DEADLINE);
        vm.startPrank(keeper);
        for (uint256 i; i < tasks.length; ++i) {
            TaskState state = queue.taskOf(tasks[i]).state;
            if (state == TaskState.Assigned) queue.advance(tasks[i]);
            if (state == TaskState.Committed) assertEq(queue.settle(only(tasks[i])), 1, "I5: settles");
            state = queue.taskOf(tasks[i]).state;
            assertTrue(state == TaskState.Settled || state == TaskState.Refunded, "I5: task ended");
        }
        for (uint256 s; s < sessions.length; ++s) {
            SessionState state = session.sessionOf(sessions[s]).state;
            if (state == SessionState.Open) session.expire(sessions[s]);
            if (state == SessionState.Draining) session.finish(sessions[s]);
            (uint128 free, uint128 held) = payment.sessionFunds(sessions[s]);
            assertEq(held, 0, "I5: nothing is held");
            if (state != SessionState.Active) assertEq(free, 0, "I5: nothing is left");
        }
        vm.stopPrank();
    }
}

contract NetworkInvariantTest {
    Network internal network;

    function setUp() public {
        network = new Network();
        network.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(network);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// Only what actors do, not what checks.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        bytes4[] memory s = new bytes4[](20);
        (s[0], s[1], s[2]) = (Network.open.selector, Network.capture.selector, Network.activate.selector);
        (s[3], s[4], s[5]) = (Network.submit.selector, Network.submitAndCommit.selector, Network.commit.selector);
        (s[6], s[7], s[8]) = (Network.settle.selector, Network.advance.selector, Network.close.selector);
        (s[9], s[10], s[11]) = (Network.finish.selector, Network.expire.selector, Network.topUp.selector);
        (s[12], s[13], s[14]) = (Network.exit.selector, Network.releaseStake.selector, Network.withdraw.selector);
        (s[15], s[16], s[17]) = (Network.pass.selector, Network.passLong.selector, Network.openActive.selector);
        (s[18], s[19]) = (Network.submit.selector, Network.submitAndCommit.selector);
        targets[0] = FuzzSelector(address(network), s);
    }

    function invariant_I1_money_is_conserved() public view {
        network.checkConservation();
    }

    function invariant_I2_held_is_the_open_tasks() public view {
        network.checkHeld();
    }

    function invariant_I3_no_allotment_is_overdrawn() public view {
        network.checkLanes();
    }

    function invariant_I4_reservations_match_sessions() public view {
        network.checkReservations();
    }

    /// After each run, I5: whatever happened, everything can be ended by anybody.
    function afterInvariant() public {
        network.checkNothingIsStuck();
        network.checkConservation();
        network.checkHeld();
        network.checkReservations();
    }
}
