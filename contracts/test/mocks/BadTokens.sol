// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// Keeps one percent of each transfer for itself.
contract FeeToken is ERC20("Fee", "FEE") {
    constructor(address holder) {
        _mint(holder, 1e30);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from != address(0) && to != address(this)) super._update(to, address(this), amount / 100);
    }
}

/// Takes one percent more from the sender than it was asked for.
contract GreedyToken is ERC20("Greedy", "GRD") {
    constructor(address holder) {
        _mint(holder, 1e30);
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        _burn(msg.sender, amount / 100);
        return super.transfer(to, amount);
    }
}

/// Says that it moved what it did not move.
contract LyingToken is ERC20("Lie", "LIE") {
    constructor(address holder) {
        _mint(holder, 1e30);
    }

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return true;
    }

    function transfer(address, uint256) public pure override returns (bool) {
        return true;
    }
}

/// Says no instead of reverting.
contract RefusingToken is ERC20("No", "NO") {
    constructor(address holder) {
        _mint(holder, 1e30);
    }

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return false;
    }
}

/// Moves what it is asked to move, and returns nothing, as some stablecoins do.
contract SilentToken {
    mapping(address => uint256) public balanceOf;

    constructor(address holder) {
        balanceOf[holder] = 1e30;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }
}

/// Calls somebody while it is moved, once.
contract ReentrantToken is ERC20("Again", "AGN") {
    address internal _target;
    bytes internal _call;

    constructor(address holder) {
        _mint(holder, 1e30);
    }

    function attack(address target, bytes calldata call_) external {
        (_target, _call) = (target, call_);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (_call.length == 0) return;
        bytes memory call_ = _call;
        delete _call;
        (bool done, bytes memory reason) = _target.call(call_);
        if (done) return;
        assembly ("memory-safe") {
            revert(add(reason, 32), mload(reason))
        }
    }
}
