// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IAssayConsumer} from "../interfaces/IAssayConsumer.sol";
import {ISession, OpenTerms} from "../interfaces/ISession.sol";
import {ISessionPayment} from "../interfaces/ISessionPayment.sol";
import {ISessionQueue, TaskRequest} from "../interfaces/ISessionQueue.sol";
import {AssetId, NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// An example of a contract that asks: it owns a session, sends requests in its own lane, and keeps the digest of each
/// answer, by which anyone can fetch the text from IPFS and check it.
contract AnswerBook is IAssayConsumer {
    using SafeERC20 for IERC20;

    enum Page {
        None,
        Asked,
        Answered,
        /// Refunded: nobody answered.
        Unanswered
    }

    struct Entry {
        Page page;
        NodeId nodeId;
        uint32 outputTokens;
        /// sha-256 of the result block.
        bytes32 outputDigest;
    }

    event Asked(TaskId indexed taskId);
    event Written(TaskId indexed taskId, Page page, bytes32 outputDigest);

    error AnswerBook_NotOwner(address caller);
    error AnswerBook_NotQueue(address caller);
    error AnswerBook_NotAsked(TaskId taskId);

    /// Gas that `onAnswer` gets: it writes two words and one event.
    uint32 public constant CALLBACK_GAS = 100_000;

    address public immutable owner;
    ISessionQueue public immutable queue;
    ISession public immutable session;
    ISessionPayment public immutable payment;

    SessionId public sessionId;
    mapping(TaskId => Entry) internal _entries;

    constructor(address owner_, ISessionQueue queue_) {
        owner = owner_;
        queue = queue_;
        session = ISession(queue_.session());
        payment = ISessionPayment(queue_.payment());
    }

    modifier onlyOwner() {
        if (msg.sender != owner) revert AnswerBook_NotOwner(msg.sender);
        _;
    }

    /// Opens the session. The owner must have approved this contract for the deposit.
    function open(OpenTerms calldata terms) external onlyOwner returns (SessionId) {
        IERC20 token = IERC20(payment.tokenOf(terms.asset));
        token.safeTransferFrom(msg.sender, address(this), terms.deposit);
        token.forceApprove(address(payment), terms.deposit);
        return sessionId = session.open(terms);
    }

    /// Asks; the answer comes by `onAnswer`. The request's callback gas is set here.
    function ask(TaskRequest memory request) external onlyOwner returns (TaskId taskId) {
        request.sessionId = sessionId;
        request.callbackGas = CALLBACK_GAS;
        taskId = queue.submit(request);
        _entries[taskId].page = Page.Asked;
        emit Asked(taskId);
    }

    /// @inheritdoc IAssayConsumer
    function onAnswer(SessionId, TaskId taskId, NodeId nodeId, bytes32 outputDigest, uint32 outputTokens) external {
        if (msg.sender != address(queue)) revert AnswerBook_NotQueue(msg.sender);
        Entry storage entry = _entries[taskId];
        if (entry.page != Page.Asked) revert AnswerBook_NotAsked(taskId);
        Page page = outputDigest == 0 ? Page.Unanswered : Page.Answered;
        (entry.page, entry.nodeId, entry.outputTokens) = (page, nodeId, outputTokens);
        entry.outputDigest = outputDigest;
        emit Written(taskId, page, outputDigest);
    }

    /// Begins the end of the session; `ISession.finish` ends it.
    function close() external onlyOwner {
        session.close(sessionId);
    }

    /// Moves what the session returned to the owner.
    function withdraw(AssetId asset) external onlyOwner {
        payment.withdraw(asset, owner, payment.balanceOf(address(this), asset));
    }

    function entryOf(TaskId taskId) external view returns (Entry memory) {
        return _entries[taskId];
    }
}
