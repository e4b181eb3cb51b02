//! Keystores: the accounts of a development network, and keys that a user names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use alloy::{primitives::Address, signers::local::PrivateKeySigner};
use anyhow::{Context, Result, bail};
use assay_runtime::keystore;
use secrecy::SecretString;

use crate::{args::KeyArgs, network::data_folder};

/// Password of the keystores that `assay up` makes. It is published here on purpose: these accounts
/// exist on a development chain alone and hold nothing of value. ASSAY_PASSWORD replaces it.
const DEVELOPMENT_PASSWORD: &str = "assay-development";
const PASSWORD_VARIABLE: &str = "ASSAY_PASSWORD";

/// Folder of the keystores that `assay up` makes.
pub fn folder(data: &Path) -> PathBuf {
    data.join("keys")
}

fn environment_password() -> Option<SecretString> {
    std::env::var(PASSWORD_VARIABLE).ok().filter(|text| !text.is_empty()).map(SecretString::from)
}

/// The password of a development network's keystores.
pub fn development_password() -> SecretString {
    environment_password().unwrap_or_else(|| SecretString::from(DEVELOPMENT_PASSWORD.to_owned()))
}

/// Opens the key that the flags name; `default_account` is one of the development network's.
pub fn open(
    args: &KeyArgs,
    data: Option<&Path>,
    default_account: &str,
) -> Result<PrivateKeySigner> {
    if let Some(path) = &args.keystore {
        let password = password(args)?.with_context(|| {
            format!(
                "{} is encrypted: give its password in {PASSWORD_VARIABLE} or with --password-file",
                path.display()
            )
        })?;
        return Ok(keystore::open(path, &password)?);
    }
    let name = args.account.as_deref().unwrap_or(default_account);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        bail!("{name:?} is not the name of an account: use one of those that `assay up` prints");
    }
    let path = folder(&data_folder(data)?).join(format!("{name}.json"));
    if !path.exists() {
        bail!(
            "there is no keystore {}: name a key with --keystore <file>, or an account of `assay up` with --account",
            path.display()
        );
    }
    let password = password(args)?.unwrap_or_else(development_password);
    Ok(keystore::open(&path, &password)?)
}

fn password(args: &KeyArgs) -> Result<Option<SecretString>> {
    match &args.password_file {
        Some(path) => Ok(Some(keystore::password_from_file(path)?)),
        None => Ok(environment_password()),
    }
}

/// The keys of the folder by name; no password is needed for their addresses.
pub fn keyring(data: &Path) -> BTreeMap<String, Address> {
    let files = std::fs::read_dir(folder(data)).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let name = file.path().file_stem()?.to_str()?.to_owned();
            Some((name, keystore::address(&file.path()).ok()??))
        })
        .collect()
}

/// An account of a development network.
pub struct Account {
    pub name: String,
    pub signer: PrivateKeySigner,
}

impl Account {
    pub fn address(&self) -> Address {
        self.signer.address()
    }
}

/// Opens or makes the keystores `names` side by side: each costs a deliberately slow key derivation.
pub async fn development_accounts(data: &Path, names: Vec<String>) -> Result<Vec<Account>> {
    let folder = folder(data);
    let work = names.into_iter().map(|name| {
        let path = folder.join(format!("{name}.json"));
        tokio::task::spawn_blocking(move || -> Result<Account> {
            let password = development_password();
            let signer = if path.exists() {
                keystore::open(&path, &password)?
            } else {
                keystore::create(&path, &password)?
            };
            Ok(Account { name, signer })
        })
    });
    futures::future::try_join_all(work).await?.into_iter().collect()
}
