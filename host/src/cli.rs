//! The command line of the program `host`: a server's flags, or a subcommand.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable, error::ErrorKind,
};

use crate::{
    completions::CompletionsArgs,
    config::quantity::positive_duration,
    ctl::CtlArgs,
    dev::DevArgs,
    man::ManArgs,
    new::NewArgs,
    settings::{self, Resolved, ServerArgs, ServerSettings},
};

pub use self::error::CliError;

mod error;

/// A command line, parsed: what the program is to do.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Open each library, and print whether this host would load it. Opening one may take this long.
    Check(Vec<PathBuf>, Duration),
    /// Print the script by which a shell completes command lines.
    Completions(CompletionsArgs),
    /// Ask a running host.
    Ctl(CtlArgs),
    /// Develop apps. The flags are the server's options among the arguments.
    Dev(Box<DevArgs>, Vec<OsString>),
    /// Print a page of the manual.
    Man(ManArgs),
    /// Write a crate with an app.
    New(NewArgs),
    /// Print this text: the settings and where each comes from.
    PrintConfig(String),
    /// Run a server.
    Serve(ServerSettings),
}

/// Parses a command line, whose first argument is the program's name. For a server, the environment of
/// the process and the configuration file are read as well.
///
/// # Errors
///
/// Fails when one of the three is wrong, and when the command line asks for help or the version: then
/// [`CliError::report`] prints the answer.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = command();
    // `try_get_matches_from` would keep a copy of the command in memory for as long as the server runs.
    let matches = command
        .try_get_matches_from_mut(&args)
        .map_err(|error| usage_error(error, &args))?;
    match HostArgs::from_arg_matches(&matches)?.subcommand {
        Some(Subcommands::Check { files, timeout }) => Ok(Invocation::Check(files, timeout)),
        Some(Subcommands::Completions(args)) => Ok(Invocation::Completions(args)),
        Some(Subcommands::Ctl(args)) => Ok(Invocation::Ctl(args)),
        Some(Subcommands::Dev(args)) => {
            let flags = matches.subcommand_matches("dev");
            let flags = flags.map(settings::given_flags).unwrap_or_default();
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

/// Returns the command for clap. Options get their values from flags alone: the environment is read
/// later, because a variable with a wrong value must not stop `host ctl` or `host check`.
fn command() -> clap::Command {
    let mut command = settings::with_negative_numbers(HostArgs::command());
    let control = command.find_subcommand("ctl").and_then(|ctl| {
        let mut args = ctl.get_arguments();
        args.find(|arg| arg.get_id() == "control")
    });
    if !control.is_some_and(settings::is_set) {
        // clap would take an empty variable for a value. Every other variable of the host that is empty
        // counts as not set.
        command = command.mut_subcommand("ctl", |ctl| {
            ctl.mut_arg("control", |arg| arg.env(Resettable::Reset))
        });
    }
    command
}

/// Returns the command as documentation has it: each option has the name of its variable.
pub(crate) fn documented() -> clap::Command {
    settings::with_names(HostArgs::command())
}

/// Turns an error of clap's into one of ours. A call for help is answered with a help text that names the
/// variable of each option.
fn usage_error(error: clap::Error, args: &[OsString]) -> CliError {
    if error.kind() != ErrorKind::DisplayHelp {
        return CliError::of_usage(error, args);
    }
    let named = settings::with_names(command()).try_get_matches_from(args);
    named.err().unwrap_or(error).into()
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
