// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ProofOfInference} from "../../../src/ProofOfInference.sol";
import {ProofOfInferenceJudgement} from "../../../src/ProofOfInferenceJudgement.sol";
import {ProofOfInferencePanel} from "../../../src/ProofOfInferencePanel.sol";
import {IProofOfInference, ProofConfig, ProofWiring} from "../../../src/interfaces/IProofOfInference.sol";
import {Base} from "../../Base.sol";

/// What the proof is made of, and what it refuses to be made of.
contract ProofConstructorTest is Base {
    function test_tells_what_it_was_given() public view {
        assertEq(proof.beacon(), address(beacon), "beacon");
        assertEq(proof.models(), address(models), "models");
        assertEq(proof.payment(), address(payment), "payment");
        assertEq(proof.pool(), address(pool), "pool");
        assertEq(proof.queue(), address(queue), "queue");
        assertEq(keccak256(abi.encode(proof.config())), keccak256(abi.encode(proofConfig())), "tunables");
        uint256 longest = AUDIT_EPOCH + 2 * ROUND_TIMEOUT + 4 * SEAL_TIME + OPEN_TIME + 2 * AUDIT_REVEAL_TIME;
        uint256 demanded = OPEN_TIME + SEAL_TIME;
        uint256 appealed = APPEAL_TIME + ROUND_TIMEOUT + SEAL_TIME + AUDIT_REVEAL_TIME;
        longest += demanded + appealed;
        assertEq(proof.longestAudit(), longest, "longest audit");
    }

    function test_refuses_the_zero_address() public {
        for (uint256 missing; missing < 7; ++missing) {
            ProofWiring memory wiring = proofWiring();
            // A struct of addresses is one word each.
            assembly {
                mstore(add(wiring, mul(32, missing)), 0)
            }
            vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_ZeroAddress.selector));
            new ProofOfInference(wiring, proofConfig(), address(panel), address(judgement));
        }
    }

    function test_refuses_code_for_others() public {
        ProofConfig memory wanted = proofConfig();
        wanted.dutyBps = 99;
        ProofOfInferencePanel itsPanel = new ProofOfInferencePanel(proofWiring(), wanted);
        ProofOfInferenceJudgement itsJudgement = new ProofOfInferenceJudgement(proofWiring(), wanted);
        vm.expectRevert(abi.encodeWithSelector(IProofOfInference.ProofOfInference_OtherCode.selector, address(panel)));
        new ProofOfInference(proofWiring(), wanted, address(panel), address(itsJudgement));
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_OtherCode.selector, address(judgement))
        );
        new ProofOfInference(proofWiring(), wanted, address(itsPanel), address(judgement));
        new ProofOfInference(proofWiring(), wanted, address(itsPanel), address(itsJudgement));
    }

    /// [X1]
    function test_tunables_at_their_bounds_and_beyond() public {
        bounded(0, "epochLength", 1, 1 days);
        refused(5, 0, "appealTime", 1, 1 days);
        refused(5, 1 days + 1, "appealTime", 1, 1 days);
        bounded(6, "minProbabilityBps", 1, 10_000);
        bounded(7, "gainBps", 1, 10_000);
        bounded(8, "powerBps", 5000, 10_000);
        bounded(9, "auditBps", 0, 5000);
        bounded(11, "slashBps", 1, 10_000);
        bounded(12, "dutyBps", 0, 1000);
        bounded(13, "awardsBps", 0, 9000);
        bounded(15, "appealBps", 0, 10_000);
    }

    /// A member alone, where others are added to it zero, at both bounds and next to them.
    function bounded(uint256 member, bytes32 name, uint256 min, uint256 max) internal {
        if (min != 0) refused(member, min - 1, name, min, max);
        refused(member, max + 1, name, min, max);
        if (member == 0) return;
        made(member, min);
        made(member, max);
    }

    function with(uint256 member, uint256 value) internal pure returns (ProofConfig memory wanted) {
        wanted = proofConfig();
        if (member == 9) wanted.auditPayBps = 0;
        if (member == 13) wanted.clientBps = 0;
        assembly {
            mstore(add(wanted, mul(32, member)), value)
        }
    }

    function made(uint256 member, uint256 value) internal {
        ProofConfig memory wanted = with(member, value);
        ProofOfInferencePanel itsPanel = new ProofOfInferencePanel(proofWiring(), wanted);
        ProofOfInferenceJudgement itsJudgement = new ProofOfInferenceJudgement(proofWiring(), wanted);
        new ProofOfInference(proofWiring(), wanted, address(itsPanel), address(itsJudgement));
    }

    function refused(uint256 member, uint256 value, bytes32 name, uint256 min, uint256 max) internal {
        ProofConfig memory wanted = with(member, value);
        vm.expectRevert(
            abi.encodeWithSelector(IProofOfInference.ProofOfInference_OutOfBounds.selector, name, value, min, max)
        );
        new ProofOfInference(proofWiring(), wanted, address(panel), address(judgement));
    }

    /// Unbonding covers no more than `Parameters` says. [M8]
    function test_refuses_audits_longer_than_stakes_are_bound_for() public {
        ProofConfig memory wanted = proofConfig();
        wanted.appealTime += LONGEST_AUDIT - proof.longestAudit() + 1;
        vm.expectRevert(
            abi.encodeWithSelector(
                IProofOfInference.ProofOfInference_OutOfBounds.selector,
                bytes32("longestAudit"),
                LONGEST_AUDIT + 1,
                0,
                LONGEST_AUDIT
            )
        );
        new ProofOfInference(proofWiring(), wanted, address(panel), address(judgement));
    }
}
