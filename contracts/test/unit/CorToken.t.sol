// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {CorToken} from "../../src/CorToken.sol";
import {IVm} from "../IVm.sol";

contract CorTokenTest {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function testFuzz_supply_goes_to_the_holder(address holder, uint96 supply) public {
        vm.assume(holder != address(0));
        CorToken token = new CorToken(holder, supply);
        require(token.balanceOf(holder) == supply, "balance");
        require(token.totalSupply() == supply, "supply");
        require(token.decimals() == 18, "decimals");
        require(keccak256(bytes(token.symbol())) == keccak256("COR"), "symbol");
    }

    function testFuzz_supply_must_fit_96_bits(uint256 supply) public {
        if (supply <= type(uint96).max) supply += uint256(type(uint96).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(CorToken.CorToken_SupplyTooLarge.selector, supply, type(uint96).max));
        new CorToken(address(this), supply);
    }

    function testFuzz_burn_shrinks_the_supply(uint96 supply, uint96 burnt) public {
        if (burnt > supply) (supply, burnt) = (burnt, supply);
        CorToken token = new CorToken(address(this), supply);
        token.burn(burnt);
        require(token.totalSupply() == supply - burnt, "supply");
        require(token.balanceOf(address(this)) == supply - burnt, "balance");
    }
}
