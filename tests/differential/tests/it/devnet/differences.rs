//! What is different on the embedded chain and on anvil, and why. This list is complete: every other
//! field of every answer that the tests compare is equal.
//!
//! Where anvil does not do what Ethereum does, [`super::deviations`] shows both: gas of an
//! authorization by a new account, roots of storage with cleared slots, BASEFEE in a call without a
//! price. The random programs keep clear of these.
//!
//! Set up alike, so that it cannot be seen below: anvil's block 1 has the base fee of its genesis block
//! (EIP-1559 lowers it by an eighth, as the embedded chain does), its contracts of the genesis block
//! have nonce 0 (no contract has that since EIP-161), and it orders transactions by their fee cap or by
//! arrival (the embedded chain by what they pay to the block, as geth does).
//!
//! After a reorganisation anvil's filters do not say which logs were removed, and the base fee of its
//! new blocks follows from blocks that are gone.
//!
//! Not compared: estimates of gas, which each searches for in its own way.

use std::collections::BTreeSet;

use serde_json::Value;

/// A field that differs, and why.
pub type Field = (&'static str, &'static str);

/// Fields of blocks.
pub const BLOCK: &[Field] = &[
    ("hash", "follows from the fields below"),
    ("parentHash", "follows from the fields below"),
    ("mixHash", "anvil's prevRandao is random, the embedded chain's follows from the parent"),
    ("stateRoot", "block hashes are in the state (EIP-2935); compared without them"),
    ("size", "anvil leaves out the list of withdrawals, which every block since Shanghai has"),
    ("totalDifficulty", "only anvil has it; geth does not since the merge"),
];

/// Fields of transactions in blocks.
pub const TRANSACTION: &[Field] = &[("blockHash", "see the blocks")];

/// Fields of receipts.
pub const RECEIPT: &[Field] = &[
    ("blockHash", "see the blocks"),
    ("blobGasPrice", "only anvil has it; geth has it in receipts of blob transactions alone"),
    ("blockTimestamp", "only anvil has it, and as a number; geth has it in logs alone"),
];

/// Fields of logs.
pub const LOG: &[Field] = &[("blockHash", "see the blocks")];

/// Fails unless two objects are equal but for the fields that are listed; notes the fields that differ.
pub fn agree(devnet: &Value, anvil: &Value, listed: &[Field], seen: &mut BTreeSet<&'static str>) {
    let (Value::Object(devnet), Value::Object(anvil)) = (devnet, anvil) else {
        panic!("no objects: {devnet} and {anvil}");
    };
    for field in devnet.keys().chain(anvil.keys()) {
        if devnet.get(field) == anvil.get(field) {
            continue;
        }
        let known = listed.iter().find(|(name, _)| name == field);
        let (name, _) = known.unwrap_or_else(|| {
            panic!("{field}: {:?} and {:?}", devnet.get(field), anvil.get(field))
        });
        seen.insert(name);
    }
}

/// A refusal that differs: codes, and how the messages begin.
#[derive(Debug)]
pub struct Difference {
    pub devnet: (i64, &'static str),
    pub anvil: (i64, &'static str),
}

/// Refusals that differ. The embedded chain has geth's codes and words, which clients of live networks
/// are written for: -32000 for a transaction that is refused (anvil: -32003, of EIP-1474), and the
/// numbers that tell what to do, such as the next nonce, where anvil has the reason alone.
pub const ERRORS: &[Difference] = &[
    Difference { devnet: (-32000, "nonce too low: next nonce "), anvil: (-32003, "nonce too low") },
    Difference {
        devnet: (-32000, "already known"),
        anvil: (-32003, "transaction already imported"),
    },
    Difference {
        devnet: (-32000, "replacement transaction underpriced"),
        anvil: (-32003, "replacement transaction underpriced"),
    },
    Difference {
        devnet: (-32000, "intrinsic gas too low: gas 20999, minimum needed 21000"),
        anvil: (-32000, "intrinsic gas too low"),
    },
    Difference {
        devnet: (-32000, "exceeds block gas limit"),
        anvil: (-32000, "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit"),
    },
    Difference {
        devnet: (-32000, "max fee per gas less than block base fee: address 0x"),
        anvil: (-32003, "max fee per gas less than block base fee"),
    },
    Difference {
        devnet: (-32000, "max priority fee per gas higher than max fee per gas"),
        anvil: (-32003, "max priority fee per gas higher than max fee per gas"),
    },
    Difference {
        devnet: (-32000, "insufficient funds for gas * price + value: balance "),
        anvil: (-32003, "Insufficient funds for gas * price + value"),
    },
    Difference {
        devnet: (-32000, "invalid sender: invalid chain id for signer: have 1 want 31337"),
        anvil: (-32003, "invalid chain id for signer"),
    },
    Difference {
        devnet: (-32000, "max initcode size exceeded: code size 49153 limit 49152"),
        anvil: (-32003, "max initcode size exceeded"),
    },
    // Bytes that are no transaction: with the reason.
    Difference {
        devnet: (-32602, "the transaction cannot be decoded: "),
        anvil: (-32602, "Empty transaction data"),
    },
    Difference {
        devnet: (-32602, "the transaction cannot be decoded: "),
        anvil: (-32602, "Failed to decode transaction"),
    },
    // A revert: anvil prints any bytes as text or as an unknown custom error. They are in `data`.
    Difference { devnet: (3, "execution reverted"), anvil: (3, "execution reverted: ") },
    // An exception: geth's words, not the names of an implementation.
    Difference { devnet: (-32000, "out of gas"), anvil: (-32603, "EVM error OutOfGas") },
    Difference {
        devnet: (-32000, "not enough gas for reentrancy sentry"),
        anvil: (-32603, "EVM error ReentrancySentryOOG"),
    },
    Difference {
        devnet: (-32000, "invalid opcode: INVALID"),
        anvil: (-32603, "EVM error InvalidFEOpcode"),
    },
    Difference { devnet: (-32000, "invalid opcode"), anvil: (-32603, "EVM error OpcodeNotFound") },
    Difference {
        devnet: (-32000, "invalid jump destination"),
        anvil: (-32603, "EVM error InvalidJump"),
    },
    Difference { devnet: (-32000, "stack underflow"), anvil: (-32603, "EVM error StackUnderflow") },
    Difference {
        devnet: (-32000, "stack limit reached 1024"),
        anvil: (-32603, "EVM error StackOverflow"),
    },
    Difference {
        devnet: (-32000, "return data out of bounds"),
        anvil: (-32603, "EVM error OutOfOffset"),
    },
    Difference { devnet: (-32000, "out of gas"), anvil: (-32603, "EVM error MemoryOOG") },
    Difference { devnet: (-32000, "out of gas"), anvil: (-32603, "EVM error MemoryLimitOOG") },
    Difference { devnet: (-32000, "out of gas"), anvil: (-32603, "EVM error InvalidOperandOOG") },
    Difference { devnet: (-32000, "out of gas"), anvil: (-32603, "EVM error PrecompileOOG") },
    Difference {
        devnet: (-32000, "max code size exceeded"),
        anvil: (-32603, "EVM error CreateContractSizeLimit"),
    },
    Difference {
        devnet: (-32000, "invalid code: must not begin with 0xef"),
        anvil: (-32603, "EVM error CreateContractStartingWithEF"),
    },
    Difference {
        devnet: (-32000, "insufficient gas for floor data gas cost: gas 22000, minimum needed"),
        anvil: (-32000, "intrinsic gas too high -- GasFloorMoreThanGasLimit"),
    },
    Difference {
        devnet: (-32000, "intrinsic gas too low: gas 256, minimum needed 21000"),
        anvil: (-32000, "intrinsic gas too high -- CallGasCostMoreThanGasLimit"),
    },
    // A block that is not there.
    Difference { devnet: (-32000, "header not found"), anvil: (-32602, "BlockOutOfRangeError: ") },
    Difference { devnet: (-32000, "header not found"), anvil: (-32001, "Resource not found") },
    // Parameters that make no sense: the words come from the libraries that read them.
    Difference {
        devnet: (-32602, "invalid argument: "),
        anvil: (-32602, "invalid length 0, expected tuple variant"),
    },
    Difference { devnet: (-32602, "invalid argument: "), anvil: (-32602, "invalid string length") },
    Difference {
        devnet: (-32602, "block timestamp 1 is before that of its parent"),
        anvil: (-32602, "Timestamp error: 1 is lower than previous block's timestamp"),
    },
];

/// What anvil takes and the embedded chain refuses: how its message begins, and why it refuses.
pub const ANVIL_TAKES: &[(&str, &str)] = &[
    ("intrinsic gas too low: gas 24000", "anvil's pool keeps it for ever: no block can hold it"),
    ("insufficient gas for floor data gas cost: gas 26000", "the same, by EIP-7623"),
    ("EIP-7702 transaction with empty auth list", "the same, by EIP-7702"),
    ("bytes follow after the transaction", "anvil ignores what follows, geth refuses it"),
    ("sender not an eoa", "EIP-3607: anvil never checks it, to let contracts be impersonated"),
    (
        "insufficient funds for gas * price + value",
        "geth refuses it: such a transfer cannot succeed",
    ),
    ("both gasPrice and (maxFeePerGas or", "geth refuses what contradicts itself"),
    ("invalid block range params", "geth refuses a range that ends before it begins"),
    ("request beyond head block", "geth refuses it; anvil invents a block"),
    ("invalid reward percentile", "geth wants them in order; anvil sorts nothing"),
];
