//! Keystores and password files, which may come from elsewhere.

use std::fs;

use assay_fuzz::Target;
use assay_runtime::keystore;
use secrecy::SecretString;

use crate::{FEW, MANY};

fn sound() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    keystore::create(&path, &SecretString::from("password")).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn fuzz_keystores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.json");
    let target = Target::new("keystores", vec![sound()], FEW);
    target
        .run(|input| {
            fs::write(&path, input).unwrap();
            let _ = keystore::open(&path, &SecretString::from("password"));
        })
        .unwrap();
}

#[test]
fn fuzz_addresses_and_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let inputs = vec![sound(), b"password\r\nsecond line".to_vec()];
    Target::new("passwords", inputs, MANY / 2)
        .run(|input| {
            fs::write(&path, input).unwrap();
            let _ = keystore::address(&path);
            let _ = keystore::password_from_file(&path);
        })
        .unwrap();
}
