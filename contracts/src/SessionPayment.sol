// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {ISessionPayment, Payout} from "./interfaces/ISessionPayment.sol";
import {NodeId, SessionId, TaskId} from "./types/Ids.sol";

/// Accounts of sessions, nodes and addresses, and the tokens that back them.
contract SessionPayment is ISessionPayment {
    using SafeERC20 for IERC20;

    struct Funds {
        uint128 free;
        uint128 held;
    }

    /// Money of one account that is not written yet.
    struct Credit {
        address account;
        uint256 amount;
    }

    /// @inheritdoc ISessionPayment
    address public immutable token;
    /// @inheritdoc ISessionPayment
    address public immutable session;
    /// @inheritdoc ISessionPayment
    address public immutable queue;
    /// @inheritdoc ISessionPayment
    address public immutable pool;

    /// @inheritdoc ISessionPayment
    uint256 public totalAccounts;
    /// @inheritdoc ISessionPayment
    mapping(SessionId => Funds) public sessionFunds;
    /// @inheritdoc ISessionPayment
    mapping(address account => uint256) public balanceOf;
    /// @inheritdoc ISessionPayment
    mapping(NodeId => uint256) public stakeOf;

    constructor(address token_, address session_, address queue_, address pool_) {
        if (token_ == address(0) || session_ == address(0) || queue_ == address(0) || pool_ == address(0)) {
            revert SessionPayment_ZeroAddress();
        }
        (token, session, queue, pool) = (token_, session_, queue_, pool_);
    }

    modifier only(address caller) {
        if (msg.sender != caller) revert SessionPayment_NotProtocol(msg.sender);
        _;
    }

    /// @inheritdoc ISessionPayment
    function deposit(SessionId sessionId, address from, uint128 amount) external only(session) {
        sessionFunds[sessionId].free += amount;
        emit Deposited(sessionId, from, amount);
        _pull(from, amount);
    }

    /// @inheritdoc ISessionPayment
    function returnRest(SessionId sessionId, address owner) external only(session) returns (uint128 amount) {
        Funds storage funds = sessionFunds[sessionId];
        amount = funds.free;
        funds.free = 0;
        balanceOf[owner] += amount;
        emit SessionReturned(sessionId, owner, amount);
    }

    /// @inheritdoc ISessionPayment
    function hold(SessionId sessionId, uint128 amount) external only(queue) {
        Funds storage funds = sessionFunds[sessionId];
        uint128 available = funds.free;
        if (amount > available) revert SessionPayment_InsufficientDeposit(sessionId, amount, available);
        (funds.free, funds.held) = (available - amount, funds.held + amount);
    }

    /// @inheritdoc ISessionPayment
    function free(SessionId sessionId, TaskId taskId, uint128 amount) external only(queue) {
        _release(sessionId, taskId, amount, amount);
    }

    /// @inheritdoc ISessionPayment
    function pay(Payout[] calldata payouts, address keeper) external only(queue) {
        Credit memory miner;
        Credit memory router;
        Credit memory publisher;
        uint256 tips;
        uint256 burnt;
        for (uint256 i; i < payouts.length; ++i) {
            Payout calldata payout = payouts[i];
            uint256 fee = uint256(payout.minerShare) + payout.routerShare + payout.royalty + payout.tip + payout.burnt;
            _release(payout.sessionId, payout.taskId, fee, 0);
            _add(miner, payout.miner, payout.minerShare);
            _add(router, payout.router, payout.routerShare);
            _add(publisher, payout.publisher, payout.royalty);
            tips += payout.tip;
            burnt += payout.burnt;
        }
        _credit(miner.account, miner.amount);
        _credit(router.account, router.amount);
        _credit(publisher.account, publisher.amount);
        _credit(keeper, tips);
        if (burnt == 0) return;
        totalAccounts -= burnt;
        emit Burnt(burnt);
        ERC20Burnable(token).burn(burnt);
    }

    /// @inheritdoc ISessionPayment
    function refund(SessionId sessionId, TaskId taskId, uint128 amount, address keeper, uint128 tip)
        external
        only(queue)
    {
        _release(sessionId, taskId, uint256(amount) + tip, amount);
        _credit(keeper, tip);
    }

    /// @inheritdoc ISessionPayment
    function stake(NodeId nodeId, address from, uint256 amount) external only(pool) {
        stakeOf[nodeId] += amount;
        emit Staked(nodeId, from, amount);
        _pull(from, amount);
    }

    /// @inheritdoc ISessionPayment
    function releaseStake(NodeId nodeId, address owner) external only(pool) returns (uint256 amount) {
        amount = stakeOf[nodeId];
        stakeOf[nodeId] = 0;
        balanceOf[owner] += amount;
        emit StakeReleased(nodeId, owner, amount);
    }

    /// @inheritdoc ISessionPayment
    function withdraw(address to, uint256 amount) external {
        if (amount == 0) revert SessionPayment_ZeroAmount();
        if (to == address(0)) revert SessionPayment_ZeroAddress();
        // Tokens sent here would belong to no account.
        if (to == address(this)) revert SessionPayment_OwnAddress();
        uint256 balance = balanceOf[msg.sender];
        if (amount > balance) revert SessionPayment_InsufficientBalance(msg.sender, amount, balance);
        balanceOf[msg.sender] = balance - amount;
        totalAccounts -= amount;
        emit Withdrawn(msg.sender, to, amount);
        IERC20(token).safeTransfer(to, amount);
    }

    /// Takes `amount` out of what the session holds and frees `freed` of it.
    function _release(SessionId sessionId, TaskId taskId, uint256 amount, uint128 freed) internal {
        Funds storage funds = sessionFunds[sessionId];
        uint128 held = funds.held;
        if (amount > held) revert SessionPayment_PayoutMismatch(taskId, amount, held);
        // Bounded by `held`.
        (funds.free, funds.held) = (funds.free + freed, held - uint128(amount));
    }

    /// Adds to `credit`, and pays out what it had if it was another account's.
    function _add(Credit memory credit, address account, uint128 amount) internal {
        if (credit.account != account) {
            _credit(credit.account, credit.amount);
            (credit.account, credit.amount) = (account, 0);
        }
        credit.amount += amount;
    }

    function _credit(address account, uint256 amount) internal {
        if (amount == 0) return;
        if (account == address(0)) revert SessionPayment_ZeroAddress();
        balanceOf[account] += amount;
        emit Credited(account, amount);
    }

    /// The transfer is measured: a token that takes a fee, or that calls back into a second deposit, is refused.
    function _pull(address from, uint256 amount) internal {
        if (amount == 0) revert SessionPayment_ZeroAmount();
        totalAccounts += amount;
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(from, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        if (received != amount) revert SessionPayment_TransferMismatch(amount, received);
    }
}
