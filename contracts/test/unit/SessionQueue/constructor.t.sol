// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {SessionQueue} from "../../../src/SessionQueue.sol";
import {ISessionQueue} from "../../../src/interfaces/ISessionQueue.sol";
import {Base} from "../../Base.sol";

contract ConstructorTest is Base {
    function test_refuses_zero_addresses() public {
        for (uint256 missing; missing < 8; ++missing) {
            address[8] memory given;
            for (uint256 i; i < 8; ++i) {
                given[i] = i == missing ? address(0) : address(uint160(0x100 + i));
            }
            vm.expectRevert(abi.encodeWithSelector(ISessionQueue.SessionQueue_ZeroAddress.selector));
            new SessionQueue(
                SessionQueue.Wiring({
                    beacon: given[0],
                    models: given[1],
                    parameters: given[2],
                    payment: given[3],
                    pool: given[4],
                    proof: given[5],
                    session: given[6],
                    stats: given[7]
                })
            );
        }
    }

    function test_wiring_is_told() public view {
        assertEq(queue.beacon(), address(beacon), "beacon");
        assertEq(queue.models(), address(models), "models");
        assertEq(queue.parameters(), address(parameters), "parameters");
        assertEq(queue.payment(), address(payment), "payment");
        assertEq(queue.pool(), address(pool), "pool");
        assertEq(queue.proof(), address(proof), "proof");
        assertEq(queue.session(), address(session), "session");
        assertEq(queue.stats(), address(stats), "stats");
    }
}
