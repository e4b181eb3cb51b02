// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// $COR: ERC-20 with permit (ERC-2612) and burn. The whole supply exists from the start; nobody can mint.
contract CorToken is ERC20, ERC20Burnable, ERC20Permit {
    /// Every amount fits 96 bits, so that tasks and lanes can pack theirs.
    error CorToken_SupplyTooLarge(uint256 supply, uint256 max);

    /// @param holder Receives the whole supply.
    /// @param supply In minor units; 18 decimals.
    constructor(address holder, uint256 supply) ERC20("Assay COR", "COR") ERC20Permit("Assay COR") {
        if (supply > type(uint96).max) revert CorToken_SupplyTooLarge(supply, type(uint96).max);
        _mint(holder, supply);
    }
}
