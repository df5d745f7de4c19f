//! The settings of a server: flags, environment variables and the configuration file, joined into one
//! [`Config`].
//!
//! Every option has a variable (`--log-level`: `HOST_LOG_LEVEL`) and a key in the file (`log-level`).
//! A flag overrides a variable, a variable overrides the file, and the file overrides the default.
//! clap parses all of them: values of the file and of variables become defaults in clap's command, and
//! clap then parses the command line once more.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{ArgMatches, Args as _, CommandFactory, FromArgMatches, Parser, error::ErrorKind};

use self::{error::one_line_message, file::FileSettings};
use crate::config::{
    Config,
    path::{absolute, absolute_path},
};

pub(crate) use self::variables::{is_variable_set, with_variable_names};
pub use self::{
    error::SettingsError,
    file::{APP_KEY, FileError},
};

mod error;
mod file;
mod nearest;
mod print;
mod variables;

/// The complete settings of a server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The parsed settings.
    pub config: Box<Config>,
    /// The same settings as text: each key of a configuration file with its TOML value. SIGHUP compares two
    /// such maps to find the settings that have changed, and a worker process receives its settings as such
    /// a map.
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

/// The options of a server: the settings, and the two options that are not settings themselves.
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

/// The command line of a server, without subcommands.
#[derive(Debug, Parser)]
#[command(name = "host")]
struct ServerCommand {
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads the settings of a server from its command line `args`, from the environment at the start of the
/// process, and from the configuration file. The first item of `args` is the program's name.
///
/// # Errors
///
/// Fails when the command line, a variable or the file is wrong, or when the command line does not start a
/// server.
pub fn parse(args: &[OsString]) -> Result<ServerSettings, SettingsError> {
    let mut command = with_negative_numbers(ServerCommand::command());
    let matches = command.try_get_matches_from_mut(args)?;
    match resolve(command, matches, args)? {
        Resolved::Serve(settings) => Ok(settings),
        Resolved::Print(_) => Err(SettingsError::NotServerCommand),
    }
}

/// Parses the settings that a worker receives from its supervisor (see [`ServerSettings::by_key`]). Reads
/// neither the environment nor a file.
///
/// # Errors
///
/// Fails when a value is not valid for its option.
pub fn parse_by_key(by_key: &BTreeMap<String, String>) -> Result<Config, SettingsError> {
    let mut flags = vec!["host".to_owned()];
    // Skip the tables `[app.NAME]`, because the supervisor sends the apps to a worker as orders.
    for (key, text) in by_key.iter().filter(|(key, _)| *key != APP_KEY) {
        // The text of a setting is a TOML value, as in a configuration file.
        let value = format!("value = {text}").parse::<toml::Table>().ok();
        let value = value.and_then(|mut table| table.remove("value"));
        let values = value
            .as_ref()
            .and_then(file::to_flag_values)
            .unwrap_or_default();
        flags.extend(values.iter().map(|value| format!("--{key}={value}")));
    }
    let matches = ServerCommand::command().try_get_matches_from(flags)?;
    Ok(ServerArgs::from_arg_matches(&matches)?.settings)
}

/// Lets options take values such as `-1`. Otherwise clap would report a negative value as an unknown option
/// `-1`, and not as a wrong value.
pub(crate) fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let takes_value = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_value)
    })
}

/// Returns the options of the server that the command line sets, as flags `--OPTION=VALUE`. Leaves out options
/// whose values come from variables or defaults.
pub(crate) fn server_flags_of(matches: &ArgMatches) -> Vec<OsString> {
    // `matches` may also contain options of `host dev` itself. This command has only the server's options.
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

/// The sources of a server's settings.
struct Sources<'a> {
    command: &'a clap::Command,
    /// The values of all options. The values of variables and of the file count as defaults here.
    matches: &'a ArgMatches,
    /// The values that environment variables have set, by the id of the option.
    variables: BTreeMap<String, OsString>,
    file: FileSettings,
}

/// Joins the flags in `matches` with the environment and the configuration file. The caller has made
/// `matches` by parsing `args` with `command`.
///
/// # Errors
///
/// Fails when a variable or the file is wrong, or when two apps have the same mount.
pub(crate) fn resolve(
    mut command: clap::Command,
    mut matches: ArgMatches,
    args: &[OsString],
) -> Result<Resolved, SettingsError> {
    let variables = variables::read(&command, &matches)?;
    let config_flag = ServerArgs::from_arg_matches(&matches)?.config;
    let path = match (config_flag, variables.get("config")) {
        (Some(path), _) => Some(path),
        (None, Some(path)) => Some(config_variable(path)?),
        (None, None) => None,
    };
    let file = match path {
        Some(path) => file::read(path, &command)?,
        None => FileSettings::default(),
    };
    // Parse the command line once more, with the values of variables and of the file as defaults, so that
    // flags keep their precedence. Without variables and a file the first pass is enough.
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
        return Ok(Resolved::Print(print::to_config_file(&sources)));
    }
    args.settings.is_default_folder = sources.is_default("plugins");
    args.settings.variable_warnings = variables::variable_warnings(&command);
    // Make the texts before the next line moves the apps out of `sources`.
    let by_key = print::by_key(&sources);
    args.settings.apps = sources.file.apps;
    match find_duplicate_mount(&args.settings) {
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

/// Returns an error text if two apps are mounted at the same path, else `None`.
fn find_duplicate_mount(config: &Config) -> Option<String> {
    let options = config
        .mount
        .iter()
        .map(|mount| (&mount.path, &mount.plugin));
    // If `--mount` names an app, the mounts in the app's table have no effect.
    let has_mount_option = |name: &String| config.mount.iter().any(|mount| mount.plugin == *name);
    let tables = config
        .apps
        .iter()
        .filter(|app| !has_mount_option(&app.name));
    let tables = tables.flat_map(|app| app.mounts.iter().map(|path| (path, &app.name)));
    let mut app_at = BTreeMap::new();
    options.chain(tables).find_map(|(path, app)| {
        let other = app_at.insert(path, app)?;
        Some(format!(
            "`{path}` is mounted twice, for {other} and {app}, expected one app"
        ))
    })
}

#[cfg(test)]
mod tests;
