//! Pushes deadlines and relays beacon values; anyone may run one
//!
//! The protocol waits for nobody: every state that is not final has a function that anyone may call
//! when its time has come. This agent calls them: it reveals the beacon rounds that something waits for
//! (block hashes, or drand's signatures from its public relays), draws the nodes of sessions and replaces
//! them when their time is over, draws and settles what nobody settled, moves tasks past their deadline on, tells
//! contracts their answers, and ends sessions. Of proven sessions it names the rounds that draw audits, convenes
//! panels, judges hearings, moves on audits whose validator, miner or panel was silent, and pays validators who do not
//! collect. Several at once do no harm: whoever comes second is refused while estimating.
//!
//! ```text
//!  chain ──► EventSource ──ChainEvent──► keeper ──Intent──► Outbox ──► chain
//!            (intake)                    (work)             (output)
//! ```
//!
//! The keeper stores what it learnt together with the cursor; its decisions are in `keeper/state.rs`,
//! which has no IO and no clock.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod config;
pub mod drand;
mod keeper;
mod wiring;

pub use config::{OracleConfig, OracleError};
pub use keeper::state;
pub use wiring::{OracleHandle, start};
