use std::path::Path;

use alloy::hex;
use assay_runtime::keystore::{self, KeystoreError};
use secrecy::SecretString;

fn password() -> SecretString {
    SecretString::from("correct horse")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_key_comes_back_and_is_not_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/miner.json");
    let signer = keystore::create(&path, &password()).unwrap();
    let opened = keystore::open(&path, &password()).unwrap();
    assert_eq!(opened, signer);
    assert_eq!(keystore::address(&path).unwrap(), Some(signer.address()));
    let secret = hex::encode(signer.to_bytes());
    assert!(!text(&path).to_lowercase().contains(&secret));
    assert!(!format!("{signer:?}").to_lowercase().contains(&secret));
    assert!(!format!("{:?}", password()).contains("horse"));
    // Nothing is left beside it.
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn two_keys_are_different_and_an_import_keeps_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let one = keystore::create(&folder.path().join("a"), &password()).unwrap();
    let two = keystore::create(&folder.path().join("b"), &password()).unwrap();
    assert_ne!(one.address(), two.address());
    let path = folder.path().join("c");
    keystore::import(&path, &password(), &one).unwrap();
    assert_eq!(keystore::open(&path, &password()).unwrap(), one);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/miner.json");
    keystore::create(&path, &password()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn a_wrong_password_is_told_apart_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    keystore::create(&path, &password()).unwrap();
    let wrong = SecretString::from("battery staple");
    let error = keystore::open(&path, &wrong).unwrap_err();
    assert!(matches!(&error, KeystoreError::WrongPassword { .. }), "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("wrong password") || text.contains("WrongPassword"));
    assert!(!text.contains("staple"));
}

#[test]
fn a_keystore_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    keystore::create(&path, &password()).unwrap();
    let before = text(&path);
    let error = keystore::create(&path, &password()).unwrap_err();
    assert!(matches!(error, KeystoreError::Exists { .. }));
    assert_eq!(text(&path), before);
}

#[test]
fn damaged_and_hostile_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let error = keystore::open(&path, &password()).unwrap_err();
    assert!(matches!(error, KeystoreError::Missing { .. }));
    keystore::create(&path, &password()).unwrap();
    let good = text(&path);
    let iv_start = good.find("\"iv\":\"").unwrap() + 6;
    let mut short_iv = good.clone();
    short_iv.replace_range(iv_start..iv_start + 2, "");
    let cases = [
        String::new(),
        "[1]".into(),
        "x".repeat(100_000),
        good[..good.len() / 2].to_string(),
        good.replace("\"dklen\":32", "\"dklen\":8"),
        good.replace("\"n\":8192", "\"n\":1073741824"),
        good.replace("\"n\":8192", "\"n\":0"),
        good.replace("\"p\":1", "\"p\":0"),
        short_iv,
    ];
    for case in cases {
        assert_ne!(case, good);
        std::fs::write(&path, &case).unwrap();
        let error = keystore::open(&path, &password()).unwrap_err();
        assert!(matches!(&error, KeystoreError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_password_is_the_first_line_of_its_file() {
    use secrecy::ExposeSecret;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "correct horse\nnot this\n").unwrap();
    assert_eq!(keystore::password_from_file(&path).unwrap().expose_secret(), "correct horse");
    std::fs::write(&path, "\n").unwrap();
    assert!(keystore::password_from_file(&path).is_err());
}
