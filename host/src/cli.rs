//! The command line, the environment and the configuration file: from what a person wrote to a
//! [`Config`].
//!
//! Every option has a variable (`--log-level`: `HOST_LOG_LEVEL`) and a key in the file
//! (`log-level`). The order is default, file, environment, flag, the last one wins, and all three
//! are parsed by the same code: the file's values become defaults of the command line.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use clap::{
    ArgMatches, Args as _, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable,
    error::ErrorKind, parser::ValueSource,
};

use self::{error::message, file::Settings};
use crate::{
    config::{Config, path::absolute_path, quantity::positive_duration},
    ctl, dev, new,
};

pub use self::{
    error::Error,
    file::{APP, FileError},
};

mod error;
mod file;
mod print;
mod variables;

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve, with these settings; and the same by key, as a configuration file has them.
    Serve(Box<Config>, BTreeMap<String, String>),
    /// Say of each library whether this host would load it; opening one may take this long.
    Check(Vec<PathBuf>, Duration),
    /// Control a host that runs.
    Ctl(ctl::Args),
    /// Develop apps: with these settings, and those of them that are the server's as they were given.
    Dev(Box<dev::Args>, Vec<OsString>),
    /// Write a crate with an app.
    New(new::Args),
    /// Print the settings and where they come from: this text, a configuration file.
    PrintConfig(String),
}

/// Reads a command line, whose first argument is the program's name, and what it builds on: the
/// environment that the process started with, and the configuration file.
///
/// # Errors
///
/// When one of them is wrong, or asks for help. [`Error::report`] is all there is to do then.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = command();
    // `try_get_matches_from` would keep a copy of the command in the memory of the process.
    let matches = command
        .try_get_matches_from_mut(&args)
        .map_err(|error| usage(error, &args))?;
    let Args { action, config, .. } = Args::from_arg_matches(&matches)?;
    match action {
        Some(Action::Check { files, timeout }) => Ok(Command::Check(files, timeout)),
        Some(Action::Ctl(args)) => Ok(Command::Ctl(args)),
        Some(Action::Dev(args)) => {
            let matches = matches.subcommand_matches("dev");
            Ok(Command::Dev(args, matches.map(given).unwrap_or_default()))
        }
        Some(Action::New(args)) => Ok(Command::New(args)),
        None => serve(command, matches, config, &args),
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
        // The text of a setting is a TOML value, as in a configuration file.
        let value = format!("value = {text}").parse::<toml::Table>().ok();
        let value = value.and_then(|mut table| table.remove("value"));
        let values = value.as_ref().and_then(file::texts).unwrap_or_default();
        flags.extend(values.iter().map(|value| format!("--{key}={value}")));
    }
    let matches = Args::command().try_get_matches_from(flags)?;
    Ok(Args::from_arg_matches(&matches)?.settings)
}

/// The options and commands, as flags alone set them.
fn command() -> clap::Command {
    let mut command = Args::command().mut_args(|arg| {
        // With this, `--keep-alive -1` is reported as a bad value and not as an unknown option `-1`.
        let takes_value = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_value)
    });
    let control = command.find_subcommand("ctl").and_then(|ctl| {
        let mut args = ctl.get_arguments();
        variables::value(args.find(|arg| arg.get_id() == "control")?)
    });
    if control.is_none() {
        // A variable that is empty is one that is not set.
        command = command.mut_subcommand("ctl", |ctl| {
            ctl.mut_arg("control", |arg| arg.env(Resettable::Reset))
        });
    }
    command
}

/// The error, or the help, which names the variable of each option.
fn usage(error: clap::Error, args: &[OsString]) -> Error {
    if error.kind() != ErrorKind::DisplayHelp {
        return Error::of_usage(error, args);
    }
    let named = variables::with_names(command()).try_get_matches_from(args);
    named.err().unwrap_or(error).into()
}

/// The command line, the environment variables and the file that a server's settings come from.
struct Sources<'a> {
    command: &'a clap::Command,
    /// The options with their values. Variables and the file are their defaults.
    matches: &'a ArgMatches,
    /// The values of variables, by the id of the option.
    variables: BTreeMap<String, OsString>,
    file: Settings,
}

/// The command of a server whose flags are `matches` and whose `--config` is `config`.
fn serve(
    mut command: clap::Command,
    mut matches: ArgMatches,
    config: Option<PathBuf>,
    args: &[OsString],
) -> Result<Command, Error> {
    let variables = variables::read(&command, &matches)?;
    let config = match (config, variables.get("config")) {
        (Some(path), _) => Some(path),
        (None, Some(path)) => Some(absolute(path)?),
        (None, None) => None,
    };
    let file = match config {
        Some(path) => file::read(path, &command)?,
        None => Settings::default(),
    };
    if !variables.is_empty() || !file.options.is_empty() {
        command = command.mut_args(|arg| {
            let id = arg.get_id().as_str();
            match (variables.get(id), file.options.get(id)) {
                (Some(value), _) => arg.default_value(value.clone()),
                (None, Some(values)) => arg.default_values(values.clone()),
                (None, None) => arg,
            }
        });
        matches = command.try_get_matches_from_mut(args)?;
    }
    let sources = Sources {
        command: &command,
        matches: &matches,
        variables,
        file,
    };
    let mut args = Args::from_arg_matches(&matches)?;
    if args.print_config {
        return Ok(Command::PrintConfig(print::print(&sources)));
    }
    args.settings.is_default_folder = sources.is_default("plugins");
    args.settings.near_misses = variables::near_misses(&command);
    let settings = print::by_key(&sources);
    args.settings.apps = sources.file.apps;
    match mounted_twice(&args.settings) {
        Some(message) => Err(command.error(ErrorKind::ValueValidation, message).into()),
        None => Ok(Command::Serve(Box::new(args.settings), settings)),
    }
}

impl Sources<'_> {
    /// Whether neither a flag nor a variable nor the file sets an option.
    fn is_default(&self, id: &str) -> bool {
        self.matches.value_source(id) == Some(ValueSource::DefaultValue)
            && !self.variables.contains_key(id)
            && !self.file.options.contains_key(id)
    }
}

/// The path that a variable names.
fn absolute(path: &OsStr) -> Result<PathBuf, Error> {
    crate::config::path::absolute(path.as_ref()).map_err(|error| Error::Variable {
        variable: "HOST_CONFIG".to_owned(),
        message: error.to_string(),
    })
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
    #[arg(long, value_name = "FILE", value_parser = absolute_path())]
    config: Option<PathBuf>,

    /// Print each setting and where it comes from, as a configuration file, and exit
    #[arg(long)]
    print_config: bool,

    #[command(flatten)]
    settings: Config,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the manifest of each library and whether this host would load it; exits with 0 or 1
    Check {
        /// The libraries
        #[arg(value_name = "FILE.so", required = true)]
        files: Vec<PathBuf>,

        /// How long opening a library may take
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = positive_duration)]
        timeout: Duration,
    },
    /// Control a host that runs with --control
    Ctl(ctl::Args),
    /// Build apps and serve them, and do so again whenever a file is saved
    Dev(Box<dev::Args>),
    /// Make a crate with an app, which builds, serves and is tested
    New(new::Args),
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

/// The server's options among the arguments of a subcommand, as they were given.
fn given(matches: &ArgMatches) -> Vec<OsString> {
    let server = Config::augment_args(clap::Command::new("host"));
    let options = server.get_arguments().filter_map(|arg| {
        let (id, long) = (arg.get_id().as_str(), arg.get_long()?);
        let is_given = matches.value_source(id) == Some(ValueSource::CommandLine);
        let values = matches.get_raw(id).filter(|_| is_given)?;
        Some(values.map(move |value| {
            let mut option = OsString::from(format!("--{long}="));
            option.push(value);
            option
        }))
    });
    options.flatten().collect()
}

#[cfg(test)]
mod tests;
