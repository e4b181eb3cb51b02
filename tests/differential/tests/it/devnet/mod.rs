//! The embedded chain and anvil (the real program) get the same transactions and calls.
//!
//! They must agree on receipts, logs, gas, roots, storage, code, balances, nonces and errors. Where they
//! do not, [`differences`] says so, with the reason, and the tests also fail when a difference that is
//! listed there no longer exists.

mod cast;
mod deviations;
mod differences;
mod errors;
mod pair;
mod programs;
mod random;
mod reorg;
