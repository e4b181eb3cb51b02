// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IAssayConsumer} from "../../src/interfaces/IAssayConsumer.sol";
import {ISession, OpenTerms} from "../../src/interfaces/ISession.sol";
import {Answer, ISessionQueue, Task, TaskRequest} from "../../src/interfaces/ISessionQueue.sol";
import {NodeId, SessionId, TaskId} from "../../src/types/Ids.sol";

/// A session's owner that misbehaves when it is told an answer, or asked about a signature.
contract Consumer is IAssayConsumer {
    enum Manner {
        Good,
        Reverts,
        BurnsGas,
        ReturnsBomb,
        ReEnters
    }

    ISessionQueue internal immutable QUEUE;
    Manner public manner;
    uint256 public calls;
    uint256 public gasOnEntry;
    bytes internal _again;

    constructor(ISessionQueue queue) {
        QUEUE = queue;
    }

    function behave(Manner manner_) external {
        manner = manner_;
    }

    /// What `ReEnters` calls.
    function remember(bytes calldata again) external {
        _again = again;
    }

    function open(OpenTerms calldata terms, IERC20 token) external returns (SessionId) {
        token.approve(QUEUE.payment(), terms.deposit);
        return ISession(QUEUE.session()).open(terms);
    }

    function submit(TaskRequest calldata request) external {
        QUEUE.submit(request);
    }

    function onAnswer(SessionId, TaskId, NodeId, bytes32, uint32) external {
        uint256 gas = gasleft();
        _misbehave();
        (gasOnEntry, calls) = (gas, calls + 1);
        if (manner == Manner.ReEnters) {
            (bool done,) = address(QUEUE).call(_again);
            require(!done, "went through twice");
        }
    }

    /// EIP-1271: whatever is signed, if the signature is the byte 0x01. A key's is longer, and begins with that byte once
    /// in 256 times.
    function isValidSignature(bytes32, bytes calldata signature) external view returns (bytes4) {
        _misbehave();
        return signature.length == 1 && signature[0] == 0x01 ? this.isValidSignature.selector : bytes4(0xffffffff);
    }

    function _misbehave() internal view {
        if (manner == Manner.Reverts) revert("no");
        if (manner == Manner.BurnsGas) while (true) {}
        if (manner == Manner.ReturnsBomb) {
            assembly {
                revert(0, 100000)
            }
        }
    }
}
