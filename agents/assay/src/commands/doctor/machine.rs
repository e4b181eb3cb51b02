//! Checks of this machine: what listens, what is free, what is readable.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Stdio,
};

use assay_engine_mistral::ModelSource;
use tokio::process::Command;

use super::{Patient, Said};
use crate::keys;

/// Below this answers and blocks may soon not be stored.
const LOW_DISK_BYTES: u64 = 5 << 30;
/// Below this a database may not be able to finish what it began.
const NO_DISK_BYTES: u64 = 512 << 20;
/// Where `assay up` listens unless told otherwise, and the flag that tells it.
const PORTS: [(u16, &str); 3] = [(8080, "--http"), (8545, "--rpc"), (5001, "--ipfs")];

pub async fn ports(patient: &Patient) -> Said {
    if patient.network.is_some() {
        return Said::skipped(
            "a network is described: its ports are checked with what serves there",
        );
    }
    let taken: Vec<String> = PORTS
        .iter()
        .filter(|(port, _)| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err())
        .map(|(port, flag)| format!("{port} (choose another with {flag})"))
        .collect();
    match taken.is_empty() {
        true => Said::ok("8080, 8545 and 5001 are free for `assay up`"),
        false => Said::warning(
            format!("in use: {}", taken.join(", ")),
            "end what listens there, or give `assay up` other ports",
        ),
    }
}

/// The folder, or the nearest one above that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."))
}

pub async fn disk(patient: &Patient) -> Said {
    let path = existing(&patient.data);
    // POSIX names the columns; the fourth is what is available, in units of 1024 bytes.
    let output = Command::new("df").arg("-Pk").arg(path).stderr(Stdio::null()).output().await;
    let free = output.ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        let kib: u64 = text.lines().last()?.split_whitespace().nth(3)?.parse().ok()?;
        kib.checked_mul(1024)
    });
    let Some(free) = free else { return Said::skipped("`df` does not tell how much is free") };
    let detail = format!("{:.1} GiB free at {}", free as f64 / f64::from(1 << 30), path.display());
    let remedy = "make room, or name another folder with --data";
    match free {
        0..NO_DISK_BYTES => Said::failed(detail, remedy),
        NO_DISK_BYTES..LOW_DISK_BYTES => Said::warning(detail, remedy),
        _ => Said::ok(detail),
    }
}

/// Writable, not read by others, and whether a network runs in it.
pub async fn data_folder(patient: &Patient) -> Said {
    let data = &patient.data;
    if !data.exists() {
        return Said::skipped(format!("{} is not there yet", data.display()));
    }
    let probe = data.join(format!(".doctor-{}", std::process::id()));
    let written = fs::File::create(&probe).and_then(|mut file| file.write_all(b"doctor"));
    let _ = fs::remove_file(&probe);
    if let Err(error) = written {
        let detail = format!("{} cannot be written: {error}", data.display());
        return Said::failed(detail, "give this user write permission, or name another folder");
    }
    if let Some(detail) = open_keys(&keys::folder(data)) {
        return Said::failed(detail, "`chmod 600` these files: they hold keys");
    }
    let running = fs::File::open(data.join("up.lock"))
        .is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)));
    match (running, patient.network.is_some()) {
        (true, _) => Said::ok(format!("{}; `assay up` runs in it", data.display())),
        (false, true) if data.join("up.json").exists() => Said::warning(
            format!("{} describes a network, but no `assay up` runs in it", data.display()),
            "it was killed: `assay up` goes on with it",
        ),
        _ => Said::ok(data.display().to_string()),
    }
}

/// Keystores that other users can read.
#[cfg(unix)]
fn open_keys(folder: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS: u32 = 0o077;
    let open: Vec<String> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|file| file.metadata().is_ok_and(|meta| meta.permissions().mode() & OTHERS != 0))
        .map(|file| file.path().display().to_string())
        .collect();
    (!open.is_empty()).then(|| format!("others can read {}", open.join(", ")))
}

#[cfg(not(unix))]
fn open_keys(_: &Path) -> Option<String> {
    None
}

pub async fn model(patient: &Patient) -> Said {
    let name = &patient.args.model;
    let missing = |path: &Path, what: &str| {
        let remedy = "name a model that is there with --model, e.g. assay-demo";
        Said::failed(format!("{} is no {what}", path.display()), remedy)
    };
    match ModelSource::parse(name) {
        ModelSource::Demo => Said::ok("assay-demo is part of this program"),
        ModelSource::Gguf(path) => match fs::File::open(&path) {
            Ok(_) => Said::ok(format!("{} can be read", path.display())),
            Err(_) => missing(&path, "readable file"),
        },
        ModelSource::Directory(path) => match path.join("config.json").is_file() {
            true => Said::ok(format!("{} has a config.json", path.display())),
            false => missing(&path, "folder with a model's config.json"),
        },
        ModelSource::Hub(id) => Said::warning(
            format!("{id} is of the Hugging Face hub"),
            "the first start downloads it",
        ),
    }
}
