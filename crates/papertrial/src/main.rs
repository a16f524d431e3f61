//! papertrial: papers that run. See `papertrial --help`.

mod cli;
mod commands;
mod config;
mod terminal;

use clap::{CommandFactory, FromArgMatches};
use cli::{Cli, Command};
use papertrial_core::task::Family;
use papertrial_core::{Error, Result, runner, worker};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// The system's allocator gives every large buffer back to the kernel, which makes a training step take up to twice
/// as long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The families: all that this program knows of them.
const FAMILIES: &[Family] = &[
    papertrial_backbone::FAMILY,
    papertrial_cluster::FAMILY,
    papertrial_detect::FAMILY,
    papertrial_select::FAMILY,
];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = Vec::new();
    for argument in std::env::args_os() {
        match argument.into_string() {
            Ok(text) => arguments.push(text),
            Err(raw) => {
                let e = Error::BadInput(format!("argument {} is not UTF-8", raw.display()));
                return terminal::tell_error(&e, false);
            }
        }
    }
    // Asked of the words themselves, for errors that come before they are understood.
    let json = arguments.iter().any(|a| a == "--json");
    match config::expand(arguments) {
        Ok(arguments) => match parse(&arguments) {
            Ok(cli) => finish(dispatch(cli), json),
            Err(e) => refuse(&e, json),
        },
        Err(e) => terminal::tell_error(&e, json),
    }
}

fn parse(arguments: &[String]) -> std::result::Result<Cli, clap::Error> {
    // An option given twice counts as given last, so that the command line wins over a configuration file.
    let matches = Cli::command()
        .args_override_self(true)
        .try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

fn finish(result: Result<ExitCode>, json: bool) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(e) => terminal::tell_error(&e, json),
    }
}

/// What clap says of the words: help and version are no errors.
fn refuse(e: &clap::Error, json: bool) -> ExitCode {
    if json && e.use_stderr() {
        let text = e.to_string();
        let message = text.trim().trim_start_matches("error: ");
        return terminal::tell_error(&Error::BadInput(message.to_owned()), true);
    }
    let _ = e.print();
    ExitCode::from(if e.use_stderr() { 2 } else { 0 })
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    if !matches!(cli.command, Command::Job) {
        // A second Ctrl-C finds the default again only if this one could not be set; nothing is lost then.
        let _ = ctrlc::set_handler(|| runner::STOP.store(true, Ordering::SeqCst));
    }
    let common = cli.common;
    match cli.command {
        Command::Papers(a) => commands::papers::run(&a, &common),
        Command::Show(a) => commands::show::run(&a, &common),
        Command::Try(a) => commands::try_claims::run(&a, &common),
        Command::Compare(a) => commands::compare::run(&a, &common),
        Command::Run(a) => commands::run::run(&a, &common),
        Command::Data(a) => commands::data::run(&a, &common),
        Command::History(a) => commands::history::run(&a, &common),
        Command::Completions(a) => {
            clap_complete::generate(
                a.shell,
                &mut Cli::command(),
                "papertrial",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Job => worker::work(FAMILIES).map(|()| ExitCode::SUCCESS),
    }
}
