// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {BlockhashBeacon} from "../src/BlockhashBeacon.sol";
import {CorToken} from "../src/CorToken.sol";
import {ModelRegistry} from "../src/ModelRegistry.sol";
import {NodePool} from "../src/NodePool.sol";
import {NodeStats} from "../src/NodeStats.sol";
import {Parameters} from "../src/Parameters.sol";
import {ProofOfInference} from "../src/ProofOfInference.sol";
import {ProofOfInferenceJudgement} from "../src/ProofOfInferenceJudgement.sol";
import {ProofOfInferencePanel} from "../src/ProofOfInferencePanel.sol";
import {Session} from "../src/Session.sol";
import {SessionPayment} from "../src/SessionPayment.sol";
import {SessionQueue} from "../src/SessionQueue.sol";
import {Floor, ModelRegistration} from "../src/interfaces/IModelRegistry.sol";
import {NodeRegistration, Offer} from "../src/interfaces/INodePool.sol";
import {ProofConfig, ProofWiring} from "../src/interfaces/IProofOfInference.sol";
import {AssetTerms, NodeTerms, SessionTerms, Terms} from "../src/interfaces/IParameters.sol";
import {LaneTerms, OpenTerms, SessionInfo} from "../src/interfaces/ISession.sol";
import {
    Answer,
    Dispatch,
    ISessionQueue,
    Part,
    PartState,
    Precommit,
    Task,
    TaskRequest
} from "../src/interfaces/ISessionQueue.sol";
import {AssetId, Lane, ModelId, ModelIndex, NodeId, NumericClass, SessionId, TaskId} from "../src/types/Ids.sol";
import {IVm, Log} from "./IVm.sol";
import {UsdToken} from "./mocks/UsdToken.sol";

/// The twelve contracts, wired as a deployment wires them, two assets, a model, and what tests do with them again and
/// again. Times and amounts are as small as the bounds allow.
abstract contract Base {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    ModelId internal constant MODEL = ModelId.wrap(keccak256("model"));
    ModelIndex internal constant MODEL_INDEX = ModelIndex.wrap(1);
    NumericClass internal constant CLASS = NumericClass.wrap("cpu-f32");
    AssetId internal constant COR = AssetId.wrap(0);
    AssetId internal constant USD = AssetId.wrap(1);
    Lane internal constant OWNER_LANE = Lane.wrap(0);
    Lane internal constant ROUTER_LANE = Lane.wrap(1);
    NodeId internal constant ANY_NODE = NodeId.wrap(0);

    /// Floors of `MODEL`, minor units per million tokens.
    uint80 internal constant PRICE_IN = 1e19;
    uint80 internal constant PRICE_OUT = 3e19;
    uint80 internal constant USD_PRICE_IN = 10e6;
    uint80 internal constant USD_PRICE_OUT = 30e6;
    /// Prices are at most five times the floor.
    uint80 internal constant MAX_FACTOR = 5;
    uint16 internal constant MAX_ROYALTY_BPS = 300;
    uint16 internal constant ROYALTY_BPS = 200;
    uint16 internal constant MINER_BPS = 9000;
    uint16 internal constant ROUTER_BPS = 500;
    /// Small enough for something to be left to burn of an ordinary fee.
    uint96 internal constant TIP = 1e14;
    uint96 internal constant USD_TIP = 100;
    uint96 internal constant MIN_DEPOSIT = 1e18;
    uint96 internal constant USD_MIN_DEPOSIT = 1e6;
    uint96 internal constant DEPOSIT = 100e18;
    uint96 internal constant USD_DEPOSIT = 100e6;
    uint96 internal constant ALLOTMENT = 50e18;
    uint128 internal constant COLLATERAL = 100e18;
    uint16 internal constant SLASH_BPS = 5000;
    uint16 internal constant REPORTER_BPS = 1000;

    // Seconds.
    uint24 internal constant MAX_DEADLINE = 300;
    uint24 internal constant ATTEMPT_TIME = 60;
    uint24 internal constant REVEAL_TIME = 30;
    uint24 internal constant SETTLE_DELAY = 2;
    uint24 internal constant NOTICE = 600;
    uint24 internal constant TIMEOUT = 60;
    uint24 internal constant RESERVE_PERIOD = 1 days;
    uint32 internal constant ACTIVATION_DELAY = 1;
    uint32 internal constant UNBONDING = 2 days;
    uint40 internal constant REUSE_DELAY = 120;
    uint40 internal constant KEY_GRACE = 3 days;
    uint40 internal constant EPOCH = 1 hours;
    uint40 internal constant LEVEL_PERIOD = 7 days;
    uint40 internal constant PARAMETERS_DELAY = 7 days;
    uint8 internal constant MAX_ATTEMPTS = 3;
    uint32 internal constant MAX_TASKS = 100;
    uint40 internal constant START = 1_800_000_000;
    uint40 internal constant LONGEST_AUDIT = 600;
    uint40 internal constant AUDIT_EPOCH = 10;
    uint40 internal constant ROUND_TIMEOUT = 60;
    uint40 internal constant SEAL_TIME = 30;
    uint40 internal constant OPEN_TIME = 20;
    uint40 internal constant AUDIT_REVEAL_TIME = 40;
    uint40 internal constant APPEAL_TIME = 50;

    uint16 internal constant MIN_PROBABILITY_BPS = 500;
    uint16 internal constant GAIN_BPS = 6000;
    uint16 internal constant POWER_BPS = 9500;
    uint16 internal constant AUDIT_SHARE_BPS = 200;
    uint16 internal constant AUDIT_PAY_BPS = 2500;
    uint16 internal constant FRAUD_BPS = 10_000;
    uint16 internal constant DUTY_BPS = 100;
    uint16 internal constant PROVER_BPS = 5000;
    uint16 internal constant CLIENT_BPS = 2000;
    uint16 internal constant APPEAL_BPS = 1000;

    uint256 internal constant CLIENT_KEY = 0xC11E47;
    uint256 internal constant ROUTER_KEY = 0x40073;
    address internal client = vm.addr(CLIENT_KEY);
    address internal router = vm.addr(ROUTER_KEY);
    address internal publisher = address(0xBB);
    address internal keeper = address(0xCC);
    address internal governor = address(0xDD);

    CorToken internal token;
    UsdToken internal usd;
    Parameters internal parameters;
    ModelRegistry internal models;
    NodeStats internal stats;
    NodePool internal pool;
    Session internal session;
    SessionQueue internal queue;
    SessionPayment internal payment;
    BlockhashBeacon internal beacon;
    ProofOfInferencePanel internal panel;
    ProofOfInferenceJudgement internal judgement;
    ProofOfInference internal proof;

    /// Contracts that name others before they exist.
    struct Predicted {
        address stats;
        address pool;
        address session;
        address queue;
        address payment;
        address proof;
    }

    function setUp() public virtual {
        vm.warp(START);
        vm.roll(1000);
        deployAll();
        vm.prank(publisher);
        models.register(modelRegistration());
        fund(client, 10_000e18);
        fundUsd(client, 10_000e6);
    }

    // ---------------------------------------------------------------- the world

    function deployAll() internal {
        token = new CorToken(address(this), 1_000_000_000e18);
        usd = new UsdToken(address(this), 1_000_000_000e6);
        beacon = new BlockhashBeacon();
        Predicted memory future = predict(vm.getNonce(address(this)));
        parameters = new Parameters(parametersConfig(), firstTerms());
        models = new ModelRegistry(ModelRegistry.Wiring({parameters: address(parameters), pool: future.pool}));
        payment = new SessionPayment(
            SessionPayment.Wiring({
                pool: future.pool, proof: future.proof, queue: future.queue, session: future.session
            }),
            assets()
        );
        stats = new NodeStats(
            NodeStats.Wiring({queue: future.queue}), NodeStats.Config({epochLength: EPOCH, levelPeriod: LEVEL_PERIOD})
        );
        pool = new NodePool(
            NodePool.Wiring({
                models: address(models),
                parameters: address(parameters),
                payment: future.payment,
                proof: future.proof,
                queue: future.queue,
                session: future.session,
                stats: future.stats
            })
        );
        session = new Session(
            Session.Wiring({
                beacon: address(beacon),
                models: address(models),
                parameters: address(parameters),
                payment: future.payment,
                pool: future.pool
            })
        );
        queue = new SessionQueue(
            SessionQueue.Wiring({
                beacon: address(beacon),
                models: address(models),
                parameters: address(parameters),
                payment: future.payment,
                pool: future.pool,
                proof: future.proof,
                session: future.session,
                stats: future.stats
            })
        );
        panel = new ProofOfInferencePanel(proofWiring(), proofConfig());
        judgement = new ProofOfInferenceJudgement(proofWiring(), proofConfig());
        proof = new ProofOfInference(proofWiring(), proofConfig(), address(panel), address(judgement));
        require(address(payment) == future.payment && address(stats) == future.stats, "wiring of money and counters");
        require(address(pool) == future.pool && address(session) == future.session, "wiring of nodes and sessions");
        require(address(queue) == future.queue && address(proof) == future.proof, "wiring of tasks and proofs");
    }

    /// `nonce` is that of `Parameters`, the first of the contracts that are created in this order.
    function predict(uint64 nonce) internal view returns (Predicted memory future) {
        future.payment = vm.computeCreateAddress(address(this), nonce + 2);
        future.stats = vm.computeCreateAddress(address(this), nonce + 3);
        future.pool = vm.computeCreateAddress(address(this), nonce + 4);
        future.session = vm.computeCreateAddress(address(this), nonce + 5);
        future.queue = vm.computeCreateAddress(address(this), nonce + 6);
        future.proof = vm.computeCreateAddress(address(this), nonce + 9);
    }

    function proofWiring() internal view returns (ProofWiring memory) {
        return ProofWiring({
            beacon: address(beacon),
            models: address(models),
            parameters: address(parameters),
            payment: address(payment),
            pool: address(pool),
            queue: address(queue),
            stats: address(stats)
        });
    }

    function proofConfig() internal pure virtual returns (ProofConfig memory) {
        return ProofConfig({
            epochLength: AUDIT_EPOCH,
            roundTimeout: ROUND_TIMEOUT,
            sealTime: SEAL_TIME,
            openTime: OPEN_TIME,
            revealTime: AUDIT_REVEAL_TIME,
            appealTime: APPEAL_TIME,
            minProbabilityBps: MIN_PROBABILITY_BPS,
            gainBps: GAIN_BPS,
            powerBps: POWER_BPS,
            auditShareBps: AUDIT_SHARE_BPS,
            auditPayBps: AUDIT_PAY_BPS,
            slashBps: FRAUD_BPS,
            dutyBps: DUTY_BPS,
            proverBps: PROVER_BPS,
            clientBps: CLIENT_BPS,
            appealBps: APPEAL_BPS
        });
    }

    function assets() internal view returns (address[] memory list) {
        list = new address[](2);
        (list[0], list[1]) = (address(token), address(usd));
    }

    function parametersConfig() internal view virtual returns (Parameters.Config memory) {
        return Parameters.Config({
            governor: governor,
            delay: PARAMETERS_DELAY,
            drawWindow: REUSE_DELAY,
            longestAudit: LONGEST_AUDIT,
            maxRoyaltyBps: MAX_ROYALTY_BPS
        });
    }

    function firstTerms() internal pure virtual returns (Terms memory result) {
        result.session = SessionTerms({
            minerBps: MINER_BPS,
            routerBps: ROUTER_BPS,
            maxDeadline: MAX_DEADLINE,
            attemptTime: ATTEMPT_TIME,
            revealTime: REVEAL_TIME,
            settleDelay: SETTLE_DELAY,
            maxAttempts: MAX_ATTEMPTS,
            noticePeriod: NOTICE,
            reservationTimeout: TIMEOUT,
            reservePeriod: RESERVE_PERIOD,
            maxTasks: MAX_TASKS
        });
        result.node = NodeTerms({
            activationDelay: ACTIVATION_DELAY,
            unbondingPeriod: UNBONDING,
            collateralPerSlot: COLLATERAL,
            slashBps: SLASH_BPS,
            reporterBps: REPORTER_BPS
        });
        result.assets = new AssetTerms[](2);
        result.assets[0] = AssetTerms({tip: TIP, minDeposit: MIN_DEPOSIT});
        result.assets[1] = AssetTerms({tip: USD_TIP, minDeposit: USD_MIN_DEPOSIT});
    }

    function modelRegistration() internal pure returns (ModelRegistration memory result) {
        result.modelId = MODEL;
        result.manifestDigest = keccak256("manifest");
        result.royaltyBps = ROYALTY_BPS;
        result.floors = new Floor[](2);
        result.floors[0] = Floor({asset: COR, priceIn: PRICE_IN, priceOut: PRICE_OUT});
        result.floors[1] = Floor({asset: USD, priceIn: USD_PRICE_IN, priceOut: USD_PRICE_OUT});
    }

    /// Gives COR and lets `SessionPayment` take it.
    function fund(address account, uint256 amount) internal {
        token.transfer(account, amount);
        vm.prank(account);
        token.approve(address(payment), type(uint256).max);
    }

    /// Gives test dollars and lets `SessionPayment` take them.
    function fundUsd(address account, uint256 amount) internal {
        usd.transfer(account, amount);
        vm.prank(account);
        usd.approve(address(payment), type(uint256).max);
    }

    // ---------------------------------------------------------------- time

    function nextBlock() internal {
        skipTime(1);
    }

    /// So many seconds, one block each.
    function skipTime(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
        vm.roll(block.number + seconds_);
    }

    /// Reveals `round`, rolling to the first block in which it can be had. Does nothing if it is revealed.
    function reveal(uint64 round) internal {
        if (beacon.valueOf(round) != 0) return;
        if (block.number <= round) skipTime(round + 1 - block.number);
        beacon.reveal(round, "");
    }

    // ---------------------------------------------------------------- nodes

    function operatorKey(uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("operator", i)));
    }

    function ownerOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xA000 + i));
    }

    function payoutOf(uint256 i) internal pure returns (address) {
        return address(uint160(0xB000 + i));
    }

    /// Node of owner number `i` for draws of `MODEL`.
    function registration(uint256 i, uint8 capacity) internal pure returns (NodeRegistration memory result) {
        result.operator = vm.addr(operatorKey(i));
        result.payout = payoutOf(i);
        result.numericClass = CLASS;
        result.offers = new Offer[](1);
        result.offers[0] = Offer({modelId: MODEL, capacity: capacity});
    }

    /// Registers node of owner number `i`; it takes part in draws after the activation delay.
    function newNode(uint256 i, uint8 capacity) internal returns (NodeId nodeId) {
        return register(i, registration(i, capacity));
    }

    /// Registers node of owner number `i`, which serves `served` alone.
    function newDedicated(uint256 i, uint8 capacity, address served) internal returns (NodeId nodeId) {
        NodeRegistration memory wanted = registration(i, capacity);
        wanted.dedicatedTo = served;
        return register(i, wanted);
    }

    /// Registers a node with the money that it needs.
    function register(uint256 i, NodeRegistration memory wanted) internal returns (NodeId nodeId) {
        uint256 places;
        for (uint256 k; k < wanted.offers.length; ++k) {
            places += wanted.offers[k].capacity;
        }
        fund(ownerOf(i), COLLATERAL * places);
        vm.prank(ownerOf(i));
        nodeId = pool.register(wanted);
    }

    /// Nodes 1 to n of different owners, active in draws.
    function newNodes(uint256 n, uint8 capacity) internal {
        for (uint256 i = 1; i <= n; ++i) {
            newNode(i, capacity);
        }
        skipTime(ACTIVATION_DELAY + 1);
    }

    /// Operator key of a node that is registered already.
    function operatorOf(NodeId nodeId) internal view returns (address) {
        return pool.nodeOf(nodeId).operator;
    }

    // ---------------------------------------------------------------- sessions

    /// Terms of a session in COR with the router's lane.
    function terms(uint8 minNodes, uint8 maxNodes) internal view returns (OpenTerms memory result) {
        result.modelId = MODEL;
        result.asset = COR;
        (result.minNodes, result.maxNodes) = (minNodes, maxNodes);
        (result.maxPriceIn, result.maxPriceOut) = (PRICE_IN * MAX_FACTOR, PRICE_OUT * MAX_FACTOR);
        result.deposit = DEPOSIT;
        result.lanes = new LaneTerms[](1);
        result.lanes[0] = LaneTerms({holder: router, allotment: ALLOTMENT});
    }

    /// The same in test dollars.
    function termsInUsd(uint8 minNodes, uint8 maxNodes) internal view returns (OpenTerms memory result) {
        result = terms(minNodes, maxNodes);
        result.asset = USD;
        result.deposit = USD_DEPOSIT;
        result.lanes[0].allotment = USD_DEPOSIT / 2;
    }

    /// Terms that name nodes, beside `maxNodes` drawn ones.
    function termsNaming(NodeId[] memory named, uint8 minNodes, uint8 maxNodes)
        internal
        view
        returns (OpenTerms memory result)
    {
        result = terms(minNodes, maxNodes);
        result.dedicated = named;
    }

    function openSession(uint8 minNodes, uint8 maxNodes) internal returns (SessionId id) {
        return openWith(terms(minNodes, maxNodes));
    }

    function openWith(OpenTerms memory wanted) internal returns (SessionId id) {
        vm.prank(client);
        return session.open(wanted);
    }

    /// Draws the nodes that the session waits for.
    function drawNodes(SessionId id) internal {
        reveal(session.sessionOf(id).drawRound);
        session.activate(id);
    }

    /// An active session whose seed is known.
    function activeSession(uint8 minNodes, uint8 maxNodes) internal returns (SessionId id) {
        return activeWith(terms(minNodes, maxNodes));
    }

    function activeWith(OpenTerms memory wanted) internal returns (SessionId id) {
        id = openWith(wanted);
        if (session.sessionOf(id).drawRound != 0) drawNodes(id);
        reveal(session.sessionOf(id).current.seedRound);
        nextBlock();
    }

    /// The first node of the session's current reservation.
    function firstNode(SessionId id) internal view returns (NodeId) {
        return session.sessionOf(id).current.nodes[0];
    }

    /// The node ids 1 to n.
    function nodeIds(uint32 n) internal pure returns (NodeId[] memory list) {
        list = new NodeId[](n);
        for (uint32 i; i < n; ++i) {
            list[i] = NodeId.wrap(i + 1);
        }
    }

    function only(NodeId nodeId) internal pure returns (NodeId[] memory list) {
        list = new NodeId[](1);
        list[0] = nodeId;
    }

    // ---------------------------------------------------------------- tasks

    /// A pushed request for one answer and one attempt.
    function request(SessionId id, Lane lane, uint64 nonce, NodeId nodeId) internal view returns (TaskRequest memory) {
        return TaskRequest({
            sessionId: id,
            lane: lane,
            nonce: nonce,
            seedRound: 0,
            requestDigest: keccak256(abi.encode("request", nonce)),
            maxPrompt: 100,
            maxOutput: 200,
            feeCap: 1e18,
            deadline: uint64(block.timestamp) + 60,
            nodeId: nodeId,
            redundancy: 1,
            attempts: 1,
            dispatch: Dispatch.Push,
            callbackGas: 0
        });
    }

    /// An answer by `nodeId` whose signature is still empty.
    function answer(NodeId nodeId, uint32 promptTokens, uint32 outputTokens) internal pure returns (Answer memory) {
        return Answer({
            nodeId: nodeId,
            outputDigest: keccak256(abi.encode("output", nodeId)),
            promptHash: keccak256("prompt"),
            promptTokens: promptTokens,
            outputTokens: outputTokens,
            numericClass: CLASS,
            endReason: 1,
            salt: keccak256(abi.encode("salt", nodeId)),
            proofSeal: keccak256(abi.encode("h2", nodeId)),
            signature: ""
        });
    }

    /// What the session pays for so many tokens, rounded up.
    function fee(SessionId id, uint256 promptTokens, uint256 outputTokens) internal view returns (uint96) {
        SessionInfo memory info = session.sessionOf(id);
        return uint96((promptTokens * info.priceIn + outputTokens * info.priceOut + 1e6 - 1) / 1e6);
    }

    /// keccak256(abi.encode(H1, H2)), written anew: what the node of `given` signs.
    function commitmentOf(TaskId taskId, Answer memory given) internal view returns (bytes32) {
        bytes memory head = abi.encode(
            keccak256("assay.commit.tokens.v1"), block.chainid, address(queue), taskId, given.nodeId, given.outputDigest
        );
        bytes memory tail = abi.encode(
            given.promptHash, given.promptTokens, given.outputTokens, given.numericClass, given.endReason, given.salt
        );
        return keccak256(abi.encode(keccak256(bytes.concat(head, tail)), given.proofSeal));
    }

    // ---------------------------------------------------------------- signatures

    function sign(uint256 key, bytes32 structHash) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, keccak256(abi.encodePacked(hex"1901", queue.DOMAIN_SEPARATOR(), structHash)));
        return abi.encodePacked(r, s, v);
    }

    function sign(uint256 key, TaskRequest memory wanted) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256(
            "TaskRequest(uint64 sessionId,uint32 lane,uint64 nonce,uint64 seedRound,bytes32 requestDigest,uint32 maxPrompt,uint32 maxOutput,uint96 feeCap,uint64 deadline,uint32 nodeId,uint8 redundancy,uint8 attempts,uint8 dispatch,uint32 callbackGas)"
        );
        return sign(key, keccak256(abi.encode(typeHash, wanted)));
    }

    /// A precommitment to `given`, signed by its node's operator, who has the key of owner number `i`.
    function signedPrecommit(uint256 i, TaskId taskId, Answer memory given) internal view returns (Precommit memory) {
        bytes32 commitment = commitmentOf(taskId, given);
        return Precommit(given.nodeId, commitment, signPrecommit(i, taskId, given.nodeId, commitment));
    }

    function signPrecommit(uint256 i, TaskId taskId, NodeId nodeId, bytes32 commitment)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typeHash = keccak256("Precommit(bytes32 taskId,uint32 nodeId,bytes32 commitment)");
        return sign(operatorKey(i), keccak256(abi.encode(typeHash, taskId, nodeId, commitment)));
    }

    function signDecline(uint256 i, TaskId taskId, NodeId nodeId) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256("Decline(bytes32 taskId,uint32 nodeId)");
        return sign(operatorKey(i), keccak256(abi.encode(typeHash, taskId, nodeId)));
    }

    // ---------------------------------------------------------------- tasks from their events

    /// From here on `lastTask` sees what the queue tells.
    function recordTasks() internal {
        vm.recordLogs();
    }

    /// The task of the latest `TaskSubmitted` or `TaskMoved` since `recordTasks` or the last call of this.
    function lastTask() internal returns (Task memory task) {
        Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = logs.length; i > 0; --i) {
            Log memory entry = logs[i - 1];
            if (entry.topics[0] == ISessionQueue.TaskMoved.selector) {
                (, task) = abi.decode(entry.data, (uint40, Task));
                return task;
            }
            if (entry.topics[0] == ISessionQueue.TaskSubmitted.selector) {
                (,,, task) = abi.decode(entry.data, (bytes32, uint64, uint40, Task));
                return task;
            }
        }
        revert("no task was told");
    }

    /// `task` as it stands once `given` is committed.
    function afterCommit(Task memory task, uint256 part, Answer memory given) internal view returns (Task memory) {
        TaskId taskId = queue.taskIdOf(task.sessionId, task.lane, task.nonce);
        Part memory changed = task.parts[part];
        changed.state = PartState.Committed;
        changed.fee = fee(task.sessionId, given.promptTokens, given.outputTokens);
        changed.commitment = commitmentOf(taskId, given);
        return task;
    }

    function only(Task memory task) internal pure returns (Task[] memory list) {
        list = new Task[](1);
        list[0] = task;
    }

    function only(Answer memory given) internal pure returns (Answer[] memory list) {
        list = new Answer[](1);
        list[0] = given;
    }

    function only(Precommit memory given) internal pure returns (Precommit[] memory list) {
        list = new Precommit[](1);
        list[0] = given;
    }

    // ---------------------------------------------------------------- comparisons

    /// Brings `x` into the range, both ends included.
    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
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
