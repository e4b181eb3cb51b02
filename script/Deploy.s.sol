// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {DrandNetwork} from "../contracts/src/interfaces/IDrandBeacon.sol";
import {IModelRegistry} from "../contracts/src/interfaces/IModelRegistry.sol";
import {AssetTerms, NodeTerms, SessionTerms, Terms} from "../contracts/src/interfaces/IParameters.sol";
import {IProofOfInference, ProofConfig, ProofWiring} from "../contracts/src/interfaces/IProofOfInference.sol";
import {ISessionPayment} from "../contracts/src/interfaces/ISessionPayment.sol";
import {ISession} from "../contracts/src/interfaces/ISession.sol";
import {ISessionQueue} from "../contracts/src/interfaces/ISessionQueue.sol";
import {INodePool} from "../contracts/src/interfaces/INodePool.sol";
import {INodeStats} from "../contracts/src/interfaces/INodeStats.sol";
import {ModelRegistry} from "../contracts/src/ModelRegistry.sol";
import {NodePool} from "../contracts/src/NodePool.sol";
import {NodeStats} from "../contracts/src/NodeStats.sol";
import {Parameters} from "../contracts/src/Parameters.sol";
import {Session} from "../contracts/src/Session.sol";
import {SessionPayment} from "../contracts/src/SessionPayment.sol";
import {SessionQueue} from "../contracts/src/SessionQueue.sol";
import {Deployer} from "../contracts/src/periphery/Deployer.sol";
import {AssetId} from "../contracts/src/types/Ids.sol";

/// The cheat codes of forge that a deployment needs.
interface IVm {
    function startBroadcast() external;
    function stopBroadcast() external;
    function readFile(string calldata path) external view returns (string memory);
    function exists(string calldata path) external view returns (bool);
    function getCode(string calldata artifact) external view returns (bytes memory);
    function keyExistsToml(string calldata toml, string calldata key) external view returns (bool);
    function parseTomlUint(string calldata toml, string calldata key) external pure returns (uint256);
    function parseTomlAddress(string calldata toml, string calldata key) external pure returns (address);
    function parseTomlString(string calldata toml, string calldata key) external pure returns (string memory);
    function envOr(string calldata name, string calldata other) external view returns (string memory);
    function toString(uint256 value) external pure returns (string memory);
    function serializeUint(string calldata key, string calldata member, uint256 value) external returns (string memory);
    function serializeAddress(string calldata key, string calldata member, address value)
        external
        returns (string memory);
    function writeToml(string calldata json, string calldata path, string calldata key) external;
}

/// Deploys the contracts as `assay deploy` does, to the same addresses: what `[config]` of
/// `script/deployments/<chain id>.toml` says (or of the file that ASSAY_DEPLOYMENT names), by the account that forge is
/// given, and writes their addresses there as `[contracts]`.
///
///     script/forge script script/Deploy.s.sol --rpc-url http://127.0.0.1:8545 --account <keystore> --broadcast --slow
///
/// `--slow` sends one transaction at a time: they do not fit into one block, and anvil leaves what did not fit unmined.
contract Deploy {
    /// Where the contracts stand, in the order of their creation.
    struct Addresses {
        address token;
        address beacon;
        address parameters;
        address models;
        address stats;
        address payment;
        address nodes;
        address sessions;
        address queue;
        address panel;
        address judgement;
        address proof;
    }

    /// What stands beside the terms in `[config]`.
    struct Fixed {
        address tokenHolder;
        address governor;
        uint256 supply;
        uint256 parametersDelay;
        uint256 drawWindow;
        uint256 longestAudit;
        uint256 maxRoyaltyBps;
        uint256 epochLength;
        uint256 levelPeriod;
        ProofConfig proof;
        /// 0 without drand.
        uint256 maxDrift;
        /// Zero for COR.
        address[] tokens;
    }

    error Deploy_NoConfig(string path);
    error Deploy_NoFactory(address factory);
    error Deploy_Refused(uint256 number, bytes reason);
    error Deploy_NoCode(uint256 number, address expected);
    error Deploy_WrongWiring(uint256 number);
    error Deploy_UnknownBeacon(string kind);

    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    /// The deterministic deployment proxy: it creates a contract at an address that its code and a salt decide.
    address internal constant FACTORY = 0x4e59b44847b379578588920cA78FbF26c0B4956C;
    uint256 internal constant CONTRACTS = 12;
    /// More than `SessionPayment` takes.
    uint256 internal constant MAX_ASSETS = 16;

    // drand's evmnet, as drand publishes it.
    uint64 internal constant EVMNET_GENESIS = 1727521075;
    uint64 internal constant EVMNET_PERIOD = 3;
    bytes internal constant EVMNET_KEY =
        hex"07e1d1d335df83fa98462005690372c643340060d205306a9aa8106b6bd0b3820557ec32c2ad488e4d4f6008f89a346f18492092ccc0d594610de2732c8b808f0095685ae3a85ba243747b1b2f426049010f6b73a0cf1d389351d5aaaa1047f6297d3a4f9749b33eb2d904c9d9ebf17224150ddd7abd7567a9bec6c74480ee0b";

    function run() external {
        string memory path =
            vm.envOr("ASSAY_DEPLOYMENT", string.concat("script/deployments/", vm.toString(block.chainid), ".toml"));
        if (!vm.exists(path)) revert Deploy_NoConfig(path);
        if (FACTORY.code.length == 0) revert Deploy_NoFactory(FACTORY);
        string memory toml = vm.readFile(path);
        Terms memory terms = readTerms(toml);
        Fixed memory fixed_ = readFixed(toml, terms.assets.length);

        bytes memory deployerCode = abi.encodePacked(vm.getCode("Deployer.sol:Deployer"), abi.encode(msg.sender));
        bytes32 salt = saltOf(fixed_, terms);
        Deployer deployer = Deployer(create2Address(salt, deployerCode));
        Addresses memory all = predict(deployer);
        bytes[CONTRACTS] memory codes = initCodes(all, fixed_, terms);
        vm.startBroadcast();
        if (address(deployer).code.length == 0) {
            (bool success, bytes memory reason) = FACTORY.call(abi.encodePacked(salt, deployerCode));
            if (!success) revert Deploy_Refused(0, reason);
        }
        // What an earlier run created stays.
        for (uint256 number = deployer.next(); number <= CONTRACTS; ++number) {
            deployer.create(number, codes[number - 1]);
        }
        vm.stopBroadcast();
        verify(all);
        write(all, path);
    }

    function readFixed(string memory toml, uint256 assets) internal view returns (Fixed memory result) {
        result.tokenHolder = addressOr(toml, ".config.token_holder", msg.sender);
        result.governor = addressOr(toml, ".config.governor", msg.sender);
        result.supply = vm.parseTomlUint(toml, ".config.supply");
        result.parametersDelay = vm.parseTomlUint(toml, ".config.parameters_delay_s");
        result.longestAudit = vm.parseTomlUint(toml, ".config.longest_audit_s");
        result.drawWindow = vm.parseTomlUint(toml, ".config.draw_window_s");
        result.maxRoyaltyBps = vm.parseTomlUint(toml, ".config.max_royalty_bps");
        result.epochLength = vm.parseTomlUint(toml, ".config.epoch_length_s");
        result.levelPeriod = vm.parseTomlUint(toml, ".config.level_period_s");
        result.proof = readProof(toml);
        bytes32 kind = keccak256(bytes(vm.parseTomlString(toml, ".config.beacon.kind")));
        if (kind == keccak256("drand")) {
            result.maxDrift = vm.parseTomlUint(toml, ".config.beacon.max_drift_s");
        } else if (kind != keccak256("blockhash")) {
            revert Deploy_UnknownBeacon(vm.parseTomlString(toml, ".config.beacon.kind"));
        }
        result.tokens = new address[](assets);
        for (uint256 i; i < assets; ++i) {
            result.tokens[i] = addressOr(toml, string.concat(asset(i), ".token"), address(0));
        }
    }

    function readTerms(string memory toml) internal view returns (Terms memory terms) {
        terms.session = readSessionTerms(toml);
        terms.node = NodeTerms({
            activationDelay: uint32(vm.parseTomlUint(toml, ".config.node.activation_delay_s")),
            unbondingPeriod: uint32(vm.parseTomlUint(toml, ".config.node.unbonding_period_s")),
            collateralPerSlot: uint128(vm.parseTomlUint(toml, ".config.node.collateral_per_slot")),
            slashBps: uint16(vm.parseTomlUint(toml, ".config.node.slash_bps")),
            reporterBps: uint16(vm.parseTomlUint(toml, ".config.node.reporter_bps"))
        });
        uint256 count;
        while (count < MAX_ASSETS && vm.keyExistsToml(toml, string.concat(asset(count), ".tip"))) ++count;
        terms.assets = new AssetTerms[](count);
        for (uint256 i; i < count; ++i) {
            terms.assets[i] = AssetTerms({
                tip: uint96(vm.parseTomlUint(toml, string.concat(asset(i), ".tip"))),
                minDeposit: uint96(vm.parseTomlUint(toml, string.concat(asset(i), ".min_deposit")))
            });
        }
    }

    function readSessionTerms(string memory toml) internal pure returns (SessionTerms memory) {
        return SessionTerms({
            minerBps: uint16(vm.parseTomlUint(toml, ".config.session.miner_bps")),
            routerBps: uint16(vm.parseTomlUint(toml, ".config.session.router_bps")),
            maxDeadline: uint24(vm.parseTomlUint(toml, ".config.session.max_deadline_s")),
            attemptTime: uint24(vm.parseTomlUint(toml, ".config.session.attempt_time_s")),
            revealTime: uint24(vm.parseTomlUint(toml, ".config.session.reveal_time_s")),
            settleDelay: uint24(vm.parseTomlUint(toml, ".config.session.settle_delay_s")),
            maxAttempts: uint8(vm.parseTomlUint(toml, ".config.session.max_attempts")),
            noticePeriod: uint24(vm.parseTomlUint(toml, ".config.session.notice_period_s")),
            reservationTimeout: uint24(vm.parseTomlUint(toml, ".config.session.reservation_timeout_s")),
            reservePeriod: uint24(vm.parseTomlUint(toml, ".config.session.reserve_period_s")),
            maxTasks: uint32(vm.parseTomlUint(toml, ".config.session.max_tasks"))
        });
    }

    function readProof(string memory toml) internal pure returns (ProofConfig memory) {
        return ProofConfig({
            epochLength: uint40(vm.parseTomlUint(toml, ".config.proof.epoch_length_s")),
            roundTimeout: uint40(vm.parseTomlUint(toml, ".config.proof.round_timeout_s")),
            sealTime: uint40(vm.parseTomlUint(toml, ".config.proof.seal_time_s")),
            openTime: uint40(vm.parseTomlUint(toml, ".config.proof.open_time_s")),
            revealTime: uint40(vm.parseTomlUint(toml, ".config.proof.reveal_time_s")),
            appealTime: uint40(vm.parseTomlUint(toml, ".config.proof.appeal_time_s")),
            minProbabilityBps: uint16(vm.parseTomlUint(toml, ".config.proof.min_probability_bps")),
            gainBps: uint16(vm.parseTomlUint(toml, ".config.proof.gain_bps")),
            powerBps: uint16(vm.parseTomlUint(toml, ".config.proof.power_bps")),
            auditShareBps: uint16(vm.parseTomlUint(toml, ".config.proof.audit_share_bps")),
            auditPayBps: uint16(vm.parseTomlUint(toml, ".config.proof.audit_pay_bps")),
            slashBps: uint16(vm.parseTomlUint(toml, ".config.proof.slash_bps")),
            dutyBps: uint16(vm.parseTomlUint(toml, ".config.proof.duty_bps")),
            proverBps: uint16(vm.parseTomlUint(toml, ".config.proof.prover_bps")),
            clientBps: uint16(vm.parseTomlUint(toml, ".config.proof.client_bps")),
            appealBps: uint16(vm.parseTomlUint(toml, ".config.proof.appeal_bps"))
        });
    }

    function asset(uint256 index) internal pure returns (string memory) {
        return string.concat(".config.assets[", vm.toString(index), "]");
    }

    function addressOr(string memory toml, string memory key, address other) internal view returns (address) {
        return vm.keyExistsToml(toml, key) ? vm.parseTomlAddress(toml, key) : other;
    }

    /// The same owner, software and configuration give the same addresses on every chain, and others other ones.
    function saltOf(Fixed memory fixed_, Terms memory terms) internal view returns (bytes32) {
        bytes[CONTRACTS] memory codes = creationCodes(fixed_.maxDrift != 0);
        bytes32[CONTRACTS] memory hashes;
        for (uint256 i; i < CONTRACTS; ++i) {
            hashes[i] = keccak256(codes[i]);
        }
        bytes32 settings = keccak256(
            abi.encode(
                fixed_.tokenHolder,
                fixed_.governor,
                fixed_.supply,
                fixed_.parametersDelay,
                fixed_.drawWindow,
                fixed_.longestAudit,
                fixed_.maxRoyaltyBps,
                fixed_.epochLength,
                fixed_.levelPeriod,
                fixed_.maxDrift,
                fixed_.tokens
            )
        );
        settings = keccak256(abi.encode(settings, fixed_.proof));
        return keccak256(abi.encode(keccak256(abi.encode(hashes)), settings, keccak256(abi.encode(terms))));
    }

    function creationCodes(bool drand) internal view returns (bytes[CONTRACTS] memory codes) {
        codes[0] = vm.getCode("CorToken.sol:CorToken");
        codes[1] = drand ? vm.getCode("DrandBeacon.sol:DrandBeacon") : vm.getCode("BlockhashBeacon.sol:BlockhashBeacon");
        codes[2] = vm.getCode("Parameters.sol:Parameters");
        codes[3] = vm.getCode("ModelRegistry.sol:ModelRegistry");
        codes[4] = vm.getCode("NodeStats.sol:NodeStats");
        codes[5] = vm.getCode("SessionPayment.sol:SessionPayment");
        codes[6] = vm.getCode("NodePool.sol:NodePool");
        codes[7] = vm.getCode("Session.sol:Session");
        codes[8] = vm.getCode("SessionQueue.sol:SessionQueue");
        codes[9] = vm.getCode("ProofOfInferencePanel.sol:ProofOfInferencePanel");
        codes[10] = vm.getCode("ProofOfInferenceJudgement.sol:ProofOfInferenceJudgement");
        codes[11] = vm.getCode("ProofOfInference.sol:ProofOfInference");
    }

    function initCodes(Addresses memory all, Fixed memory fixed_, Terms memory terms)
        internal
        view
        returns (bytes[CONTRACTS] memory codes)
    {
        codes = creationCodes(fixed_.maxDrift != 0);
        codes[0] = abi.encodePacked(codes[0], abi.encode(fixed_.tokenHolder, fixed_.supply));
        if (fixed_.maxDrift != 0) {
            uint256[4] memory key = abi.decode(EVMNET_KEY, (uint256[4]));
            DrandNetwork memory network = DrandNetwork({publicKey: key, genesis: EVMNET_GENESIS, period: EVMNET_PERIOD});
            codes[1] = abi.encodePacked(codes[1], abi.encode(network, uint64(fixed_.maxDrift)));
        }
        Parameters.Config memory parameters = Parameters.Config({
            governor: fixed_.governor,
            delay: uint40(fixed_.parametersDelay),
            drawWindow: uint40(fixed_.drawWindow),
            longestAudit: uint40(fixed_.longestAudit),
            maxRoyaltyBps: uint16(fixed_.maxRoyaltyBps)
        });
        codes[2] = abi.encodePacked(codes[2], abi.encode(parameters, terms));
        codes[3] =
            abi.encodePacked(codes[3], abi.encode(ModelRegistry.Wiring({parameters: all.parameters, pool: all.nodes})));
        NodeStats.Config memory counters =
            NodeStats.Config({epochLength: uint40(fixed_.epochLength), levelPeriod: uint40(fixed_.levelPeriod)});
        codes[4] = abi.encodePacked(codes[4], abi.encode(NodeStats.Wiring({queue: all.queue}), counters));
        codes[5] = abi.encodePacked(codes[5], paymentArguments(all, fixed_.tokens));
        codes[6] = abi.encodePacked(codes[6], abi.encode(poolWiring(all)));
        codes[7] = abi.encodePacked(codes[7], abi.encode(sessionWiring(all)));
        codes[8] = abi.encodePacked(codes[8], abi.encode(queueWiring(all)));
        codes[9] = abi.encodePacked(codes[9], abi.encode(proofWiring(all), fixed_.proof));
        codes[10] = abi.encodePacked(codes[10], abi.encode(proofWiring(all), fixed_.proof));
        codes[11] = abi.encodePacked(codes[11], abi.encode(proofWiring(all), fixed_.proof, all.panel, all.judgement));
    }

    function paymentArguments(Addresses memory all, address[] memory tokens) internal pure returns (bytes memory) {
        address[] memory assets = new address[](tokens.length);
        for (uint256 i; i < tokens.length; ++i) {
            assets[i] = tokens[i] == address(0) ? all.token : tokens[i];
        }
        return abi.encode(
            SessionPayment.Wiring({pool: all.nodes, proof: all.proof, queue: all.queue, session: all.sessions}), assets
        );
    }

    function poolWiring(Addresses memory all) internal pure returns (NodePool.Wiring memory) {
        return NodePool.Wiring({
            session: all.sessions,
            queue: all.queue,
            models: all.models,
            payment: all.payment,
            stats: all.stats,
            parameters: all.parameters,
            proof: all.proof
        });
    }

    function sessionWiring(Addresses memory all) internal pure returns (Session.Wiring memory) {
        return Session.Wiring({
            beacon: all.beacon, models: all.models, parameters: all.parameters, payment: all.payment, pool: all.nodes
        });
    }

    function queueWiring(Addresses memory all) internal pure returns (SessionQueue.Wiring memory) {
        return SessionQueue.Wiring({
            beacon: all.beacon,
            models: all.models,
            parameters: all.parameters,
            payment: all.payment,
            pool: all.nodes,
            proof: all.proof,
            session: all.sessions,
            stats: all.stats
        });
    }

    function proofWiring(Addresses memory all) internal pure returns (ProofWiring memory) {
        return ProofWiring({
            beacon: all.beacon,
            models: all.models,
            parameters: all.parameters,
            payment: all.payment,
            pool: all.nodes,
            queue: all.queue,
            stats: all.stats
        });
    }

    function create2Address(bytes32 salt, bytes memory code) internal pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(bytes1(0xff), FACTORY, salt, keccak256(code))))));
    }

    /// keccak256(rlp([deployer, number])), before the deployer is there to be asked.
    function predict(Deployer deployer) internal pure returns (Addresses memory all) {
        all.token = numbered(deployer, 1);
        all.beacon = numbered(deployer, 2);
        all.parameters = numbered(deployer, 3);
        all.models = numbered(deployer, 4);
        all.stats = numbered(deployer, 5);
        all.payment = numbered(deployer, 6);
        all.nodes = numbered(deployer, 7);
        all.sessions = numbered(deployer, 8);
        all.queue = numbered(deployer, 9);
        all.panel = numbered(deployer, 10);
        all.judgement = numbered(deployer, 11);
        all.proof = numbered(deployer, 12);
    }

    function numbered(Deployer deployer, uint8 number) internal pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", address(deployer), number)))));
    }

    function verify(Addresses memory all) internal view {
        address[CONTRACTS] memory list = [
            all.token,
            all.beacon,
            all.parameters,
            all.models,
            all.stats,
            all.payment,
            all.nodes,
            all.sessions,
            all.queue,
            all.panel,
            all.judgement,
            all.proof
        ];
        for (uint256 i; i < CONTRACTS; ++i) {
            if (list[i].code.length == 0) revert Deploy_NoCode(i + 1, list[i]);
        }
        if (INodeStats(all.stats).queue() != all.queue) revert Deploy_WrongWiring(5);
        ISessionPayment payment = ISessionPayment(all.payment);
        if (payment.tokenOf(AssetId.wrap(0)) != all.token || payment.session() != all.sessions) {
            revert Deploy_WrongWiring(6);
        }
        if (payment.queue() != all.queue || payment.pool() != all.nodes) revert Deploy_WrongWiring(6);
        INodePool nodes = INodePool(all.nodes);
        if (nodes.session() != all.sessions || nodes.queue() != all.queue) revert Deploy_WrongWiring(7);
        if (nodes.models() != all.models || nodes.payment() != all.payment) revert Deploy_WrongWiring(7);
        if (nodes.stats() != all.stats || nodes.parameters() != all.parameters) revert Deploy_WrongWiring(7);
        ISession sessions = ISession(all.sessions);
        if (sessions.models() != all.models || sessions.pool() != all.nodes) revert Deploy_WrongWiring(8);
        if (sessions.payment() != all.payment || sessions.beacon() != all.beacon) revert Deploy_WrongWiring(8);
        if (sessions.parameters() != all.parameters) revert Deploy_WrongWiring(8);
        ISessionQueue queue = ISessionQueue(all.queue);
        if (queue.session() != all.sessions || queue.pool() != all.nodes) revert Deploy_WrongWiring(9);
        if (queue.models() != all.models || queue.payment() != all.payment) revert Deploy_WrongWiring(9);
        if (queue.beacon() != all.beacon || queue.stats() != all.stats) revert Deploy_WrongWiring(9);
        if (queue.parameters() != all.parameters || queue.proof() != all.proof) revert Deploy_WrongWiring(9);
        if (payment.proof() != all.proof) revert Deploy_WrongWiring(6);
        if (nodes.proof() != all.proof) revert Deploy_WrongWiring(7);
        if (IModelRegistry(all.models).pool() != all.nodes) revert Deploy_WrongWiring(4);
        IProofOfInference proof = IProofOfInference(all.proof);
        if (proof.queue() != all.queue || proof.pool() != all.nodes) revert Deploy_WrongWiring(12);
        if (proof.models() != all.models || proof.payment() != all.payment) revert Deploy_WrongWiring(12);
        if (proof.beacon() != all.beacon) revert Deploy_WrongWiring(12);
    }

    function write(Addresses memory all, string memory path) internal {
        string memory key = "contracts";
        vm.serializeUint(key, "chain_id", block.chainid);
        vm.serializeAddress(key, "token", all.token);
        vm.serializeAddress(key, "beacon", all.beacon);
        vm.serializeAddress(key, "parameters", all.parameters);
        vm.serializeAddress(key, "models", all.models);
        vm.serializeAddress(key, "stats", all.stats);
        vm.serializeAddress(key, "payment", all.payment);
        vm.serializeAddress(key, "nodes", all.nodes);
        vm.serializeAddress(key, "sessions", all.sessions);
        vm.serializeAddress(key, "queue", all.queue);
        vm.serializeAddress(key, "panel", all.panel);
        vm.serializeAddress(key, "judgement", all.judgement);
        vm.writeToml(vm.serializeAddress(key, "proof", all.proof), path, ".contracts");
    }
}
