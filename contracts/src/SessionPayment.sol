// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Credit, Debit, Evidence, ISessionPayment, LaneFunds, Rule} from "./interfaces/ISessionPayment.sol";
import {AssetId, Lane, NodeId, SessionId, TaskId} from "./types/Ids.sol";

/// Accounts of sessions, nodes and addresses, and the tokens that back them.
contract SessionPayment is ISessionPayment {
    using SafeERC20 for IERC20;

    struct Wiring {
        address pool;
        address proof;
        address queue;
        address session;
    }

    AssetId internal constant COR = AssetId.wrap(0);
    Lane internal constant OWNER_LANE = Lane.wrap(0);
    /// Nobody has its key.
    address internal constant DEAD = 0x000000000000000000000000000000000000dEaD;
    /// As many as have an immutable of their own below.
    uint256 internal constant MAX_ASSETS = 8;
    uint256 internal constant MAX_FUNDS = type(uint96).max;

    /// @inheritdoc ISessionPayment
    uint64 public constant nonceWindow = 256;

    /// @inheritdoc ISessionPayment
    address public immutable session;
    /// @inheritdoc ISessionPayment
    address public immutable queue;
    /// @inheritdoc ISessionPayment
    address public immutable pool;
    /// @inheritdoc ISessionPayment
    address public immutable proof;
    /// @inheritdoc ISessionPayment
    uint8 public immutable assetCount;
    /// Immutables rather than a list: a deposit does not read storage for its token.
    address internal immutable _token0;
    address internal immutable _token1;
    address internal immutable _token2;
    address internal immutable _token3;
    address internal immutable _token4;
    address internal immutable _token5;
    address internal immutable _token6;
    address internal immutable _token7;

    /// @inheritdoc ISessionPayment
    mapping(AssetId asset => uint256) public totalAccounts;
    /// @inheritdoc ISessionPayment
    mapping(address account => mapping(AssetId asset => uint256)) public balanceOf;
    /// @inheritdoc ISessionPayment
    mapping(NodeId => uint256) public stakeOf;
    mapping(SessionId => mapping(Lane => LaneFunds)) internal _funds;

    /// @param assets Tokens that sessions may be paid in, COR first; all different.
    constructor(Wiring memory wiring, address[] memory assets) {
        if (wiring.pool == address(0) || wiring.queue == address(0) || wiring.session == address(0)) {
            revert SessionPayment_ZeroAddress();
        }
        if (wiring.proof == address(0)) revert SessionPayment_ZeroAddress();
        (pool, proof, queue, session) = (wiring.pool, wiring.proof, wiring.queue, wiring.session);
        uint256 count = assets.length;
        if (count == 0 || count > MAX_ASSETS) revert SessionPayment_AssetCount(count, MAX_ASSETS);
        for (uint256 i; i < count; ++i) {
            if (assets[i] == address(0)) revert SessionPayment_ZeroAddress();
            for (uint256 k; k < i; ++k) {
                if (assets[k] == assets[i]) revert SessionPayment_AssetTwice(assets[i]);
            }
        }
        assetCount = uint8(count);
        _token0 = assets[0];
        _token1 = count > 1 ? assets[1] : address(0);
        _token2 = count > 2 ? assets[2] : address(0);
        _token3 = count > 3 ? assets[3] : address(0);
        _token4 = count > 4 ? assets[4] : address(0);
        _token5 = count > 5 ? assets[5] : address(0);
        _token6 = count > 6 ? assets[6] : address(0);
        _token7 = count > 7 ? assets[7] : address(0);
    }

    modifier only(address caller) {
        if (msg.sender != caller) revert SessionPayment_NotProtocol(msg.sender);
        _;
    }

    /// @inheritdoc ISessionPayment
    function deposit(SessionId sessionId, AssetId asset, address from, uint96 amount, uint96[] calldata allotments)
        external
        only(session)
    {
        uint96 rest = amount;
        for (uint256 i; i < allotments.length; ++i) {
            Lane lane = Lane.wrap(uint32(i + 1));
            uint96 allotment = allotments[i];
            if (allotment > rest) revert SessionPayment_InsufficientDeposit(sessionId, lane, allotment, rest);
            rest -= allotment;
            _enter(sessionId, lane, from, allotment);
        }
        _enter(sessionId, OWNER_LANE, from, rest);
        _pull(asset, from, amount);
    }

    /// @inheritdoc ISessionPayment
    function topUp(SessionId sessionId, Lane lane, AssetId asset, address from, uint96 amount) external only(session) {
        _enter(sessionId, lane, from, amount);
        _pull(asset, from, amount);
    }

    /// @inheritdoc ISessionPayment
    function move(SessionId sessionId, Lane from, Lane to, uint96 amount) external only(session) {
        LaneFunds storage source = _funds[sessionId][from];
        uint96 free = source.free;
        if (amount > free) revert SessionPayment_InsufficientDeposit(sessionId, from, amount, free);
        source.free = free - amount;
        _add(sessionId, to, amount);
        emit FundsMoved(sessionId, from, to, amount);
    }

    /// @inheritdoc ISessionPayment
    function payTip(SessionId sessionId, AssetId asset, address keeper, uint96 amount)
        external
        only(session)
        returns (uint96 paid)
    {
        LaneFunds storage funds = _funds[sessionId][OWNER_LANE];
        uint96 free = funds.free;
        paid = amount < free ? amount : free;
        if (paid == 0) return 0;
        funds.free = free - paid;
        emit TipPaid(sessionId, keeper, asset, paid);
        balanceOf[keeper][asset] += paid;
    }

    /// @inheritdoc ISessionPayment
    function returnRest(SessionId sessionId, AssetId asset, uint256 lanes, address owner)
        external
        only(session)
        returns (uint256 amount)
    {
        for (uint256 i; i < lanes; ++i) {
            Lane lane = Lane.wrap(uint32(i));
            LaneFunds storage funds = _funds[sessionId][lane];
            uint96 free = funds.free;
            if (free == 0) continue;
            funds.free = 0;
            amount += free;
            emit SessionReturned(sessionId, lane, owner, free);
        }
        balanceOf[owner][asset] += amount;
    }

    /// @inheritdoc ISessionPayment
    function hold(SessionId sessionId, Lane lane, uint64 nonce, uint96 amount) external only(queue) {
        LaneFunds storage funds = _funds[sessionId][lane];
        (uint96 free, uint96 held, uint64 nextNonce) = (funds.free, funds.held, funds.nextNonce);
        if (nonce >= nextNonce) {
            if (nonce - nextNonce >= nonceWindow) {
                revert SessionPayment_NonceTooFarAhead(sessionId, lane, nonce, nextNonce + nonceWindow - 1);
            }
            nextNonce = nonce + 1;
        }
        if (amount > free) revert SessionPayment_InsufficientDeposit(sessionId, lane, amount, free);
        _write(funds, free - amount, held + amount, nextNonce);
    }

    /// @inheritdoc ISessionPayment
    function pay(Debit[] calldata debits, Credit[] calldata credits) external only(queue) {
        uint256[MAX_ASSETS] memory debited;
        uint256[MAX_ASSETS] memory credited;
        for (uint256 i; i < debits.length; ++i) {
            Debit calldata debit = debits[i];
            debited[AssetId.unwrap(debit.asset)] += debit.spent;
            _release(debit.sessionId, debit.lane, debit.taskId, debit.held, debit.spent);
        }
        for (uint256 i; i < credits.length; ++i) {
            Credit calldata credit = credits[i];
            (address account, AssetId asset, uint256 amount) = (credit.account, credit.asset, credit.amount);
            credited[AssetId.unwrap(asset)] += amount;
            if (account == address(0)) {
                _burn(asset, amount);
            } else {
                balanceOf[account][asset] += amount;
                emit Credited(account, asset, amount);
            }
        }
        for (uint8 i; i < MAX_ASSETS; ++i) {
            if (debited[i] != credited[i]) {
                revert SessionPayment_Unbalanced(AssetId.wrap(i), debited[i], credited[i]);
            }
        }
    }

    /// @inheritdoc ISessionPayment
    function refund(
        SessionId sessionId,
        Lane lane,
        AssetId asset,
        TaskId taskId,
        uint96 held,
        address keeper,
        uint96 tip
    ) external only(queue) {
        _release(sessionId, lane, taskId, held, tip);
        _credit(keeper, asset, tip);
    }

    /// @inheritdoc ISessionPayment
    function stake(NodeId nodeId, address from, uint256 amount) external only(pool) {
        stakeOf[nodeId] += amount;
        emit Staked(nodeId, from, amount);
        _pull(COR, from, amount);
    }

    /// @inheritdoc ISessionPayment
    function releaseStake(NodeId nodeId, address owner) external only(pool) returns (uint256 amount) {
        amount = stakeOf[nodeId];
        stakeOf[nodeId] = 0;
        balanceOf[owner][COR] += amount;
        emit StakeReleased(nodeId, owner, amount);
    }

    /// @inheritdoc ISessionPayment
    function slash(NodeId nodeId, Evidence calldata evidence, uint256 amount, address reporter, uint256 reward)
        external
    {
        if (msg.sender != queue && msg.sender != proof) revert SessionPayment_NotProtocol(msg.sender);
        if (evidence.rule == Rule.None) revert SessionPayment_NoEvidence(nodeId);
        uint256 stake_ = stakeOf[nodeId];
        if (amount > stake_) revert SessionPayment_InsufficientStake(nodeId, amount, stake_);
        if (reward > amount) revert SessionPayment_RewardTooLarge(reward, amount);
        stakeOf[nodeId] = stake_ - amount;
        emit Slashed(
            nodeId, evidence.taskId, evidence.rule, evidence.measured, evidence.bound, amount, reporter, reward
        );
        _credit(reporter, COR, reward);
        _burn(COR, amount - reward);
    }

    /// @inheritdoc ISessionPayment
    function give(AssetId asset, address to, uint256 amount) external only(proof) {
        uint256 balance = balanceOf[msg.sender][asset];
        if (amount > balance) revert SessionPayment_InsufficientBalance(msg.sender, asset, amount, balance);
        balanceOf[msg.sender][asset] = balance - amount;
        _credit(to, asset, amount);
    }

    /// @inheritdoc ISessionPayment
    function fund(AssetId asset, address from, uint256 amount) external only(proof) {
        _credit(msg.sender, asset, amount);
        _pull(asset, from, amount);
    }

    /// @inheritdoc ISessionPayment
    function withdraw(AssetId asset, address to, uint256 amount) external {
        if (amount == 0) revert SessionPayment_ZeroAmount();
        if (to == address(0)) revert SessionPayment_ZeroAddress();
        // Tokens sent here would belong to no account.
        if (to == address(this)) revert SessionPayment_OwnAddress();
        IERC20 token = IERC20(tokenOf(asset));
        uint256 balance = balanceOf[msg.sender][asset];
        if (amount > balance) revert SessionPayment_InsufficientBalance(msg.sender, asset, amount, balance);
        balanceOf[msg.sender][asset] = balance - amount;
        totalAccounts[asset] -= amount;
        emit Withdrawn(msg.sender, asset, to, amount);
        uint256 before = token.balanceOf(address(this));
        token.safeTransfer(to, amount);
        uint256 left = token.balanceOf(address(this));
        // A token that takes more than it was asked for would take it from other accounts.
        uint256 sent = before > left ? before - left : 0;
        if (sent != amount) revert SessionPayment_TransferMismatch(amount, sent);
    }

    /// @inheritdoc ISessionPayment
    function fundsOf(SessionId sessionId, Lane lane) external view returns (LaneFunds memory) {
        return _funds[sessionId][lane];
    }

    /// @inheritdoc ISessionPayment
    function tokenOf(AssetId asset) public view returns (address) {
        uint8 i = AssetId.unwrap(asset);
        if (i >= assetCount) revert SessionPayment_UnknownAsset(asset);
        if (i == 0) return _token0;
        if (i == 1) return _token1;
        if (i == 2) return _token2;
        if (i == 3) return _token3;
        if (i == 4) return _token4;
        if (i == 5) return _token5;
        if (i == 6) return _token6;
        return _token7;
    }

    function _enter(SessionId sessionId, Lane lane, address from, uint96 amount) internal {
        if (amount == 0) return;
        _add(sessionId, lane, amount);
        emit Deposited(sessionId, lane, from, amount);
    }

    /// Bounds what is free and held together, so that no refund can overflow.
    function _add(SessionId sessionId, Lane lane, uint96 amount) internal {
        LaneFunds storage funds = _funds[sessionId][lane];
        (uint256 free, uint256 held) = (funds.free, funds.held);
        uint256 sum = free + held + amount;
        if (sum > MAX_FUNDS) revert SessionPayment_AmountTooLarge(sum, MAX_FUNDS);
        funds.free = uint96(free + amount);
    }

    /// Takes `held` out of what the lane holds; `spent` of it leaves the lane, the rest is free again.
    function _release(SessionId sessionId, Lane lane, TaskId taskId, uint96 held, uint256 spent) internal {
        if (spent > held) revert SessionPayment_PayoutMismatch(taskId, spent, held);
        LaneFunds storage funds = _funds[sessionId][lane];
        (uint96 free, uint96 lanesHeld, uint64 nextNonce) = (funds.free, funds.held, funds.nextNonce);
        if (held > lanesHeld) revert SessionPayment_PayoutMismatch(taskId, held, lanesHeld);
        // Bounded by `held`.
        _write(funds, free + held - uint96(spent), lanesHeld - held, nextNonce);
    }

    /// One word, written once: the compiler would write each member.
    function _write(LaneFunds storage funds, uint256 free, uint256 held, uint256 nextNonce) internal {
        assembly ("memory-safe") {
            sstore(funds.slot, or(free, or(shl(96, held), shl(192, nextNonce))))
        }
    }

    function _credit(address account, AssetId asset, uint256 amount) internal {
        if (amount == 0) return;
        if (account == address(0)) revert SessionPayment_ZeroAddress();
        balanceOf[account][asset] += amount;
        emit Credited(account, asset, amount);
    }

    /// COR is destroyed. What cannot be becomes the dead address's balance here: a token that is paused, or that
    /// refuses that address, does not stop a settlement.
    function _burn(AssetId asset, uint256 amount) internal {
        if (amount == 0) return;
        emit Burnt(asset, amount);
        if (AssetId.unwrap(asset) == AssetId.unwrap(COR)) {
            totalAccounts[COR] -= amount;
            ERC20Burnable(_token0).burn(amount);
        } else {
            balanceOf[DEAD][asset] += amount;
        }
    }

    /// The transfer is measured: a token that takes a fee, or that calls back into a second deposit, is refused.
    function _pull(AssetId asset, address from, uint256 amount) internal {
        if (amount == 0) revert SessionPayment_ZeroAmount();
        IERC20 token = IERC20(tokenOf(asset));
        totalAccounts[asset] += amount;
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(from, address(this), amount);
        uint256 afterwards = token.balanceOf(address(this));
        uint256 received = afterwards > before ? afterwards - before : 0;
        if (received != amount) revert SessionPayment_TransferMismatch(amount, received);
    }
}
