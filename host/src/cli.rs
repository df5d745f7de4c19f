//! The command line, the environment and the configuration file: from what a person wrote to a
//! [`Config`].
//!
//! Every option has a variable (`--log-level`: `HOST_LOG_LEVEL`) and a key in the file
//! (`log-level`). The order is default, file, environment, flag, the last one wins, and all three
//! are parsed by the same code: the file's values become defaults of the command line.

use std::{collections::BTreeMap, env, error, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{
    Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use self::file::Settings;
use crate::{config::Config, ctl, new};

pub use self::file::{APP, FileError};

mod file;

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve, with these settings; and the same by key, as a configuration file has them.
    Serve(Box<Config>, BTreeMap<String, String>),
    /// Say whether this host would load the library.
    Check(PathBuf),
    /// Control a host that runs.
    Ctl(ctl::Args),
    /// Write a crate with an app.
    New(new::Args),
    /// Print the settings and where they come from: this text, a configuration file.
    PrintConfig(String),
}

/// Reads a command line, whose first argument is the program's name, and what it builds on: the
/// environment of the process and the configuration file.
///
/// # Errors
///
/// When one of them is wrong, or asks for help. [`Error::report`] is all there is to do then.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    // A copy of it would stay in the process's memory.
    let parse = |command: &mut clap::Command| {
        let matches = command.try_get_matches_from_mut(&args);
        matches.map_err(|error| blame(error, command, &args))
    };
    let options = || Args::command().mut_args(with_variable);
    let mut command = options();
    let matches = parse(&mut command)?;
    let Args { action, config, .. } = Args::from_arg_matches(&matches)?;
    match (action, config) {
        (Some(Action::Check { file }), _) => Ok(Command::Check(file)),
        (Some(Action::Ctl(args)), _) => Ok(Command::Ctl(args)),
        (Some(Action::New(args)), _) => Ok(Command::New(args)),
        (None, None) => finish(command, &matches, Settings::default()),
        (None, Some(path)) => {
            let settings = file::read(path, &Args::command())?;
            let mut command =
                options().mut_args(|arg| match settings.options.get(arg.get_id().as_str()) {
                    Some(values) => arg.default_values(values.clone()),
                    None => arg,
                });
            let matches = parse(&mut command)?;
            finish(command, &matches, settings)
        }
    }
}

/// The configuration with these settings by key and nothing else: neither the environment nor a file
/// is read.
///
/// # Errors
///
/// When a value is not one of its option's.
pub fn of_settings(settings: &BTreeMap<String, String>) -> Result<Config, Error> {
    let mut flags = vec!["host".to_owned()];
    for (key, text) in settings.iter().filter(|(key, _)| *key != file::APP) {
        // Each value is written as a configuration file has it.
        let value = format!("value = {text}").parse::<toml::Table>().ok();
        let value = value.and_then(|mut table| table.remove("value"));
        let values = value.as_ref().and_then(file::texts).unwrap_or_default();
        flags.extend(values.iter().map(|value| format!("--{key}={value}")));
    }
    let matches = Args::command().try_get_matches_from(flags)?;
    Ok(Args::from_arg_matches(&matches)?.settings)
}

/// The error, which names the variable when the value that is wrong is the environment's.
fn blame(error: clap::Error, command: &clap::Command, args: &[OsString]) -> Error {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg) else {
        return error.into();
    };
    // As in `--threads <NUMBER>`.
    let flag = name.split([' ', '=']).next().unwrap_or_default();
    let is_flag = |text: &OsString| text.to_string_lossy().split('=').next() == Some(flag);
    let long = flag.trim_start_matches('-');
    let mut known = command.get_arguments();
    let arg = known.find(|arg| arg.get_long() == Some(long));
    match arg.and_then(Arg::get_env) {
        Some(variable) if env::var_os(variable).is_some() && !args.iter().any(is_flag) => {
            Error::Variable {
                variable: variable.to_string_lossy().into_owned(),
                message: first_line(&error),
            }
        }
        _ => error.into(),
    }
}

/// What clap says, without how to use the command line.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// A command line, environment or configuration file that is wrong, or a call for help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line or the environment is wrong, or the call is for help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The configuration file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A variable of the environment is wrong.
    #[error("{variable}: {message}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong.
        message: String,
    },
    /// The command line is not that of a server, which was expected.
    #[error("the command line is not that of a server")]
    NotServing,
}

impl Error {
    /// Prints the error and its causes to stderr, or the help asked for to stdout. The result is
    /// for `main`: 2, or 0 after help.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if let Self::Usage(error) = self {
            // There is nowhere to report that the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
        let cause =
            error::Error::source(self).map_or_else(String::new, |cause| format!(": {cause}"));
        eprintln!("error: {self}{cause}");
        ExitCode::from(2)
    }
}

/// An app server for Rust: serves plugins, replaces them while it runs, and rules their logs
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "COMMAND"
)]
struct Args {
    #[command(subcommand)]
    action: Option<Action>,

    /// Read settings from this TOML file: its keys are the long options, without dashes in front
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print each setting and where it comes from, as a configuration file, and exit
    #[arg(long)]
    print_config: bool,

    #[command(flatten)]
    settings: Config,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the manifest of a library and whether this host would load it; exits with 0 or 1
    Check {
        /// The library
        #[arg(value_name = "FILE.so")]
        file: PathBuf,
    },
    /// Control a host that runs with --control
    Ctl(ctl::Args),
    /// Make a crate with an app, which builds, serves and is tested
    New(new::Args),
}

fn with_variable(arg: Arg) -> Arg {
    if !arg.get_action().takes_values() {
        return arg;
    }
    let variable = format!("HOST_{}", arg.get_id().as_str().to_uppercase());
    arg.env(variable).hide_env_values(true)
}

fn finish(
    mut command: clap::Command,
    matches: &ArgMatches,
    file: Settings,
) -> Result<Command, Error> {
    let mut args = Args::from_arg_matches(matches)?;
    if args.print_config {
        return Ok(Command::PrintConfig(print(&command, matches, &file)));
    }
    args.settings.apps = file.apps;
    if let Some(message) = mounted_twice(&args.settings) {
        return Err(command.error(ErrorKind::ValueValidation, message).into());
    }
    let settings = settings(&command, matches, file.tables);
    Ok(Command::Serve(Box::new(args.settings), settings))
}

/// What is wrong when two apps are mounted at the same path.
fn mounted_twice(config: &Config) -> Option<String> {
    let said = config.mount.iter().map(|said| (&said.path, &said.plugin));
    // Flags are in the place of what the table says.
    let is_said = |name: &String| config.mount.iter().any(|said| said.plugin == *name);
    let tables = config.apps.iter().filter(|app| !is_said(&app.name));
    let tables = tables.flat_map(|app| app.mounts.iter().map(|path| (path, &app.name)));
    let mut apps = BTreeMap::new();
    said.chain(tables).find_map(|(path, app)| {
        let other = apps.insert(path, app)?;
        Some(format!(
            "`{path}` is mounted twice, for {other} and {app}, expected one app"
        ))
    })
}

/// The settings as a configuration file, with the source of each as a comment.
fn print(command: &clap::Command, matches: &ArgMatches, file: &Settings) -> String {
    let line = |arg: &Arg| {
        let (id, key) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        let Some(value) = value(arg, matches) else {
            return format!("# {key} is not set\n");
        };
        if key == SECRET {
            return format!("# {key} is set, and not shown\n");
        }
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            _ if file.options.contains_key(id) => "file",
            _ => "default",
        };
        format!("{key} = {value}  # {source}\n")
    };
    file::keys(command)
        .map(line)
        .chain([file.tables.clone()])
        .collect()
}

/// The settings by key, as a configuration file has them; `tables` are those of its apps.
fn settings(
    command: &clap::Command,
    matches: &ArgMatches,
    tables: String,
) -> BTreeMap<String, String> {
    let setting = |arg: &Arg| Some((arg.get_long()?.to_owned(), value(arg, matches)?));
    file::keys(command)
        .filter_map(setting)
        .chain([(file::APP.to_owned(), tables)])
        .collect()
}

/// The value of an option as a configuration file has it, if there is one.
fn value(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let values = matches.get_raw(arg.get_id().as_str())?;
    let values: Vec<_> = values
        .map(|value| to_toml(&value.to_string_lossy()))
        .collect();
    Some(match values.as_slice() {
        [value] if !matches!(arg.get_action(), ArgAction::Append) => value.to_string(),
        _ => toml::Value::Array(values).to_string(),
    })
}

fn to_toml(text: &str) -> toml::Value {
    text.parse().map_or_else(
        |_| toml::Value::String(text.to_owned()),
        toml::Value::Integer,
    )
}

/// The option whose value is nobody's business.
const SECRET: &str = "debug-header";

#[cfg(test)]
mod tests;
