//! For programs that ask: open a session, pay into it, submit requests, read the answers as they come, check what came
//! back, close the session.
//!
//! - [`Reader`] reads a network's chain and content store. It needs no key.
//! - [`Client`] is a reader with a key that pays: sessions, and tasks by transaction, without any router.
//! - [`Router`] is a router's HTTP API: answers as a stream, paid from the router's lane, or from a lane of one's own by
//!   requests that [`Client::sign`] has signed. A router can pass such a request on, and nothing else;
//!   [`AnswerStream::cancel`] ends its answer early. Log probabilities come with its answers where
//!   [`Question::top_logprobs`] asks for them, and in no other way.
//! - [`Reader::verify`] checks signatures, digests, seals and fees of a task's answers, tells where their proof stands on
//!   chain, and scores them where an [`assay_engine::Engine`] with the weights is at hand.
//!
//! Amounts are minor units of the session's asset (10^18 are one COR) unless a name says otherwise. Nothing here retries
//! behind the caller's back but transactions that a chain has lost.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod amount;
mod error;
mod events;
mod logprobs;
mod network;
mod question;
mod reader;
mod router;
mod session;
mod task;
mod verify;
mod wallet;

pub use amount::{AmountError, cor, ether, parse_cor};
pub use error::ClientError;
pub use network::{Network, ServedModel};
pub use question::Question;
pub use reader::{AnswerView, Reader, TaskView, events};
pub use router::{Answer, AnswerStream, Model, Piece, Router, Usage};
pub use session::{COR_ASSET, LaneView, Opening, SessionView};
pub use task::{SignedRequest, Submitted, Terms};
pub use verify::{AuditView, Finding, Verified};
pub use wallet::{Client, Wallet};
