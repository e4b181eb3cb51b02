//! Looks for changes of the file of keys.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    file::{KeyFile, KeysError},
    ring::Keyring,
};

/// How often the file is looked at: a revoked key works so much longer at most. It costs microseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Reads the file now; what [`watch`] goes on with.
///
/// # Errors
/// If the file cannot be read.
pub fn open(folder: PathBuf) -> Result<(Arc<Keyring>, Watched), KeysError> {
    let file = KeyFile::open(&folder)?;
    let (ring, version) = (Arc::new(Keyring::default()), file.version()?);
    ring.replace(file.all()?);
    Ok((ring.clone(), Watched { ring, file, version }))
}

/// A file that is looked at.
pub struct Watched {
    ring: Arc<Keyring>,
    file: KeyFile,
    version: u32,
}

impl Watched {
    /// Takes over what has changed.
    fn look(mut self) -> Result<Self, KeysError> {
        let version = self.file.version()?;
        if version != self.version {
            self.version = version;
            self.ring.replace(self.file.all()?);
        }
        Ok(self)
    }
}

/// Looks for changes until `stop`.
///
/// # Errors
/// If the file cannot be read: a router that sees no revocation must not go on.
pub async fn watch(mut watched: Watched, stop: CancellationToken) -> Result<(), KeysError> {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        watched = spawn_blocking(move || watched.look()).await??;
    }
}
