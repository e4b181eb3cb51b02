// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeRegistration} from "../../src/interfaces/INodePool.sol";
import {OpenTerms} from "../../src/interfaces/ISession.sol";
import {Commit, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {Fees, Shares} from "../../src/libraries/Fees.sol";
import {Lane, ModelId, NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

/// Every path that money takes, with any prices, token counts and shares.
contract MoneyTest is Base {
    ModelId internal constant PRICED = ModelId.wrap(keccak256("priced"));

    struct Input {
        uint96 priceIn;
        uint96 priceOut;
        uint16 royaltyBps;
        uint32 maxPrompt;
        uint32 maxOutput;
        uint32 prompt;
        uint32 output;
        bool ownersLane;
        bool folded;
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function testFuzz_fee_is_exact(uint32 prompt, uint32 output, uint96 priceIn, uint96 priceOut) public pure {
        uint256 fee_ = Fees.feeOf(prompt, output, priceIn, priceOut);
        assertEq(fee_, uint256(prompt) * uint256(priceIn) + uint256(output) * uint256(priceOut), "fee");
        // What a commit may cost is never above what was held for it.
        uint256 less = Fees.feeOf(prompt / 2, output / 3, priceIn, priceOut);
        assertTrue(less <= fee_, "monotone");
    }

    function testFuzz_split_is_exact_and_rounds_down(uint128 fee_, uint16 a, uint16 b, uint16 c, uint128 tip)
        public
        pure
    {
        a = uint16(bound(a, 0, 10_000));
        b = uint16(bound(b, 0, 10_000 - a));
        c = uint16(bound(c, 0, 10_000 - a - b));
        Shares memory shares = Fees.splitDown(fee_, a, b, c, tip);
        uint256 sum = uint256(shares.miner) + shares.router + shares.royalty + shares.tip + shares.burnt;
        assertEq(sum, fee_, "sum");
        assertEq(shares.miner, uint256(fee_) * a / 10_000, "miner");
        assertEq(shares.router, uint256(fee_) * b / 10_000, "router");
        assertEq(shares.royalty, uint256(fee_) * c / 10_000, "royalty");
        assertTrue(shares.tip <= tip, "tip is capped");
        assertTrue(shares.burnt == 0 || shares.tip == tip, "burnt only beyond the tip");
    }

    /// A session on a model with the input's prices, funded for the largest fee.
    function priced(Input memory input) internal returns (SessionId id, uint128 deposit) {
        input.priceIn = uint96(bound(input.priceIn, 1, 1000e18));
        input.priceOut = uint96(bound(input.priceOut, 1, 1000e18));
        input.royaltyBps = uint16(bound(input.royaltyBps, 0, 300));
        input.maxPrompt = uint32(bound(input.maxPrompt, 1, 1 << 10));
        input.maxOutput = uint32(bound(input.maxOutput, 1, 1 << 10));
        input.prompt = uint32(bound(input.prompt, 1, input.maxPrompt));
        input.output = uint32(bound(input.output, 1, input.maxOutput));
        vm.prank(publisher);
        models.register(PRICED, "digest", input.priceIn, input.priceOut, input.royaltyBps);
        fund(ownerOf(1), COLLATERAL);
        vm.startPrank(ownerOf(1));
        pool.register(withModel());
        vm.stopPrank();
        skipTime(2);
        deposit = uint128(Fees.feeOf(input.maxPrompt, input.maxOutput, input.priceIn, input.priceOut)) + 1e18;
        fund(client, deposit);
        OpenTerms memory wanted = terms(1, 1);
        wanted.modelId = PRICED;
        (wanted.maxPriceIn, wanted.maxPriceOut) = (input.priceIn, input.priceOut);
        wanted.deposit = deposit;
        wanted.lanes[0].allotment = type(uint128).max;
        vm.prank(client);
        id = session.open(wanted);
        reveal(session.sessionOf(id).drawRound);
        session.activate(id);
        reveal(session.sessionOf(id).seedRound);
    }

    function withModel() internal pure returns (NodeRegistration memory r) {
        r = registration(1, 1);
        r.modelId = PRICED;
    }

    function taskRequest(SessionId id, Input memory input) internal view returns (TaskRequest memory task) {
        Lane lane = input.ownersLane ? OWNER_LANE : ROUTER_LANE;
        task = request(id, lane, 0, NodeId.wrap(1));
        (task.maxPrompt, task.maxOutput, task.feeCap) = (input.maxPrompt, input.maxOutput, type(uint128).max);
    }

    function maxFee(Input memory input) internal pure returns (uint256) {
        return Fees.feeOf(input.maxPrompt, input.maxOutput, input.priceIn, input.priceOut);
    }

    function serve(SessionId id, Input memory input) internal returns (TaskId taskId) {
        TaskRequest memory task = taskRequest(id, input);
        bytes memory signature = sign(input.ownersLane ? CLIENT_KEY : ROUTER_KEY, task);
        Commit memory given = answer(input.prompt, input.output);
        if (input.folded) {
            vm.prank(operatorOf(NodeId.wrap(1)));
            return queue.submitAndCommit(task, signature, given);
        }
        taskId = queue.submitSigned(task, signature);
        (, uint128 held) = payment.sessionFunds(id);
        assertEq(held, maxFee(input), "held");
        vm.prank(operatorOf(NodeId.wrap(1)));
        queue.commit(taskId, given);
    }

    function testFuzz_settled_task_moves_exactly_its_fee(Input memory input) public {
        (SessionId id, uint128 deposit) = priced(input);
        vm.assume(maxFee(input) >= TIP);
        uint256 supply = token.totalSupply();
        TaskId taskId = serve(id, input);
        uint128 fee_ = uint128(Fees.feeOf(input.prompt, input.output, input.priceIn, input.priceOut));
        (uint128 free, uint128 held) = payment.sessionFunds(id);
        assertEq(held, fee_, "the fee alone is held");
        assertEq(free, deposit - fee_, "the rest is free");
        skipTime(SETTLE_DELAY);
        vm.prank(keeper);
        assertEq(queue.settle(only(taskId)), 1, "settled");

        (free, held) = payment.sessionFunds(id);
        assertEq(held, 0, "nothing held");
        assertEq(free, deposit - fee_, "the client paid exactly the fee");
        Lane lane = input.ownersLane ? OWNER_LANE : ROUTER_LANE;
        assertEq(session.laneOf(id, lane).used, fee_, "lane");
        Shares memory shares = Fees.splitDown(fee_, MINER_BPS, ROUTER_BPS, input.royaltyBps, TIP);
        if (input.ownersLane) (shares.miner, shares.router) = (shares.miner + shares.router, 0);
        assertEq(payment.balanceOf(payoutOf(1)), shares.miner, "miner");
        assertEq(payment.balanceOf(router), shares.router, "router");
        assertEq(payment.balanceOf(publisher), shares.royalty, "publisher");
        assertEq(payment.balanceOf(keeper), shares.tip, "keeper");
        assertEq(supply - token.totalSupply(), shares.burnt, "burnt");
        assertEq(payment.totalAccounts(), token.balanceOf(address(payment)), "backed");
    }

    function testFuzz_refunded_task_costs_the_tip_alone(Input memory input) public {
        (SessionId id, uint128 deposit) = priced(input);
        vm.assume(maxFee(input) >= TIP);
        TaskRequest memory task = taskRequest(id, input);
        vm.prank(input.ownersLane ? client : router);
        TaskId taskId = queue.submit(task);
        vm.warp(task.deadline + 1);
        vm.prank(keeper);
        queue.advance(taskId);
        (uint128 free, uint128 held) = payment.sessionFunds(id);
        assertEq(held, 0, "nothing held");
        assertEq(free, deposit - TIP, "free");
        assertEq(payment.balanceOf(keeper), TIP, "keeper");
        assertEq(session.laneOf(id, task.lane).used, TIP, "lane");
        vm.prank(client);
        session.close(id);
        vm.warp(block.timestamp + NOTICE + 1);
        session.finish(id);
        assertEq(payment.balanceOf(client), deposit - TIP, "the client has the rest");
        vm.startPrank(client);
        payment.withdraw(client, deposit - TIP);
        vm.stopPrank();
        assertEq(payment.totalAccounts(), token.balanceOf(address(payment)), "backed");
    }
}
