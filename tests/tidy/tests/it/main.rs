//! Rules of the repository. Each failure says which file breaks which rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod abi;
mod crates;
mod files;
mod properties;
mod refusals;
