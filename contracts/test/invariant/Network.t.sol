// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeState} from "../../src/interfaces/INodePool.sol";
import {Series} from "../../src/interfaces/INodeStats.sol";
import {SessionInfo, SessionState} from "../../src/interfaces/ISession.sol";
import {LaneFunds} from "../../src/interfaces/ISessionPayment.sol";
import {Task, TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {AssetId, Lane, NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Campaign} from "./Campaign.sol";
import {Keepers} from "./Keepers.sol";

/// Everybody at once.
contract Network is Keepers {
    uint256 internal constant MAX_QUEUE = 64;
    uint256 internal constant MAX_CLAIMS = 2;
    uint256 internal constant MAX_LEVEL = 10;
    /// Steps that a task may still need once nobody answers any more: three attempts, openings, settlement, callback.
    uint256 internal constant MAX_STEPS = 6;

    address internal stranger = address(0x57);

    function setUp() public override {
        super.setUp();
        vm.recordLogs();
        setUpClients();
        setUpMiners();
        accounts.push(publisher);
        accounts.push(keeper);
        accounts.push(stranger);
        accounts.push(DEAD);
        fold();
        for (uint256 i; i < 4; ++i) {
            this.openSession(i);
            this.draw(0);
        }
    }

    // ---------------------------------------------------------------- what holds after every step

    /// [M1, M2, M7, E1] The accounts are what their events tell, and together all the tokens.
    function checkMoney() external view {
        uint256[2] memory sums;
        for (uint256 i; i < live.length; ++i) {
            sums[AssetId.unwrap(assetOf[live[i]])] += checkLanes(live[i]);
        }
        for (uint256 i; i < nodes.length; ++i) {
            assertEq(payment.stakeOf(nodes[i]), stakeTold[nodes[i]], "[M8] stake");
            sums[0] += stakeTold[nodes[i]];
        }
        for (uint8 a; a < 2; ++a) {
            AssetId asset = AssetId.wrap(a);
            for (uint256 i; i < accounts.length; ++i) {
                uint256 credit = creditOf[accounts[i]][asset];
                assertEq(payment.balanceOf(accounts[i], asset), credit, "[M1] balance");
                sums[a] += credit;
            }
            assertEq(sums[a], payment.totalAccounts(asset), "[M1] accounts and their total");
        }
        assertEq(sums[0], token.balanceOf(address(payment)), "[M1] accounts and tokens");
        assertEq(sums[1], usd.balanceOf(address(payment)), "[M1] accounts and dollars");
    }

    function checkLanes(SessionId id) internal view returns (uint256 sum) {
        for (uint32 k; k < session.laneCount(id); ++k) {
            LaneFunds memory funds = payment.fundsOf(id, Lane.wrap(k));
            assertEq(funds.held, heldOf[id][Lane.wrap(k)], "[M2] held is what open tasks hold");
            assertEq(uint256(funds.free) + funds.held, moneyOf[id][Lane.wrap(k)], "[M2] money of a lane");
            sum += moneyOf[id][Lane.wrap(k)];
        }
    }

    /// [E1] Tasks and sessions are stored as their events tell.
    function checkStates() external view {
        for (uint256 i; i < open.length; ++i) {
            (TaskState state,, bytes32 digest) = queue.statusOf(open[i]);
            assertEq(uint8(state), uint8(known[open[i]].state), "[T1] state of a task");
            bytes32 told = keccak256(bytes.concat(known[open[i]].task));
            assertEq(digest, bytes32(uint256(told) >> 48 << 48), "[T5] the task as told");
        }
        for (uint256 i; i < live.length; ++i) {
            (uint64 next, uint64 head) = queue.ticketsOf(live[i]);
            assertTrue(next - head <= MAX_QUEUE, "[G2] length of a queue");
            assertEq(
                uint8(session.admissionOf(live[i], OWNER_LANE, 0).state), uint8(sessionStates[live[i]]), "[T2] session"
            );
        }
    }

    /// [D5, P4] A node serves no more sessions than it has places, and what is counted of it has bounds.
    function checkNodes() external view {
        uint256 used;
        for (uint256 i; i < nodes.length; ++i) {
            NodeId nodeId = nodes[i];
            (, uint8[] memory capacities) = pool.offersOf(nodeId);
            assertTrue(nodeStates[nodeId] == pool.nodeOf(nodeId).state, "[T3] state of a node");
            assertEq(pool.reservationsOf(nodeId), reservedBy[nodeId], "[D5] reservations");
            if (reservedBy[nodeId] != 0) assertTrue(reservedBy[nodeId] <= capacities[0], "[D5] places");
            if (pool.nodeOf(nodeId).dedicatedTo == address(0)) used += reservedBy[nodeId];
            assertTrue(queue.claimsOf(nodeId) <= MAX_CLAIMS, "[G2] claims");
            assertTrue(stats.levelOf(nodeId, Series.Drawn) <= MAX_LEVEL, "[P4] level");
        }
        (uint32 slots, uint32 taken, uint32 inUse) = pool.poolOf(MODEL_INDEX);
        assertEq(inUse, used, "[D5] places in use");
        assertTrue(inUse <= taken && taken <= slots, "[D5] places");
    }

    // ---------------------------------------------------------------- the end of everything

    /// [L1, L2, L6] Nobody answers any more: a stranger brings every task to its end.
    function endTasks() external virtual {
        for (uint256 round; open.length != 0; ++round) {
            assertTrue(round < MAX_STEPS, "[L2] a task that does not end");
            skipTime(61);
            for (uint256 i = open.length; i > 0; --i) {
                vm.recordLogs();
                endTask(open[i - 1]);
                fold();
            }
        }
    }

    function endTask(TaskId taskId) internal {
        Task memory task = taskOf(taskId);
        TaskState state = known[taskId].state;
        vm.prank(stranger);
        if (state < TaskState.Committed) queue.advance(task);
        else if (state == TaskState.Committed) assertEq(queue.settle(only(task)), 1, "[L1] settles");
        else queue.deliver(task, ofRecord(task, taskId));
    }

    /// [L3, L4] Draws are given up, owners close, a stranger ends every session.
    function endSessions() external step {
        skipTime(TIMEOUT + 1);
        (uint40 next, uint40 head) = pool.ticketsOf(MODEL_INDEX);
        for (; head < next; ++head) {
            SessionId id = headOfDraws();
            vm.prank(stranger);
            session.expire(id);
            fold();
        }
        for (uint256 i; i < live.length; ++i) {
            if (sessionStates[live[i]] != SessionState.Active) continue;
            vm.prank(openedBy[live[i]]);
            session.close(live[i]);
        }
        fold();
        skipTime(201);
        while (live.length != 0) {
            vm.prank(stranger);
            session.finish(live[live.length - 1]);
            fold();
        }
    }

    /// [L5, M8] Every node leaves with what is left of its stake.
    function endNodes() external step {
        for (uint256 i; i < nodes.length; ++i) {
            if (nodeStates[nodes[i]] > NodeState.Dedicated) continue;
            vm.prank(pool.nodeOf(nodes[i]).owner);
            pool.drain(nodes[i]);
        }
        fold();
        skipTime(REUSE_DELAY + 1);
        for (uint256 i; i < nodes.length; ++i) {
            if (nodeStates[nodes[i]] != NodeState.Draining && nodeStates[nodes[i]] != NodeState.Jailed) continue;
            vm.prank(pool.nodeOf(nodes[i]).owner);
            pool.exit(nodes[i]);
        }
        fold();
        skipTime(1 hours);
        for (uint256 i; i < nodes.length; ++i) {
            if (nodeStates[nodes[i]] != NodeState.Exiting) continue;
            vm.prank(stranger);
            pool.releaseStake(nodes[i]);
        }
        (, uint32 taken, uint32 used) = pool.poolOf(MODEL_INDEX);
        assertEq(uint256(taken) + used, 0, "[L5] an empty pool");
    }

    /// [M1, M5, V20] Everybody takes what is his: nothing is left but what was burnt and cannot be destroyed, and the books.
    function endMoney() external step {
        for (uint256 i; i < accounts.length; ++i) {
            if (accounts[i] == DEAD || accounts[i] == address(proof)) continue;
            for (uint8 a; a < 2; ++a) {
                uint256 balance = payment.balanceOf(accounts[i], AssetId.wrap(a));
                if (balance == 0) continue;
                vm.prank(accounts[i]);
                payment.withdraw(AssetId.wrap(a), accounts[i], balance);
            }
        }
        assertEq(token.balanceOf(address(payment)), booked(COR), "[M1] no COR is left but the book");
        uint256 left = payment.balanceOf(DEAD, USD) + booked(USD);
        assertEq(usd.balanceOf(address(payment)), left, "[M1] burnt dollars are left, and the book");
    }

    /// What is put aside for audits.
    function booked(AssetId) internal view virtual returns (uint256) {
        return 0;
    }

    /// [T4] What had ended stayed as it was.
    function checkEnded() external view {
        for (uint256 i; i < ended.length; ++i) {
            (TaskState state,,) = queue.statusOf(ended[i]);
            assertTrue(state == TaskState.Settled || state == TaskState.Refunded, "[T4] ended");
            assertTrue(state == known[ended[i]].state, "[T4] as it ended");
        }
        for (uint64 i = 1; i <= session.sessionCount(); ++i) {
            SessionInfo memory info = session.sessionOf(SessionId.wrap(i));
            assertTrue(info.state == SessionState.Closed, "[T4] closed");
        }
    }
}

contract NetworkInvariantTest is Campaign {
    Network internal network;

    function setUp() public {
        network = new Network();
        network.setUp();
    }

    function target() internal view override returns (address) {
        return address(network);
    }

    /// Work is done more often than anything else.
    function actions() internal view override returns (bytes4[] memory s) {
        s = new bytes4[](52);
        (s[0], s[1], s[2]) = (network.openSession.selector, network.topUp.selector, network.addLane.selector);
        (s[3], s[4], s[5]) = (network.reclaimLane.selector, network.closeSession.selector, network.cancel.selector);
        (s[6], s[7], s[8]) = (network.closeWrongly.selector, network.misbehave.selector, network.withdraw.selector);
        (s[9], s[10], s[11]) = (network.submit.selector, network.submit.selector, network.submitSigned.selector);
        (s[12], s[13]) = (network.submitAndCommit.selector, network.submitAndPrecommit.selector);
        (s[14], s[15], s[16]) = (network.submitWrongly.selector, network.serve.selector, network.claim.selector);
        (s[17], s[18], s[19]) = (network.decline.selector, network.serve.selector, network.answerWrongly.selector);
        (s[20], s[21], s[22]) = (network.submit.selector, network.bringAnother.selector, network.lie.selector);
        (s[23], s[24], s[25]) = (network.join.selector, network.drain.selector, network.resume.selector);
        (s[26], s[27], s[28]) = (network.exit.selector, network.releaseStake.selector, network.draw.selector);
        (s[29], s[30], s[31]) = (network.rotate.selector, network.finish.selector, network.finishReclaim.selector);
        (s[32], s[33], s[34]) = (network.advance.selector, network.settle.selector, network.deliver.selector);
        (s[35], s[36], s[37]) = (network.passGone.selector, network.govern.selector, network.wait.selector);
        (s[38], s[39], s[40]) = (network.serve.selector, network.submitSigned.selector, network.submit.selector);
        (s[41], s[42], s[43]) = (network.serve.selector, network.submitAndCommit.selector, network.submit.selector);
        (s[44], s[45], s[46]) = (network.serve.selector, network.submitAndCommit.selector, network.submit.selector);
        (s[47], s[48], s[49]) = (network.serve.selector, network.settle.selector, network.advance.selector);
        (s[50], s[51]) = (network.settle.selector, network.advance.selector);
    }

    /// One invariant, so that one campaign checks everything.
    function invariant_network() public view {
        network.checkMoney();
        network.checkStates();
        network.checkNodes();
    }

    /// After each run: whatever happened, everything ends, and everybody has what is his.
    function afterInvariant() public {
        network.endTasks();
        network.endSessions();
        network.endNodes();
        network.checkMoney();
        network.endMoney();
        network.checkMoney();
        network.checkEnded();
    }
}
