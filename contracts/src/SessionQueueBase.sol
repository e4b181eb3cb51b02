// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INodePool} from "./interfaces/INodePool.sol";
import {INodeStats, Outcome, Series} from "./interfaces/INodeStats.sol";
import {IRandomBeacon} from "./interfaces/IRandomBeacon.sol";
import {ISession, Payees, Progress} from "./interfaces/ISession.sol";
import {ISessionPayment} from "./interfaces/ISessionPayment.sol";
import {ISessionQueue, Task, TaskState} from "./interfaces/ISessionQueue.sol";
import {Assignment} from "./libraries/Assignment.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {Move} from "./libraries/Phases.sol";
import {TaskMemory} from "./libraries/TaskMemory.sol";
import {TaskWords} from "./libraries/TaskWords.sol";
import {Tickets} from "./libraries/Tickets.sol";
import {AssetId, Lane, NodeId, NumericClass, SessionId, TaskId} from "./types/Ids.sol";

/// The contracts that a queue calls.
struct QueueWiring {
    /// Where the code of both halves runs.
    address queue;
    address beacon;
    address models;
    address parameters;
    address payment;
    address pool;
    address proof;
    address session;
    address stats;
}

/// What `SessionQueue` and `SessionQueueEnd` share: the contracts that they call, what is stored, and how a task is
/// read and written.
abstract contract SessionQueueBase {
    using TaskMemory for Task;
    using TaskWords for Task;
    using TaskWords for uint256;

    /// Tasks that one settlement takes, or that one claim takes off the queue: bounds its gas.
    uint256 internal constant MAX_TASKS = 64;

    address internal immutable _beacon;
    address internal immutable _models;
    address internal immutable _parameters;
    address internal immutable _payment;
    address internal immutable _pool;
    address internal immutable _proof;
    address internal immutable _session;
    address internal immutable _stats;
    uint256 internal immutable _chainId = block.chainid;
    address internal immutable _queue;
    bytes32 internal immutable _domain;

    mapping(NodeId => uint8) internal _claims;
    mapping(TaskId => uint256 word) internal _tasks;
    mapping(SessionId => Tickets.Line) internal _lines;
    mapping(TaskId => mapping(NodeId => bool)) internal _punished;

    constructor(QueueWiring memory wiring) {
        if (wiring.beacon == address(0) || wiring.models == address(0) || wiring.parameters == address(0)) {
            revert ISessionQueue.SessionQueue_ZeroAddress();
        }
        if (wiring.payment == address(0) || wiring.pool == address(0) || wiring.session == address(0)) {
            revert ISessionQueue.SessionQueue_ZeroAddress();
        }
        if (wiring.stats == address(0) || wiring.proof == address(0)) revert ISessionQueue.SessionQueue_ZeroAddress();
        (_queue, _domain) = (wiring.queue, Commitments.domainSeparator(block.chainid, wiring.queue));
        (_beacon, _models, _parameters) = (wiring.beacon, wiring.models, wiring.parameters);
        (_payment, _pool, _session, _stats) = (wiring.payment, wiring.pool, wiring.session, wiring.stats);
        _proof = wiring.proof;
    }

    /// Frees held money, less the tip of whoever calls.
    function _free(Move memory move, AssetId asset, uint96 amount, uint96 tip) internal {
        ISessionPayment(_payment)
            .refund(move.task.sessionId, move.task.lane, asset, move.taskId, amount, msg.sender, tip);
    }

    /// Ends a task that nobody is paid for.
    function _refund(Move memory move, AssetId asset, uint96 amount, uint96 tip) internal {
        emit ISessionQueue.TaskRefunded(move.taskId, move.task.sessionId, amount - tip, tip);
        _free(move, asset, amount, tip);
    }

    /// `NodeStats` calls nobody.
    function _record(NodeId nodeId, bool dedicated, Outcome outcome, uint32 times) internal {
        INodeStats(_stats).count(nodeId, dedicated ? Series.Dedicated : Series.Drawn, outcome, times);
    }

    /// The stored task, which must be the one that was brought.
    function _load(Task calldata brought) internal view returns (Move memory move) {
        move.task = TaskMemory.read(brought);
        move.taskId = Commitments.taskIdOf(address(this), move.task);
        uint256 word = _tasks[move.taskId];
        if (word == 0) revert ISessionQueue.SessionQueue_UnknownTask(move.taskId);
        (move.state, move.until) = (word.stateOf(), word.untilOf());
        (bytes32 stored, bytes32 digest) = (word.digestOf(), move.task.digest());
        if (digest != stored) revert ISessionQueue.SessionQueue_StaleTask(move.taskId, stored, digest);
    }

    /// EIP-712 digest.
    function _typed(bytes32 structHash) internal view returns (bytes32) {
        return Commitments.typed(_separator(), structHash);
    }

    /// Hashed anew only on a chain that split off, and where the code runs at another address.
    function _separator() internal view returns (bytes32) {
        if (block.chainid == _chainId && address(this) == _queue) return _domain;
        return Commitments.domainSeparator(block.chainid, address(this));
    }

    function _store(Move memory move) internal {
        _tasks[move.taskId] = TaskWords.pack(move.state, move.until, move.task.digest());
    }

    function _tellMoved(Move memory move) internal {
        move.task.tellMoved(move.taskId, move.state, move.until);
    }

    function _expect(Move memory move, TaskState state) internal pure {
        if (move.state != state) _wrongState(move);
    }

    function _wrongState(Move memory move) internal pure {
        revert ISessionQueue.SessionQueue_WrongState(move.taskId, move.state);
    }

    function _checkInTime(Move memory move) internal view {
        if (block.timestamp > move.until) revert ISessionQueue.SessionQueue_DeadlinePassed(move.taskId, move.until);
    }

    /// Nodes of the task's reservation; none once it is over.
    function _ringOf(Task memory task) internal view returns (Assignment.Ring memory) {
        (uint256 nodes, uint8 dedicated) = ISession(_session).nodesOf(task.sessionId, task.reservation);
        return Assignment.ringOf(nodes, dedicated);
    }

    function _progressOf(Move memory move) internal view returns (Progress memory progress) {
        uint256 into;
        assembly ("memory-safe") {
            into := progress
        }
        _ask(abi.encodeCall(ISession.progressOf, (move.task.sessionId)), into, 224);
    }

    /// Has `Session` write its answer straight to the struct at `into`: the encoding of a struct of values is its words,
    /// and the protocol's own contract is not checked word by word. Every task asks.
    function _ask(bytes memory data, uint256 into, uint256 length) internal view {
        address session_ = _session;
        assembly ("memory-safe") {
            if iszero(staticcall(gas(), session_, add(data, 32), mload(data), into, length)) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
        }
    }

    function _operatorOf(NodeId nodeId) internal view returns (address) {
        return address(uint160(_wordOf(_pool, INodePool.operatorOf.selector, NodeId.unwrap(nodeId))));
    }

    function _classOf(NodeId nodeId) internal view returns (NumericClass) {
        return NumericClass.wrap(bytes32(_wordOf(_pool, INodePool.classOf.selector, NodeId.unwrap(nodeId))));
    }

    function _seedOf(uint64 round) internal view returns (bytes32) {
        return bytes32(_wordOf(_beacon, IRandomBeacon.valueOf.selector, round));
    }

    /// What a view of one of the protocol's own contracts tells of one word, in scratch memory: a redundant task asks
    /// for every node.
    function _wordOf(address target, bytes4 selector, uint256 argument) private view returns (uint256 word) {
        assembly ("memory-safe") {
            mstore(0, selector)
            mstore(4, argument)
            if iszero(staticcall(gas(), target, 0, 36, 0, 32)) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
            if lt(returndatasize(), 32) { revert(0, 0) }
            word := mload(0)
        }
    }

    function _checkHolder(SessionId sessionId, Lane lane, address holder) internal view {
        if (msg.sender != holder) revert ISessionQueue.SessionQueue_NotHolder(sessionId, lane, msg.sender);
    }

    function _payeesOf(Task memory task) internal view returns (Payees memory) {
        return ISession(_session).payeesOf(task.sessionId, task.lane);
    }
}
