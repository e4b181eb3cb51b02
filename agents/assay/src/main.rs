//! `assay`: the whole network, each agent, and the command line.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod args;
mod cheat;
mod commands;
mod config;
mod keys;
mod network;
mod ui;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use assay_runtime::{LogFormat, LogOptions, init_logging};
use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            ui::note(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What the miners of a demonstration warn of is what it tells, in fewer words.
fn log_filter(cli: &Cli) -> String {
    match (&cli.command, &cli.global.log) {
        (Command::Up(args), None) if args.cheat.is_some() => "error,assay_miner=off".into(),
        (_, None) => "warn".into(),
        (_, Some(filter)) => filter.clone(),
    }
}

async fn run() -> Result<ExitCode> {
    let cli = Cli::parse_from(config::complete(std::env::args_os().collect())?);
    let format = if cli.global.log_json { LogFormat::Json } else { LogFormat::Text };
    init_logging(&LogOptions { filter: log_filter(&cli), format })?;
    let global = &cli.global;
    let done = match cli.command {
        // It has three outcomes.
        Command::Audit(args) => return Ok(commands::audit::run(global, args).await),
        Command::Up(args) => up::run(global, args).await,
        Command::Ask(args) => commands::ask::run(global, args).await,
        Command::Deploy(args) => commands::deploy::run(global, args).await,
        Command::Session(command) => commands::session::run(global, command).await,
        Command::Task(command) => commands::task::run(global, command).await,
        Command::Verify(args) => commands::verify::run(global, args).await,
        Command::Node(command) => commands::node::run(global, command).await,
        Command::Model(command) => commands::model::run(global, command).await,
        Command::Params(command) => commands::params::run(global, command).await,
        Command::Balance(args) => commands::balance::show(global, args).await,
        Command::Claim(args) => commands::balance::claim(global, args).await,
        Command::Doctor(args) => commands::doctor::run(global, args).await,
        Command::Bench(args) => commands::bench::run(global, args).await,
        Command::Oracle(args) => commands::agents::oracle(global, args).await,
        Command::Router(args) => commands::agents::router(global, args).await,
        Command::ApiKey(command) => commands::api_key::run(global, command).await,
        Command::Miner(args) => commands::agents::miner(global, args).await,
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "assay", &mut script);
            ui::piece(&String::from_utf8(script)?);
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
