// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry, ModelRegistration} from "../../../src/interfaces/IModelRegistry.sol";
import {NodeRegistration} from "../../../src/interfaces/INodePool.sol";
import {AssetId, ModelId, NodeId, NumericClass} from "../../../src/types/Ids.sol";
import {Base} from "../../Base.sol";

/// `calibrate`, `attest`.
contract CalibrateTest is Base {
    NumericClass internal constant OTHER = NumericClass.wrap("cpu-f16kv");
    /// The first of `vectors/proof.json`: four contrasts.
    uint256 internal constant WORD = 0x000a00000083126f028f5c290041893700199a0100000033330400020019000a;
    uint256 internal constant TWO_CONTRASTS = 0x000a00000083126f028f5c290041893700199a0100000033330200020019000a;

    function calibrate(NumericClass one, NumericClass other, uint256 word) internal {
        vm.prank(publisher);
        models.calibrate(MODEL, one, other, word);
    }

    function attest(NodeId nodeId, uint256 word) internal {
        // Nothing may be called between the expectation of a refusal and the call: keys are those of the owner's number.
        vm.prank(vm.addr(operatorKey(NodeId.unwrap(nodeId))));
        models.attest(MODEL, CLASS, OTHER, word, nodeId);
    }

    function other(uint256 i) internal returns (NodeId) {
        NodeRegistration memory wanted = registration(i, 1);
        wanted.numericClass = OTHER;
        return register(i, wanted);
    }

    /// From the next second on, and in the order of its classes. [V2]
    function test_when_a_pair_was_calibrated() public {
        uint40 now_ = uint40(block.timestamp);
        assertEq(models.calibrationBefore(MODEL_INDEX, CLASS, OTHER, type(uint40).max), 0, "not calibrated");
        calibrate(CLASS, OTHER, WORD);
        assertEq(models.calibrationBefore(MODEL_INDEX, CLASS, OTHER, now_), 0, "in the same second");
        assertEq(models.calibrationBefore(MODEL_INDEX, CLASS, OTHER, now_ + 1), WORD, "before the next one");
        assertEq(models.calibrationBefore(MODEL_INDEX, OTHER, CLASS, now_ + 1), 0, "one way");
    }

    /// [V19]
    function test_a_pair_is_calibrated_once() public {
        assertTrue(!models.isProven(MODEL_INDEX), "not yet");
        vm.expectEmit();
        emit IModelRegistry.PairCalibrated(MODEL_INDEX, CLASS, OTHER, WORD);
        calibrate(CLASS, OTHER, WORD);
        assertEq(models.calibrationOf(MODEL_INDEX, CLASS, OTHER), WORD, "word");
        assertEq(models.calibrationOf(MODEL_INDEX, OTHER, CLASS), 0, "one way");
        assertTrue(models.isProven(MODEL_INDEX), "proven");
        assertEq(models.modelOf(MODEL).pairs, 1, "pairs");
        assertEq(models.modelOf(MODEL).contrasts, 4, "contrasts");
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_AlreadyCalibrated.selector, MODEL_INDEX, CLASS, OTHER)
        );
        calibrate(CLASS, OTHER, WORD);
    }

    /// [V19]
    function test_refusals() public {
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotPublisher.selector, MODEL, address(this))
        );
        models.calibrate(MODEL, CLASS, OTHER, WORD);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_EmptyClass.selector));
        calibrate(CLASS, NumericClass.wrap(0), WORD);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_BadCalibration.selector, WORD - 10));
        calibrate(CLASS, OTHER, WORD - 10);
        calibrate(CLASS, OTHER, WORD);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_OtherContrasts.selector, MODEL_INDEX, 2, 4));
        calibrate(CLASS, CLASS, TWO_CONTRASTS);
        ModelId dollars = ModelId.wrap("dollars");
        ModelRegistration memory wanted = modelRegistration();
        (wanted.modelId, wanted.floors[0]) = (dollars, wanted.floors[1]);
        assembly {
            mstore(mload(add(wanted, 128)), 1)
        }
        vm.prank(publisher);
        models.register(wanted);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_AssetNotAccepted.selector, 2, COR));
        vm.prank(publisher);
        models.calibrate(dollars, CLASS, OTHER, WORD);
    }

    function test_a_model_has_256_pairs_at_most() public {
        for (uint256 i = 1; i <= 256; ++i) {
            calibrate(NumericClass.wrap(bytes32(i)), CLASS, WORD);
        }
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_TooManyPairs.selector, MODEL_INDEX, 256));
        calibrate(CLASS, OTHER, WORD);
    }

    /// [V12]
    function test_three_owners_make_a_pair_slashable() public {
        calibrate(CLASS, OTHER, WORD);
        newNodes(2, 1);
        NodeId third = other(3);
        attest(NodeId.wrap(1), WORD);
        attest(NodeId.wrap(2), WORD);
        assertTrue(!models.isSlashable(MODEL_INDEX, CLASS, OTHER), "two are not enough");
        vm.expectEmit();
        emit IModelRegistry.PairAttested(MODEL_INDEX, third, ownerOf(3), CLASS, OTHER, 3);
        attest(third, WORD);
        assertTrue(models.isSlashable(MODEL_INDEX, CLASS, OTHER), "three are");
        assertEq(models.attestedOf(MODEL_INDEX, CLASS, OTHER), 3, "attested");
    }

    /// [V12]
    function test_who_cannot_attest() public {
        newNodes(1, 1);
        NodeId first = NodeId.wrap(1);
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotCalibrated.selector, MODEL_INDEX, CLASS, OTHER)
        );
        attest(first, WORD);
        calibrate(CLASS, OTHER, WORD);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_OtherMeasurement.selector, WORD + 1, WORD));
        attest(first, WORD + 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotOperator.selector, first, keeper));
        vm.prank(keeper);
        models.attest(MODEL, CLASS, OTHER, WORD, first);
        attest(first, WORD);
        vm.expectRevert(
            abi.encodeWithSelector(IModelRegistry.ModelRegistry_AlreadyAttested.selector, MODEL_INDEX, ownerOf(1))
        );
        attest(first, WORD);
        NodeRegistration memory wanted = registration(2, 1);
        wanted.numericClass = NumericClass.wrap("abacus");
        NodeId stranger = register(2, wanted);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotAbleToAttest.selector, stranger));
        attest(stranger, WORD);
        NodeId leaving = newNode(3, 1);
        vm.prank(ownerOf(3));
        pool.drain(leaving);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ModelRegistry_NotAbleToAttest.selector, leaving));
        attest(leaving, WORD);
    }
}
