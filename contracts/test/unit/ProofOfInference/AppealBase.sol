// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Appeal, AuditState, IProofOfInference, Leaf} from "../../../src/interfaces/IProofOfInference.sol";
import {NodeId} from "../../../src/types/Ids.sol";
import {PanelBase} from "./PanelBase.sol";

/// What tests of appeals do again and again: a network with enough owners for a second panel.
abstract contract AppealBase is PanelBase {
    /// Members of the first panel are parties 2 to 4, of the second one 2 to 8.
    uint256 internal constant LAST_MEMBER = 4;
    uint256 internal constant LAST_OF_APPEAL = 8;
    uint256 internal constant SEVEN = 7;

    function setUp() public virtual override {
        super.setUp();
        for (uint256 i = 20; i < 32; ++i) {
            newNode(i, 8);
        }
        skipTime(ACTIVATION_DELAY + 1);
        attest(3);
    }

    function liars() internal pure returns (Leaf[] memory) {
        return withMargins(forged(TOKENS), 10);
    }

    /// Whoever opens in a hearing of weights: the miner, the accuser, members.
    function hear(Leaf[] memory recorded, Leaf[] memory accusers, Leaf[] memory members, uint256 last) internal {
        testifyAs(0, recorded, 0);
        testifyAs(1, accusers, 0);
        for (uint256 i = 2; i <= last; ++i) {
            testifyAs(i, members, 0);
        }
    }

    function commitAll(Leaf[] memory seen, uint8 flags, uint256 last) internal {
        for (uint256 i = 2; i <= last; ++i) {
            commitAs(i, seen, flags);
        }
        assertStage(AuditState.Hearing);
        reveal(audit.round);
    }

    /// An answer of other weights that a whole panel saw.
    function condemned() internal {
        accuse(forged(TOKENS), seen10(), 0);
        commitAll(seen10(), 0, LAST_MEMBER);
        hear(forged(TOKENS), seen10(), seen10(), LAST_MEMBER);
        judge();
        assertStage(AuditState.Condemned);
    }

    /// A true answer, an accuser that lies, and a panel that lies with it.
    function framed() internal {
        accuse(honest(TOKENS), liars(), 0);
        commitAll(liars(), 0, LAST_MEMBER);
        hear(honest(TOKENS), liars(), liars(), LAST_MEMBER);
        judge();
        assertStage(AuditState.Condemned);
    }

    /// The last member agrees with the miner.
    function dissented() internal {
        accuse(forged(TOKENS), seen10(), 0);
        commitAs(2, seen10(), 0);
        commitAs(3, seen10(), 0);
        commitAs(4, liars(), 0);
        reveal(audit.round);
        hear(forged(TOKENS), seen10(), seen10(), 3);
        testifyAs(4, liars(), 0);
        judge();
        assertStage(AuditState.Condemned);
    }

    function owner() internal view returns (address account) {
        (account,) = pool.ownerOf(audit.nodeId);
    }

    function bondOf(NodeId miner) internal view returns (uint256) {
        return stakeOf(miner) * FRAUD_BPS / 10_000 * APPEAL_BPS / 10_000;
    }

    function appealed() internal view returns (Appeal memory) {
        return proof.appealOf(audit.taskId, audit.nodeId);
    }

    function appeal() internal returns (uint256 bond) {
        bond = bondOf(audit.nodeId);
        address account = owner();
        fund(account, bond);
        vm.prank(account);
        proof.appeal(audit, parties);
        follow();
        assertStage(AuditState.Appealed);
    }

    function reconvene() internal {
        reveal(audit.round);
        proof.reconvene(audit, parties);
        follow();
    }

    /// Up to the second panel.
    function reconvened() internal returns (uint256 bond) {
        bond = appeal();
        reconvene();
        assertStage(AuditState.Convened);
    }

    function wrongState() internal view returns (bytes memory) {
        (AuditState state,,) = proof.statusOf(audit.taskId, audit.nodeId);
        return abi.encodeWithSelector(
            IProofOfInference.ProofOfInference_WrongState.selector, audit.taskId, audit.nodeId, state
        );
    }

    function assertNothingOpen() internal view {
        assertEq(keccak256(abi.encode(appealed())), keccak256(abi.encode(none())), "nothing is left of the appeal");
        assertEq(payment.balanceOf(address(proof), COR), proof.bookOf(MODEL_INDEX, COR), "nor of its bond");
    }

    function none() private pure returns (Appeal memory empty) {}
}
