//! Takes in the chain's events: what became of our tasks, and tasks that were given to us.

mod service;
mod state;

pub(crate) use service::Intake;
pub(crate) use state::{Lesson, lessons};
