//! The demo model: part of the program, unpacked where mistral.rs can read it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use assay_engine::EngineError;
use sha2::{Digest, Sha256};

include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// Name of the demo model.
pub const DEMO_MODEL: &str = "assay-demo";
/// What `assay model calibrate` measured of it.
pub(crate) const DEMO_CALIBRATION: &str = include_str!("../demo-model/calibration.json");

/// Writes the demo model's files below `data_dir` and returns their folder. A file that is there with
/// the right sha-256 is left alone; any other is replaced, atomically, so that several programs may
/// unpack at once.
///
/// # Errors
/// [`EngineError::BadModel`] if this build holds no demo model or the folder cannot be written.
pub fn unpack(data_dir: &Path) -> Result<PathBuf, EngineError> {
    let wrong = |reason: String, remedy: &str| EngineError::BadModel {
        model: DEMO_MODEL.into(),
        reason,
        remedy: remedy.into(),
    };
    if FILES.is_empty() {
        let remedy =
            "run agents/engine-mistral/demo-model/make.py and build again, or choose another model";
        return Err(wrong("this program was built without its files".into(), remedy));
    }
    let folder = data_dir.join(DEMO_MODEL);
    let unpack_all = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        remove_strangers(&folder)?;
        FILES.iter().try_for_each(|(name, bytes)| write(&folder.join(name), bytes))
    };
    unpack_all().map_err(|error| {
        let reason = format!("it cannot be unpacked to {}: {error}", folder.display());
        wrong(reason, "check that the data folder may be written and has 20 MB of space")
    })?;
    Ok(folder)
}

/// Files of an older demo model would be loaded together with the new ones.
fn remove_strangers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = |name: &str| FILES.iter().any(|(ours, _)| *ours == name);
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // Dot files are being written by another program right now.
        if path.is_file() && !is_ours(name) && !name.starts_with('.') {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Ok(there) = fs::read(path)
        && Sha256::digest(&there) == Sha256::digest(bytes)
    {
        return Ok(());
    }
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}
