// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Dispatch, Part, PartState, Precommit, Task, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {Lane, NodeId, SessionId} from "../../../src/types/Ids.sol";
import {QueueBase} from "./QueueBase.sol";

/// Tasks are hashed as they lie in calldata: however they lie there, a call does what it does with the encoding of the
/// compiler, or nothing.
contract LayoutTest is QueueBase {
    /// Selector and the offset of the only argument; of a list of one task also its length and the task's offset.
    uint256 internal constant TASK_AT = 4 + 32;
    uint256 internal constant LISTED_AT = 4 + 3 * 32;
    /// Of a task, and of an argument `Answer` behind one of them.
    uint256 internal constant HEAD_WORDS = 15;
    uint256 internal constant PART_WORDS = 5;

    function anyTask(uint256 seed, uint256 parts) internal pure returns (Task memory task) {
        uint256 bits = uint256(keccak256(abi.encode(seed)));
        task.sessionId = SessionId.wrap(uint64(bits));
        (task.lane, task.nonce) = (Lane.wrap(uint32(bits >> 8)), uint64(bits >> 16));
        (task.seedRound, task.reservation) = (uint64(bits >> 24), uint64(bits >> 32));
        (task.maxPrompt, task.maxOutput, task.held) = (uint32(bits >> 40), uint32(bits >> 48), uint96(bits >> 56));
        (task.finalBy, task.attemptsLeft, task.tried) = (uint40(bits >> 64), uint8(bits >> 72), uint8(bits >> 80));
        (task.dispatch, task.ticket) = (Dispatch(bits % 2), uint64(bits >> 88));
        task.callbackGas = uint32(bits >> 96);
        task.parts = new Part[](parts);
        for (uint256 i; i < parts; ++i) {
            bytes32 more = keccak256(abi.encode(seed, i));
            task.parts[i] = Part({
                nodeId: NodeId.wrap(uint32(uint256(more))),
                state: PartState(uint256(more) % 4),
                dedicated: uint256(more) % 2 == 1,
                fee: uint96(uint256(more) >> 100),
                commitment: more
            });
        }
    }

    function plain(Task memory task) internal pure returns (bytes32) {
        return bytes32(uint256(keccak256(abi.encode(task))) >> 48 << 48);
    }

    function testFuzz_the_digest_is_that_of_the_encoding(uint256 seed, uint8 parts) public view {
        Task memory task = anyTask(seed, parts % 9);
        assertEq(queue.digestOf(task), plain(task), "keccak256(abi.encode(task)), 208 bits");
    }

    /// The parts may lie anywhere in the calldata.
    function testFuzz_a_gap_before_the_parts_changes_nothing(uint256 seed, uint8 parts, uint8 gap) public view {
        Task memory task = anyTask(seed, parts % 9);
        bytes memory data = apart(abi.encodeCall(queue.digestOf, (task)), TASK_AT, gap);
        (bool done, bytes memory told) = address(queue).staticcall(data);
        assertTrue(done, "taken");
        assertEq(abi.decode(told, (bytes32)), plain(task), "the same digest");
    }

    function test_a_task_with_a_gap_is_settled_and_told_as_any_other() public {
        Task memory task = submit(redundant(0, 3, 1));
        bytes memory data = abi.encodeCall(queue.precommit, (task, precommits(task)));
        uint256 offset = 4 + 2 * 32;
        // The precommitments lie behind the task: their offset grows with the gap.
        bytes memory wide = apart(data, offset, 7);
        put(wide, 4 + 32, word(data, 4 + 32) + 7 * 32);
        (bool done,) = address(queue).call(wide);
        assertTrue(done, "precommitted");
        task = lastTask();
        assertState(task, TaskState.Precommitted);
        queue.commit(task, answers(task));
        task = lastTask();
        skipTime(SETTLE_DELAY);
        data = apart(abi.encodeCall(queue.settle, (only(task))), LISTED_AT, 3);
        (bool called, bytes memory told) = address(queue).call(data);
        assertTrue(called && abi.decode(told, (uint256)) == 1, "settled");
        assertState(task, TaskState.Settled);
    }

    /// No bit beyond what a type knows passes for the stored task.
    function testFuzz_a_dirty_task_is_not_the_stored_one(uint8 which, uint8 bit) public {
        Task memory task = submit(redundant(0, 3, 1));
        task = precommitAll(task);
        queue.commit(task, answers(task));
        task = lastTask();
        skipTime(SETTLE_DELAY);
        bytes memory data = abi.encodeCall(queue.settle, (only(task)));
        // All words but the offset of the parts and their count, which say where things are.
        uint256 place = which % (HEAD_WORDS + 3 * PART_WORDS - 1);
        if (place >= HEAD_WORDS - 1) place += 2;
        uint256 offset = LISTED_AT + place * 32;
        put(data, offset, word(data, offset) ^ 1 << bit);
        (bool done, bytes memory told) = address(queue).call(data);
        assertTrue(!done || abi.decode(told, (uint256)) == 0, "refused or skipped");
        assertState(task, TaskState.Committed);
        assertEq(settle(task), 1, "as it is stored");
    }

    /// A list of parts that is longer than any task's, or than the calldata.
    function testFuzz_a_task_with_wrong_counts(uint256 count) public {
        Task memory task = submit(wanted(0));
        task = commit(task, answer(task.parts[0].nodeId, 90, 150));
        skipTime(SETTLE_DELAY);
        bytes memory data = abi.encodeCall(queue.settle, (only(task)));
        put(data, LISTED_AT + HEAD_WORDS * 32, count == 1 ? 2 : count);
        (bool done, bytes memory told) = address(queue).call(data);
        assertTrue(!done || abi.decode(told, (uint256)) == 0, "refused or skipped");
        assertState(task, TaskState.Committed);
        assertEq(queue.settle(only(anyTask(1, 9))), 0, "nine parts");
    }

    /// [T5] Settled one after the other, tasks lie in the same memory: one that no stored task can be, because it has
    /// more parts, leaves nothing there that the next one is paid by.
    function testFuzz_a_task_with_too_many_parts_spoils_no_other(uint256 seed, uint8 more) public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        task = commit(task, answer(nodeId, 90, 150));
        skipTime(SETTLE_DELAY);
        Task[] memory both = new Task[](2);
        (both[0], both[1]) = (anyTask(seed, 9 + more % 8), task);
        vm.prank(keeper);
        assertEq(queue.settle(both), 1, "the real one");
        uint256 fee = task.parts[0].fee;
        assertEq(payment.balanceOf(payoutOf(NodeId.unwrap(nodeId)), COR), fee * MINER_BPS / 10_000, "paid");
        assertEq(free(ROUTER_LANE), ALLOTMENT - fee, "out of its lane");
    }

    /// The short members of an answer are what they can be: their words are hashed and told as they come.
    function testFuzz_a_dirty_answer_is_refused(uint8 which, uint8 bit) public {
        Task memory task = submit(wanted(0));
        NodeId nodeId = task.parts[0].nodeId;
        address operator = operatorOf(nodeId);
        bytes memory data = abi.encodeCall(queue.commit, (task, only(answer(nodeId, 90, 150))));
        uint8[4] memory places = [0, 3, 4, 6];
        uint8[4] memory widths = [32, 32, 32, 8];
        which %= 4;
        uint256 answersAt = 4 + word(data, 4 + 32);
        uint256 offset = answersAt + 64 + uint256(places[which]) * 32;
        put(data, offset, word(data, offset) ^ 1 << bound(bit, widths[which], 255));
        vm.prank(operator);
        (bool done, bytes memory why) = address(queue).call(data);
        assertTrue(!done && why.length == 0, "refused as the compiler would");
        assertState(task, TaskState.Assigned);
    }

    // ---------------------------------------------------------------- calldata

    function word(bytes memory data, uint256 offset) internal pure returns (uint256 value) {
        assembly {
            value := mload(add(add(data, 32), offset))
        }
    }

    function put(bytes memory data, uint256 offset, uint256 value) internal pure {
        assembly {
            mstore(add(add(data, 32), offset), value)
        }
    }

    /// The same with so many words of ones between the head of the task at `offset` and its parts.
    function apart(bytes memory data, uint256 offset, uint256 gap) internal pure returns (bytes memory result) {
        uint256 cut = offset + HEAD_WORDS * 32;
        result = new bytes(data.length + gap * 32);
        for (uint256 i; i < result.length; ++i) {
            if (i < cut) result[i] = data[i];
            else result[i] = i < cut + gap * 32 ? bytes1(0xff) : data[i - gap * 32];
        }
        put(result, cut - 32, word(data, cut - 32) + gap * 32);
    }
}
