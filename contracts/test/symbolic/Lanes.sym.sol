// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionPayment} from "../../src/SessionPayment.sol";
import {LaneFunds} from "../../src/interfaces/ISessionPayment.sol";
import {AssetId, Lane, SessionId, TaskId} from "../../src/types/Ids.sol";

/// The contract with a lane that can be filled.
contract Lanes is SessionPayment {
    constructor(address caller, address[] memory assets)
        SessionPayment(Wiring({pool: caller, proof: caller, queue: caller, session: caller}), assets)
    {}

    function fill(SessionId id, Lane lane, LaneFunds memory funds) external {
        _funds[id][lane] = funds;
    }
}

/// Money of a lane, for all values at once: `script/bench/audit` runs these with halmos.
contract LanesSymbolic {
    SessionId internal constant SESSION = SessionId.wrap(1);
    Lane internal constant LANE = Lane.wrap(1);
    AssetId internal constant COR = AssetId.wrap(0);
    address internal constant KEEPER = address(0xCC);

    Lanes internal payment;

    function setUp() public {
        address[] memory assets = new address[](1);
        assets[0] = address(0xC0);
        payment = new Lanes(address(this), assets);
    }

    /// Free and held money together never exceed 96 bits: deposits and moves see to it.
    function begin(LaneFunds memory funds) internal returns (bool) {
        payment.fill(SESSION, LANE, funds);
        return uint256(funds.free) + funds.held <= type(uint96).max;
    }

    /// [M2, B3] Holding moves exactly `amount`, if it is free and the nonce within the window, and is refused otherwise.
    function check_hold(LaneFunds memory funds, uint64 nonce, uint96 amount) external {
        if (!begin(funds)) return;
        bool ahead = nonce >= funds.nextNonce;
        // One more than the largest nonce would be no number.
        bool allowed = !ahead || (nonce - funds.nextNonce < payment.nonceWindow() && nonce != type(uint64).max);
        try payment.hold(SESSION, LANE, nonce, amount) {
            LaneFunds memory now_ = payment.fundsOf(SESSION, LANE);
            assert(amount <= funds.free && allowed);
            assert(now_.free == funds.free - amount && now_.held == funds.held + amount);
            assert(now_.nextNonce == (ahead ? nonce + 1 : funds.nextNonce));
        } catch {
            assert(amount > funds.free || !allowed);
        }
    }

    /// [M2, M6] A refund frees all that a task held but the tip, and no more than the lane holds.
    function check_refund(LaneFunds memory funds, uint96 held, uint96 tip) external {
        if (!begin(funds)) return;
        try payment.refund(SESSION, LANE, COR, TaskId.wrap("task"), held, KEEPER, tip) {
            LaneFunds memory now_ = payment.fundsOf(SESSION, LANE);
            assert(held <= funds.held && tip <= held);
            assert(now_.held == funds.held - held);
            assert(uint256(now_.free) == uint256(funds.free) + held - tip);
            assert(payment.balanceOf(KEEPER, COR) == tip);
            assert(now_.nextNonce == funds.nextNonce);
        } catch {
            assert(held > funds.held || tip > held);
        }
    }
}
