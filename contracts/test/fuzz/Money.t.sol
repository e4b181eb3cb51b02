// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Credit, Debit, LaneFunds} from "../../src/interfaces/ISessionPayment.sol";
import {OpenTerms} from "../../src/interfaces/ISession.sol";
import {Fees, Shares} from "../../src/libraries/Fees.sol";
import {AssetId, Lane, SessionId, TaskId} from "../../src/types/Ids.sol";
import {Base} from "../Base.sol";

/// Prices, fees and shares for any numbers, and every path that the money of a task takes, in each asset.
contract MoneyTest is Base {
    struct Input {
        bool inUsd;
        bool ownersLane;
        uint96 held;
        uint96 fee;
        uint96 tip;
        uint16 minerBps;
        uint16 routerBps;
        uint16 royaltyBps;
    }

    address internal miner = address(0x111);

    function testFuzz_price_lies_between_floor_and_five_times_it(uint80 floor, uint16 use) public pure {
        floor = uint80(bound(floor, 1, type(uint80).max / MAX_FACTOR));
        use = uint16(bound(use, 0, Fees.BPS));
        uint256 price = Fees.priceDown(floor, use);
        uint256 wanted = floor + uint256(floor) * 4 * use * use / 1e8;
        assertEq(price, wanted, "floor * (1 + 4 u^2), down");
        assertTrue(price >= floor && price <= uint256(floor) * MAX_FACTOR, "bounds");
        if (use > 0) assertTrue(price >= Fees.priceDown(floor, use - 1), "grows with the use");
        assertEq(Fees.priceDown(floor, 0), floor, "an idle pool");
        assertEq(Fees.priceDown(floor, 10_000), uint256(floor) * 5, "a full pool");
    }

    /// [M3]
    function testFuzz_fee_is_rounded_up_by_less_than_one(uint32 prompt, uint32 output, uint80 priceIn, uint80 priceOut)
        public
        pure
    {
        uint256 exact = uint256(prompt) * priceIn + uint256(output) * priceOut;
        uint256 rounded = Fees.feeUp(prompt, output, priceIn, priceOut);
        assertTrue(rounded * 1e6 >= exact && rounded * 1e6 < exact + 1e6, "rounded up");
        // What an answer may cost is never above what was held for it.
        assertTrue(Fees.feeUp(prompt / 2, output / 3, priceIn, priceOut) <= rounded, "monotone");
    }

    /// [M4]
    function testFuzz_split_is_exact_and_rounds_down(uint96 whole, uint16 a, uint16 b, uint16 c, uint96 tip)
        public
        pure
    {
        a = uint16(bound(a, 0, 10_000));
        b = uint16(bound(b, 0, 10_000 - a));
        c = uint16(bound(c, 0, 10_000 - a - b));
        Shares memory shares = Fees.splitDown(whole, a, b, c, tip);
        uint256 sum = uint256(shares.miner) + shares.router + shares.royalty + shares.tip + shares.burnt;
        assertEq(sum, whole, "sum");
        assertEq(shares.miner, uint256(whole) * a / 10_000, "miner");
        assertEq(shares.router, uint256(whole) * b / 10_000, "router");
        assertEq(shares.royalty, uint256(whole) * c / 10_000, "royalty");
        assertTrue(shares.tip <= tip, "tip is capped");
        assertTrue(shares.burnt == 0 || shares.tip == tip, "burnt only beyond the tip");
    }

    function opened(Input memory input) internal returns (SessionId id, Lane lane, AssetId asset) {
        OpenTerms memory wanted = input.inUsd ? termsInUsd(1, 1) : terms(1, 1);
        id = openWith(wanted);
        (lane, asset) = (input.ownersLane ? OWNER_LANE : ROUTER_LANE, wanted.asset);
        input.held = uint96(bound(input.held, 1, payment.fundsOf(id, lane).free));
        input.fee = uint96(bound(input.fee, 0, input.held));
        input.minerBps = uint16(bound(input.minerBps, 0, 10_000));
        input.routerBps = uint16(bound(input.routerBps, 0, 10_000 - input.minerBps));
        input.royaltyBps = uint16(bound(input.royaltyBps, 0, 10_000 - input.minerBps - input.routerBps));
    }

    function sharesOf(Input memory input) internal pure returns (Shares memory) {
        return Fees.splitDown(input.fee, input.minerBps, input.routerBps, input.royaltyBps, input.tip);
    }

    function pay(Input memory input, SessionId id, Lane lane, AssetId asset) internal {
        Shares memory shares = sharesOf(input);
        Debit[] memory debits = new Debit[](1);
        debits[0] = Debit(id, lane, asset, TaskId.wrap("task"), input.held, input.fee);
        Credit[] memory credits = new Credit[](5);
        credits[0] = Credit(miner, asset, shares.miner);
        credits[1] = Credit(router, asset, shares.router);
        credits[2] = Credit(publisher, asset, shares.royalty);
        credits[3] = Credit(keeper, asset, shares.tip);
        credits[4] = Credit(address(0), asset, shares.burnt);
        vm.prank(address(queue));
        payment.pay(debits, credits);
    }

    /// [M1] [M2] [M4]
    function testFuzz_settled_answer_moves_exactly_its_fee(Input memory input) public {
        (SessionId id, Lane lane, AssetId asset) = opened(input);
        LaneFunds memory before = payment.fundsOf(id, lane);
        uint256 supply = token.totalSupply();
        vm.prank(address(queue));
        payment.hold(id, lane, 0, input.held);
        pay(input, id, lane, asset);

        Shares memory shares = sharesOf(input);
        LaneFunds memory funds = payment.fundsOf(id, lane);
        assertEq(funds.held, 0, "nothing held");
        assertEq(funds.free, before.free - input.fee, "the client paid exactly the fee");
        assertEq(funds.nextNonce, 1, "nonce used");
        assertEq(payment.balanceOf(miner, asset), shares.miner, "miner");
        assertEq(payment.balanceOf(router, asset), shares.router, "router");
        assertEq(payment.balanceOf(publisher, asset), shares.royalty, "publisher");
        assertEq(payment.balanceOf(keeper, asset), shares.tip, "keeper");
        if (input.inUsd) assertEq(payment.balanceOf(address(0xdEaD), asset), shares.burnt, "the dead address");
        else assertEq(supply - token.totalSupply(), shares.burnt, "destroyed");
        backed();
    }

    /// [M1] [M6]
    function testFuzz_refunded_task_costs_the_tip_alone(Input memory input) public {
        (SessionId id, Lane lane, AssetId asset) = opened(input);
        uint96 tip = uint96(bound(input.tip, 0, input.held));
        LaneFunds memory before = payment.fundsOf(id, lane);
        vm.prank(address(queue));
        payment.hold(id, lane, 0, input.held);
        vm.prank(address(queue));
        payment.refund(id, lane, asset, TaskId.wrap("task"), input.held, keeper, tip);
        LaneFunds memory funds = payment.fundsOf(id, lane);
        assertEq(funds.held, 0, "nothing held");
        assertEq(funds.free, before.free - tip, "free");
        assertEq(payment.balanceOf(keeper, asset), tip, "keeper");
        backed();
    }

    /// [M1] [M7] Deposit, tasks, the end, and withdrawals by all: nothing is left over in the contract, in neither asset.
    function testFuzz_everything_can_be_withdrawn_in_the_end(Input memory input) public {
        (SessionId id, Lane lane, AssetId asset) = opened(input);
        vm.prank(address(queue));
        payment.hold(id, lane, 0, input.held);
        pay(input, id, lane, asset);
        skipTime(TIMEOUT + 1);
        session.expire(id);
        address[5] memory all = [miner, router, publisher, keeper, client];
        for (uint256 i; i < all.length; ++i) {
            takeOut(all[i], asset);
        }
        // Whoever called `expire` has its tip.
        takeOut(address(this), asset);
        assertEq(payment.totalAccounts(asset), payment.balanceOf(address(0xdEaD), asset), "only what counts as burnt");
        backed();
    }

    function takeOut(address account, AssetId asset) internal {
        uint256 balance = payment.balanceOf(account, asset);
        if (balance == 0) return;
        address to = address(0x70);
        vm.prank(account);
        payment.withdraw(asset, to, balance);
    }

    function backed() internal view {
        assertEq(payment.totalAccounts(COR), token.balanceOf(address(payment)), "COR is backed");
        assertEq(payment.totalAccounts(USD), usd.balanceOf(address(payment)), "dollars are backed");
    }
}
