// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeState} from "../../src/interfaces/INodePool.sol";
import {ISession, LaneTerms, OpenTerms, SessionState} from "../../src/interfaces/ISession.sol";
import {Task, TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {AssetId, Lane, NodeId, SessionId} from "../../src/types/Ids.sol";
import {Consumer} from "../mocks/Consumers.sol";
import {World} from "./World.sol";

/// Those who open sessions: an account that has nodes of its own, another, and a contract that misbehaves. They
/// open in two assets, top up, add lanes, take lanes back, close, and withdraw.
abstract contract Clients is World {
    uint256 internal constant MAX_SESSIONS = 10;
    /// Larger than what all sessions of a run pay in.
    uint256 internal constant WEALTH = 100_000;

    uint256 internal constant OTHER_KEY = 0x07E4;
    uint256 internal constant SECOND_ROUTER_KEY = 0x5EC0;
    address internal other = vm.addr(OTHER_KEY);
    address internal secondRouter = vm.addr(SECOND_ROUTER_KEY);
    Consumer internal consumer;

    function setUpClients() internal {
        consumer = new Consumer(queue);
        address[3] memory owners = [client, other, address(consumer)];
        for (uint256 i; i < owners.length; ++i) {
            fund(owners[i], WEALTH * 1e18);
            fundUsd(owners[i], WEALTH * 1e6);
            accounts.push(owners[i]);
        }
        accounts.push(router);
        accounts.push(secondRouter);
    }

    function openSession(uint256 random) external step {
        random = mix(random);
        if (live.length >= MAX_SESSIONS) giveUp();
        address owner = [client, client, other, address(consumer)][random % 4];
        random >>= 8;
        uint8 min = uint8(random % 3 + 1);
        OpenTerms memory wanted = random >> 8 & 1 == 0 ? terms(min, min + 1) : termsInUsd(min, min + 1);
        random >>= 16;
        if (random % 4 == 0) delete wanted.lanes;
        if (owner == client && random >> 2 & 1 == 0) {
            NodeId named = freeDedicated();
            if (NodeId.unwrap(named) != 0) wanted.dedicated = only(named);
            if (wanted.dedicated.length != 0 && random >> 3 & 1 == 0) (wanted.minNodes, wanted.maxNodes) = (0, 0);
        }
        vm.prank(owner);
        session.open(wanted);
    }

    function freeDedicated() internal view returns (NodeId) {
        for (uint256 i; i < nodes.length; ++i) {
            if (nodeStates[nodes[i]] != NodeState.Dedicated) continue;
            (, uint8[] memory capacities) = pool.offersOf(nodes[i]);
            if (reservedBy[nodes[i]] < capacities[0]) return nodes[i];
        }
        return NodeId.wrap(0);
    }

    function topUp(uint256 random, uint64 amount) external step {
        random = mix(random);
        SessionId id = anySession(random);
        Lane lane = anyLane(id, random >> 64);
        if (session.laneOf(id, lane).reclaimAt != 0) giveUp();
        uint96 most = AssetId.unwrap(assetOf[id]) == 0 ? 10e18 : 10e6;
        vm.prank(other);
        session.topUp(id, lane, uint96(bound(amount, 1, most)));
    }

    function addLane(uint256 random) external step {
        random = mix(random);
        SessionId id = anySession(random);
        if (sessionStates[id] == SessionState.Draining || session.laneCount(id) > 3) giveUp();
        uint96 share = payment.fundsOf(id, OWNER_LANE).free / 4;
        vm.prank(openedBy[id]);
        session.addLane(id, LaneTerms({holder: secondRouter, allotment: share}));
    }

    function reclaimLane(uint256 random) external step {
        random = mix(random);
        SessionId id = anySession(random);
        Lane lane = anyLane(id, random >> 64);
        if (Lane.unwrap(lane) == 0 || session.laneOf(id, lane).reclaimAt != 0) giveUp();
        vm.prank(openedBy[id]);
        session.reclaimLane(id, lane);
    }

    function closeSession(uint256 random) external step {
        random = mix(random);
        SessionId id = anySession(random);
        // Some go on for long.
        if (sessionStates[id] != SessionState.Active || random >> 64 & 3 == 0) giveUp();
        vm.prank(openedBy[id]);
        session.close(id);
    }

    /// A client cannot step back from a draw whose seed may be known, nor can a stranger end a session.
    function closeWrongly(uint256 random) external step {
        random = mix(random);
        SessionId id = anySession(random);
        bytes memory data = abi.encodeCall(session.close, (id));
        refused(keeper, address(session), data, ISession.Session_NotOwner.selector);
        if (sessionStates[id] == SessionState.Active) return;
        refused(openedBy[id], address(session), data, ISession.Session_WrongState.selector);
    }

    function misbehave(uint8 manner) external step {
        consumer.behave(Consumer.Manner(manner % 5));
    }

    function cancel(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < open.length; ++i) {
            Task memory task = taskOf(open[(random % open.length + i) % open.length]);
            if (known[queue.taskIdOf(task.sessionId, task.lane, task.nonce)].state != TaskState.Queued) continue;
            vm.prank(session.laneOf(task.sessionId, task.lane).holder);
            queue.cancel(task);
            return;
        }
        giveUp();
    }

    function withdraw(uint256 random, uint256 amount) external step {
        random = mix(random);
        AssetId asset = AssetId.wrap(uint8(random & 1));
        for (uint256 i; i < accounts.length; ++i) {
            address account = accounts[((random >> 1) % accounts.length + i) % accounts.length];
            uint256 balance = payment.balanceOf(account, asset);
            if (balance == 0 || account == DEAD || account == address(proof)) continue;
            vm.prank(account);
            payment.withdraw(asset, account, bound(amount, 1, balance));
            return;
        }
        giveUp();
    }

    // ---------------------------------------------------------------- what there is

    function anySession(uint256 random) internal view returns (SessionId) {
        if (live.length == 0) giveUp();
        return live[uint64(random) % live.length];
    }

    function anyLane(SessionId id, uint256 random) internal view returns (Lane) {
        return Lane.wrap(uint32(uint64(random) % session.laneCount(id)));
    }
}
