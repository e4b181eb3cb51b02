// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// A stablecoin as sessions may be paid in: 6 decimals, permit, nothing that could be burnt.
contract UsdToken is ERC20, ERC20Permit {
    constructor(address holder, uint256 supply) ERC20("Test dollar", "USD") ERC20Permit("Test dollar") {
        _mint(holder, supply);
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
