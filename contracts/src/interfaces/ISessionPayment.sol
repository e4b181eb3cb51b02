// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssetId, Lane, NodeId, SessionId, TaskId} from "../types/Ids.sol";

/// Neighbouring tasks of one lane that are settled. Amounts in minor units of `asset`.
struct Debit {
    SessionId sessionId;
    Lane lane;
    AssetId asset;
    /// The last of the tasks.
    TaskId taskId;
    /// What leaves the lane's held money.
    uint96 held;
    /// Their fees; the rest of `held` is free again.
    uint96 spent;
}

/// Where money of debits goes.
struct Credit {
    /// Zero: it is burnt.
    address account;
    AssetId asset;
    uint256 amount;
}

/// Money of one lane of a session. One word.
struct LaneFunds {
    uint96 free;
    uint96 held;
    /// One more than the largest nonce used so far.
    uint64 nextNonce;
}

/// What somebody was proven to have done.
enum Rule {
    None,
    /// Two different commitments signed for one task.
    Equivocation,
    /// A drawn validator that did not commit in time: `measured` is the second, `bound` the last one.
    Idle,
    /// A validator that committed to what it found and did not open it in time; the same.
    Withheld,
    /// A miner that did not open its proof, or the leaves of it that a panel compares, in time; the same.
    Unopened,
    /// An answer that did not come from the model: verdicts of different owners, and how many are needed. Its contrasts
    /// are not the weights', ...
    Fingerprint,
    /// ... or its tokens do not follow from them, ...
    Sampling,
    /// ... or its end, its text, its prompt or its ids are not what they should be.
    Content,
    /// A validator that a quorum contradicts: owners that do, and how many are needed.
    Contradicted
}

/// Why stake is taken. `measured` against `bound` is what breaks the rule.
struct Evidence {
    TaskId taskId;
    Rule rule;
    uint256 measured;
    uint256 bound;
}

/// The only contract that holds or moves tokens. At all times, for each asset: the sum of all accounts is its token
/// balance. What tasks hold and free is told by `SessionQueue`.
interface ISessionPayment {
    event Deposited(SessionId indexed sessionId, Lane indexed lane, address indexed from, uint256 amount);
    event FundsMoved(SessionId indexed sessionId, Lane indexed from, Lane indexed to, uint256 amount);
    event SessionReturned(SessionId indexed sessionId, Lane indexed lane, address indexed owner, uint256 amount);
    /// Out of lane 0, to whoever moved the session on.
    event TipPaid(SessionId indexed sessionId, address indexed keeper, AssetId indexed asset, uint256 amount);
    /// Shares, royalties or tips of tasks; one event for neighbouring tasks that pay the same account.
    event Credited(address indexed account, AssetId indexed asset, uint256 amount);
    event Staked(NodeId indexed nodeId, address indexed from, uint256 amount);
    event StakeReleased(NodeId indexed nodeId, address indexed owner, uint256 amount);
    /// `reward` went to `reporter`, the rest of `amount` was burnt. Zero if nothing was left: that the node was punished
    /// for the task is told all the same.
    event Slashed(
        NodeId indexed nodeId,
        TaskId indexed taskId,
        Rule indexed rule,
        uint256 measured,
        uint256 bound,
        uint256 amount,
        address reporter,
        uint256 reward
    );
    event Withdrawn(address indexed account, AssetId indexed asset, address indexed to, uint256 amount);
    /// Of neighbouring tasks of one asset. COR is destroyed; of other assets it becomes the balance of 0x...dEaD.
    event Burnt(AssetId indexed asset, uint256 amount);

    error SessionPayment_NotProtocol(address caller);
    error SessionPayment_UnknownAsset(AssetId asset);
    error SessionPayment_AssetCount(uint256 assets, uint256 max);
    error SessionPayment_AssetTwice(address token);
    error SessionPayment_InsufficientDeposit(SessionId sessionId, Lane lane, uint96 wanted, uint96 free);
    error SessionPayment_InsufficientBalance(address account, AssetId asset, uint256 wanted, uint256 balance);
    error SessionPayment_InsufficientStake(NodeId nodeId, uint256 wanted, uint256 stake);
    error SessionPayment_RewardTooLarge(uint256 reward, uint256 amount);
    error SessionPayment_NoEvidence(NodeId nodeId);
    error SessionPayment_NonceTooFarAhead(SessionId sessionId, Lane lane, uint64 nonce, uint64 limit);
    error SessionPayment_TransferMismatch(uint256 expected, uint256 received);
    error SessionPayment_PayoutMismatch(TaskId taskId, uint256 parts, uint256 held);
    /// Debits and credits of one settlement differ.
    error SessionPayment_Unbalanced(AssetId asset, uint256 debited, uint256 credited);
    error SessionPayment_AmountTooLarge(uint256 amount, uint256 max);
    error SessionPayment_ZeroAmount();
    error SessionPayment_ZeroAddress();
    error SessionPayment_OwnAddress();

    /// Only `Session`: pulls `amount` from `from` and gives `allotments[i]` of it to lane `i + 1`, the rest to lane 0.
    function deposit(SessionId sessionId, AssetId asset, address from, uint96 amount, uint96[] calldata allotments)
        external;

    /// Only `Session`: pulls `amount` for one lane.
    function topUp(SessionId sessionId, Lane lane, AssetId asset, address from, uint96 amount) external;

    /// Only `Session`: moves free money between two lanes.
    function move(SessionId sessionId, Lane from, Lane to, uint96 amount) external;

    /// Only `Session`: pays up to `amount` of lane 0's free money, or as much as there is, to whoever moved the session.
    function payTip(SessionId sessionId, AssetId asset, address keeper, uint96 amount) external returns (uint96 paid);

    /// Only `Session`: what is free in the first `lanes` lanes becomes the owner's balance.
    function returnRest(SessionId sessionId, AssetId asset, uint256 lanes, address owner)
        external
        returns (uint256 amount);

    /// Only `SessionQueue`: holds `amount` of a lane's free money for the request `nonce`, at most `nonceWindow()` ahead
    /// of the largest nonce used.
    function hold(SessionId sessionId, Lane lane, uint64 nonce, uint96 amount) external;

    /// Only `SessionQueue`: pays fees out of what is held. Credits must come to what the debits spend, in each asset.
    function pay(Debit[] calldata debits, Credit[] calldata credits) external;

    /// Only `SessionQueue`: frees what a task holds, less the tip of `keeper`.
    function refund(
        SessionId sessionId,
        Lane lane,
        AssetId asset,
        TaskId taskId,
        uint96 held,
        address keeper,
        uint96 tip
    ) external;

    /// Only `NodePool`.
    function stake(NodeId nodeId, address from, uint256 amount) external;

    /// Only `NodePool`.
    function releaseStake(NodeId nodeId, address owner) external returns (uint256 amount);

    /// Only `SessionQueue` and `ProofOfInference`: takes `amount` of a node's stake, `reward` of it for `reporter`, and burns the rest. Refused
    /// without a rule, and if the stake is smaller.
    function slash(NodeId nodeId, Evidence calldata evidence, uint256 amount, address reporter, uint256 reward) external;

    /// Only `ProofOfInference`: gives some of its own balance to another account.
    function give(AssetId asset, address to, uint256 amount) external;

    /// Only `ProofOfInference`: pulls `amount` from `from` into its own balance.
    function fund(AssetId asset, address from, uint256 amount) external;

    /// Moves the caller's own balance out.
    function withdraw(AssetId asset, address to, uint256 amount) external;

    function balanceOf(address account, AssetId asset) external view returns (uint256);

    function stakeOf(NodeId nodeId) external view returns (uint256);

    /// Money of a lane.
    function fundsOf(SessionId sessionId, Lane lane) external view returns (LaneFunds memory);

    /// Sum of all accounts of an asset: its token balance of this contract.
    function totalAccounts(AssetId asset) external view returns (uint256);

    /// The token of an asset; reverts with `SessionPayment_UnknownAsset`. Asset 0 is COR.
    function tokenOf(AssetId asset) external view returns (address);

    function assetCount() external view returns (uint8);

    /// A nonce may be this far ahead of the largest used: tasks land out of order, and nobody picks the one whose id
    /// suits him out of many.
    function nonceWindow() external view returns (uint64);

    /// The four contracts that may move accounts.
    function session() external view returns (address);

    function queue() external view returns (address);

    function pool() external view returns (address);

    function proof() external view returns (address);
}
