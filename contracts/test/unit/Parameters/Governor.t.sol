// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IParameters} from "../../../src/interfaces/IParameters.sol";
import {PoolBase} from "../NodePool/PoolBase.sol";

contract ParametersGovernorTest is PoolBase {
    function testFuzz_a_successor_must_accept(address successor, address other) public {
        vm.assume(successor != other && successor != address(0) && other != GOVERNOR);
        vm.expectEmit();
        emit IParameters.GovernorProposed(GOVERNOR, successor);
        vm.prank(GOVERNOR);
        parameters.proposeGovernor(successor);
        assertEq(parameters.governor(), GOVERNOR, "not yet");
        assertEq(parameters.successor(), successor, "successor");
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_NotSuccessor.selector, other));
        vm.prank(other);
        parameters.acceptGovernor();
        vm.expectEmit();
        emit IParameters.GovernorChanged(GOVERNOR, successor);
        vm.prank(successor);
        parameters.acceptGovernor();
        assertEq(parameters.governor(), successor, "governor");
        assertEq(parameters.successor(), address(0), "nobody");
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_NotSuccessor.selector, successor));
        vm.prank(successor);
        parameters.acceptGovernor();
    }

    function test_naming_nobody_takes_it_back() public {
        vm.prank(GOVERNOR);
        parameters.proposeGovernor(CLIENT);
        vm.prank(GOVERNOR);
        parameters.proposeGovernor(address(0));
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_NotSuccessor.selector, CLIENT));
        vm.prank(CLIENT);
        parameters.acceptGovernor();
    }
}
