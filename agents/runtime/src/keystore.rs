//! Encrypted keystores (Web3 Secret Storage), the only place where a private key is on disk.
//!
//! Key derivation is scrypt with N = 2^13, r = 8, p = 1: some 30 ms in a development build.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use alloy::signers::k256::elliptic_curve::rand_core::OsRng;
use alloy::signers::local::{LocalSignerError, PrivateKeySigner};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// A keystore has about 500 bytes; more than this is another file.
const MAX_KEYSTORE_BYTES: u64 = 64 * 1024;
/// Longest password file; a password is a line.
const MAX_PASSWORD_BYTES: u64 = 4096;
/// Largest scrypt cost N * r * p that is accepted: geth's 2^18 * 8, four times over. More would let a
/// foreign file take gigabytes of memory.
const MAX_SCRYPT_COST: u64 = 1 << 23;
/// Most rounds of PBKDF2 that are accepted: some seconds.
const MAX_PBKDF2_ROUNDS: u64 = 10_000_000;
/// Length of the derived key: its second half keys the check of the password.
const DERIVED_KEY_BYTES: u64 = 32;
/// Length in hexadecimal digits of the initialisation vector.
const IV_HEX_DIGITS: usize = 32;

/// A keystore cannot be used. No text holds anything of a key or a password.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// There is a file already; it is never overwritten.
    #[error("{} exists already; choose another name or move that keystore away", path.display())]
    Exists {
        /// Of the file.
        path: PathBuf,
    },
    /// The file is not there.
    #[error("no keystore at {}; check the path, or create one", path.display())]
    Missing {
        /// Of the file.
        path: PathBuf,
    },
    /// The password does not open it.
    #[error("wrong password for keystore {}; check the password file or variable", path.display())]
    WrongPassword {
        /// Of the file.
        path: PathBuf,
    },
    /// The file is no keystore that can be read.
    #[error("{} is not a usable keystore: {reason}; restore it from a backup", path.display())]
    Corrupt {
        /// Of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("keystore {}: {source}; check the folder and its permissions", path.display())]
    Io {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Encryption failed.
    #[error("keystore {} could not be encrypted: {source}", path.display())]
    Encrypt {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: LocalSignerError,
    },
}

/// Makes a new random key and stores it at `path`, encrypted, readable by its owner alone.
///
/// # Errors
/// If there is a file already, or it cannot be written.
pub fn create(path: &Path, password: &SecretString) -> Result<PrivateKeySigner, KeystoreError> {
    let signer = PrivateKeySigner::random();
    import(path, password, &signer)?;
    Ok(signer)
}

/// Stores a given key at `path`, encrypted, readable by its owner alone.
///
/// # Errors
/// If there is a file already, or it cannot be written.
pub fn import(
    path: &Path,
    password: &SecretString,
    signer: &PrivateKeySigner,
) -> Result<(), KeystoreError> {
    let io = |source| KeystoreError::Io { path: path.to_path_buf(), source };
    if path.exists() {
        return Err(KeystoreError::Exists { path: path.to_path_buf() });
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_folder(folder).map_err(io)?;
    // Written beside its final place and moved there whole, so that a crash leaves no half keystore.
    let name = format!(".new-{}-{:x}", std::process::id(), signer.address());
    let draft = folder.join(&name);
    let result =
        write_draft(folder, &name, password, signer, path).and_then(|()| publish(&draft, path));
    let _ = fs::remove_file(&draft);
    result
}

/// Opens the keystore at `path`. Takes some 30 ms of computing: in async code use `spawn_blocking`.
///
/// # Errors
/// Missing or unusable file, wrong password.
pub fn open(path: &Path, password: &SecretString) -> Result<PrivateKeySigner, KeystoreError> {
    let value = read_json(path)?;
    check_parameters(&value)
        .map_err(|reason| KeystoreError::Corrupt { path: path.to_path_buf(), reason })?;
    PrivateKeySigner::decrypt_keystore(path, password.expose_secret()).map_err(|error| {
        let text = error.to_string();
        if text.contains("Mac Mismatch") {
            KeystoreError::WrongPassword { path: path.to_path_buf() }
        } else {
            KeystoreError::Corrupt { path: path.to_path_buf(), reason: text }
        }
    })
}

/// Address of the keystore at `path`, if the file tells it; needs no password.
///
/// # Errors
/// Missing or unusable file.
pub fn address(path: &Path) -> Result<Option<Address>, KeystoreError> {
    let value = read_json(path)?;
    Ok(value.get("address").and_then(Value::as_str).and_then(|text| text.parse().ok()))
}

/// Reads a password from the first line of a file.
///
/// # Errors
/// If the file cannot be read or is empty or far too long.
pub fn password_from_file(path: &Path) -> Result<SecretString, KeystoreError> {
    let text = read_text(path, MAX_PASSWORD_BYTES)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(KeystoreError::Corrupt {
            path: path.to_path_buf(),
            reason: "the first line, which holds the password, is empty".into(),
        });
    }
    Ok(SecretString::from(line))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

/// An empty file that only its owner may read: the mode is there before the content.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn write_draft(
    folder: &Path,
    name: &str,
    password: &SecretString,
    signer: &PrivateKeySigner,
    target: &Path,
) -> Result<(), KeystoreError> {
    let io = |source| KeystoreError::Io { path: target.to_path_buf(), source };
    let draft = folder.join(name);
    drop(create_private(&draft).map_err(io)?);
    let mut secret = signer.to_bytes();
    let encrypted = PrivateKeySigner::encrypt_keystore(
        folder,
        &mut OsRng,
        secret,
        password.expose_secret(),
        Some(name),
    );
    secret.0.fill(0);
    encrypted.map_err(|source| KeystoreError::Encrypt { path: target.to_path_buf(), source })?;
    // The address lets people and tools tell keystores apart without a password, as geth's do.
    let mut value = read_json(&draft)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("address".into(), Value::String(format!("{:x}", signer.address())));
    }
    let mut file = OpenOptions::new().write(true).truncate(true).open(&draft).map_err(io)?;
    file.write_all(value.to_string().as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Gives the draft its name; unlike a rename this never replaces a file.
fn publish(draft: &Path, path: &Path) -> Result<(), KeystoreError> {
    fs::hard_link(draft, path).map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            KeystoreError::Exists { path: path.to_path_buf() }
        } else {
            KeystoreError::Io { path: path.to_path_buf(), source }
        }
    })
}

fn read_text(path: &Path, limit: u64) -> Result<String, KeystoreError> {
    let io = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            KeystoreError::Missing { path: path.to_path_buf() }
        } else {
            KeystoreError::Io { path: path.to_path_buf(), source }
        }
    };
    let mut text = String::new();
    let file = File::open(path).map_err(io)?;
    file.take(limit + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > limit {
        return Err(KeystoreError::Corrupt {
            path: path.to_path_buf(),
            reason: format!("it has more than {limit} bytes"),
        });
    }
    Ok(text)
}

fn read_json(path: &Path) -> Result<Value, KeystoreError> {
    let text = read_text(path, MAX_KEYSTORE_BYTES)?;
    serde_json::from_str(&text).map_err(|error| KeystoreError::Corrupt {
        path: path.to_path_buf(),
        reason: format!("it is not JSON ({error})"),
    })
}

/// The decryption trusts its parameters; a damaged or hostile file must not make it panic or eat the
/// machine's memory.
fn check_parameters(value: &Value) -> Result<(), String> {
    let crypto = value.get("crypto").ok_or("it has no `crypto` part")?;
    let parameters = crypto.get("kdfparams").ok_or("it has no `kdfparams`")?;
    let number = |name: &str| parameters.get(name).and_then(Value::as_u64);
    if number("dklen") != Some(DERIVED_KEY_BYTES) {
        return Err(format!("`dklen` is not {DERIVED_KEY_BYTES}"));
    }
    let iv = crypto.pointer("/cipherparams/iv").and_then(Value::as_str).unwrap_or_default();
    if iv.len() != IV_HEX_DIGITS {
        return Err(format!("`iv` has not {IV_HEX_DIGITS} digits"));
    }
    if let Some(rounds) = number("c") {
        return if rounds == 0 || rounds > MAX_PBKDF2_ROUNDS {
            Err(format!("its {rounds} rounds of PBKDF2 are out of bounds"))
        } else {
            Ok(())
        };
    }
    let (Some(n), Some(r), Some(p)) = (number("n"), number("r"), number("p")) else {
        return Err("its key derivation is neither scrypt nor PBKDF2".into());
    };
    let cost = n.checked_mul(r).and_then(|nr| nr.checked_mul(p));
    if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 || cost.is_none_or(|c| c > MAX_SCRYPT_COST)
    {
        return Err("its scrypt parameters are out of bounds".into());
    }
    Ok(())
}
