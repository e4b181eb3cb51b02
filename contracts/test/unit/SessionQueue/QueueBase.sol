// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {
    Answer,
    Dispatch,
    ISessionQueue,
    PartState,
    Precommit,
    Task,
    TaskRequest,
    TaskState
} from "../../../src/interfaces/ISessionQueue.sol";
import {LaneFunds} from "../../../src/interfaces/ISessionPayment.sol";
import {Series} from "../../../src/interfaces/INodeStats.sol";
import {Lane, NodeId, SessionId, TaskId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

/// A session of four drawn nodes whose seed is known, and tasks of it.
abstract contract QueueBase is Base {
    SessionId internal id;

    function setUp() public virtual override {
        super.setUp();
        newNodes(4, 8);
        id = activeSession(4, 4);
        recordTasks();
    }

    // ---------------------------------------------------------------- requests

    /// A pushed request of the router's lane.
    function wanted(uint64 nonce) internal view virtual returns (TaskRequest memory) {
        return request(id, ROUTER_LANE, nonce, ANY_NODE);
    }

    function redundant(uint64 nonce, uint8 redundancy, uint8 attempts)
        internal
        view
        returns (TaskRequest memory result)
    {
        result = wanted(nonce);
        (result.redundancy, result.attempts) = (redundancy, attempts);
    }

    function pulled(uint64 nonce, uint8 attempts) internal view returns (TaskRequest memory result) {
        result = wanted(nonce);
        (result.dispatch, result.attempts) = (Dispatch.Pull, attempts);
    }

    /// A request of the owner's lane that wants to be told its answer.
    function calling(uint64 nonce, uint32 gas) internal view returns (TaskRequest memory result) {
        result = request(id, OWNER_LANE, nonce, ANY_NODE);
        result.callbackGas = gas;
    }

    function submit(TaskRequest memory given) internal returns (Task memory) {
        address holder = Lane.unwrap(given.lane) == 0 ? client : router;
        vm.prank(holder);
        queue.submit(given);
        return lastTask();
    }

    function refused(TaskRequest memory given, bytes memory why) internal {
        vm.expectRevert(why);
        vm.prank(router);
        queue.submit(given);
    }

    // ---------------------------------------------------------------- moves

    function commit(Task memory task, Answer memory given) internal returns (Task memory) {
        vm.prank(operatorOf(given.nodeId));
        queue.commit(task, only(given));
        return afterCommit(task, 0, given);
    }

    /// Signed by every node.
    function precommitAll(Task memory task) internal returns (Task memory) {
        queue.precommit(task, precommits(task));
        return lastTask();
    }

    function precommits(Task memory task) internal view returns (Precommit[] memory list) {
        list = new Precommit[](task.parts.length);
        for (uint256 i; i < list.length; ++i) {
            list[i] = signed(task, answer(task.parts[i].nodeId, 90, 150));
        }
    }

    function answers(Task memory task) internal pure returns (Answer[] memory list) {
        list = new Answer[](task.parts.length);
        for (uint256 i; i < list.length; ++i) {
            list[i] = answer(task.parts[i].nodeId, 90, 150);
        }
    }

    /// Node ids are the numbers of their owners.
    function signed(Task memory task, Answer memory given) internal view returns (Precommit memory) {
        return signedPrecommit(NodeId.unwrap(given.nodeId), idOf(task), given);
    }

    function advance(Task memory task) internal returns (Task memory) {
        vm.prank(keeper);
        queue.advance(task);
        return lastTask();
    }

    function claim(Task memory task, NodeId nodeId) internal returns (Task memory) {
        vm.prank(operatorOf(nodeId));
        queue.claim(task, nodeId, new Task[](0));
        return lastTask();
    }

    function settle(Task memory task) internal returns (uint256) {
        vm.prank(keeper);
        return queue.settle(only(task));
    }

    // ---------------------------------------------------------------- what is seen

    function idOf(Task memory task) internal view returns (TaskId) {
        return queue.taskIdOf(task.sessionId, task.lane, task.nonce);
    }

    function stateOf(Task memory task) internal view returns (TaskState state) {
        (state,,) = queue.statusOf(idOf(task));
    }

    function untilOf(Task memory task) internal view returns (uint40 until) {
        (, until,) = queue.statusOf(idOf(task));
    }

    function assertState(Task memory task, TaskState state) internal view {
        assertEq(uint8(stateOf(task)), uint8(state), "state");
        (,, bytes32 digest) = queue.statusOf(idOf(task));
        assertEq(digest, queue.digestOf(task), "digest");
        assertEq(digest, bytes32(uint256(keccak256(abi.encode(task))) >> 48 << 48), "written anew");
    }

    function held(Lane lane) internal view returns (uint256) {
        return payment.fundsOf(id, lane).held;
    }

    function free(Lane lane) internal view returns (uint256) {
        return payment.fundsOf(id, lane).free;
    }

    function tipsOf(address account) internal view returns (uint256) {
        return payment.balanceOf(account, COR);
    }

    /// A node of the session that is on no part of the task.
    function outsider(Task memory task) internal view returns (NodeId nodeId) {
        for (uint32 i = 1; i <= 4; ++i) {
            bool on;
            for (uint256 k; k < task.parts.length; ++k) {
                on = on || NodeId.unwrap(task.parts[k].nodeId) == i;
            }
            if (!on) return NodeId.wrap(i);
        }
        revert("every node is on the task");
    }

    function wrongState(Task memory task, TaskState state) internal view returns (bytes memory) {
        return abi.encodeWithSelector(ISessionQueue.SessionQueue_WrongState.selector, idOf(task), state);
    }

    function stale(Task memory task) internal view returns (bytes memory) {
        (,, bytes32 digest) = queue.statusOf(idOf(task));
        return
            abi.encodeWithSelector(
                ISessionQueue.SessionQueue_StaleTask.selector, idOf(task), digest, queue.digestOf(task)
            );
    }
}
