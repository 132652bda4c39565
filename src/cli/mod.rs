//! The command line: reads arguments, calls the library, turns results into text and exit codes.
//!
//! Each command is a file here with its arguments and a `run`. What commands print is for people unless `--json` is
//! given; logs and errors go to stderr. Only `serve` knows the server; the others use its admin API or the journal's
//! offline readers.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::environment;

mod answer_json;
mod api;
mod ask;
mod ask_status;
mod check_config;
mod client_args;
mod config_args;
mod dead;
mod docs;
mod journal;
mod key_file;
mod keys;
pub mod load;
mod logs;
mod send;
mod serve;
mod sink;
mod tail;
#[cfg(test)]
mod tests;

/// Exit code: what the command was asked to do is not done.
pub const EXIT_NOT_DONE: u8 = 1;
/// Exit code: the command line or the configuration is wrong; nothing was done.
pub const EXIT_USAGE: u8 = 2;
/// Exit code: the journal is damaged; it was not changed.
pub const EXIT_DAMAGED: u8 = 3;
/// Exit code: the storage failed, and the command ended for that.
pub const EXIT_STORAGE: u8 = 4;

/// A durable UDP ingestion server: acked means on disk, on disk means processed.
#[derive(Debug, Parser)]
#[command(name = "duragram", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_long_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  duragram serve                                     listen on 127.0.0.1:7117, print records as JSON lines
  seq 1000 | duragram send                           send 1000 records; 0 when all are on the server's disk
  duragram ask 'open valve 7'                        send one, and print what the server's handler answers
  duragram tail --from-start                         what the journal holds, then what comes

Exit codes:
  0  done
  1  not done
  2  usage or configuration
  3  journal damaged; nothing was changed
  4  storage failed
  (duragram ask has further ones)

Every command has its own --help. An environment variable that is empty counts as unset. The exit code tells of what was done;
that a report of it could not be written to stdout is said on stderr.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Send(send::SendArgs),
    Ask(ask::AskArgs),
    AskStatus(ask_status::AskStatusArgs),
    Load(load::LoadArgs),
    Tail(tail::TailArgs),
    Journal(journal::JournalArgs),
    Sink(sink::SinkArgs),
    Dead(dead::DeadArgs),
    Keys(keys::KeysArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Completions(docs::CompletionsArgs),
    Man(docs::ManArgs),
}

/// The whole program: reads the process's arguments, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    let serves = std::env::args_os().nth(1).is_some_and(|command| command == "serve");
    crate::host::signal_mask::prepare(serves);
    if serves {
        // Before anything else: a signal must not meet the process unprepared. A failure is met again, and told, by `serve`.
        drop(crate::server::hold_signals());
    }
    let parsed =
        without_empty_variables(command()).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads to its end (`duragram --help | head`) is no failure.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    let result = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Send(args) => return send::run(args),
        Command::Ask(args) => return ask::run(&args),
        Command::AskStatus(args) => ask_status::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Journal(args) => journal::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::Dead(args) => dead::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Completions(args) => docs::completions(&args),
        Command::Man(args) => docs::man(&args),
    };
    match result {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Failed { code, message }) => {
            complain(&message);
            ExitCode::from(code)
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// With an exit code and what to tell.
    Failed { code: u8, message: String },
    /// Whoever read stdout has read enough, as in `duragram tail | head`. No failure to the caller.
    OutputClosed,
}

impl Failure {
    fn not_done(message: impl fmt::Display) -> Self {
        Self::Failed { code: EXIT_NOT_DONE, message: message.to_string() }
    }

    fn usage(message: impl fmt::Display) -> Self {
        Self::Failed { code: EXIT_USAGE, message: message.to_string() }
    }
}

/// Says something on stderr, each line with the program's name. A closed stderr is nobody's concern.
fn complain(message: &str) {
    let mut stderr = io::stderr().lock();
    for line in message.lines() {
        drop(writeln!(stderr, "duragram: {line}"));
    }
}

/// Writes to stdout, at once.
fn print(text: impl fmt::Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(output_failure)
}

/// Tells on stdout of what was done, where the exit code tells of the same: a report that nobody can have makes nothing
/// undone. That it failed is said on stderr.
#[derive(Debug, Default)]
struct Report {
    failed: bool,
}

impl Report {
    fn tell(&mut self, text: impl fmt::Display) {
        if self.failed {
            return;
        }
        let mut stdout = io::stdout().lock();
        if let Err(error) = write!(stdout, "{text}").and_then(|()| stdout.flush()) {
            self.failed = true;
            complain(&format!("cannot report on stdout: {error}"));
        }
    }

    fn tell_json(&mut self, value: &serde_json::Value) {
        if io::stdout().is_terminal() {
            self.tell(format_args!("{value:#}\n"));
        } else {
            self.tell(format_args!("{value}\n"));
        }
    }
}

/// Writes a JSON value to stdout: indented for people, on one line for programs.
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(format_args!("{value:#}\n")) } else { print(format_args!("{value}\n")) }
}

/// A text that may hold anything, as a terminal may be shown it: it must not obey.
fn on_a_terminal(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A time in seconds as people tell it.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// What a failed write to stdout means.
fn output_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::not_done(format_args!("cannot write to stdout: {error}")),
    }
}

/// The same command line, where a variable that is empty counts as unset: clap would take it for an empty value.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| !environment::is_set(&value));
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The command line as data, for completions, manual pages and tests.
fn command() -> clap::Command {
    Cli::command()
}
