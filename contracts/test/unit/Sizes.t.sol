// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {DrandBeacon} from "../../src/DrandBeacon.sol";
import {Base} from "../Base.sol";

/// [G3] EIP-170: the EVM deploys nothing larger.
contract SizesTest is Base {
    uint256 internal constant LIMIT = 24_576;

    function test_every_contract_fits() public view {
        fits(address(token), "CorToken");
        fits(address(parameters), "Parameters");
        fits(address(models), "ModelRegistry");
        fits(address(stats), "NodeStats");
        fits(address(pool), "NodePool");
        fits(address(session), "Session");
        fits(address(queue), "SessionQueue");
        // The queue's other half, which its constructor creates.
        fits(vm.computeCreateAddress(address(queue), 1), "SessionQueueEnd");
        fits(address(payment), "SessionPayment");
        fits(address(proof), "ProofOfInference");
        fits(address(panel), "ProofOfInferencePanel");
        fits(address(judgement), "ProofOfInferenceJudgement");
        fits(address(beacon), "BlockhashBeacon");
        // More than what is left of it once it is deployed.
        assertTrue(type(DrandBeacon).creationCode.length <= LIMIT, "DrandBeacon");
    }

    function fits(address target, string memory name) internal view {
        assertTrue(target.code.length != 0, string.concat(name, " has no code"));
        assertTrue(target.code.length <= LIMIT, string.concat(name, " has ", vm.toString(target.code.length)));
    }
}
