//! Proof of Inference, as far as it is a miner's: opens what it recorded when its answers are audited, examines the
//! answers of others when it is drawn, and has its pay paid out.
//!
//! ```text
//! chain events ─▶ intake ─▶ told (database) ─▶ duty ─▶ state ─▶ work ─▶ findings (database) ─▶ outbox
//! ```
//!
//! What is to be done follows from what the chain told, so that a node that was down goes on where the audit is by then.
//! What it finds is stored before its seal leaves the node, and the database refuses other findings ever after.

mod duty;
mod evidence;
mod lessons;
mod material;
mod own;
mod published;
mod service;
mod state;
mod told;
mod work;

pub(crate) use lessons::{Lesson, lessons};
pub(crate) use service::Audits;
pub(crate) use told::take;
pub(crate) use work::Auditor;
