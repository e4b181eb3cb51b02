// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// Whose signature it is.
library Signatures {
    /// What a contract may spend on checking a signature: several owners' signatures fit, and whoever carries a request
    /// cannot be made to pay for more.
    uint256 internal constant MAX_CHECK_GAS = 250_000;

    /// Zero if nobody can be told from the signature; a high `s` is refused.
    function signerOf(bytes32 digest, bytes memory signature) internal pure returns (address signer) {
        (signer,,) = ECDSA.tryRecover(digest, signature);
    }

    /// By key, or, of a contract, by EIP-1271. A key first: an account with delegated code signs as it did before.
    /// Unlike OpenZeppelin's checker it bounds the gas, and copies no more than one word of what comes back.
    function isBy(address signer, bytes32 digest, bytes memory signature) internal view returns (bool valid) {
        if (signer == address(0)) return false;
        if (signerOf(digest, signature) == signer) return true;
        if (signer.code.length == 0) return false;
        bytes memory data = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bytes32 expected = IERC1271.isValidSignature.selector;
        assembly ("memory-safe") {
            let done := staticcall(MAX_CHECK_GAS, signer, add(data, 32), mload(data), 0, 32)
            valid := and(done, and(gt(returndatasize(), 31), eq(mload(0), expected)))
        }
    }
}
