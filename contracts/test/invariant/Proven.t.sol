// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Parameters} from "../../src/Parameters.sol";
import {Terms} from "../../src/interfaces/IParameters.sol";
import {
    Audit,
    AuditState,
    Chunk,
    Findings,
    IProofOfInference,
    Party,
    ProofConfig,
    Question,
    Testimony
} from "../../src/interfaces/IProofOfInference.sol";
import {Answer, Task, TaskState} from "../../src/interfaces/ISessionQueue.sol";
import {Verdicts} from "../../src/libraries/Verdicts.sol";
import {AssetId, NodeId, TaskId} from "../../src/types/Ids.sol";
import {Campaign} from "./Campaign.sol";
import {Validators} from "./Validators.sol";

/// A network whose model is calibrated, and what everybody does about its proofs.
contract ProvenNetwork is Validators {
    /// Small enough for what is open to count.
    uint128 internal constant PROVEN_COLLATERAL = 0.1e18;
    /// Where `ProofOfInferenceBase` keeps the failures of classes.
    uint256 internal constant FAILURES_SLOT = 4;
    uint256 internal constant MAX_PROVEN_NODES = 60;
    uint256 internal constant ENOUGH_NODES = 15;
    /// Owners short of a pause.
    uint256 internal constant ALMOST_PAUSING = 4;
    /// Times of eighty seconds that a task may still need once nobody answers any more: as elsewhere, and the draw, three
    /// validators, miner, validator, panel and hearing.
    uint256 internal constant MAX_PROVEN_STEPS = 18;

    function firstTerms() internal pure override returns (Terms memory result) {
        result = super.firstTerms();
        result.node.collateralPerSlot = PROVEN_COLLATERAL;
    }

    /// Times that many steps fit, and audits what unbonding covers.
    function proofConfig() internal pure override returns (ProofConfig memory result) {
        result = super.proofConfig();
        result.slashBps = SLASHED_BPS;
        (result.sealTime, result.openTime, result.revealTime) = (60, 60, 80);
    }

    /// Those are longer than elsewhere.
    function parametersConfig() internal view override returns (Parameters.Config memory result) {
        result = super.parametersConfig();
        result.longestAudit = 1000;
    }

    /// There are always some who may be drawn.
    function enlist(uint256 random) external step {
        random = mix(random);
        if (nodes.length >= MAX_PROVEN_NODES || takingPart() > ENOUGH_NODES) giveUp();
        joinAs(uint8(random % 4 + 1), address(0));
    }

    // ---------------------------------------------------------------- draws

    /// All that is due, one of them twice. Ends what is through, and nothing twice.
    function settleProven(uint256 random) external step {
        random = mix(random);
        Task[] memory list = new Task[](open.length + 1);
        skipTime(5);
        for (uint256 i; i < open.length; ++i) {
            list[i] = taskOf(open[i]);
            if (known[open[i]].state == TaskState.Committed) relay(open[i], list[i], random >> 8);
        }
        uint256 before = committed();
        if (before == 0) giveUp();
        list[open.length] = list[random % open.length];
        vm.prank(keeper);
        uint256 settled = queue.settle(list);
        fold();
        assertEq(settled, before - committed(), "[M5] once each");
    }

    /// Mostly somebody brings the round that draws an answer.
    function relay(TaskId taskId, Task memory task, uint256 random) internal {
        if (random % 16 == 0) return;
        for (uint256 i; i < task.parts.length; ++i) {
            Told storage told = tolds[taskId][task.parts[i].nodeId];
            if (told.state == AuditState.Exposed) knows(rounds[told.committedAt / AUDIT_EPOCH].round);
        }
    }

    function committed() internal view returns (uint256 count) {
        for (uint256 i; i < open.length; ++i) {
            if (known[open[i]].state == TaskState.Committed) ++count;
        }
    }

    function nameRound(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < trials.length; ++i) {
            Trial memory trial = trials[(random % trials.length + i) % trials.length];
            Told storage told = tolds[trial.taskId][trial.nodeId];
            uint40 epoch = told.committedAt / AUDIT_EPOCH;
            if (told.state != AuditState.Exposed || rounds[epoch].round != 0) continue;
            patientOf(random, (uint256(epoch) + 1) * AUDIT_EPOCH);
            vm.prank(keeper);
            proof.closeEpoch(epoch);
            return;
        }
        giveUp();
    }

    /// Epochs are short: half of the actors wait for their end.
    function patientOf(uint256 random, uint256 time) internal {
        if (block.timestamp >= time) return;
        if (random >> 255 == 1) giveUp();
        skipTime(time - block.timestamp);
    }

    // ---------------------------------------------------------------- audits

    /// The next thing that somebody has to do about some proof, and does.
    function examine(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < trials.length; ++i) {
            Trial memory trial = trials[(random % trials.length + i) % trials.length];
            Told storage told = tolds[trial.taskId][trial.nodeId];
            if (told.state == AuditState.Closed && collect(told)) return;
            if (told.state < AuditState.Drawn || told.state >= AuditState.Passed) continue;
            if (block.timestamp > told.until) continue;
            Audit memory audit = abi.decode(told.audit, (Audit));
            if (told.state == AuditState.Demanded && publish(told, audit, random >> 64)) return;
            if (told.state == AuditState.Demanded) continue;
            if (told.state < AuditState.Convened ? goOn(told, audit) : dispute(told, audit, random >> 64)) return;
        }
        giveUp();
    }

    /// Some who have to look cannot read the answer, or say so; who will report other ids must have demanded it.
    function demands(Told storage told, Audit memory audit, NodeId validator) internal returns (bool) {
        if (told.demand.resumes != AuditState.None) return false;
        (, uint8 flags) = seenBy(audit.taskId, audit.nodeId, validator);
        uint256 random = uint256(keccak256(abi.encode("demand", audit.taskId, audit.nodeId, validator)));
        if (flags & Verdicts.IDS == 0 && random % 8 != 0) return false;
        Party[] memory parties = told.parties.length == 0 ? new Party[](0) : abi.decode(told.parties, (Party[]));
        address operator = operatorOf(validator);
        vm.prank(operator);
        proof.demandData(audit, parties, validator);
        return true;
    }

    /// In two pieces; what a miner hides it does not publish either. Nobody else may.
    function publish(Told storage told, Audit memory audit, uint256 random) internal returns (bool) {
        Kind kind = kindOf(audit.taskId, audit.nodeId);
        if (kind == Kind.NoSeal || kind == Kind.HidesFromPanel) return false;
        uint32 total = uint32(random % 1000) + 2;
        if (told.demand.totalBytes != 0) total = told.demand.totalBytes;
        uint32 offset = told.demand.publishedBytes;
        bytes memory data = new bytes(offset == 0 ? total / 2 : total - offset);
        Chunk memory chunk = Chunk({requestBytes: total / 3, totalBytes: total, offset: offset, data: data});
        bytes memory call = abi.encodeCall(proof.publishData, (audit, chunk));
        refused(keeper, address(proof), call, IProofOfInference.ProofOfInference_NotOperator.selector);
        address operator = operatorOf(audit.nodeId);
        vm.prank(operator);
        proof.publishData(audit, chunk);
        return true;
    }

    /// Who is condemned for what it did not do appeals, and some others do.
    function contest(Audit memory audit, Party[] memory parties) internal returns (bool) {
        uint256 random = uint256(keccak256(abi.encode("appeal", audit.taskId, audit.nodeId)));
        if (isFalse(audit.taskId, audit.nodeId) && random & 1 == 0) return false;
        bytes memory call = abi.encodeCall(proof.appeal, (audit, parties));
        refused(keeper, address(proof), call, IProofOfInference.ProofOfInference_NotOwner.selector);
        (address owner,) = pool.ownerOf(audit.nodeId);
        if (payment.stakeOf(audit.nodeId) * SLASHED_BPS / BPS == 0) {
            refused(owner, address(proof), call, IProofOfInference.ProofOfInference_NothingAtStake.selector);
            return false;
        }
        fund(owner, 1e18);
        vm.prank(owner);
        proof.appeal(audit, parties);
        return true;
    }

    function goOn(Told storage told, Audit memory audit) internal returns (bool) {
        if (told.state == AuditState.Drawn) {
            if (demands(told, audit, audit.validator)) return true;
            if (mannerOf(audit.taskId, audit.nodeId, audit.validator) == Manner.Silent) return false;
            bytes32 seal = sealOf(audit, audit.validator);
            vm.prank(operatorOf(audit.validator));
            proof.commitAudit(audit, seal);
            return true;
        }
        if (told.state == AuditState.Sealed) {
            if (kindOf(audit.taskId, audit.nodeId) == Kind.NoSeal) return false;
            bytes32 root = rootOf(recordedBy(audit.taskId, audit.nodeId), false);
            proof.openProof(audit, answerOf(audit.nodeId, audit.taskId), root, bytes32("salt2"), keccak256("block"));
            return true;
        }
        if (!knows(audit.round) || block.timestamp > told.until) return false;
        if (told.state == AuditState.Accused) {
            proof.convene(audit);
            return true;
        }
        if (!opens(audit, audit.validator)) return false;
        Findings memory found = findings(audit);
        vm.prank(operatorOf(audit.validator));
        proof.reveal(audit, found);
        return true;
    }

    function dispute(Told storage told, Audit memory audit, uint256 random) internal returns (bool) {
        Party[] memory parties = abi.decode(told.parties, (Party[]));
        if (told.state == AuditState.Condemned) return contest(audit, parties);
        if (told.state == AuditState.Appealed) {
            if (!knows(audit.round) || block.timestamp > told.until) return false;
            vm.prank(keeper);
            proof.reconvene(audit, parties);
            return true;
        }
        bool weights = Verdicts.questionOf(audit.reasons) == Question.Weights;
        if (told.state == AuditState.Hearing && weights) {
            if (!knows(audit.round) || block.timestamp > told.until) return false;
        }
        bool missing;
        for (uint256 i; i < parties.length; ++i) {
            uint256 k = (random % parties.length + i) % parties.length;
            NodeId party = parties[k].nodeId;
            if (told.state == AuditState.Convened) {
                bool silent = mannerOf(audit.taskId, audit.nodeId, party) == Manner.Silent;
                if (k < 2 || parties[k].isSealed) continue;
                if (demands(told, audit, party)) return true;
                if (silent) continue;
                bytes32 seal = sealOf(audit, party);
                vm.prank(operatorOf(party));
                proof.commitPanel(audit, parties, party, seal);
                return true;
            }
            if (parties[k].isOpen || !parties[k].isSealed || (k < 2 && !weights)) continue;
            missing = true;
            if (k == 0 ? kindOf(audit.taskId, party) == Kind.HidesFromPanel : !opens(audit, party)) continue;
            Testimony memory given = testimony(audit, party);
            proof.testify(audit, parties, party, given);
            return true;
        }
        if (told.state == AuditState.Convened || missing) return false;
        vm.prank(keeper);
        proof.judge(audit, parties);
        return true;
    }

    /// [V20, V24] Unless the book is too small for it yet.
    function collect(Told storage told) internal returns (bool) {
        Audit memory audit = abi.decode(told.audit, (Audit));
        if (payTold[audit.taskId][audit.nodeId] > bookTold[audit.asset]) {
            bytes4 why = IProofOfInference.ProofOfInference_BookTooSmall.selector;
            refused(keeper, address(proof), abi.encodeCall(proof.collect, (audit)), why);
            return false;
        }
        vm.prank(keeper);
        proof.collect(audit);
        bytes4 again = IProofOfInference.ProofOfInference_WrongState.selector;
        refused(keeper, address(proof), abi.encodeCall(proof.collect, (audit)), again);
        return true;
    }

    /// Somebody was late.
    function overdue(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < trials.length; ++i) {
            Trial memory trial = trials[(random % trials.length + i) % trials.length];
            Told storage told = tolds[trial.taskId][trial.nodeId];
            if (told.state < AuditState.Drawn || told.state >= AuditState.Passed) continue;
            patientFor(told, random);
            // What needs a round that nobody brings in time is nobody's fault.
            if (random & 7 != 0) knows(abi.decode(told.audit, (Audit)).round);
            moveOn(told, keeper);
            return;
        }
        giveUp();
    }

    /// Who can still act mostly has the time to.
    function patientFor(Told storage told, uint256 random) internal {
        if (block.timestamp > told.until) return;
        bool waits = told.state >= AuditState.Convened || told.state == AuditState.Accused;
        if (random >> 252 > (waits ? 1 : 5)) giveUp();
        skipTime(told.until + 1 - block.timestamp);
    }

    function moveOn(Told storage told, address caller) internal {
        Audit memory audit = abi.decode(told.audit, (Audit));
        bool alone = told.state == AuditState.Demanded || told.state == AuditState.Appealed;
        if (alone || told.state < AuditState.Convened) {
            vm.prank(caller);
            proof.advanceAudit(audit);
            return;
        }
        Party[] memory parties = abi.decode(told.parties, (Party[]));
        bool hearing = told.state == AuditState.Hearing || told.state == AuditState.Condemned;
        vm.prank(caller);
        if (hearing) proof.judge(audit, parties);
        else proof.advancePanel(audit, parties);
    }

    /// Four owners of the first class have failed in this epoch.
    function almostPause(uint256 random) external step {
        random = mix(random);
        if (random % 8 != 0 || proof.pausedUntil(CLASS) > block.timestamp) giveUp();
        bytes32 slot = keccak256(abi.encode(CLASS, FAILURES_SLOT));
        uint256 pausedUntil = uint256(vm.load(address(proof), slot)) >> 48;
        uint256 epoch = block.timestamp / EPOCH;
        vm.store(address(proof), slot, bytes32(epoch | ALMOST_PAUSING << 40 | pausedUntil << 48));
    }

    // ---------------------------------------------------------------- what is refused

    /// [V3, V9, V10] Another audit than the stored one, too early, by somebody else.
    function moveWrongly(uint256 random) external step {
        random = mix(random);
        for (uint256 i; i < trials.length; ++i) {
            Trial memory trial = trials[(random % trials.length + i) % trials.length];
            Told storage told = tolds[trial.taskId][trial.nodeId];
            if (told.state < AuditState.Drawn || told.state >= AuditState.Convened) continue;
            Audit memory audit = abi.decode(told.audit, (Audit));
            bytes memory data = abi.encodeCall(proof.commitAudit, (audit, bytes32("seal")));
            bytes4 why = IProofOfInference.ProofOfInference_WrongState.selector;
            if (told.state == AuditState.Drawn) why = IProofOfInference.ProofOfInference_NotOperator.selector;
            bool late = block.timestamp > told.until;
            if (late && told.state == AuditState.Drawn) why = IProofOfInference.ProofOfInference_TooLate.selector;
            refused(keeper, address(proof), data, why);
            data = abi.encodeCall(proof.advanceAudit, (audit));
            if (!late) refused(keeper, address(proof), data, IProofOfInference.ProofOfInference_TooEarly.selector);
            ++audit.value;
            data = abi.encodeCall(proof.advanceAudit, (audit));
            refused(keeper, address(proof), data, IProofOfInference.ProofOfInference_StaleAudit.selector);
            return;
        }
        giveUp();
    }

    // ---------------------------------------------------------------- the end of everything

    /// [L1, L2, V23] Nobody answers, commits or opens any more: a stranger brings every task and every proof to its end.
    function endTasks() external override {
        for (uint256 round; open.length != 0; ++round) {
            assertTrue(round < MAX_PROVEN_STEPS, "[V23] a task that does not end");
            skipTime(81);
            for (uint256 i = open.length; i > 0; --i) {
                vm.recordLogs();
                endProven(open[i - 1]);
                fold();
            }
            for (uint256 i; i < trials.length; ++i) {
                Told storage told = tolds[trials[i].taskId][trials[i].nodeId];
                if (told.state < AuditState.Drawn || told.state >= AuditState.Passed) continue;
                if (block.timestamp <= told.until) continue;
                vm.recordLogs();
                moveOn(told, stranger);
                fold();
            }
        }
    }

    function endProven(TaskId taskId) internal {
        Task memory task = taskOf(taskId);
        TaskState state = known[taskId].state;
        Answer memory given = ofRecord(task, taskId);
        vm.prank(stranger);
        if (state < TaskState.Committed) queue.advance(task);
        else if (state == TaskState.Committed) queue.settle(only(task));
        else queue.deliver(task, given);
    }

    /// [V20, V22, V24] Nothing is open of anybody, and validators have what the books can pay.
    function endProofs() external step {
        for (uint256 i = trials.length; i > 0; --i) {
            Told storage told = tolds[trials[i - 1].taskId][trials[i - 1].nodeId];
            assertTrue(told.state == AuditState.Closed, "[V23] a proof that does not end");
            collect(told);
            fold();
        }
        for (uint256 i; i < nodes.length; ++i) {
            assertEq(proof.openValueOf(nodes[i]), 0, "[V22] nothing is open");
        }
    }

    function booked(AssetId asset) internal view override returns (uint256) {
        return bookTold[asset];
    }
}

contract ProvenInvariantTest is Campaign {
    ProvenNetwork internal network;

    function setUp() public {
        network = new ProvenNetwork();
        network.setUp();
    }

    function target() internal view override returns (address) {
        return address(network);
    }

    /// Proofs are worked at more often than anything else.
    function actions() internal view override returns (bytes4[] memory s) {
        s = new bytes4[](64);
        (s[0], s[1], s[2]) = (network.openSession.selector, network.topUp.selector, network.addLane.selector);
        (s[3], s[4], s[5]) = (network.closeSession.selector, network.cancel.selector, network.withdraw.selector);
        (s[6], s[7], s[8]) = (network.submit.selector, network.submitSigned.selector, network.misbehave.selector);
        (s[9], s[10]) = (network.submitAndCommit.selector, network.submitAndPrecommit.selector);
        (s[11], s[12], s[13]) = (network.claim.selector, network.decline.selector, network.lie.selector);
        (s[14], s[15], s[16]) = (network.enlist.selector, network.drain.selector, network.resume.selector);
        (s[17], s[18], s[19]) = (network.exit.selector, network.releaseStake.selector, network.draw.selector);
        (s[20], s[21], s[22]) = (network.rotate.selector, network.finish.selector, network.finishReclaim.selector);
        (s[23], s[24], s[25]) = (network.advance.selector, network.deliver.selector, network.passGone.selector);
        (s[26], s[27], s[28]) = (network.wait.selector, network.moveWrongly.selector, network.almostPause.selector);
        (s[29], s[30], s[31]) = (network.nameRound.selector, network.overdue.selector, network.reclaimLane.selector);
        (s[32], s[33]) = (network.submitAndCommit.selector, network.enlist.selector);
        for (uint256 i = 34; i < 39; ++i) {
            (s[i], s[i + 5]) = (network.serve.selector, network.settleProven.selector);
        }
        for (uint256 i = 44; i < s.length; ++i) {
            s[i] = network.examine.selector;
        }
    }

    /// One invariant, so that one campaign checks everything.
    function invariant_proven_network() public view {
        network.checkMoney();
        network.checkStates();
        network.checkNodes();
        network.checkProofs();
    }

    /// After each run: whatever happened, everything ends, and everybody has what is his.
    function afterInvariant() public {
        network.endTasks();
        network.endProofs();
        network.endSessions();
        network.endNodes();
        network.checkMoney();
        network.checkProofs();
        network.endMoney();
        network.checkMoney();
        network.checkEnded();
    }
}
