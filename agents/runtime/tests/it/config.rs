use std::path::PathBuf;

use assay_runtime::config::load_config_from;
use assay_runtime::{ConfigError, Override};
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Store {
    url: String,
    timeout_ms: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "http://default".into(), timeout_ms: 1000 }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Push,
    Pull,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    name: String,
    slots: u8,
    ratio: f64,
    verbose: bool,
    mode: Mode,
    routers: Vec<String>,
    limit: Option<u32>,
    data: PathBuf,
    store: Store,
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let (_folder, path) =
        file("name = 'file'\nslots = 1\nratio = 0.5\n[store]\nurl = 'http://file'\n");
    let environment = env(&[
        ("ASSAY_T_NAME", "env"),
        ("ASSAY_T_SLOTS", "2"),
        ("ASSAY_T_STORE__URL", "http://env"),
        ("OTHER_NAME", "not ours"),
    ]);
    let flags = [Override::new("name", "flag"), Override::new("store.timeout_ms", "5")];
    let config: Config = load_config_from(Some(&path), "ASSAY_T", environment, &flags).unwrap();
    let expected = Config {
        name: "flag".into(),
        slots: 2,
        ratio: 0.5,
        store: Store { url: "http://env".into(), timeout_ms: 5 },
        ..Config::default()
    };
    assert_eq!(config, expected);
    let nothing: Config = load_config_from(None, "ASSAY_T", env(&[]), &[]).unwrap();
    assert_eq!(nothing, Config::default());
}

#[test]
fn texts_take_the_type_of_their_field() {
    let environment = env(&[
        ("ASSAY_T_NAME", "12"),
        ("ASSAY_T_VERBOSE", "true"),
        ("ASSAY_T_MODE", "pull"),
        ("ASSAY_T_ROUTERS", "ws://a, ws://b"),
        ("ASSAY_T_LIMIT", "7"),
        ("ASSAY_T_DATA", "/data"),
        ("ASSAY_T_RATIO", "2"),
    ]);
    let config: Config = load_config_from(None, "ASSAY_T", environment, &[]).unwrap();
    assert_eq!(config.name, "12");
    assert!(config.verbose);
    assert_eq!(config.mode, Mode::Pull);
    assert_eq!(config.routers, ["ws://a", "ws://b"]);
    assert_eq!(config.limit, Some(7));
    assert_eq!(config.data, PathBuf::from("/data"));
    assert!((config.ratio - 2.0).abs() < f64::EPSILON);
}

#[test]
fn what_does_not_fit_is_named_and_its_value_is_not_shown() {
    let load = |pairs: &[(&str, &str)], flags: &[Override]| {
        load_config_from::<Config>(None, "ASSAY_T", env(pairs), flags).unwrap_err().to_string()
    };
    let text = load(&[("ASSAY_T_SLOTS", "hunter2")], &[]);
    assert!(text.contains("ASSAY_T_SLOTS") && !text.contains("hunter2"), "{text}");
    let text = load(&[("ASSAY_T_SLOTS", "300")], &[]);
    assert!(text.contains("ASSAY_T_SLOTS") && text.contains("fits"), "{text}");
    let text = load(&[], &[Override::new("slotz", "1")]);
    assert!(text.contains("slotz") && text.contains("slots"), "{text}");
    let text = load(&[("ASSAY_T_MODE", "sideways")], &[]);
    assert!(text.contains("ASSAY_T_MODE") && text.contains("push"), "{text}");
    let text = load(&[("ASSAY_T_NAME", "a"), ("ASSAY_T_NAME__FIRST", "b")], &[]);
    assert!(text.contains("ASSAY_T_NAME__FIRST") && text.contains("name"), "{text}");
}

#[test]
fn a_bad_file_is_named() {
    let missing = PathBuf::from("/nonexistent/agent.toml");
    let error = load_config_from::<Config>(Some(&missing), "ASSAY_T", env(&[]), &[]).unwrap_err();
    assert!(matches!(&error, ConfigError::Read { .. }));
    assert!(error.to_string().contains("/nonexistent/agent.toml"));

    let (_folder, path) = file("name = \n");
    let error = load_config_from::<Config>(Some(&path), "ASSAY_T", env(&[]), &[]).unwrap_err();
    assert!(matches!(&error, ConfigError::Syntax { .. }));
    assert!(error.to_string().contains("agent.toml"));

    let (_folder, path) = file("slots = 'many'\n");
    let error = load_config_from::<Config>(Some(&path), "ASSAY_T", env(&[]), &[]).unwrap_err();
    assert!(matches!(&error, ConfigError::Invalid(_)), "{error}");
}
