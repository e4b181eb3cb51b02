//! The engine on the demo model, and on damaged copies of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod answers;
mod calibration;
mod files;
mod logprobs;
mod scoring;
mod support;
