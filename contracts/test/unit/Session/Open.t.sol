// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "../../../src/interfaces/IModelRegistry.sol";
import {INodePool} from "../../../src/interfaces/INodePool.sol";
import {IParameters} from "../../../src/interfaces/IParameters.sol";
import {ISession, LaneTerms, OpenTerms, SessionInfo, SessionState} from "../../../src/interfaces/ISession.sol";
import {ISessionPayment} from "../../../src/interfaces/ISessionPayment.sol";
import {AssetId, Lane, ModelId, NodeId, SessionId} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

contract SessionOpenTest is Base {
    function refused(OpenTerms memory wanted, bytes memory reason) internal {
        vm.prank(client);
        vm.expectRevert(reason);
        session.open(wanted);
    }

    function testFuzz_open_stores_terms_and_splits_the_deposit(uint96 deposit, uint96 allotment, uint8 min, uint8 max)
        public
    {
        newNodes(1, 1);
        deposit = uint96(bound(deposit, MIN_DEPOSIT, 10_000e18));
        allotment = uint96(bound(allotment, 0, deposit));
        max = uint8(bound(max, 1, 8));
        min = uint8(bound(min, 1, max));
        OpenTerms memory wanted = terms(min, max);
        wanted.deposit = deposit;
        wanted.lanes[0].allotment = allotment;
        uint256 before = token.balanceOf(client);
        SessionId id = openWith(wanted);

        assertEq(SessionId.unwrap(id), 1, "counted from 1");
        assertEq(session.sessionCount(), 1, "count");
        SessionInfo memory info = session.sessionOf(id);
        assertEq(info.owner, client, "owner");
        assertEq(uint256(info.state), uint256(SessionState.Open), "open");
        assertEq(info.termsVersion, 1, "version");
        assertEq(AssetId.unwrap(info.asset), 0, "asset");
        assertEq(info.minNodes, min, "min");
        assertEq(info.maxNodes, max, "max");
        assertEq(info.openedAt, block.timestamp, "openedAt");
        assertEq(info.endsAt, 0, "no end");
        assertEq(info.priceIn, PRICE_IN, "price in");
        assertEq(info.priceOut, PRICE_OUT, "price out");
        assertEq(info.drawRound, beacon.nextRound(), "a round that nobody knows");
        assertEq(info.drawTicket, 1, "ticket");
        assertEq(info.drawUntil, block.timestamp + TIMEOUT, "time limit");
        assertEq(info.reservations, 0, "no reservation");
        assertEq(info.rotatesAt, 0, "no rotation");
        assertEq(info.current.nodes.length, 0, "no nodes");
        assertEq(payment.fundsOf(id, OWNER_LANE).free, deposit - allotment, "lane 0");
        assertEq(payment.fundsOf(id, ROUTER_LANE).free, allotment, "lane 1");
        assertEq(session.laneOf(id, OWNER_LANE).holder, client, "owner's lane");
        assertEq(session.laneOf(id, ROUTER_LANE).holder, router, "router's lane");
        assertEq(session.laneCount(id), 2, "lanes");
        assertEq(before - token.balanceOf(client), deposit, "paid");
        assertEq(uint256(session.admissionOf(id, ROUTER_LANE, 0).state), uint256(SessionState.Open), "admission");
        assertEq(session.admissionOf(id, ROUTER_LANE, 0).seedRound, 0, "serves nothing yet");
    }

    function test_open_in_another_asset() public {
        SessionId id = openWith(termsInUsd(1, 1));
        assertEq(session.sessionOf(id).priceIn, USD_PRICE_IN, "price in");
        assertEq(payment.fundsOf(id, ROUTER_LANE).free, USD_DEPOSIT / 2, "lane 1");
        assertEq(payment.totalAccounts(USD), usd.balanceOf(address(payment)), "backed");
    }

    function test_open_with_eight_lanes() public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.lanes = new LaneTerms[](8);
        for (uint160 i; i < 8; ++i) {
            wanted.lanes[i] = LaneTerms(address(i + 1), 1e18);
        }
        SessionId id = openWith(wanted);
        assertEq(session.laneCount(id), 9, "lanes");
        assertEq(session.laneOf(id, Lane.wrap(8)).holder, address(8), "last holder");
        assertEq(payment.fundsOf(id, OWNER_LANE).free, DEPOSIT - 8e18, "rest");
    }

    function test_price_grows_with_the_square_of_the_use() public {
        newNodes(2, 2);
        activeSession(1, 1);
        // One of four places is in use: 1 + 4 / 16.
        SessionId id = openSession(1, 1);
        assertEq(session.sessionOf(id).priceIn, uint256(PRICE_IN) * 5 / 4, "price in");
        assertEq(session.sessionOf(id).priceOut, uint256(PRICE_OUT) * 5 / 4, "price out");
        drawNodes(id);
        assertEq(session.sessionOf(id).priceIn, uint256(PRICE_IN) * 5 / 4, "as opened");
        assertEq(session.admissionOf(id, OWNER_LANE, 0).priceOut, uint256(PRICE_OUT) * 5 / 4, "what tasks pay");
    }

    function test_dedicated_session_is_active_at_once() public {
        NodeId named = newDedicated(1, 1, client);
        SessionId id = openWith(termsNaming(only(named), 0, 0));
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Active), "active");
        assertEq(info.drawRound, 0, "no draw");
        assertEq(info.drawUntil, 0, "no time limit");
        assertEq(info.reservations, 1, "first reservation");
        assertEq(info.rotatesAt, block.timestamp + RESERVE_PERIOD, "rotates");
        assertEq(info.current.seedRound, beacon.nextRound(), "seed");
        assertEq(info.current.dedicated, 1, "named");
        assertEq(NodeId.unwrap(info.current.nodes[0]), NodeId.unwrap(named), "node");
        assertEq(pool.reservationsOf(named), 1, "reserved");
    }

    function test_hybrid_session_reserves_named_nodes_and_waits() public {
        NodeId named = newDedicated(1, 1, client);
        SessionId id = openWith(termsNaming(only(named), 1, 2));
        SessionInfo memory info = session.sessionOf(id);
        assertEq(uint256(info.state), uint256(SessionState.Open), "open");
        assertEq(info.drawTicket, 1, "draws");
        assertEq(pool.reservationsOf(named), 1, "reserved");
    }

    function test_open_refuses_a_node_named_twice() public {
        NodeId named = newDedicated(1, 2, client);
        NodeId[] memory twice = new NodeId[](2);
        (twice[0], twice[1]) = (named, named);
        refused(
            termsNaming(twice, 0, 0), abi.encodeWithSelector(INodePool.NodePool_NoPlace.selector, named, MODEL_INDEX)
        );
    }

    function test_open_refuses_a_node_dedicated_to_another() public {
        NodeId named = newDedicated(1, 1, router);
        refused(
            termsNaming(only(named), 0, 0),
            abi.encodeWithSelector(INodePool.NodePool_NotDedicated.selector, named, client)
        );
    }

    function testFuzz_open_bounds_nodes(uint8 min, uint8 max, uint8 named) public {
        named = uint8(bound(named, 0, 9));
        bool sensible = max == 0 ? min == 0 && named > 0 : min > 0 && min <= max;
        vm.assume(!sensible || uint256(max) + named > 8);
        refused(
            termsNaming(nodeIds(named), min, max),
            abi.encodeWithSelector(ISession.Session_NodesOutOfBounds.selector, min, max, named, 8)
        );
    }

    function testFuzz_open_refuses_a_small_deposit(uint96 deposit) public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.deposit = uint96(bound(deposit, 0, MIN_DEPOSIT - 1));
        refused(wanted, abi.encodeWithSelector(ISession.Session_DepositTooSmall.selector, wanted.deposit, MIN_DEPOSIT));
    }

    function testFuzz_open_refuses_allotments_above_the_deposit(uint96 one, uint96 other) public {
        vm.assume(uint256(one) + other > DEPOSIT);
        OpenTerms memory wanted = terms(1, 1);
        wanted.lanes = new LaneTerms[](2);
        wanted.lanes[0] = LaneTerms(router, one);
        wanted.lanes[1] = LaneTerms(router, other);
        refused(
            wanted,
            abi.encodeWithSelector(
                ISession.Session_AllotmentsAboveDeposit.selector, uint256(one) + uint256(other), DEPOSIT
            )
        );
    }

    /// [G2]
    function test_open_refuses_nine_lanes() public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.lanes = new LaneTerms[](9);
        refused(wanted, abi.encodeWithSelector(ISession.Session_TooManyLanes.selector, 9, 8));
    }

    function test_open_refuses_a_lane_without_holder() public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.lanes[0].holder = address(0);
        refused(wanted, abi.encodeWithSelector(ISession.Session_ZeroHolder.selector, 1));
    }

    function testFuzz_open_refuses_prices_above_the_caps(uint80 cap) public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.maxPriceIn = uint80(bound(cap, 0, PRICE_IN - 1));
        refused(wanted, abi.encodeWithSelector(ISession.Session_PriceAboveCap.selector, PRICE_IN, wanted.maxPriceIn));
        (wanted.maxPriceIn, wanted.maxPriceOut) = (PRICE_IN, uint80(bound(cap, 0, PRICE_OUT - 1)));
        refused(wanted, abi.encodeWithSelector(ISession.Session_PriceAboveCap.selector, PRICE_OUT, wanted.maxPriceOut));
        wanted.maxPriceOut = PRICE_OUT;
        openWith(wanted);
    }

    function testFuzz_open_refuses_an_unknown_asset(uint8 asset) public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.asset = AssetId.wrap(uint8(bound(asset, 2, 255)));
        refused(wanted, abi.encodeWithSelector(IParameters.Parameters_UnknownAsset.selector, wanted.asset));
    }

    function test_open_refuses_unknown_and_deprecated_models() public {
        OpenTerms memory wanted = terms(1, 1);
        wanted.modelId = ModelId.wrap("nobody's");
        refused(wanted, abi.encodeWithSelector(IModelRegistry.ModelRegistry_UnknownModel.selector, wanted.modelId));
        vm.prank(publisher);
        models.deprecate(MODEL);
        refused(terms(1, 1), abi.encodeWithSelector(IModelRegistry.ModelRegistry_Deprecated.selector, MODEL));
    }

    function test_open_refuses_who_has_not_approved() public {
        OpenTerms memory wanted = terms(1, 1);
        token.transfer(keeper, DEPOSIT);
        vm.prank(keeper);
        vm.expectRevert();
        session.open(wanted);
        assertEq(session.sessionCount(), 0, "nothing opened");
    }
}
