// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Parameters} from "../../../src/Parameters.sol";
import {AssetTerms, IParameters, Terms} from "../../../src/interfaces/IParameters.sol";
import {AssetId} from "../../../src/types/Ids.sol";
import {PoolBase} from "../NodePool/PoolBase.sol";

contract ParametersConstructorTest is PoolBase {
    function refused(Parameters.Config memory wanted, Terms memory first, bytes memory reason) internal {
        vm.expectRevert(reason);
        new Parameters(wanted, first);
    }

    function outOfBounds(bytes32 name, uint256 value, uint256 min, uint256 max) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(IParameters.Parameters_OutOfBounds.selector, name, value, min, max);
    }

    function test_takes_the_first_set_at_once() public {
        vm.expectEmit();
        emit IParameters.GovernorChanged(address(0), GOVERNOR);
        vm.expectEmit();
        emit IParameters.TermsProposed(1, START, terms());
        Parameters fresh = new Parameters(config(), terms());
        assertEq(fresh.currentVersion(), 1, "version");
        assertEq(fresh.delay(), DELAY, "delay");
        assertEq(fresh.drawWindow(), WINDOW, "window");
        assertEq(fresh.maxRoyaltyBps(), MAX_ROYALTY_BPS, "royalty");
        assertEq(fresh.assetCount(), 1, "assets");
        assertEq(fresh.governor(), GOVERNOR, "governor");
        assertEq(keccak256(abi.encode(fresh.termsOf(1))), keccak256(abi.encode(terms())), "set");
    }

    function test_refuses_no_governor() public {
        Parameters.Config memory wanted = config();
        wanted.governor = address(0);
        refused(wanted, terms(), abi.encodeWithSelector(IParameters.Parameters_ZeroAddress.selector));
    }

    function test_refuses_what_can_never_be_changed_out_of_bounds() public {
        Parameters.Config memory wanted = config();
        wanted.delay = 0;
        refused(wanted, terms(), outOfBounds("delay", 0, 1, 365 days));
        wanted.delay = 365 days + 1;
        refused(wanted, terms(), outOfBounds("delay", 365 days + 1, 1, 365 days));
        wanted = config();
        wanted.drawWindow = 9;
        refused(wanted, terms(), outOfBounds("drawWindow", 9, 10, 1 days));
        wanted.drawWindow = 1 days + 1;
        refused(wanted, terms(), outOfBounds("drawWindow", 1 days + 1, 10, 1 days));
        wanted = config();
        wanted.maxRoyaltyBps = 3001;
        refused(wanted, terms(), outOfBounds("maxRoyaltyBps", 3001, 0, 3000));
    }

    function test_refuses_no_assets_and_too_many() public {
        Terms memory first = terms();
        first.assets = assets(0);
        refused(config(), first, outOfBounds("assetCount", 0, 1, 8));
        first.assets = assets(9);
        refused(config(), first, outOfBounds("assetCount", 9, 1, 8));
        first.assets = assets(8);
        Parameters fresh = new Parameters(config(), first);
        assertEq(fresh.assetCount(), 8, "assets");
        assertEq(fresh.assetTermsOf(1, AssetId.wrap(7)).minDeposit, 8, "the last");
        vm.expectRevert(abi.encodeWithSelector(IParameters.Parameters_AssetCount.selector, 1, 8));
        vm.prank(GOVERNOR);
        fresh.propose(terms());
    }

    function assets(uint256 count) internal pure returns (AssetTerms[] memory list) {
        list = new AssetTerms[](count);
        for (uint256 i; i < count; ++i) {
            list[i] = AssetTerms({tip: 0, minDeposit: uint96(i + 1)});
        }
    }
}
