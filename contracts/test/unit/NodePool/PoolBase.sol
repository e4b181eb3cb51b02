// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {CorToken} from "../../../src/CorToken.sol";
import {ModelRegistry} from "../../../src/ModelRegistry.sol";
import {NodePool} from "../../../src/NodePool.sol";
import {NodeStats} from "../../../src/NodeStats.sol";
import {Parameters} from "../../../src/Parameters.sol";
import {SessionPayment} from "../../../src/SessionPayment.sol";
import {Floor, ModelRegistration} from "../../../src/interfaces/IModelRegistry.sol";
import {Draw, NodeRegistration, NodeState, Offer} from "../../../src/interfaces/INodePool.sol";
import {AssetTerms, NodeTerms, SessionTerms, Terms} from "../../../src/interfaces/IParameters.sol";
import {AssetId, ModelId, ModelIndex, NodeId, NumericClass, SessionId} from "../../../src/types/Ids.sol";
import {IVm} from "../../IVm.sol";

/// The pool and what it calls; the tests play the session and the queue, whose calls alone move it.
abstract contract PoolBase {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    ModelId internal constant MODEL = ModelId.wrap(keccak256("model"));
    ModelId internal constant OTHER_MODEL = ModelId.wrap(keccak256("other model"));
    ModelIndex internal constant INDEX = ModelIndex.wrap(1);
    ModelIndex internal constant OTHER_INDEX = ModelIndex.wrap(2);
    NumericClass internal constant CLASS = NumericClass.wrap("cpu-f32");
    uint128 internal constant COLLATERAL = 100e18;
    uint16 internal constant MAX_ROYALTY_BPS = 300;

    // Seconds. The first is the beginning of an epoch.
    uint40 internal constant START = 1_800_000_000;
    uint40 internal constant WINDOW = 120;
    uint40 internal constant LONGEST_AUDIT = 60;
    uint40 internal constant EPOCH = 1 hours;
    uint40 internal constant LEVEL_PERIOD = 7 days;
    uint40 internal constant DELAY = 7 days;
    uint32 internal constant ACTIVATION_DELAY = 10;
    uint32 internal constant UNBONDING = 2 days;
    uint40 internal constant KEY_GRACE = 3 days;

    address internal constant SESSION = address(0x5E5510);
    address internal constant QUEUE = address(0x90E0E);
    address internal constant PROOF = address(0x9200F);
    address internal constant CLIENT = address(0xC11E47);
    address internal constant GOVERNOR = address(0x60F);
    address internal constant PUBLISHER = address(0xBB);

    CorToken internal token;
    Parameters internal parameters;
    ModelRegistry internal models;
    NodeStats internal stats;
    SessionPayment internal payment;
    NodePool internal pool;

    function setUp() public virtual {
        vm.warp(START);
        token = new CorToken(address(this), 1_000_000_000e18);
        parameters = new Parameters(config(), terms());
        address poolAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 3);
        models = new ModelRegistry(ModelRegistry.Wiring({parameters: address(parameters), pool: poolAt}));
        stats = new NodeStats(NodeStats.Wiring({queue: QUEUE}), NodeStats.Config(EPOCH, LEVEL_PERIOD));
        address[] memory assets = new address[](1);
        assets[0] = address(token);
        payment = new SessionPayment(
            SessionPayment.Wiring({pool: poolAt, proof: PROOF, queue: QUEUE, session: SESSION}), assets
        );
        pool = new NodePool(wiring());
        assertEq(address(pool), poolAt, "wiring");
        registerModel(MODEL);
        registerModel(OTHER_MODEL);
    }

    function wiring() internal view returns (NodePool.Wiring memory) {
        return NodePool.Wiring({
            session: SESSION,
            queue: QUEUE,
            models: address(models),
            payment: address(payment),
            stats: address(stats),
            parameters: address(parameters),
            proof: PROOF
        });
    }

    function config() internal pure returns (Parameters.Config memory) {
        return Parameters.Config({
            governor: GOVERNOR,
            delay: DELAY,
            drawWindow: WINDOW,
            longestAudit: LONGEST_AUDIT,
            maxRoyaltyBps: MAX_ROYALTY_BPS
        });
    }

    /// A set in the midst of all bounds, with one asset.
    function terms() internal pure returns (Terms memory result) {
        result.session = SessionTerms({
            minerBps: 9000,
            routerBps: 500,
            maxDeadline: 300,
            attemptTime: 60,
            revealTime: 30,
            settleDelay: 2,
            maxAttempts: 3,
            noticePeriod: 600,
            reservationTimeout: 60,
            reservePeriod: 1 days,
            maxTasks: 100
        });
        result.node = NodeTerms({
            activationDelay: ACTIVATION_DELAY,
            unbondingPeriod: UNBONDING,
            collateralPerSlot: COLLATERAL,
            slashBps: 5000,
            reporterBps: 1000
        });
        result.assets = new AssetTerms[](1);
        result.assets[0] = AssetTerms({tip: 1e14, minDeposit: 1e18});
    }

    function registerModel(ModelId modelId) internal {
        ModelRegistration memory wanted;
        (wanted.modelId, wanted.manifestDigest) = (modelId, "manifest");
        wanted.floors = new Floor[](1);
        wanted.floors[0] = Floor(AssetId.wrap(0), 1, 1);
        vm.prank(PUBLISHER);
        models.register(wanted);
    }

    // ---------------------------------------------------------------- nodes

    function ownerOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xA0000000 + i));
    }

    function operatorOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xB0000000 + i));
    }

    function payoutOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xC0000000 + i));
    }

    function id(uint256 i) internal pure returns (NodeId) {
        return NodeId.wrap(uint32(i));
    }

    function registration(uint256 i, uint8 capacity) internal pure returns (NodeRegistration memory result) {
        (result.operator, result.payout, result.numericClass) = (operatorOf(i), payoutOf(i), CLASS);
        result.offers = new Offer[](1);
        result.offers[0] = Offer(MODEL, capacity);
    }

    /// Offers of both models.
    function registrationOfTwo(uint256 i, uint8 one, uint8 other)
        internal
        pure
        returns (NodeRegistration memory result)
    {
        result = registration(i, one);
        result.offers = new Offer[](2);
        (result.offers[0], result.offers[1]) = (Offer(MODEL, one), Offer(OTHER_MODEL, other));
    }

    /// Money and approval for 8 places.
    function fund(address owner) internal {
        token.transfer(owner, 8 * uint256(COLLATERAL));
        vm.prank(owner);
        token.approve(address(payment), type(uint256).max);
    }

    /// A node with the keys of number `i`, of any owner.
    function registerFor(address owner, NodeRegistration memory wanted) internal returns (NodeId) {
        fund(owner);
        vm.prank(owner);
        return pool.register(wanted);
    }

    function newNode(uint256 i, uint8 capacity) internal returns (NodeId) {
        return registerFor(ownerOf(i), registration(i, capacity));
    }

    function newDedicated(uint256 i, uint8 capacity) internal returns (NodeId) {
        NodeRegistration memory wanted = registration(i, capacity);
        wanted.dedicatedTo = CLIENT;
        return registerFor(ownerOf(i), wanted);
    }

    /// Nodes 1 to n of different owners, active in draws.
    function newNodes(uint256 n, uint8 capacity) internal {
        for (uint256 i = 1; i <= n; ++i) {
            newNode(i, capacity);
        }
        skipTime(ACTIVATION_DELAY);
    }

    function drain(uint256 i) internal {
        vm.prank(ownerOf(i));
        pool.drain(id(i));
    }

    function exit(uint256 i) internal {
        vm.prank(ownerOf(i));
        pool.exit(id(i));
    }

    function jail(uint256 i) internal {
        vm.prank(QUEUE);
        pool.jail(id(i));
    }

    function only(NodeId nodeId) internal pure returns (NodeId[] memory nodes) {
        nodes = new NodeId[](1);
        nodes[0] = nodeId;
    }

    // ---------------------------------------------------------------- draws

    /// Enters a draw of `count` nodes, at least one, for session number `sessionId`.
    function enter(uint64 sessionId, bytes32 seed, uint8 count) internal returns (Draw memory wanted) {
        wanted.sessionId = SessionId.wrap(sessionId);
        (wanted.model, wanted.seed, wanted.asOf) = (INDEX, seed, uint40(block.timestamp));
        (wanted.min, wanted.count) = (1, count);
        vm.prank(SESSION);
        (wanted.ticket, wanted.slots,) = pool.enterDraw(INDEX);
    }

    function reserve(Draw memory wanted) internal returns (NodeId[] memory) {
        vm.prank(SESSION);
        return pool.reserve(wanted);
    }

    /// Enters a draw and has it at once.
    function draw(uint64 sessionId, bytes32 seed, uint8 count) internal returns (NodeId[] memory) {
        return reserve(enter(sessionId, seed, count));
    }

    /// Draws single nodes with new seeds until one is found. The first of them has the sessions' number.
    function drawOne(uint64 sessionId) internal returns (NodeId) {
        for (uint256 i; i < 64; ++i) {
            NodeId[] memory nodes = draw(sessionId, keccak256(abi.encode("draw one", sessionId, i)), 1);
            if (nodes.length == 1) return nodes[0];
        }
        revert("nothing found");
    }

    function release(uint64 sessionId, NodeId[] memory nodes) internal {
        vm.prank(SESSION);
        pool.release(SessionId.wrap(sessionId), INDEX, nodes);
    }

    function reserveNamed(uint64 sessionId, NodeId[] memory nodes) internal {
        vm.prank(SESSION);
        pool.reserveNamed(SessionId.wrap(sessionId), INDEX, CLIENT, nodes);
    }

    // ---------------------------------------------------------------- the rest

    function skipTime(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function assertState(NodeId nodeId, NodeState state) internal view {
        assertEq(uint8(pool.nodeOf(nodeId).state), uint8(state), "state");
    }

    /// Of model `INDEX`.
    function assertPool(uint256 slots, uint256 taken, uint256 used) internal view {
        (uint32 slots_, uint32 taken_, uint32 used_) = pool.poolOf(INDEX);
        assertEq(slots_, slots, "slots");
        assertEq(taken_, taken, "taken");
        assertEq(used_, used, "used");
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
