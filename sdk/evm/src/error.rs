//! Errors of transactions and calls, worded as geth words them, because clients match on these words.

use alloy::primitives::{Address, B256, Bytes, U256};
use revm::context::result::{HaltReason, InvalidTransaction, OutOfGasError};

/// Why a transaction cannot be part of the next block. Nothing has changed in the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// The sender has already used this nonce.
    #[error("nonce too low: next nonce {next}, tx nonce {tx}")]
    NonceTooLow {
        /// The nonce that the account expects.
        next: u64,
        /// The nonce of the transaction.
        tx: u64,
    },
    /// Transactions of the sender with lower nonces are missing.
    #[error("nonce too high: next nonce {next}, tx nonce {tx}")]
    NonceTooHigh {
        /// The nonce that the account expects.
        next: u64,
        /// The nonce of the transaction.
        tx: u64,
    },
    /// The nonce counter of the account is at its end.
    #[error("nonce has max value")]
    NonceMax,
    /// The balance does not cover the value and the highest possible fee.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {}",
        cost.saturating_sub(*balance)
    )]
    InsufficientFunds {
        /// What the sender has, in wei.
        balance: U256,
        /// What the transaction can cost at most, in wei.
        cost: U256,
    },
    /// The gas limit does not even pay for the transaction's data.
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas {
        /// Gas limit of the transaction.
        gas: u64,
        /// Lowest gas limit that this transaction can have.
        needed: u64,
    },
    /// The gas limit is below the floor of EIP-7623.
    #[error("insufficient gas for floor data gas cost: gas {gas}, minimum needed {needed}")]
    FloorGas {
        /// Gas limit of the transaction.
        gas: u64,
        /// Lowest gas limit that this transaction can have.
        needed: u64,
    },
    /// The gas limit is above that of a block.
    #[error("exceeds block gas limit")]
    ExceedsBlockGas,
    /// The block has not enough gas left; a later block has.
    #[error("gas limit reached")]
    BlockFull,
    /// The fee is below the base fee of the next block.
    #[error(
        "max fee per gas less than block base fee: address {sender}, maxFeePerGas: {max_fee}, baseFee: {base_fee}"
    )]
    FeeBelowBase {
        /// Who sent it.
        sender: Address,
        /// What it pays at most per gas, in wei.
        max_fee: u128,
        /// What the block asks per gas, in wei.
        base_fee: u64,
    },
    /// The tip is higher than the whole fee.
    #[error("max priority fee per gas higher than max fee per gas")]
    TipAboveFee,
    /// EIP-3860.
    #[error("max initcode size exceeded: code size {size} limit {limit}")]
    InitCodeSize {
        /// Bytes of the init code.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Signed for another chain.
    #[error("invalid sender: invalid chain id for signer: have {have} want {want}")]
    ChainId {
        /// Chain id of the transaction.
        have: u64,
        /// Chain id of this chain.
        want: u64,
    },
    /// The signature leads to no sender.
    #[error("invalid sender")]
    InvalidSender,
    /// Blob transactions have no meaning here: there is no consensus layer that would keep blobs.
    #[error("transaction type not supported")]
    TypeNotSupported,
    /// EIP-3607.
    #[error("sender not an eoa: address {sender}, codehash: {code_hash}")]
    SenderNotEoa {
        /// Who sent it.
        sender: Address,
        /// Hash of the sender's code.
        code_hash: B256,
    },
    /// EIP-7702: a transaction of type 4 without authorizations.
    #[error("EIP-7702 transaction with empty auth list")]
    EmptyAuthList,
    /// Any other rule of the protocol.
    #[error("invalid transaction: {0}")]
    Other(String),
}

/// What of a transaction the words of an error need.
pub(crate) struct TxFacts {
    pub(crate) sender: Address,
    pub(crate) max_fee: u128,
    pub(crate) base_fee: u64,
    pub(crate) chain_id: Option<u64>,
    pub(crate) want_chain_id: u64,
    pub(crate) init_code: usize,
    pub(crate) init_code_limit: usize,
    pub(crate) code_hash: B256,
}

impl TxError {
    pub(crate) fn from_revm(error: InvalidTransaction, facts: &TxFacts) -> Self {
        use InvalidTransaction as E;
        match error {
            E::NonceTooLow { tx, state } => Self::NonceTooLow { next: state, tx },
            E::NonceTooHigh { tx, state } => Self::NonceTooHigh { next: state, tx },
            E::NonceOverflowInTransaction => Self::NonceMax,
            E::LackOfFundForMaxFee { fee, balance } => {
                Self::InsufficientFunds { balance: *balance, cost: *fee }
            }
            E::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
                Self::IntrinsicGas { gas: gas_limit, needed: initial_gas }
            }
            E::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
                Self::FloorGas { gas: gas_limit, needed: gas_floor }
            }
            E::CallerGasLimitMoreThanBlock | E::TxGasLimitGreaterThanCap { .. } => {
                Self::ExceedsBlockGas
            }
            E::GasPriceLessThanBasefee => Self::FeeBelowBase {
                sender: facts.sender,
                max_fee: facts.max_fee,
                base_fee: facts.base_fee,
            },
            E::PriorityFeeGreaterThanMaxFee => Self::TipAboveFee,
            E::CreateInitCodeSizeLimit => {
                Self::InitCodeSize { size: facts.init_code, limit: facts.init_code_limit }
            }
            E::InvalidChainId | E::MissingChainId => Self::ChainId {
                have: facts.chain_id.unwrap_or_default(),
                want: facts.want_chain_id,
            },
            E::RejectCallerWithCode => {
                Self::SenderNotEoa { sender: facts.sender, code_hash: facts.code_hash }
            }
            E::EmptyAuthorizationList => Self::EmptyAuthList,
            E::Eip4844NotSupported | E::EmptyBlobs | E::BlobCreateTransaction => {
                Self::TypeNotSupported
            }
            other => Self::Other(other.to_string()),
        }
    }
}

/// Why a call or an estimate has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The code reverted. The bytes are what it gave back (an encoded Solidity error, or nothing).
    #[error("execution reverted{}", reason_suffix(.0))]
    Revert(Bytes),
    /// The code stopped with an exception.
    #[error("{}", halt_words(.0))]
    Halt(HaltReason),
    /// The call breaks a rule of transactions.
    #[error(transparent)]
    Invalid(#[from] TxError),
    /// The fields of the request contradict one another.
    #[error("{0}")]
    Request(String),
    /// The gas that the caller can pay for does not suffice.
    #[error("gas required exceeds allowance ({0})")]
    Allowance(u64),
    /// The chain itself failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The state of that block is not there.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why there is no state for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No such block.
    #[error("header not found")]
    UnknownBlock,
    /// The block is older than the history that is kept.
    #[error(
        "missing trie node: the state of block {number} is not kept any more; the oldest block with state is {oldest}"
    )]
    Pruned {
        /// The block that was asked for.
        number: u64,
        /// The oldest block whose state can be read.
        oldest: u64,
    },
}

/// A failure of the chain itself.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// revm failed in a way that no transaction can cause.
    #[error("block execution failed: {0}; this is a fault of the chain, not of the transaction")]
    Execution(String),
    /// A block cannot be older than its parent.
    #[error("block timestamp {timestamp} is before that of its parent ({parent}); use a later one")]
    Timestamp {
        /// The timestamp asked for, in unix seconds.
        timestamp: u64,
        /// The timestamp of the head, in unix seconds.
        parent: u64,
    },
    /// A block belongs on the block that it was built on.
    #[error("the block was built on {parent}, but the head is {head}")]
    NotOnHead {
        /// Hash of its parent.
        parent: B256,
        /// Hash of the head.
        head: B256,
    },
    /// What was stored is no chain.
    #[error("the stored chain is damaged: {0}; restore a backup, or remove it and start anew")]
    Stored(String),
    /// A snapshot keeps a state in memory, so their number is bounded.
    #[error("too many snapshots: at most {0} are kept; revert to one of them first")]
    TooManySnapshots(usize),
}

/// Text of `Error(string)` or of a Solidity panic, as geth appends it.
pub fn revert_reason(output: &[u8]) -> Option<String> {
    use alloy::sol_types::{Panic, Revert, SolError};
    if let Ok(revert) = Revert::abi_decode(output) {
        return Some(revert.reason);
    }
    let panic = Panic::abi_decode(output).ok()?;
    let words = match panic.code.try_into().ok()? {
        0x00_u64 => "generic panic",
        0x01 => "assert(false)",
        0x11 => "arithmetic underflow or overflow",
        0x12 => "division or modulo by zero",
        0x21 => "enum overflow",
        0x22 => "invalid encoded storage byte array accessed",
        0x31 => "out-of-bounds array access; popping on an empty array",
        0x32 => "out-of-bounds access of an array or bytesN",
        0x41 => "out of memory",
        0x51 => "uninitialized function",
        other => return Some(format!("unknown panic code: {other:#x}")),
    };
    Some(words.to_owned())
}

fn reason_suffix(output: &Bytes) -> String {
    revert_reason(output).map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn halt_words(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(OutOfGasError::ReentrancySentry) => {
            "not enough gas for reentrancy sentry".to_owned()
        }
        HaltReason::OutOfGas(_) => "out of gas".to_owned(),
        HaltReason::OpcodeNotFound | HaltReason::NotActivated => "invalid opcode".to_owned(),
        HaltReason::InvalidFEOpcode => "invalid opcode: INVALID".to_owned(),
        HaltReason::InvalidJump => "invalid jump destination".to_owned(),
        HaltReason::StackUnderflow => "stack underflow".to_owned(),
        HaltReason::StackOverflow => "stack limit reached 1024".to_owned(),
        HaltReason::OutOfOffset => "return data out of bounds".to_owned(),
        HaltReason::CreateCollision => "contract address collision".to_owned(),
        HaltReason::NonceOverflow => "nonce uint64 overflow".to_owned(),
        HaltReason::CreateContractSizeLimit => "max code size exceeded".to_owned(),
        HaltReason::CreateContractStartingWithEF => {
            "invalid code: must not begin with 0xef".to_owned()
        }
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded".to_owned(),
        HaltReason::StateChangeDuringStaticCall => "write protection".to_owned(),
        HaltReason::OutOfFunds => "insufficient balance for transfer".to_owned(),
        HaltReason::CallTooDeep => "max call depth exceeded".to_owned(),
        other => format!("execution halted: {other:?}"),
    }
}
