//! Why an audit cannot be made. What is wrong with the network itself is no error: it stands in the report.

use alloy::transports::TransportError;

/// The audit could not be made, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The RPC failed.
    #[error(
        "the chain's RPC did not answer {call}: {source}; check that it is up, then run the same command again"
    )]
    Rpc {
        /// What was asked for.
        call: &'static str,
        /// Why.
        source: TransportError,
    },
    /// The range is empty or beyond the head.
    #[error(
        "there are no blocks {from} to {to}: the chain's newest block is {head}; choose --from and --to up to it"
    )]
    NoRange {
        /// First block that was asked for.
        from: u64,
        /// Last block that was asked for.
        to: u64,
        /// The newest.
        head: u64,
    },
    /// The contracts are not there at the end of the range.
    #[error(
        "{contract} is not deployed at {address} up to block {to}: choose a later --to, or name the network's folder with --data"
    )]
    NotDeployed {
        /// Its name.
        contract: &'static str,
        /// Where it should be.
        address: alloy::primitives::Address,
        /// End of the range.
        to: u64,
    },
    /// The state that the chain began with cannot be had.
    #[error(
        "the state that development chain {chain_id} began with cannot be had from this RPC ({reason}): ask the node that \
         makes the chain's blocks"
    )]
    NoGenesis {
        /// The chain.
        chain_id: u64,
        /// Why.
        reason: String,
    },
    /// The RPC proves nothing.
    #[error(
        "the RPC has no eth_getProof ({source}), so that nothing it says of this chain's state can be checked: name one that \
         has it (geth, reth, erigon, nethermind and besu do)"
    )]
    NoProofs {
        /// What the RPC says.
        source: TransportError,
    },
    /// The RPC no longer has a block.
    #[error(
        "the RPC has no block {block} any more: begin with a later --from, or use an archive node"
    )]
    Pruned {
        /// The block.
        block: u64,
    },
    /// What the RPC says contradicts itself, or what it proved before.
    #[error(
        "what the RPC says of block {block} is not true: {what}; audit over another RPC, and trust this one no longer"
    )]
    Untrue {
        /// The block.
        block: u64,
        /// What shows it.
        what: String,
    },
    /// A transaction that Ethereum does not know.
    #[error(
        "transaction {index} of block {block} is of type {kind:#04x} ({}): this program executes Ethereum's transactions (types 0 to 4), so \
         that no block of this chain can be audited by replay",
        kind_words(*kind)
    )]
    Unsupported {
        /// The block.
        block: u64,
        /// Its place in the block.
        index: usize,
        /// The type.
        kind: u64,
    },
    /// A block follows other rules than Ethereum's since proof of stake.
    #[error(
        "block {block} follows rules that this program does not know: those before proof of stake, or newer ones than \
         Osaka's; choose another range, or a newer version of this program"
    )]
    Rules {
        /// The block.
        block: u64,
    },
    /// The RPC has forgotten the state at the end of the range.
    #[error(
        "the RPC has no state of block {block} any more ({source}): choose newer blocks with --from and --to, or use an archive node"
    )]
    NoState {
        /// The block.
        block: u64,
        /// What the RPC says.
        source: TransportError,
    },
    /// The contracts are of another version.
    #[error(
        "the contracts are of another version than this program: {reason}; use the program that they were deployed with"
    )]
    OtherVersion {
        /// What shows it.
        reason: String,
    },
    /// The blocks changed while they were audited.
    #[error("the chain was reorganised at block {number} during the audit: run it again")]
    Reorganised {
        /// The first block that has another parent.
        number: u64,
    },
    /// Where the audit writes down how far it is cannot be used.
    #[error(
        "what an interrupted audit left in {} cannot be used: {reason}; give --fresh to begin anew",
        folder.display()
    )]
    Journal {
        /// The folder.
        folder: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another audit writes down there how far it is.
    #[error(
        "another audit of the same contracts runs, in {}: end it, or name another folder with --data",
        folder.display()
    )]
    Busy {
        /// The folder.
        folder: std::path::PathBuf,
    },
    /// A thread of the audit ended.
    #[error("a part of the audit ended before it was done: {0}")]
    Stopped(String),
}

/// Who makes transactions of a type.
const fn kind_words(kind: u64) -> &'static str {
    match kind {
        0x7e => "a deposit of the OP stack",
        0x64..=0x6a => "a transaction of Arbitrum's own",
        0x71 | 0xff => "a transaction of zkSync's own",
        _ => "of the chain's own",
    }
}
