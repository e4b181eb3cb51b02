// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {OpenTerms} from "../../../src/interfaces/ISession.sol";
import {Answer, ISessionQueue, Task, TaskRequest, TaskState} from "../../../src/interfaces/ISessionQueue.sol";
import {AnswerBook} from "../../../src/periphery/AnswerBook.sol";
import {Lane, SessionId, TaskId} from "../../../src/types/Ids.sol";
import {Consumer} from "../../mocks/Consumers.sol";
import {QueueBase} from "./QueueBase.sol";

/// `deliver`, owners that are contracts, and the example of one.
contract CallbacksTest is QueueBase {
    uint32 internal constant GAS = 100_000;
    /// What a contract may spend on a signature.
    uint256 internal constant CHECK_GAS = 250_000;

    Consumer internal consumer;

    function setUp() public override {
        super.setUp();
        consumer = new Consumer(queue);
        token.transfer(address(consumer), DEPOSIT);
        id = consumer.open(terms(4, 4), token);
        drawNodes(id);
        reveal(session.sessionOf(id).current.seedRound);
        nextBlock();
        recordTasks();
    }

    function asked(uint64 nonce) internal returns (Task memory) {
        consumer.submit(calling(nonce, GAS));
        return lastTask();
    }

    /// A settled task that waits for its callback.
    function settled(uint64 nonce) internal returns (Task memory task, Answer memory given) {
        task = asked(nonce);
        given = answer(task.parts[0].nodeId, 90, 150);
        task = commit(task, given);
        skipTime(SETTLE_DELAY);
        settle(task);
    }

    function test_deliver_tells_once_and_pays_a_tip() public {
        (Task memory task, Answer memory given) = settled(0);
        assertEq(held(OWNER_LANE), TIP, "the tip waits");
        uint256 before = tipsOf(router);
        vm.prank(router);
        queue.deliver(task, given);
        assertEq(tipsOf(router) - before, TIP, "tip");
        assertEq(held(OWNER_LANE), 0, "held");
        assertEq(consumer.calls(), 1, "told");
        assertState(task, TaskState.Settled);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NoCallback.selector, idOf(task)));
        queue.deliver(task, given);
    }

    function test_deliver_of_a_refunded_task() public {
        Task memory task = asked(0);
        vm.warp(untilOf(task) + 1);
        task = advance(task);
        Answer memory none;
        queue.deliver(task, none);
        assertEq(consumer.calls(), 1, "told");
        assertEq(held(OWNER_LANE), 0, "held");
    }

    function test_deliver_refusals() public {
        Task memory open = asked(0);
        Answer memory given = answer(open.parts[0].nodeId, 90, 150);
        vm.expectRevert(wrongState(open, TaskState.Assigned));
        queue.deliver(open, given);
        (Task memory task, Answer memory right) = settled(1);
        Answer memory wrong = answer(right.nodeId, 90, 149);
        bytes memory why = abi.encodeWithSelector(
            ISessionQueue.SessionQueue_WrongOpening.selector, idOf(task), wrong.nodeId, commitmentOf(idOf(task), wrong)
        );
        vm.expectRevert(why);
        queue.deliver(task, wrong);
        wrong.nodeId = outsider(task);
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NotOnTask.selector, idOf(task), wrong.nodeId));
        queue.deliver(task, wrong);
        vm.expectPartialRevert(ISessionQueue.SessionQueue_NotEnoughGas.selector);
        queue.deliver{gas: 150_000}(task, right);
        assertEq(consumer.calls(), 0, "never told");
    }

    /// [M10] A consumer that reverts, burns its gas or returns a bomb spends no more than it named, and is told no
    /// more.
    function testFuzz_a_bad_consumer_stops_nothing(uint8 manner) public {
        (Task memory task, Answer memory given) = settled(0);
        consumer.behave(Consumer.Manner(bound(manner, 1, 3)));
        uint256 before = gasleft();
        queue.deliver(task, given);
        assertTrue(before - gasleft() < 2 * uint256(GAS) + 100_000, "gas");
        assertEq(held(OWNER_LANE), 0, "held");
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NoCallback.selector, idOf(task)));
        queue.deliver(task, given);
    }

    /// [M10]
    function test_a_consumer_that_re_enters() public {
        (Task memory task, Answer memory given) = settled(0);
        consumer.remember(abi.encodeCall(ISessionQueue.deliver, (task, given)));
        consumer.behave(Consumer.Manner.ReEnters);
        uint256 before = tipsOf(keeper);
        vm.prank(keeper);
        queue.deliver(task, given);
        assertEq(tipsOf(keeper) - before, TIP, "one tip");
        assertEq(payment.balanceOf(address(consumer), COR), 0, "none for the consumer");
    }

    function test_the_consumer_has_the_gas_that_was_named() public {
        (Task memory task, Answer memory given) = settled(0);
        queue.deliver(task, given);
        assertTrue(consumer.gasOnEntry() > GAS - 1000 && consumer.gasOnEntry() <= GAS, "gas");
    }

    function test_cancelled_tasks_have_no_callback() public {
        TaskRequest memory given = pulled(0, 1);
        (given.lane, given.callbackGas) = (OWNER_LANE, GAS);
        consumer.submit(given);
        Task memory task = lastTask();
        vm.prank(address(consumer));
        queue.cancel(task);
        assertEq(held(OWNER_LANE), 0, "nothing waits");
        Answer memory none;
        vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_NoCallback.selector, idOf(task)));
        queue.deliver(task, none);
    }

    // ---------------------------------------------------------------- EIP-1271

    function test_an_owner_that_is_a_contract_signs() public {
        TaskRequest memory given = request(id, OWNER_LANE, 0, ANY_NODE);
        queue.submitSigned(given, hex"01");
        assertState(lastTask(), TaskState.Assigned);
    }

    /// [M10]
    function test_an_owner_that_is_a_contract_refuses() public {
        TaskRequest memory given = request(id, OWNER_LANE, 0, ANY_NODE);
        bytes memory why =
            abi.encodeWithSelector(ISessionQueue.SessionQueue_BadSignature.selector, id, OWNER_LANE, address(consumer));
        vm.expectRevert(why);
        queue.submitSigned(given, hex"02");
        for (uint8 manner = 1; manner <= 3; ++manner) {
            consumer.behave(Consumer.Manner(manner));
            vm.expectRevert(why);
            queue.submitSigned{gas: CHECK_GAS + 200_000}(given, hex"01");
        }
    }

    // ---------------------------------------------------------------- the example

    function test_the_answer_book() public {
        AnswerBook book = new AnswerBook(client, queue);
        vm.prank(client);
        token.approve(address(book), DEPOSIT);
        OpenTerms memory wanted_ = terms(4, 4);
        delete wanted_.lanes;
        vm.prank(client);
        id = book.open(wanted_);
        drawNodes(id);
        reveal(session.sessionOf(id).current.seedRound);
        TaskRequest memory given = request(id, OWNER_LANE, 0, ANY_NODE);
        vm.prank(client);
        TaskId taskId = book.ask(given);
        Task memory task = lastTask();
        Answer memory answer_ = answer(task.parts[0].nodeId, 90, 150);
        task = commit(task, answer_);
        skipTime(SETTLE_DELAY);
        settle(task);
        queue.deliver(task, answer_);
        AnswerBook.Entry memory entry = book.entryOf(taskId);
        assertEq(uint8(entry.page), uint8(AnswerBook.Page.Answered), "answered");
        assertEq(entry.outputDigest, answer_.outputDigest, "digest");
        assertEq(entry.outputTokens, 150, "tokens");
        vm.expectRevert(abi.encodeWithSelector(AnswerBook.AnswerBook_NotQueue.selector, keeper));
        vm.prank(keeper);
        book.onAnswer(id, taskId, answer_.nodeId, 0, 0);
        TaskId unasked = TaskId.wrap("unasked");
        vm.expectRevert(abi.encodeWithSelector(AnswerBook.AnswerBook_NotAsked.selector, unasked));
        vm.prank(address(queue));
        book.onAnswer(id, unasked, answer_.nodeId, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(AnswerBook.AnswerBook_NotOwner.selector, keeper));
        vm.prank(keeper);
        book.ask(given);
        vm.prank(client);
        book.close();
        skipTime(NOTICE + 1);
        session.finish(id);
        uint256 before = token.balanceOf(client);
        vm.prank(client);
        book.withdraw(COR);
        assertTrue(token.balanceOf(client) > before, "the rest is back");
    }
}
