//! `--config <file>`: a TOML file with a section for each command, e.g. `[up]` with `miners = 2`.
//!
//! A setting has the name of its flag. Flags go before the environment, the environment before the file. Any
//! setting of a file can also be given as `ASSAY_CONFIG_<COMMAND>__<SETTING>`.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result, bail};
use assay_runtime::load_config;
use clap::{ArgMatches, Command, CommandFactory, parser::ValueSource};
use toml::{Table, Value};

use crate::args::Cli;

/// Prefix of the variables that stand for settings of the file.
const PREFIX: &str = "ASSAY_CONFIG";

/// `argv`, completed with what the configuration file says and the command line and the environment do not.
pub fn complete(argv: Vec<OsString>) -> Result<Vec<OsString>> {
    let command = Cli::command();
    // Errors of the command line itself are reported by the real parse that follows.
    let Ok(matches) = command.clone().try_get_matches_from(&argv) else { return Ok(argv) };
    let Some(path) = matches.get_one::<PathBuf>("config") else { return Ok(argv) };
    let settings: Table = load_config(Some(path), PREFIX, &[])?;
    let Some((name, given)) = matches.subcommand() else { return Ok(argv) };
    for section in settings.keys() {
        if command.find_subcommand(section).is_none() {
            bail!(
                "{}: there is no command `{section}` for the section [{section}]",
                path.display()
            );
        }
    }
    let Some(section) = settings.get(name) else { return Ok(argv) };
    let section = section
        .as_table()
        .with_context(|| format!("{}: `{name}` must be a section, [{name}]", path.display()))?;
    let subcommand = command.find_subcommand(name).context("the command is not known")?;
    let mut argv = argv;
    for (key, value) in section {
        let added = flags(subcommand, given, key, value)
            .with_context(|| format!("{}: section [{name}]", path.display()))?;
        argv.extend(added.into_iter().map(OsString::from));
    }
    Ok(argv)
}

/// The flags that one setting stands for; none if the command line or the environment decide.
fn flags(command: &Command, given: &ArgMatches, key: &str, value: &Value) -> Result<Vec<String>> {
    let long = key.replace('_', "-");
    let Some(arg) = command.get_arguments().find(|arg| arg.get_long() == Some(&long)) else {
        let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        bail!("there is no setting `{key}`; there are {}", known.join(", "));
    };
    let source = given.value_source(arg.get_id().as_str());
    if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
        return Ok(Vec::new());
    }
    let one = |value: &Value| match value {
        Value::String(text) => Ok(format!("--{long}={text}")),
        Value::Integer(_) | Value::Float(_) => Ok(format!("--{long}={value}")),
        other => bail!("`{key}` cannot be {}: write a text or a number", other.type_str()),
    };
    match value {
        Value::Boolean(true) => Ok(vec![format!("--{long}")]),
        Value::Boolean(false) => Ok(Vec::new()),
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete_with(file: &str, rest: &[&str]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assay.toml");
        std::fs::write(&path, file).unwrap();
        let mut argv: Vec<OsString> = vec!["assay".into(), "--config".into(), path.into()];
        argv.extend(rest.iter().map(OsString::from));
        let argv = complete(argv)?;
        Ok(argv.into_iter().skip(3).map(|arg| arg.into_string().unwrap()).collect())
    }

    #[test]
    fn the_file_fills_in_what_flags_do_not_say() {
        let file = "[up]\nminers = 2\nhttp = \"127.0.0.1:9000\"\n[miner]\nrouter = [\"ws://a/link\", \"ws://b/link\"]\n";
        let up = complete_with(file, &["up", "--miners", "3"]).unwrap();
        assert_eq!(up, ["up", "--miners", "3", "--http=127.0.0.1:9000"]);
        let miner = complete_with(file, &["miner"]).unwrap();
        assert_eq!(miner, ["miner", "--router=ws://a/link", "--router=ws://b/link"]);
        assert_eq!(complete_with(file, &["ask", "x"]).unwrap(), ["ask", "x"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (file, part) in [
            ("[up]\nminer = 2\n", "no setting `miner`"),
            ("[down]\n", "no command `down`"),
            ("up = 3\n", "must be a section"),
            ("[up]\nhttp = { a = 1 }\n", "cannot be table"),
            ("[up\n", "not valid TOML"),
        ] {
            let error = format!("{:#}", complete_with(file, &["up"]).unwrap_err());
            assert!(error.contains(part), "{file}: {error}");
        }
    }
}
