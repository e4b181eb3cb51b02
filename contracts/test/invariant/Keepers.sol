// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionInfo, SessionState} from "../../src/interfaces/ISession.sol";
import {LaneFunds} from "../../src/interfaces/ISessionPayment.sol";
import {Answer, PartState, Task, TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {Terms} from "../../src/interfaces/IParameters.sol";
import {Lane, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Miners} from "./Miners.sol";

/// Strangers who move things on for a tip, the governor, and time.
abstract contract Keepers is Miners {
    /// Unix seconds from which on the latest proposal holds.
    uint40 internal proposedFor;

    // ---------------------------------------------------------------- sessions

    /// The draw at the head: takes place, or is given up.
    function draw(uint256) external step {
        SessionId id = headOfDraws();
        if (SessionId.unwrap(id) == 0) giveUp();
        SessionInfo memory info = session.sessionOf(id);
        // A round of the next block is waited for.
        bool ready = knows(info.drawRound) && block.timestamp <= info.drawUntil;
        vm.prank(keeper);
        if (ready) session.activate(id);
        else session.expire(id);
    }

    function headOfDraws() internal view returns (SessionId) {
        (uint40 next, uint40 head) = pool.ticketsOf(MODEL_INDEX);
        if (next == head) return SessionId.wrap(0);
        for (uint256 i; i < live.length; ++i) {
            SessionInfo memory info = session.sessionOf(live[i]);
            if (info.drawRound != 0 && info.drawTicket == head) return live[i];
        }
        revert("[D2] a ticket that no session has");
    }

    function rotate(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < live.length; ++i) {
            SessionId id = live[(random % live.length + i) % live.length];
            SessionInfo memory info = session.sessionOf(id);
            if (info.state != SessionState.Active || info.drawRound != 0) continue;
            if (!beacon.isMissed(info.current.seedRound)) {
                patient(random, info.rotatesAt);
                patient(random, info.previous.until + 1);
            }
            vm.prank(keeper);
            session.rotate(id, OWNER_LANE);
            return;
        }
        giveUp();
    }

    function finish(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < live.length; ++i) {
            SessionId id = live[(random % live.length + i) % live.length];
            SessionInfo memory info = session.sessionOf(id);
            if (info.state != SessionState.Draining || info.drawRound != 0 || holds(id)) continue;
            patient(random, info.endsAt + 1);
            vm.prank(keeper);
            session.finish(id);
            return;
        }
        giveUp();
    }

    function holds(SessionId id) internal view returns (bool) {
        for (uint32 lane; lane < session.laneCount(id); ++lane) {
            if (heldOf[id][Lane.wrap(lane)] != 0) return true;
        }
        return false;
    }

    function finishReclaim(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < live.length; ++i) {
            SessionId id = live[(random % live.length + i) % live.length];
            for (uint32 k = 1; k < session.laneCount(id); ++k) {
                uint40 at = session.laneOf(id, Lane.wrap(k)).reclaimAt;
                LaneFunds memory funds = payment.fundsOf(id, Lane.wrap(k));
                if (at == 0 || funds.held != 0 || funds.free == 0) continue;
                patient(random, at + 1);
                vm.prank(keeper);
                session.finishReclaim(id, Lane.wrap(k));
                return;
            }
        }
        giveUp();
    }

    // ---------------------------------------------------------------- tasks

    function advance(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < open.length; ++i) {
            TaskId taskId = open[(random % open.length + i) % open.length];
            if (known[taskId].state >= TaskState.Committed) continue;
            patient(random, untilOf(taskId) + 1);
            Task memory task = taskOf(taskId);
            vm.prank(keeper);
            queue.advance(task);
            return;
        }
        giveUp();
    }

    /// All that are due and some that are not, one of them twice.
    function settle(uint256 random) external step {
        random = mix(random);
        uint256 due;
        Task[] memory list = new Task[](open.length + 1);
        // All that is committed is due by then.
        skipTime(5);
        for (uint256 i; i < open.length; ++i) {
            TaskId taskId = open[i];
            list[i] = taskOf(taskId);
            if (known[taskId].state == TaskState.Committed && block.timestamp >= untilOf(taskId)) ++due;
        }
        if (due == 0) giveUp();
        list[open.length] = list[random % open.length];
        vm.prank(keeper);
        assertEq(queue.settle(list), due, "[M5] once each");
    }

    function deliver(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < open.length; ++i) {
            TaskId taskId = open[(random % open.length + i) % open.length];
            if (known[taskId].state < TaskState.Settled) continue;
            Task memory task = taskOf(taskId);
            Answer memory given = ofRecord(task, taskId);
            // [M10] Its owner would like to have it twice.
            consumer.remember(abi.encodeCall(queue.deliver, (task, given)));
            vm.prank(keeper);
            queue.deliver(task, given);
            return;
        }
        giveUp();
    }

    function ofRecord(Task memory task, TaskId taskId) internal view returns (Answer memory given) {
        for (uint256 i; i < task.parts.length; ++i) {
            if (task.parts[i].state == PartState.Committed) return answerOf(task.parts[i].nodeId, taskId);
        }
    }

    /// Takes a task that is gone off the head of its queue.
    function passGone(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < live.length; ++i) {
            SessionId id = live[(random % live.length + i) % live.length];
            (uint64 next, uint64 head) = queue.ticketsOf(id);
            TaskId taskId = byTicket[id][head];
            if (next == head || known[taskId].state != TaskState.Refunded) continue;
            Task memory task = taskOf(taskId);
            vm.prank(keeper);
            queue.advance(task);
            return;
        }
        giveUp();
    }

    // ---------------------------------------------------------------- terms and time

    /// Another set of terms. What is open goes on under its own.
    function govern(uint256 random) external step {
        random = mix(random);
        if (block.timestamp < proposedFor) {
            if (random & 3 != 0) giveUp();
            vm.prank(governor);
            parameters.withdrawProposal();
            proposedFor = 0;
            return;
        }
        Terms memory next = parameters.termsOf(parameters.currentVersion());
        next.session.minerBps = uint16(bound(random >> 8, 6000, 9000));
        next.session.settleDelay = uint24(bound(random >> 32, 1, 5));
        next.node.collateralPerSlot = uint128(bound(random >> 64, 1e18, 100e18));
        next.node.slashBps = uint16(bound(random >> 96, 1, 10_000));
        next.assets[0].tip = uint96(bound(random >> 128, 0, 2e14));
        vm.prank(governor);
        parameters.propose(next);
        proposedFor = uint40(block.timestamp) + PARAMETERS_DELAY;
    }

    function wait(uint256 random) external step {
        random = mix(random);
        uint256 most = random % 128 == 0 ? 8 days : random % 32 == 0 ? 2 hours : random % 8 == 0 ? 250 : 10;
        skipTime(bound(random >> 8, 1, most));
    }
}
