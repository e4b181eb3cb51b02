//! One file per subcommand.

pub mod agents;
pub mod ask;
pub mod bench;
pub mod deploy;
pub mod node;
pub mod session;
pub mod task;
