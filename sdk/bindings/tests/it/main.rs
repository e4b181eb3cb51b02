//! Tests of the bindings against the committed vectors and against anvil.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anvil;
mod deploy;
mod script;
mod vectors;
