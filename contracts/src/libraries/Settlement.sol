// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Payees} from "../interfaces/ISession.sol";
import {Credit, Debit} from "../interfaces/ISessionPayment.sol";
import {ISessionQueue, Part, PartState, Task} from "../interfaces/ISessionQueue.sol";
import {AssetId, Lane, NodeId, SessionId, TaskId} from "../types/Ids.sol";
import {Fees, Shares} from "./Fees.sol";

/// What one settlement pays, and what its tasks share, so that it is read once. Money of one account and of one lane is
/// gathered over neighbouring answers.
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
        /// Who settles, and who is paid for audits.
        address keeper;
        address proof;
        /// Of the lane of the task before.
        SessionId sessionId;
        Lane lane;
        Payees payees;
        address publisher;
        uint16 royaltyBps;
        /// What the answers of a proven task that are paid give for audits, of their fees: 16 bits each, the next lowest.
        uint256 levies;
        /// What the lane's tasks gave so far.
        uint256 booked;
        Tally[] tallies;
        uint256 nodes;
        /// With room for all that there can be; `debit` is the last of them.
        Debit[] debits;
        Debit debit;
        Credit[] credits;
        /// Whether the lane has not been credited yet.
        bool turned;
        /// Not among `credits` yet.
        Credit miner;
        Credit router;
        Credit royalty;
        Credit tip;
        Credit burnt;
        Credit audits;
    }

    /// Nodes that are counted together, and parts of a task at most: as many as a reservation has nodes.
    uint256 internal constant MAX_NODES = 8;
    /// Kinds of credits beside those of the miners, which every task may begin anew.
    uint256 internal constant KINDS = 5;

    function open(uint256 tasks, address keeper, address proof) internal pure returns (Books memory books) {
        (books.keeper, books.proof, books.tallies) = (keeper, proof, new Tally[](MAX_NODES));
        (Debit[] memory debits, Credit[] memory credits) = (books.debits, books.credits);
        uint256 most = tasks * (MAX_NODES + KINDS) + KINDS + 1;
        // Lists that grow: what is not in use yet is not written.
        assembly ("memory-safe") {
            debits := mload(0x40)
            credits := add(debits, mul(add(tasks, 1), 32))
            mstore(debits, 0)
            mstore(credits, 0)
            mstore(0x40, add(credits, mul(add(most, 1), 32)))
        }
        (books.debits, books.credits) = (debits, credits);
    }

    /// Begins the tasks of another lane, if the task is not of the one before; `fresh` if its payees are to be read.
    function turn(Books memory books, Task memory task) internal pure returns (bool fresh) {
        fresh = SessionId.unwrap(books.sessionId) != SessionId.unwrap(task.sessionId)
            || Lane.unwrap(books.lane) != Lane.unwrap(task.lane);
        if (fresh) (books.sessionId, books.lane, books.turned) = (task.sessionId, task.lane, true);
    }

    /// After `payees` are read.
    function begin(Books memory books) internal pure {
        Debit memory debit;
        (debit.sessionId, debit.lane, debit.asset) = (books.sessionId, books.lane, books.payees.asset);
        Debit[] memory debits = books.debits;
        books.debit = debit;
        assembly ("memory-safe") {
            let count := add(mload(debits), 1)
            mstore(debits, count)
            mstore(add(debits, mul(count, 32)), debit)
        }
    }

    /// Place of the tally of a part's node; `books.nodes` if there is none.
    function indexOf(Books memory books, Part memory part) internal pure returns (uint256 i) {
        (Tally[] memory tallies, uint256 nodes) = (books.tallies, books.nodes);
        (uint256 nodeId, bool dedicated) = (NodeId.unwrap(part.nodeId), part.dedicated);
        for (; i < nodes; ++i) {
            Tally memory tally = tallies[i];
            if (NodeId.unwrap(tally.nodeId) == nodeId && tally.dedicated == dedicated) return i;
        }
    }

    /// Index of the answer of record, the lowest that was committed; as many as there are parts if there is none.
    function indexOfRecord(Task memory task) internal pure returns (uint256 i) {
        while (i < task.parts.length && task.parts[i].state != PartState.Committed) ++i;
    }

    /// How many answers were committed.
    function committedOf(Task memory task) internal pure returns (uint256 count) {
        for (uint256 i; i < task.parts.length; ++i) {
            if (task.parts[i].state == PartState.Committed) ++count;
        }
    }

    /// Divides the fee of one answer, which `payout` is paid for.
    function divide(Books memory books, TaskId taskId, Part memory part, address payout) internal {
        Payees memory payees = books.payees;
        Shares memory shares = Fees.splitDown(part.fee, payees.minerBps, payees.routerBps, books.royaltyBps, payees.tip);
        // The owner's own lane has no router to pay.
        if (Lane.unwrap(books.lane) == 0) (shares.miner, shares.router) = (shares.miner + shares.router, 0);
        _follow(books, payout);
        if (books.levies != 0) _levy(books, part.fee, shares);
        unchecked {
            // Sums of a few hundred amounts below 2^96.
            books.debit.spent += part.fee;
            books.miner.amount += shares.miner;
            books.router.amount += shares.router;
            books.royalty.amount += shares.royalty;
            books.tip.amount += shares.tip;
            books.burnt.amount += shares.burnt;
        }
        _tellSettled(books, taskId, part, shares);
    }

    /// Out of the miner's share, which is never less: see `ProofBounds`.
    function _levy(Books memory books, uint96 fee, Shares memory shares) private pure {
        uint96 levy = uint96(uint256(fee) * uint16(books.levies) / Fees.BPS);
        books.levies >>= 16;
        if (levy > shares.miner) levy = shares.miner;
        shares.miner -= levy;
        books.booked += levy;
        books.audits.amount += levy;
    }

    /// Who is credited from now on. What another account had is entered.
    function _follow(Books memory books, address payout) private pure {
        AssetId asset = books.payees.asset;
        Credit[] memory credits = books.credits;
        books.miner = _next(credits, books.miner, payout, asset);
        if (!books.turned) return;
        books.turned = false;
        books.router = _next(credits, books.router, books.payees.holder, asset);
        books.royalty = _next(credits, books.royalty, books.publisher, asset);
        books.tip = _next(credits, books.tip, books.keeper, asset);
        books.burnt = _next(credits, books.burnt, address(0), asset);
        if (books.payees.isProven) books.audits = _next(credits, books.audits, books.proof, asset);
    }

    /// The members of `Shares` are the event's data behind the fee, in this order: copied instead of encoded.
    function _tellSettled(Books memory books, TaskId taskId, Part memory part, Shares memory shares) private {
        (bytes32 topic, uint256 sessionId) = (ISessionQueue.TaskSettled.selector, SessionId.unwrap(books.sessionId));
        (uint256 nodeId, uint256 fee) = (NodeId.unwrap(part.nodeId), part.fee);
        assembly ("memory-safe") {
            let data := mload(0x40)
            mstore(data, fee)
            mcopy(add(data, 32), shares, 160)
            log4(data, 192, topic, taskId, sessionId, nodeId)
        }
    }

    /// Nothing is divided any more.
    function close(Books memory books) internal pure {
        Credit[] memory credits = books.credits;
        _enter(credits, books.miner);
        _enter(credits, books.router);
        _enter(credits, books.royalty);
        _enter(credits, books.tip);
        _enter(credits, books.burnt);
        _enter(credits, books.audits);
    }

    /// `credit`, or, if that is another account's, a new one.
    function _next(Credit[] memory credits, Credit memory credit, address account, AssetId asset)
        private
        pure
        returns (Credit memory)
    {
        if (credit.account == account && AssetId.unwrap(credit.asset) == AssetId.unwrap(asset)) return credit;
        _enter(credits, credit);
        return Credit(account, asset, 0);
    }

    function _enter(Credit[] memory credits, Credit memory credit) private pure {
        if (credit.amount == 0) return;
        assembly ("memory-safe") {
            let count := add(mload(credits), 1)
            mstore(credits, count)
            mstore(add(credits, mul(count, 32)), credit)
        }
    }
}
