//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

use alloy::{
    primitives::{Address, B256, U256},
    transports::TransportError,
};
use assay_chain::{ChainError, DatabaseError, OutboxError};
use assay_engine::EngineError;
use assay_store::StoreError;
use assay_types::{BlockError, TaskId};

use crate::cor;

/// Failure of a client's call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No description of a network.
    #[error(
        "no network is described in {}: start one with `assay up`, or name its folder with --data",
        path.display()
    )]
    NoNetwork {
        /// The file that was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// A description that is not one.
    #[error("{} cannot be read: start the network again to write it anew", path.display())]
    BadNetwork {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A description could not be written.
    #[error("{} cannot be written", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The chain cannot be used.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The memory of transactions fails.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The chain did not answer, or a contract refused a read.
    #[error("the chain could not be read: {0}")]
    Read(#[from] alloy::contract::Error),
    /// The chain did not answer.
    #[error("the chain did not answer: {0}")]
    Rpc(#[from] TransportError),
    /// What the chain answered is no event of the contracts.
    #[error("an event of the chain cannot be read: {0}")]
    Event(#[from] alloy::sol_types::Error),
    /// The contract refuses a call; nothing was sent.
    #[error("the contract refused {call}: {reason}")]
    Refused {
        /// The function.
        call: &'static str,
        /// The contract's error with its values.
        reason: String,
    },
    /// A transaction was mined and failed.
    #[error("transaction {transaction} of {call} was mined and failed: {reason}")]
    Failed {
        /// The function.
        call: &'static str,
        /// Its hash.
        transaction: B256,
        /// The contract's error with its values.
        reason: String,
    },
    /// A transaction could not be sent.
    #[error("{call} could not be sent: {source}")]
    NotSent {
        /// The function.
        call: &'static str,
        /// Why.
        source: OutboxError,
    },
    /// A transaction did not do what it is for.
    #[error("the transaction {0}")]
    NoEffect(&'static str),
    /// The account has too few tokens.
    #[error(
        "account {account} has {} and needs {}: send it {} more",
        cor(*balance), cor(*needed), cor(needed.saturating_sub(*balance))
    )]
    TooLittle {
        /// Whose.
        account: Address,
        /// Minor units.
        balance: U256,
        /// Minor units.
        needed: U256,
    },
    /// More than 96 bits of minor units.
    #[error("there is less COR than {}", cor(U256::from(*.0)))]
    TooMuch(u128),
    /// The lane is somebody else's.
    #[error(
        "lane {lane} of session {session} belongs to {holder}, not to {account}: open a session of your own with `assay session open`"
    )]
    NotHolder {
        /// The session.
        session: u64,
        /// The lane.
        lane: u32,
        /// Whose it is.
        holder: Address,
        /// Whose key this is.
        account: Address,
    },
    /// There is no such session or lane.
    #[error("session {session} has no lane {lane} that can be read: does it exist?")]
    NoLane {
        /// The session.
        session: u64,
        /// The lane.
        lane: u32,
        /// What the contract said.
        source: alloy::contract::Error,
    },
    /// A session whose nodes, or whose seed, are not there yet.
    #[error("session {session} is {state} and its nodes serve nobody now: wait until it is active")]
    NotReady {
        /// The session.
        session: u64,
        /// Its state.
        state: &'static str,
    },
    /// A question that no request can hold.
    #[error("the question does not fit: {0}")]
    Question(#[from] BlockError),
    /// Log probabilities are wanted where nobody states them.
    #[error("log probabilities cannot be had {0}")]
    NoLogprobs(&'static str),
    /// What a router says of its tokens cannot be.
    #[error("the router sent log probabilities that cannot be: {0}")]
    BadLogprobs(String),
    /// Too long for the model.
    #[error(
        "{max_output} tokens of answer leave no room for a prompt in the model's context of {max_context}: ask for fewer"
    )]
    NoRoom {
        /// Tokens wanted.
        max_output: u32,
        /// Tokens of the model.
        max_context: u32,
    },
    /// The content store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store named a block otherwise than its bytes do.
    #[error("the content store names the request {got}, but it is {expected}: use another store")]
    OtherDigest {
        /// What it is.
        expected: B256,
        /// What the store says.
        got: B256,
    },
    /// The key does not sign.
    #[error("the key does not sign: {0}")]
    Key(#[from] alloy::signers::Error),
    /// The chain does not know the task.
    #[error("there is no task {0} on this chain")]
    UnknownTask(TaskId),
    /// A task without any answer.
    #[error("task {0} has no answer to verify: see `assay task show {0}`")]
    NoAnswer(TaskId),
    /// A task that cannot be taken back.
    #[error(
        "task {task} is {state}: only a task that waits for a node to claim it (`--pull`) can be taken back"
    )]
    NotQueued {
        /// The task.
        task: TaskId,
        /// Its state.
        state: &'static str,
    },
    /// The task ended without an answer.
    #[error("task {0} was refunded: its node did not answer before the deadline. Submit it again")]
    Refunded(TaskId),
    /// Nobody has moved the task on.
    #[error(
        "task {0} is past its deadline and nobody has refunded it: is an oracle running? Anyone may call SessionQueue.advance"
    )]
    Late(TaskId),
    /// The model with which an answer was to be scored fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No router answers.
    #[error(
        "no router answers at {url}: start the network with `assay up`, or name another router"
    )]
    NoRouter {
        /// Its address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The router refused, in its own words.
    #[error("{message}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
    Router {
        /// HTTP status; `None` in the middle of a stream.
        status: Option<u16>,
        /// Stable code.
        code: Option<String>,
        /// What is wrong and what to do.
        message: String,
    },
    /// What came from the router is not what a router says.
    #[error("the router sent {0}: the answer cannot be relied on")]
    Garbled(&'static str),
    /// There is nothing to sign for yet.
    #[error(
        "no token has come that a cancellation could be for: read the answer until one has; one that the router pays for is ended by dropping it"
    )]
    NothingCame,
    /// The stream ended early.
    #[error("the stream broke off: the answer is not complete")]
    BrokenOff(#[source] Option<reqwest::Error>),
}
