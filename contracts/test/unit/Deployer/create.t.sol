// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Deployer} from "../../../src/periphery/Deployer.sol";
import {IVm} from "../../IVm.sol";

/// Something with a constructor that may refuse.
contract Child {
    uint256 public immutable value;

    error Child_Refused(uint256 value);

    constructor(uint256 value_) {
        if (value_ == 0) revert Child_Refused(value_);
        value = value_;
    }
}

contract DeployerCreateTest {
    IVm internal constant vm = IVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    Deployer internal deployer;

    function setUp() public {
        deployer = new Deployer(address(this));
    }

    function initCode(uint256 value) internal pure returns (bytes memory) {
        return abi.encodePacked(type(Child).creationCode, abi.encode(value));
    }

    function testFuzz_stands_where_its_number_says_whatever_the_code_is(uint256 value, uint8 count) public {
        value = value == 0 ? 1 : value;
        for (uint256 i = 1; i <= count % 8 + 1; ++i) {
            address predicted = deployer.addressOf(i);
            address created = deployer.create(i, initCode(value));
            require(created == predicted, "elsewhere than predicted");
            require(Child(created).value() == value, "another code");
        }
    }

    function test_every_address_up_to_the_last_is_predicted() public {
        for (uint256 i = 1; i <= 0x7f; ++i) {
            require(deployer.create(i, initCode(i)) == deployer.addressOf(i), "elsewhere than predicted");
        }
        vm.expectRevert(abi.encodeWithSelector(Deployer.Deployer_TooMany.selector, 0x80, 0x7f));
        deployer.create(0x80, initCode(1));
    }

    function test_only_its_owner_creates(address caller) public {
        vm.assume(caller != address(this));
        vm.prank(caller);
        vm.expectRevert(abi.encodeWithSelector(Deployer.Deployer_NotOwner.selector, caller));
        deployer.create(1, initCode(1));
    }

    function test_in_order_alone() public {
        vm.expectRevert(abi.encodeWithSelector(Deployer.Deployer_WrongNumber.selector, 2, 1));
        deployer.create(2, initCode(1));
        deployer.create(1, initCode(1));
        vm.expectRevert(abi.encodeWithSelector(Deployer.Deployer_WrongNumber.selector, 1, 2));
        deployer.create(1, initCode(1));
    }

    function test_a_constructors_refusal_is_passed_on_and_takes_no_number() public {
        vm.expectRevert(abi.encodeWithSelector(Child.Child_Refused.selector, 0));
        deployer.create(1, initCode(0));
        require(deployer.next() == 1, "the number is gone");
        require(deployer.create(1, initCode(7)) == deployer.addressOf(1), "the address is gone");
    }

    function test_no_address_has_number_zero_or_one_above_the_last() public {
        vm.expectRevert(abi.encodeWithSelector(Deployer.Deployer_TooMany.selector, 0, 0x7f));
        deployer.addressOf(0);
        vm.expectRevert(abi.encodeWithSelector(Deployer.Deployer_TooMany.selector, 0x80, 0x7f));
        deployer.addressOf(0x80);
    }
}
