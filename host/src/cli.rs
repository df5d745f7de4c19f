//! The command line of the program `host`: a server's flags, or a subcommand.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable, error::ErrorKind,
};

use crate::{
    config::quantity::positive_duration,
    ctl::CtlArgs,
    dev::DevArgs,
    new::NewArgs,
    settings::{self, Resolved, ServerArgs, ServerSettings},
};

pub use self::error::CliError;
use self::{completions::CompletionsArgs, man::ManArgs};

pub mod completions;
mod error;
pub mod man;

/// A parsed command line.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Check whether this host would load these libraries. The duration limits the opening of each library.
    Check(Vec<PathBuf>, Duration),
    /// Print the script with which a shell completes command lines.
    Completions(CompletionsArgs),
    /// Send a request to a running host.
    Ctl(CtlArgs),
    /// Run a development session. The flags are the server's options that the command line sets.
    Dev(Box<DevArgs>, Vec<OsString>),
    /// Print a page of the manual.
    Man(ManArgs),
    /// Write a crate with an app.
    New(NewArgs),
    /// Print this text: the settings, and the source of each.
    PrintConfig(String),
    /// Run a server.
    Serve(ServerSettings),
}

/// Parses a command line, whose first argument is the program's name. If the command line starts a server,
/// also reads the environment of the process and the configuration file.
///
/// # Errors
///
/// Fails when the command line, a variable or the file is wrong. Also returns an error when the command line
/// asks for help or the version: [`CliError::report`] then prints the answer.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = command();
    // Use the `mut` method: `try_get_matches_from` would parse with a copy of the command, and the copy would
    // stay in memory while the server runs.
    let matches = command
        .try_get_matches_from_mut(&args)
        .map_err(|error| usage_error(error, &args))?;
    match HostArgs::from_arg_matches(&matches)?.subcommand {
        Some(Subcommands::Check { files, timeout }) => Ok(Invocation::Check(files, timeout)),
        Some(Subcommands::Completions(args)) => Ok(Invocation::Completions(args)),
        Some(Subcommands::Ctl(args)) => Ok(Invocation::Ctl(args)),
        Some(Subcommands::Dev(args)) => {
            let flags = matches.subcommand_matches("dev");
            let flags = flags.map(settings::server_flags_of).unwrap_or_default();
            Ok(Invocation::Dev(args, flags))
        }
        Some(Subcommands::Man(args)) => Ok(Invocation::Man(args)),
        Some(Subcommands::New(args)) => Ok(Invocation::New(args)),
        None => Ok(match settings::resolve(command, matches, &args)? {
            Resolved::Serve(settings) => Invocation::Serve(settings),
            Resolved::Print(text) => Invocation::PrintConfig(text),
        }),
    }
}

/// Returns the clap command of the program. clap reads no variables of the server's options: `settings` reads
/// them later and only for a server, because a variable with a wrong value must not stop `host ctl` or
/// `host check`.
fn command() -> clap::Command {
    let mut command = settings::with_negative_numbers(HostArgs::command());
    let control = command.find_subcommand("ctl").and_then(|ctl| {
        let mut args = ctl.get_arguments();
        args.find(|arg| arg.get_id() == "control")
    });
    if !control.is_some_and(settings::is_variable_set) {
        // The option of `ctl` is the only one whose variable clap reads. clap would use an empty variable as
        // the value, but every other empty variable of the host counts as not set.
        command = command.mut_subcommand("ctl", |ctl| {
            ctl.mut_arg("control", |arg| arg.env(Resettable::Reset))
        });
    }
    command
}

/// Returns the command for documentation: the help of each option contains the name of the option's variable.
pub(crate) fn command_with_variables() -> clap::Command {
    settings::with_variable_names(HostArgs::command())
}

/// Converts an error of clap. If the command line asks for help, returns a help text that contains the name of
/// each option's variable.
fn usage_error(error: clap::Error, args: &[OsString]) -> CliError {
    if error.kind() != ErrorKind::DisplayHelp {
        return CliError::with_suggestion(error, args);
    }
    // Parse again: clap returns the help text as the error of the parse.
    let help = settings::with_variable_names(command()).try_get_matches_from(args);
    help.err().unwrap_or(error).into()
}

/// An app server for Rust: serves plugins, replaces them while it runs, and rules their logs
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "COMMAND"
)]
struct HostArgs {
    #[command(subcommand)]
    subcommand: Option<Subcommands>,

    #[command(flatten)]
    _server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Print the manifest of each library and whether this host would load it; exits with 0 or 1
    Check {
        /// The libraries
        #[arg(value_name = "FILE.so", required = true)]
        files: Vec<PathBuf>,

        /// How long opening a library may take
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
        timeout: Duration,
    },
    /// Print the script by which a shell completes command lines of host
    Completions(CompletionsArgs),
    /// Control a host that runs with --control
    Ctl(CtlArgs),
    /// Build apps and serve them, and do so again whenever a file is saved
    Dev(Box<DevArgs>),
    /// Print a page of the manual, for man
    Man(ManArgs),
    /// Make a crate with an app, which builds, serves and is tested
    New(NewArgs),
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
