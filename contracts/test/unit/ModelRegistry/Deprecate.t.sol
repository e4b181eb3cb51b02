// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry, ModelRegistration} from "../../../src/interfaces/IModelRegistry.sol";
import {AssetId, ModelIndex} from "../../../src/types/Ids.sol";
import {RegistryBase} from "./RegistryBase.sol";

contract ModelRegistryDeprecateTest is RegistryBase {
    ModelIndex internal index;

    function setUp() public override {
        super.setUp();
        vm.prank(PUBLISHER);
        index = models.register(registration(FIRST));
    }

    function testFuzz_takes_nothing_new_and_serves_what_is_open(uint40 later) public {
        skipTime(bound(later, 1, 1000 days));
        vm.expectEmit();
        emit IModelRegistry.ModelDeprecated(FIRST, index);
        vm.prank(PUBLISHER);
        models.deprecate(FIRST);
        assertEq(models.modelOf(FIRST).deprecatedAt, block.timestamp, "time");
        bytes memory reason = abi.encodeWithSelector(IModelRegistry.ModelRegistry_Deprecated.selector, FIRST);
        vm.expectRevert(reason);
        models.openIndexOf(FIRST);
        (uint80 priceIn,) = models.floorsOf(index, AssetId.wrap(0));
        assertEq(priceIn, 1, "floor stays");
        (address publisher,) = models.royaltyOf(index);
        assertEq(publisher, PUBLISHER, "royalty stays");
        vm.expectRevert(reason);
        vm.prank(PUBLISHER);
        models.deprecate(FIRST);
    }

    function test_a_deprecated_version_may_have_a_successor() public {
        vm.prank(PUBLISHER);
        models.deprecate(FIRST);
        ModelRegistration memory wanted = registration(SECOND);
        wanted.predecessor = FIRST;
        vm.prank(PUBLISHER);
        models.register(wanted);
        assertEq(models.modelOf(SECOND).version, 2, "version");
    }

    function testFuzz_refuses_who_is_not_its_publisher(address caller) public {
        vm.assume(caller != PUBLISHER);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotPublisher.selector, FIRST, caller));
        vm.prank(caller);
        models.deprecate(FIRST);
    }
}
