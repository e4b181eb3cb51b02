// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// Who is paid for one settled task. Amounts in minor units of COR; shares, royalty, tip and `burnt` are the fee.
struct Payout {
    SessionId sessionId;
    TaskId taskId;
    address miner;
    uint128 minerShare;
    address router;
    uint128 routerShare;
    address publisher;
    uint128 royalty;
    uint128 tip;
    uint128 burnt;
}

/// The only contract that holds or moves tokens. At all times: the sum of all accounts is its token balance.
/// What tasks hold and free is told by `SessionQueue`: `TaskSubmitted.held`, `TaskCommitted.fee`, `TaskRefunded.refund`.
interface ISessionPayment {
    event Deposited(SessionId indexed sessionId, address indexed from, uint128 amount);
    event SessionReturned(SessionId indexed sessionId, address indexed owner, uint128 amount);
    /// Shares, royalties or tips; one event for neighbouring tasks that pay the same account.
    event Credited(address indexed account, uint256 amount);
    event Staked(NodeId indexed nodeId, address indexed from, uint256 amount);
    event StakeReleased(NodeId indexed nodeId, address indexed owner, uint256 amount);
    event Withdrawn(address indexed account, address indexed to, uint256 amount);
    /// Of all tasks that one call settled.
    event Burnt(uint256 amount);

    error SessionPayment_NotProtocol(address caller);
    error SessionPayment_InsufficientDeposit(SessionId sessionId, uint128 wanted, uint128 free);
    error SessionPayment_InsufficientBalance(address account, uint256 wanted, uint256 balance);
    error SessionPayment_TransferMismatch(uint256 expected, uint256 received);
    error SessionPayment_PayoutMismatch(TaskId taskId, uint256 parts, uint256 held);
    error SessionPayment_ZeroAmount();
    error SessionPayment_ZeroAddress();
    error SessionPayment_OwnAddress();

    /// Only `Session`.
    function deposit(SessionId sessionId, address from, uint128 amount) external;

    /// Only `Session`: everything free in the session becomes the owner's balance.
    function returnRest(SessionId sessionId, address owner) external returns (uint128 amount);

    /// Only `SessionQueue`.
    function hold(SessionId sessionId, uint128 amount) external;

    /// Only `SessionQueue`: frees a part of what a task holds.
    function free(SessionId sessionId, TaskId taskId, uint128 amount) external;

    /// Only `SessionQueue`: pays fees out of what is held, the tips to `keeper`, and burns what is to be burnt.
    function pay(Payout[] calldata payouts, address keeper) external;

    /// Only `SessionQueue`.
    function refund(SessionId sessionId, TaskId taskId, uint128 amount, address keeper, uint128 tip) external;

    /// Only `NodePool`.
    function stake(NodeId nodeId, address from, uint256 amount) external;

    /// Only `NodePool`.
    function releaseStake(NodeId nodeId, address owner) external returns (uint256 amount);

    /// Moves the caller's own balance out.
    function withdraw(address to, uint256 amount) external;

    function balanceOf(address account) external view returns (uint256);

    function stakeOf(NodeId nodeId) external view returns (uint256);

    /// Free and held money of a session.
    function sessionFunds(SessionId sessionId) external view returns (uint128 free, uint128 held);

    /// Sum of all accounts: equals the token balance of this contract.
    function totalAccounts() external view returns (uint256);

    function token() external view returns (address);

    /// The three contracts that may move accounts.
    function session() external view returns (address);

    function queue() external view returns (address);

    function pool() external view returns (address);
}
