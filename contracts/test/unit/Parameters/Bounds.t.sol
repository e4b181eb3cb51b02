// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetTerms, IParameters, NodeTerms, SessionTerms, Terms} from "../../../src/interfaces/IParameters.sol";
import {PoolBase} from "../NodePool/PoolBase.sol";

/// Every member of a set at its bounds, and beyond them.
contract ParametersBoundsTest is PoolBase {
    /// Relations of the other members in `terms()`, seconds.
    uint256 internal constant ANSWER_TIME = 300 + 3 * 60 + 30;
    uint256 internal constant LIFE = ANSWER_TIME + 2 + LONGEST_AUDIT;

    /// A member and its bounds while the others are as in `terms()`; `wide` is the largest that its type holds.
    struct Member {
        bytes32 name;
        uint256 min;
        uint256 max;
        uint256 wide;
    }

    /// A struct in memory has one word for each member, in their order.
    function sessionMembers() internal pure returns (Member[] memory list) {
        list = new Member[](11);
        list[0] = Member("minerBps", 5000, 9700, type(uint16).max);
        list[1] = Member("routerBps", 0, 700, type(uint16).max);
        list[2] = Member("maxDeadline", 10, 389, type(uint24).max);
        list[3] = Member("attemptTime", 1, 89, type(uint24).max);
        list[4] = Member("revealTime", 1, 119, type(uint24).max);
        list[5] = Member("settleDelay", 1, 1 days, type(uint24).max);
        list[6] = Member("maxAttempts", 1, 4, type(uint8).max);
        list[7] = Member("noticePeriod", ANSWER_TIME + 1, 30 days, type(uint24).max);
        list[8] = Member("reservationTimeout", 10, WINDOW, type(uint24).max);
        list[9] = Member("reservePeriod", 1 minutes, 90 days, type(uint24).max);
        list[10] = Member("maxTasks", 1, type(uint32).max, type(uint32).max);
    }

    function nodeMembers() internal pure returns (Member[] memory list) {
        list = new Member[](5);
        list[0] = Member("activationDelay", 1, 30 days, type(uint32).max);
        list[1] = Member("unbondingPeriod", LIFE, 365 days, type(uint32).max);
        list[2] = Member("collateralPerSlot", 1, 1e25, type(uint128).max);
        list[3] = Member("slashBps", 1, 10_000, type(uint16).max);
        list[4] = Member("reporterBps", 0, 5000, type(uint16).max);
    }

    function withSession(uint256 member, uint256 value) internal pure returns (Terms memory wanted) {
        wanted = terms();
        SessionTerms memory session = wanted.session;
        // All that royalties leave may be the miner's.
        if (member == 0) session.routerBps = 0;
        assembly {
            mstore(add(session, mul(32, member)), value)
        }
    }

    function withNode(uint256 member, uint256 value) internal pure returns (Terms memory wanted) {
        wanted = terms();
        NodeTerms memory node = wanted.node;
        assembly {
            mstore(add(node, mul(32, member)), value)
        }
    }

    function accepted(Terms memory wanted) internal {
        vm.prank(GOVERNOR);
        parameters.propose(wanted);
        vm.prank(GOVERNOR);
        parameters.withdrawProposal();
    }

    function refused(Terms memory wanted) internal {
        vm.expectPartialRevert(IParameters.Parameters_OutOfBounds.selector);
        vm.prank(GOVERNOR);
        parameters.propose(wanted);
    }

    function refusedFor(Terms memory wanted, bytes32 name, uint256 value, uint256 min, uint256 max) internal {
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_OutOfBounds.selector, name, value, min, max));
        vm.prank(GOVERNOR);
        parameters.propose(wanted);
    }

    /// [X1]
    function testFuzz_every_member_of_a_session_has_bounds(uint256 which, uint256 inside, uint256 outside) public {
        Member[] memory members = sessionMembers();
        which = bound(which, 0, members.length - 1);
        Member memory member = members[which];
        accepted(withSession(which, member.min));
        accepted(withSession(which, member.max));
        accepted(withSession(which, bound(inside, member.min, member.max)));
        if (member.min > 0) refused(withSession(which, bound(inside, 0, member.min - 1)));
        if (member.max < member.wide) refused(withSession(which, bound(outside, member.max + 1, member.wide)));
    }

    /// [X1]
    function testFuzz_every_member_of_a_node_has_bounds(uint256 which, uint256 inside, uint256 outside) public {
        Member[] memory members = nodeMembers();
        which = bound(which, 0, members.length - 1);
        Member memory member = members[which];
        accepted(withNode(which, member.min));
        accepted(withNode(which, member.max));
        accepted(withNode(which, bound(inside, member.min, member.max)));
        if (member.min > 0) {
            uint256 less = bound(inside, 0, member.min - 1);
            refusedFor(withNode(which, less), member.name, less, member.min, member.max);
        }
        uint256 more = bound(outside, member.max + 1, member.wide);
        refusedFor(withNode(which, more), member.name, more, member.min, member.max);
    }

    function testFuzz_errors_name_the_member_its_value_and_its_bounds(uint256 value) public {
        Member[] memory members = sessionMembers();
        for (uint256 i; i < members.length; ++i) {
            Member memory member = members[i];
            // These are told as the notice that they make too short.
            if (i >= 2 && i <= 6 && i != 5) continue;
            if (member.min == 0) continue;
            uint256 less = bound(value, 0, member.min - 1);
            refusedFor(withSession(i, less), member.name, less, member.min, member.max);
        }
    }

    /// The rest of a fee is the tip's and the fire's: never less than nothing.
    function testFuzz_shares_leave_room_for_the_largest_royalty(uint16 minerBps, uint16 routerBps) public {
        Terms memory wanted = terms();
        minerBps = uint16(bound(minerBps, 5000, 9700));
        uint256 left = 9700 - uint256(minerBps);
        uint256 most = left < 3000 ? left : 3000;
        routerBps = uint16(bound(routerBps, most + 1, type(uint16).max));
        (wanted.session.minerBps, wanted.session.routerBps) = (minerBps, routerBps);
        refusedFor(wanted, "routerBps", routerBps, 0, most);
        wanted.session.routerBps = uint16(most);
        accepted(wanted);
    }

    function test_the_largest_times_have_hard_bounds() public {
        Terms memory wanted = terms();
        wanted.session.noticePeriod = 30 days;
        wanted.node.unbondingPeriod = 3 days;
        vm.prank(GOVERNOR);
        parameters.propose(wanted);
        refusedTime(wanted, 2, "maxDeadline", 10, 1 days);
        refusedTime(wanted, 3, "attemptTime", 1, 1 hours);
        refusedTime(wanted, 4, "revealTime", 1, 1 hours);
        refusedTime(wanted, 5, "settleDelay", 1, 1 days);
        refusedTime(wanted, 6, "maxAttempts", 1, 8);
    }

    function refusedTime(Terms memory wanted, uint256 member, bytes32 name, uint256 min, uint256 max) internal {
        SessionTerms memory session = abi.decode(abi.encode(wanted.session), (SessionTerms));
        SessionTerms memory kept = wanted.session;
        assembly {
            mstore(add(session, mul(32, member)), add(max, 1))
        }
        wanted.session = session;
        vm.warp(block.timestamp + DELAY);
        refusedFor(wanted, name, max + 1, min, max);
        wanted.session = kept;
    }

    function testFuzz_deposits_and_tips_of_assets_have_bounds(uint96 tip, uint96 minDeposit) public {
        Terms memory wanted = terms();
        wanted.assets[0] = AssetTerms({tip: 0, minDeposit: 0});
        refusedFor(wanted, "minDeposit", 0, 1, 1e24);
        wanted.assets[0].minDeposit = 1e24 + 1;
        refusedFor(wanted, "minDeposit", 1e24 + 1, 1, 1e24);
        minDeposit = uint96(bound(minDeposit, 1, 1e24));
        tip = uint96(bound(tip, minDeposit + 1, type(uint96).max));
        wanted.assets[0] = AssetTerms({tip: tip, minDeposit: minDeposit});
        refusedFor(wanted, "tip", tip, 0, minDeposit);
        wanted.assets[0].tip = minDeposit;
        accepted(wanted);
    }

    function test_refuses_another_number_of_assets() public {
        Terms memory wanted = terms();
        wanted.assets = new AssetTerms[](2);
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_AssetCount.selector, 2, 1));
        vm.prank(GOVERNOR);
        parameters.propose(wanted);
    }
}
