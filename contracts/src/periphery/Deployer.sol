// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// Creates contracts whose addresses depend on its own alone: the n-th one stands where `addressOf(n)` says, whatever
/// its code is. Contracts that name one another need that, and with a deployer that stands at the same address on every
/// chain (CREATE2, the same owner and salt) so do they.
contract Deployer {
    event Created(uint256 indexed number, address indexed created);

    error Deployer_NotOwner(address caller);
    error Deployer_WrongNumber(uint256 number, uint256 next);
    error Deployer_TooMany(uint256 number, uint256 limit);

    /// The RLP of a nonce above this has another form; a deployment has about ten contracts.
    uint256 internal constant LAST = 0x7f;

    /// Who may create.
    address public immutable owner;
    /// Number of the next contract, counted from 1: the nonce of this one.
    uint256 public next = 1;

    constructor(address owner_) {
        owner = owner_;
    }

    /// Creates contract `number`, which must be the next one, so that a deployment that was interrupted goes on where it
    /// was. A revert of its constructor is passed on.
    function create(uint256 number, bytes calldata initCode) external returns (address created) {
        if (msg.sender != owner) revert Deployer_NotOwner(msg.sender);
        if (number != next) revert Deployer_WrongNumber(number, next);
        if (number > LAST) revert Deployer_TooMany(number, LAST);
        next = number + 1;
        bytes memory code = initCode;
        assembly ("memory-safe") {
            created := create(0, add(code, 32), mload(code))
            if iszero(created) {
                let reason := mload(0x40)
                returndatacopy(reason, 0, returndatasize())
                revert(reason, returndatasize())
            }
        }
        emit Created(number, created);
    }

    /// Where contract `number` stands, or will stand: keccak256(rlp([this, number])).
    function addressOf(uint256 number) external view returns (address) {
        if (number == 0 || number > LAST) revert Deployer_TooMany(number, LAST);
        bytes memory rlp = abi.encodePacked(hex"d694", address(this), uint8(number));
        return address(uint160(uint256(keccak256(rlp))));
    }
}
