//! The settings of a server: flags, environment variables and the configuration file, joined into one
//! [`Config`].
//!
//! Every option has a variable (`--log-level`: `HOST_LOG_LEVEL`) and a key in the file (`log-level`).
//! A flag overrides a variable, a variable overrides the file, and the file overrides the default.
//! One parser reads all of them: values of the file and of variables become the defaults of the
//! command line, which is then parsed once more.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{ArgMatches, Args as _, CommandFactory, FromArgMatches, Parser, error::ErrorKind};

use self::{error::message, file::FileSettings};
use crate::config::{
    Config,
    path::{absolute, absolute_path},
};

pub(crate) use self::variables::{is_set, with_names};
pub use self::{
    error::SettingsError,
    file::{APP, FileError},
};

mod error;
mod file;
mod print;
mod variables;

/// The settings of a server that is to run.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The settings, parsed.
    pub config: Box<Config>,
    /// The same settings as text: each key of a configuration file with its TOML value. Two such maps
    /// tell which settings differ.
    pub by_key: BTreeMap<String, String>,
}

/// The result of a command line without a subcommand.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// Run a server with these settings.
    Serve(ServerSettings),
    /// Print this text, the answer to `--print-config`.
    Print(String),
}

/// The flags of a server. Variables and the configuration file are not read yet.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// Read settings from this TOML file: its keys are the long options, without dashes in front
    #[arg(long, value_name = "FILE", value_parser = absolute_path())]
    config: Option<PathBuf>,

    /// Print each setting and where it comes from, as a configuration file, and exit
    #[arg(long)]
    print_config: bool,

    #[command(flatten)]
    settings: Config,
}

/// A command line of a server alone, without subcommands.
#[derive(Debug, Parser)]
#[command(name = "host")]
struct ServerCommand {
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads the settings of a server from its command line, whose first argument is the program's name,
/// from the environment at the start of the process, and from the configuration file.
///
/// # Errors
///
/// Fails when one of the three is wrong, or when the command line is not that of a server.
pub fn parse(args: &[OsString]) -> Result<ServerSettings, SettingsError> {
    let mut command = with_negative_numbers(ServerCommand::command());
    let matches = command.try_get_matches_from_mut(args)?;
    match resolve(command, matches, args)? {
        Resolved::Serve(settings) => Ok(settings),
        Resolved::Print(_) => Err(SettingsError::NotServing),
    }
}

/// Makes the configuration of a worker from the settings of its supervisor, by key. Reads neither the
/// environment nor a file.
///
/// # Errors
///
/// Fails when an option does not take its value.
pub fn of_keys(by_key: &BTreeMap<String, String>) -> Result<Config, SettingsError> {
    let mut flags = vec!["host".to_owned()];
    // A worker learns of apps by orders, so it needs no tables.
    for (key, text) in by_key.iter().filter(|(key, _)| *key != APP) {
        // The text of a setting is a TOML value, as in a configuration file.
        let value = format!("value = {text}").parse::<toml::Table>().ok();
        let value = value.and_then(|mut table| table.remove("value"));
        let values = value.as_ref().and_then(file::texts).unwrap_or_default();
        flags.extend(values.iter().map(|value| format!("--{key}={value}")));
    }
    let matches = ServerCommand::command().try_get_matches_from(flags)?;
    Ok(ServerArgs::from_arg_matches(&matches)?.settings)
}

/// Lets options take values such as `-1`, so that a bad value is reported as one, and not as an unknown
/// option `-1`.
pub(crate) fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let takes_value = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_value)
    })
}

/// Returns the server's options among `matches` that were given on the command line, as flags.
pub(crate) fn given_flags(matches: &ArgMatches) -> Vec<OsString> {
    let server = Config::augment_args(clap::Command::new("host"));
    let options = server.get_arguments().filter_map(|arg| {
        let long = arg.get_long()?;
        let values = matches.get_raw(arg.get_id().as_str());
        let values = values.filter(|_| variables::is_flag(matches, arg))?;
        Some(values.map(move |value| {
            let mut option = OsString::from(format!("--{long}="));
            option.push(value);
            option
        }))
    });
    options.flatten().collect()
}

/// The places that a server's settings come from.
struct Sources<'a> {
    command: &'a clap::Command,
    /// The values of all options. Variables and the file have become defaults in it.
    matches: &'a ArgMatches,
    /// The values of variables, by the id of the option.
    variables: BTreeMap<String, OsString>,
    file: FileSettings,
}

/// Joins the flags in `matches` with the environment and the configuration file. `command` and `args` are
/// those that `matches` were made from.
///
/// # Errors
///
/// Fails when a variable, the file, or the settings together are wrong.
pub(crate) fn resolve(
    mut command: clap::Command,
    mut matches: ArgMatches,
    args: &[OsString],
) -> Result<Resolved, SettingsError> {
    let variables = variables::read(&command, &matches)?;
    let flag = ServerArgs::from_arg_matches(&matches)?.config;
    let path = match (flag, variables.get("config")) {
        (Some(path), _) => Some(path),
        (None, Some(path)) => Some(config_variable(path)?),
        (None, None) => None,
    };
    let file = match path {
        Some(path) => file::read(path, &command)?,
        None => FileSettings::default(),
    };
    // Parse once more, with the values of variables and the file as defaults. Most starts need no second pass.
    if !variables.is_empty() || !file.options.is_empty() {
        command = command.mut_args(|arg| {
            let id = arg.get_id().as_str();
            match (variables.get(id), file.options.get(id)) {
                // A variable overrides the file.
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
    let mut args = ServerArgs::from_arg_matches(&matches)?;
    if args.print_config {
        return Ok(Resolved::Print(print::print(&sources)));
    }
    args.settings.is_default_folder = sources.is_default("plugins");
    args.settings.near_misses = variables::near_misses(&command);
    // Copy the texts before the apps are moved out of `sources`.
    let by_key = print::by_key(&sources);
    args.settings.apps = sources.file.apps;
    match mounted_twice(&args.settings) {
        Some(message) => Err(command.error(ErrorKind::ValueValidation, message).into()),
        None => Ok(Resolved::Serve(ServerSettings {
            config: Box::new(args.settings),
            by_key,
        })),
    }
}

impl Sources<'_> {
    /// Returns whether neither a flag nor a variable nor the file sets an option.
    fn is_default(&self, id: &str) -> bool {
        self.matches.value_source(id) == Some(clap::parser::ValueSource::DefaultValue)
            && !self.variables.contains_key(id)
            && !self.file.options.contains_key(id)
    }
}

/// Makes the path in `HOST_CONFIG` absolute.
fn config_variable(path: &OsStr) -> Result<PathBuf, SettingsError> {
    absolute(path.as_ref()).map_err(|error| SettingsError::Variable {
        variable: "HOST_CONFIG".to_owned(),
        message: error.to_string(),
    })
}

/// Returns an error text if two apps are mounted at the same path.
fn mounted_twice(config: &Config) -> Option<String> {
    let options = config
        .mount
        .iter()
        .map(|mount| (&mount.path, &mount.plugin));
    // A `--mount` for an app replaces the mounts in the app's table.
    let has_option = |name: &String| config.mount.iter().any(|mount| mount.plugin == *name);
    let tables = config.apps.iter().filter(|app| !has_option(&app.name));
    let tables = tables.flat_map(|app| app.mounts.iter().map(|path| (path, &app.name)));
    let mut apps = BTreeMap::new();
    options.chain(tables).find_map(|(path, app)| {
        let other = apps.insert(path, app)?;
        Some(format!(
            "`{path}` is mounted twice, for {other} and {app}, expected one app"
        ))
    })
}

#[cfg(test)]
mod tests;
