//! The configuration file: TOML whose keys are the long options of the command line.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use clap::Arg;

use crate::config::{App, AppError};

/// What a configuration file sets.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The ids of options, and their values as the command line has them.
    pub(super) options: BTreeMap<String, Vec<String>>,
    /// The apps that it describes.
    pub(super) apps: Vec<App>,
    /// The tables of these, as TOML.
    pub(super) tables: String,
}

/// Reads the file at `path`, which sets options of `command`.
///
/// The command must not know of variables, so that what it finds wrong is wrong in the file.
///
/// # Errors
///
/// When the file cannot be read or is no TOML, or when a key or value is not one of `command`.
pub(super) fn read(path: PathBuf, command: &clap::Command) -> Result<Settings, FileError> {
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(FileError::Read { path, source }),
    };
    let table: toml::Table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let before = error
                .span()
                .and_then(|span| text.get(..span.start))
                .unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            return Err(FileError::Syntax {
                path,
                line,
                message: error.message().replace('\n', ", "),
            });
        }
    };
    let mut settings = Settings::default();
    let mut args = vec![command.get_name().to_owned()];
    for (key, value) in table {
        // A key of two words is written with a dash here, and with an underscore in many other places.
        let key = key.replace('_', "-");
        if key == APP {
            settings.apps = apps(&value).map_err(|error| FileError::App {
                path: path.clone(),
                error,
            })?;
            settings.tables = toml::Table::from_iter([(key, value)]).to_string();
            continue;
        }
        let Some(arg) = keys(command).find(|arg| arg.get_long() == Some(&key)) else {
            return Err(unknown(path, key, command));
        };
        let Some(values) = texts(&value) else {
            return Err(FileError::Kind {
                path,
                key,
                found: value.type_str(),
            });
        };
        args.extend(values.iter().map(|value| format!("--{key}={value}")));
        if settings
            .options
            .insert(arg.get_id().to_string(), values)
            .is_some()
        {
            return Err(FileError::Twice { path, key });
        }
    }
    match command.clone().try_get_matches_from(args) {
        Ok(_) => Ok(settings),
        Err(error) => Err(FileError::Value {
            path,
            message: super::message(&error),
        }),
    }
}

/// The error for a key that is no setting, with the setting that is probably meant.
fn unknown(path: PathBuf, key: String, command: &clap::Command) -> FileError {
    let valid: Vec<_> = keys(command)
        .filter_map(Arg::get_long)
        .chain([APP])
        .collect();
    let near = super::variables::nearest(&key, valid.iter().copied());
    FileError::Key {
        meant: near.map_or_else(String::new, |near| format!(" (is `{near}` meant?)")),
        valid: valid.join(", "),
        path,
        key,
    }
}

fn apps(value: &toml::Value) -> Result<Vec<App>, AppError> {
    let tables = value.as_table().ok_or_else(|| AppError::Value {
        key: APP.to_owned(),
        found: value.to_string(),
        expected: "tables [app.NAME]",
    })?;
    tables
        .iter()
        .map(|(name, value)| App::parse(name, value))
        .collect()
}

/// The key of the tables that describe apps.
pub const APP: &str = "app";

/// The options that a file may set.
pub(super) fn keys(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_action().takes_values() && arg.get_id() != "config")
}

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A table describes no app.
    #[error("{path}: {error}")]
    App {
        /// The file.
        path: PathBuf,
        /// What is wrong, which is told above and is no further cause.
        error: AppError,
    },
    /// The file cannot be read.
    #[error("could not read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{path}:{line}: {message}, expected TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The file has a key that is no setting.
    #[error("{path}: there is no setting `{key}`{meant}, expected one of {valid}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The key that is probably meant, as a question in brackets, or nothing.
        meant: String,
        /// Every key that there is.
        valid: String,
    },
    /// The file has a key twice, with a dash and with an underscore.
    #[error("{path}: `{key}` is set twice, expected it once")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The file has a value of a kind that no setting takes.
    #[error(
        "{path}: the value of `{key}` is of type {found}, expected a string, a number, or a list of some of them"
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The type in TOML's words.
        found: &'static str,
    },
    /// The file has a value that its setting does not take.
    #[error("{path}: {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// A value in the spelling of the command line; `None` for one that has none.
pub(super) fn texts(value: &toml::Value) -> Option<Vec<String>> {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(value.to_string())
        }
        _ => None,
    };
    match value {
        toml::Value::Array(values) if !values.is_empty() => values.iter().map(text).collect(),
        _ => Some(vec![text(value)?]),
    }
}
