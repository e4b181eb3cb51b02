// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {CorToken} from "../src/CorToken.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {NodePool} from "../src/NodePool.sol";
import {RandomBeacon} from "../src/RandomBeacon.sol";
import {Session} from "../src/Session.sol";
import {SessionPayment} from "../src/SessionPayment.sol";
import {SessionQueue} from "../src/SessionQueue.sol";
import {NodeRegistration} from "../src/interfaces/INodePool.sol";
import {LaneTerms, OpenTerms} from "../src/interfaces/ISession.sol";
import {Commit, TaskRequest} from "../src/interfaces/ISessionQueue.sol";
import {Commitments} from "../src/libraries/Commitments.sol";
import {Lane, ModelId, NodeId, NumericClass, SessionId, TaskId} from "../src/types/Ids.sol";
import {IVm} from "./IVm.sol";

/// The seven contracts, wired as a deployment wires them, a model, and what tests do with them again and again.
abstract contract Base {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    ModelId internal constant MODEL = ModelId.wrap(keccak256("model"));
    NumericClass internal constant CLASS = NumericClass.wrap("cpu-f32");
    uint96 internal constant PRICE_IN = 1e13;
    uint96 internal constant PRICE_OUT = 3e13;
    uint16 internal constant ROYALTY_BPS = 200;
    uint16 internal constant MINER_BPS = 9000;
    uint16 internal constant ROUTER_BPS = 500;
    /// Small enough for something to be left to burn of an ordinary fee.
    uint128 internal constant TIP = 1e14;
    uint128 internal constant DEPOSIT = 100e18;
    uint96 internal constant ALLOTMENT = 50e18;
    uint256 internal constant COLLATERAL = 100e18;
    uint40 internal constant MAX_DEADLINE = 300;
    uint40 internal constant NOTICE = 330;
    uint40 internal constant TIMEOUT = 60;
    uint40 internal constant REUSE_DELAY = 120;
    uint40 internal constant UNBONDING = 600;
    uint40 internal constant SETTLE_DELAY = 2;
    Lane internal constant OWNER_LANE = Lane.wrap(0);
    Lane internal constant ROUTER_LANE = Lane.wrap(1);

    uint256 internal constant CLIENT_KEY = 0xC11E47;
    uint256 internal constant ROUTER_KEY = 0x40073;
    address internal client = vm.addr(CLIENT_KEY);
    address internal router = vm.addr(ROUTER_KEY);
    address internal publisher = address(0xBB);
    address internal keeper = address(0xCC);

    CorToken internal token;
    RandomBeacon internal beacon;
    ModelRegistry internal models;
    SessionPayment internal payment;
    NodePool internal pool;
    Session internal session;
    SessionQueue internal queue;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        vm.roll(1000);
        deployAll();
        vm.prank(publisher);
        models.register(MODEL, keccak256("manifest"), PRICE_IN, PRICE_OUT, ROYALTY_BPS);
        fund(client, 10_000e18);
    }

    function deployAll() internal {
        uint64 nonce = vm.getNonce(address(this));
        address sessionAt = vm.computeCreateAddress(address(this), nonce + 5);
        address queueAt = vm.computeCreateAddress(address(this), nonce + 6);
        address poolAt = vm.computeCreateAddress(address(this), nonce + 4);
        token = new CorToken(address(this), 1_000_000_000e18);
        beacon = new RandomBeacon();
        models = new ModelRegistry(300);
        payment = new SessionPayment(address(token), sessionAt, queueAt, poolAt);
        pool = new NodePool(
            sessionAt, address(models), address(payment), NodePool.Config(1, REUSE_DELAY, UNBONDING, COLLATERAL)
        );
        session = new Session(
            Session.Wiring(address(models), address(pool), queueAt, address(payment), address(beacon)),
            Session.Config(TIMEOUT, NOTICE, 1e18)
        );
        queue = new SessionQueue(
            SessionQueue.Wiring(address(session), address(pool), address(models), address(payment)),
            SessionQueue.Config(MAX_DEADLINE, SETTLE_DELAY, MINER_BPS, ROUTER_BPS, TIP)
        );
        require(address(pool) == poolAt && address(session) == sessionAt && address(queue) == queueAt, "wiring");
    }

    /// Gives COR and lets `SessionPayment` take it.
    function fund(address account, uint256 amount) internal {
        token.transfer(account, amount);
        vm.prank(account);
        token.approve(address(payment), type(uint256).max);
    }

    function nextBlock() internal {
        skipTime(1);
    }

    /// So many seconds, one block each.
    function skipTime(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
        vm.roll(block.number + seconds_);
    }

    /// Captures what `round` needs, rolling to the first block in which it can be had.
    function reveal(uint64 round) internal {
        if (block.number <= round) {
            vm.warp(block.timestamp + round + 1 - block.number);
            vm.roll(round + 1);
        }
        beacon.capture(round);
    }

    function operatorKey(uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("operator", i)));
    }

    function ownerOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xA000 + i));
    }

    function payoutOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xB000 + i));
    }

    function registration(uint256 i, uint8 capacity) internal pure returns (NodeRegistration memory) {
        return NodeRegistration(vm.addr(operatorKey(i)), payoutOf(i), MODEL, CLASS, capacity);
    }

    /// Node of owner number `i`.
    function newNode(uint256 i, uint8 capacity) internal returns (NodeId nodeId) {
        fund(ownerOf(i), COLLATERAL * capacity);
        vm.prank(ownerOf(i));
        nodeId = pool.register(registration(i, capacity));
    }

    /// Nodes 1 to n of different owners, active in draws.
    function newNodes(uint256 n, uint8 capacity) internal {
        for (uint256 i = 1; i <= n; ++i) {
            newNode(i, capacity);
        }
        skipTime(2);
    }

    function terms(uint8 minNodes, uint8 maxNodes) internal view returns (OpenTerms memory result) {
        LaneTerms[] memory lanes = new LaneTerms[](1);
        lanes[0] = LaneTerms(router, ALLOTMENT);
        return OpenTerms(MODEL, minNodes, maxNodes, PRICE_IN, PRICE_OUT, DEPOSIT, lanes);
    }

    function openSession(uint8 minNodes, uint8 maxNodes) internal returns (SessionId id) {
        OpenTerms memory wanted = terms(minNodes, maxNodes);
        vm.prank(client);
        return session.open(wanted);
    }

    /// An active session whose seed is known.
    function activeSession(uint8 minNodes, uint8 maxNodes) internal returns (SessionId id) {
        id = openSession(minNodes, maxNodes);
        reveal(session.sessionOf(id).drawRound);
        session.activate(id);
        reveal(session.sessionOf(id).seedRound);
        nextBlock();
    }

    function request(SessionId id, Lane lane, uint64 nonce, NodeId nodeId) internal view returns (TaskRequest memory) {
        return TaskRequest({
            sessionId: id,
            lane: lane,
            nonce: nonce,
            requestDigest: keccak256(abi.encode("request", nonce)),
            maxPrompt: 100,
            maxOutput: 200,
            feeCap: 1e18,
            deadline: uint64(block.timestamp) + 60,
            nodeId: nodeId
        });
    }

    function sign(uint256 key, TaskRequest memory wanted) internal view returns (bytes memory) {
        bytes32 digest = keccak256(
            abi.encodePacked(
                hex"1901", queue.DOMAIN_SEPARATOR(), keccak256(abi.encode(Commitments.REQUEST_TYPEHASH, wanted))
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function answer(uint32 promptTokens, uint32 outputTokens) internal pure returns (Commit memory) {
        return Commit({
            outputDigest: keccak256("output"),
            promptHash: keccak256("prompt"),
            promptTokens: promptTokens,
            outputTokens: outputTokens,
            numericClass: CLASS,
            endReason: 1,
            salt: keccak256("salt"),
            proofSeal: keccak256("h2")
        });
    }

    function fee(uint256 promptTokens, uint256 outputTokens) internal pure returns (uint128) {
        return uint128(promptTokens * PRICE_IN + outputTokens * PRICE_OUT);
    }

    function only(TaskId taskId) internal pure returns (TaskId[] memory taskIds) {
        taskIds = new TaskId[](1);
        taskIds[0] = taskId;
    }

    /// Operator of a node made by `newNode(i, ..)` where the node has number `i`.
    function operatorOf(NodeId nodeId) internal view returns (address) {
        return pool.nodeOf(nodeId).operator;
    }

    function assertEq(uint256 a, uint256 b, string memory what) internal pure {
        if (a != b) revert(string.concat(what, ": ", vm.toString(a), " != ", vm.toString(b)));
    }

    function assertEq(address a, address b, string memory what) internal pure {
        assertEq(uint256(uint160(a)), uint256(uint160(b)), what);
    }

    function assertEq(bytes32 a, bytes32 b, string memory what) internal pure {
        assertEq(uint256(a), uint256(b), what);
    }

    function assertTrue(bool condition, string memory what) internal pure {
        require(condition, what);
    }
}
