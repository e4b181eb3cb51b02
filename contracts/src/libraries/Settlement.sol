// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Payees} from "../interfaces/ISession.sol";
import {Payout} from "../interfaces/ISessionPayment.sol";
import {ISessionQueue, Part, PartState, Task} from "../interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId, TaskId} from "../types/Ids.sol";
import {Fees, Shares} from "./Fees.sol";

/// What one settlement pays, and what its tasks share, so that it is read once.
library Settlement {
    /// Answers of one node in one series.
    struct Tally {
        NodeId nodeId;
        bool dedicated;
        uint32 times;
        /// Who is paid for the node.
        address payout;
    }

    struct Books {
        Payout[] payouts;
        uint256 count;
        /// Of the lane of the task before.
        SessionId sessionId;
        Lane lane;
        Payees payees;
        address publisher;
        uint16 royaltyBps;
        Tally[] tallies;
        uint256 nodes;
    }

    /// Nodes that are counted together: as many as a reservation has.
    uint256 internal constant MAX_NODES = 8;

    function open(uint256 answers) internal pure returns (Books memory books) {
        (books.payouts, books.tallies) = (new Payout[](answers), new Tally[](MAX_NODES));
    }

    /// Whether `payees` are those of the task.
    function knows(Books memory books, Task memory task) internal pure returns (bool) {
        return SessionId.unwrap(books.sessionId) == SessionId.unwrap(task.sessionId)
            && Lane.unwrap(books.lane) == Lane.unwrap(task.lane);
    }

    /// Place of the tally of a part's node; `books.nodes` if there is none.
    function indexOf(Books memory books, Part memory part) internal pure returns (uint256 i) {
        for (; i < books.nodes; ++i) {
            Tally memory tally = books.tallies[i];
            if (NodeId.unwrap(tally.nodeId) == NodeId.unwrap(part.nodeId) && tally.dedicated == part.dedicated) {
                return i;
            }
        }
    }

    /// Divides the fee of one answer; `held` is what leaves the lane's held money with it.
    function divide(Books memory books, Task memory task, TaskId taskId, Part memory part, uint96 held) internal {
        Payees memory payees = books.payees;
        Shares memory shares = Fees.splitDown(part.fee, payees.minerBps, payees.routerBps, books.royaltyBps, payees.tip);
        // The owner's own lane has no router to pay.
        if (Lane.unwrap(task.lane) == 0) (shares.miner, shares.router) = (shares.miner + shares.router, 0);
        Payout memory payout = books.payouts[books.count++];
        payout.asset = payees.asset;
        (payout.sessionId, payout.lane, payout.taskId) = (task.sessionId, task.lane, taskId);
        payout.held = held;
        (payout.miner, payout.minerShare) = (books.tallies[indexOf(books, part)].payout, shares.miner);
        (payout.router, payout.routerShare) = (payees.holder, shares.router);
        (payout.publisher, payout.royalty) = (books.publisher, shares.royalty);
        (payout.tip, payout.burnt) = (shares.tip, shares.burnt);
        emit ISessionQueue.TaskSettled(
            taskId,
            task.sessionId,
            part.nodeId,
            part.fee,
            shares.miner,
            shares.router,
            shares.royalty,
            shares.tip,
            shares.burnt
        );
    }

    /// The payouts that were written.
    function close(Books memory books) internal pure returns (Payout[] memory payouts) {
        payouts = books.payouts;
        uint256 count = books.count;
        assembly ("memory-safe") {
            mstore(payouts, count)
        }
    }

    /// Sum of the fees of a task's answers.
    function feesOf(Task memory task) internal pure returns (uint96 sum) {
        for (uint256 i; i < task.parts.length; ++i) {
            if (task.parts[i].state == PartState.Committed) sum += task.parts[i].fee;
        }
    }
}
