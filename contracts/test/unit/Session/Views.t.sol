// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Session} from "../../../src/Session.sol";
import {Admission, ISession, Payees, Progress, SessionState} from "../../../src/interfaces/ISession.sol";
import {Terms} from "../../../src/interfaces/IParameters.sol";
import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {AssetId, Lane, ModelIndex, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

/// What the queue asks, and the constructor.
contract SessionViewsTest is Base {
    SessionId internal constant NOBODYS = SessionId.wrap(9);

    function wiring() internal view returns (Session.Wiring memory) {
        return Session.Wiring(address(beacon), address(models), address(parameters), address(payment), address(pool));
    }

    function test_admission_progress_and_payees_tell_the_terms() public {
        newNodes(1, 1);
        SessionId id = activeSession(1, 1);
        Admission memory admission = session.admissionOf(id, ROUTER_LANE, 0);
        assertEq(uint256(admission.state), uint256(SessionState.Active), "state");
        assertEq(AssetId.unwrap(admission.asset), 0, "asset");
        assertEq(admission.holder, router, "holder");
        assertEq(admission.endsAt, 0, "no end");
        assertEq(admission.priceIn, PRICE_IN, "price in");
        assertEq(admission.priceOut, PRICE_OUT, "price out");
        assertEq(admission.seedRound, session.sessionOf(id).current.seedRound, "seed round");
        assertEq(admission.nodes, 1, "node 1");
        assertEq(admission.dedicated, 0, "none named");
        assertEq(admission.maxDeadline, MAX_DEADLINE, "deadline");
        assertEq(admission.attemptTime, ATTEMPT_TIME, "attempt");
        assertEq(admission.revealTime, REVEAL_TIME, "reveal");
        assertEq(admission.maxAttempts, MAX_ATTEMPTS, "attempts");
        assertEq(admission.tip, TIP, "tip");
        assertEq(session.admissionOf(id, OWNER_LANE, 0).holder, client, "owner");
        assertEq(session.admissionOf(id, Lane.wrap(2), 0).holder, address(0), "no such lane");

        Progress memory progress = session.progressOf(id);
        assertEq(progress.priceIn, PRICE_IN, "price in");
        assertEq(progress.priceOut, PRICE_OUT, "price out");
        assertEq(progress.attemptTime, ATTEMPT_TIME, "attempt");
        assertEq(progress.revealTime, REVEAL_TIME, "reveal");
        assertEq(progress.settleDelay, SETTLE_DELAY, "settle");
        assertEq(progress.tip, TIP, "tip");

        Payees memory payees = session.payeesOf(id, ROUTER_LANE);
        assertEq(AssetId.unwrap(payees.asset), 0, "asset");
        assertEq(ModelIndex.unwrap(payees.model), 1, "model");
        assertEq(payees.owner, client, "owner");
        assertEq(payees.holder, router, "holder");
        assertEq(payees.minerBps, MINER_BPS, "miner");
        assertEq(payees.routerBps, ROUTER_BPS, "router");
        assertEq(payees.tip, TIP, "tip");
        assertEq(session.payeesOf(id, OWNER_LANE).holder, client, "the owner's lane");
    }

    /// [X3] What holds from now on does not touch what is open.
    function test_session_lives_by_the_terms_that_it_was_opened_under() public {
        newNodes(2, 8);
        SessionId old = activeSession(1, 1);
        Terms memory next = firstTerms();
        (next.session.noticePeriod, next.session.maxDeadline, next.assets[0].tip) =
        (NOTICE + 7, MAX_DEADLINE + 1, TIP * 2);
        vm.prank(governor);
        parameters.propose(next);
        vm.warp(block.timestamp + PARAMETERS_DELAY);
        SessionId young = activeSession(1, 1);
        assertEq(session.sessionOf(old).termsVersion, 1, "old version");
        assertEq(session.sessionOf(young).termsVersion, 2, "new version");
        assertEq(session.admissionOf(old, OWNER_LANE, 0).maxDeadline, MAX_DEADLINE, "old deadline");
        assertEq(session.admissionOf(young, OWNER_LANE, 0).maxDeadline, MAX_DEADLINE + 1, "new deadline");
        assertEq(session.payeesOf(old, OWNER_LANE).tip, TIP, "old tip");
        assertEq(session.payeesOf(young, OWNER_LANE).tip, TIP * 2, "new tip");
        vm.startPrank(client);
        session.close(old);
        session.close(young);
        assertEq(session.sessionOf(old).endsAt, block.timestamp + NOTICE, "old notice");
        assertEq(session.sessionOf(young).endsAt, block.timestamp + NOTICE + 7, "new notice");
    }

    function test_nobodys_session() public {
        assertEq(uint256(session.admissionOf(NOBODYS, OWNER_LANE, 0).state), uint256(SessionState.None), "none");
        assertEq(session.admissionOf(NOBODYS, OWNER_LANE, 0).holder, address(0), "no holder");
        assertEq(session.progressOf(NOBODYS).priceIn, 0, "no price");
        assertEq(session.payeesOf(NOBODYS, OWNER_LANE).owner, address(0), "no owner");
        (uint256 nodes,) = session.nodesOf(NOBODYS, 0);
        assertEq(nodes, 0, "no nodes");
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, NOBODYS));
        session.sessionOf(NOBODYS);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, NOBODYS));
        session.laneOf(NOBODYS, OWNER_LANE);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownSession.selector, NOBODYS));
        session.laneCount(NOBODYS);
    }

    function test_unknown_lane() public {
        SessionId id = openSession(1, 1);
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_UnknownLane.selector, id, 2));
        session.laneOf(id, Lane.wrap(2));
    }

    function test_constructor_refuses_zero_addresses() public {
        for (uint256 i; i < 5; ++i) {
            Session.Wiring memory w = wiring();
            if (i == 0) w.beacon = address(0);
            if (i == 1) w.models = address(0);
            if (i == 2) w.parameters = address(0);
            if (i == 3) w.payment = address(0);
            if (i == 4) w.pool = address(0);
            vm.expectRevert(abi.encodeWithSelector(ISession.Session_ZeroAddress.selector));
            new Session(w);
        }
    }

    function test_constructor_refuses_places_that_change_while_a_draw_waits() public {
        Session.Wiring memory w = wiring();
        vm.mockCall(
            address(pool), abi.encodeWithSelector(INodePool.slotReuseDelay.selector), abi.encode(REUSE_DELAY - 1)
        );
        vm.expectRevert(abi.encodeWithSelector(ISession.Session_DelayTooShort.selector, REUSE_DELAY - 1, REUSE_DELAY));
        new Session(w);
    }

    function test_wiring_is_told() public view {
        assertEq(session.beacon(), address(beacon), "beacon");
        assertEq(session.models(), address(models), "models");
        assertEq(session.parameters(), address(parameters), "parameters");
        assertEq(session.payment(), address(payment), "payment");
        assertEq(session.pool(), address(pool), "pool");
    }
}
