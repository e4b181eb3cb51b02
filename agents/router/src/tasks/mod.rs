//! A task from its request to its checked answer.

pub mod carry;
pub mod chores;
pub mod conversations;
pub mod dispatch;
pub mod hedge;
pub mod pace;
pub mod room;
pub mod running;
pub mod telemetry;
mod turns;
