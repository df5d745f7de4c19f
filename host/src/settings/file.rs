//! The configuration file, in TOML. Its keys are the names of the long options of the command line.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use clap::Arg;

use super::nearest::nearest;
use crate::config::{AppConfig, AppError};

/// The contents of a configuration file.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    /// The values of options by the option's id, each as a text that is valid on the command line.
    pub(super) options: BTreeMap<String, Vec<String>>,
    /// The apps in the tables `[app.NAME]`.
    pub(super) apps: Vec<AppConfig>,
    /// The text of the tables `[app.NAME]`, as TOML.
    pub(super) tables: String,
}

/// Reads the configuration file at `path`. Its keys are options of `command`.
///
/// The caller has not set the values of variables as defaults in `command` yet. Otherwise an error in a
/// variable would be reported as an error in the file.
///
/// # Errors
///
/// Fails when the file cannot be read or is no TOML, when a key is no option of `command`, or when a value is
/// not valid for its option.
pub(super) fn read(path: PathBuf, command: &clap::Command) -> Result<FileSettings, FileError> {
    match fs::read_to_string(&path) {
        Ok(text) => parse(path, &text, command),
        Err(source) => Err(FileError::Read { path, source }),
    }
}

/// Parses the text of the file at `path`.
fn parse(path: PathBuf, text: &str, command: &clap::Command) -> Result<FileSettings, FileError> {
    let table: toml::Table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            // The parser reports a range of bytes, but people need the number of the line.
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
    let mut settings = FileSettings::default();
    let mut args = vec![command.get_name().to_owned()];
    for (key, value) in table {
        // Accept underscores too, because keys in most TOML files are written with underscores.
        let key = key.replace('_', "-");
        if key == APP_KEY {
            settings.apps = apps(&value).map_err(|error| FileError::App {
                path: path.clone(),
                error,
            })?;
            settings.tables = toml::Table::from_iter([(key, value)]).to_string();
            continue;
        }
        let Some(arg) = keys(command).find(|arg| arg.get_long() == Some(&key)) else {
            return Err(unknown_key(path, key, command));
        };
        let Some(values) = to_flag_values(&value) else {
            return Err(FileError::ValueType {
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
            return Err(FileError::Duplicate { path, key });
        }
    }
    // Let clap parse the values of the file alone, so that the error names the file and not a flag.
    match command.clone().try_get_matches_from(args) {
        Ok(_) => Ok(settings),
        Err(error) => Err(FileError::Value {
            path,
            message: super::one_line_message(&error),
        }),
    }
}

/// Returns the error for an unknown key. The error suggests a setting if one has a similar name.
fn unknown_key(path: PathBuf, key: String, command: &clap::Command) -> FileError {
    let valid: Vec<_> = keys(command)
        .filter_map(Arg::get_long)
        .chain([APP_KEY])
        .collect();
    let near = nearest(&key, valid.iter().copied());
    FileError::Key {
        suggestion: near.map_or_else(String::new, |near| format!(" (is `{near}` meant?)")),
        valid: valid.join(", "),
        path,
        key,
    }
}

/// Parses the tables `[app.NAME]`.
fn apps(value: &toml::Value) -> Result<Vec<AppConfig>, AppError> {
    let tables = value.as_table().ok_or_else(|| AppError::Value {
        key: APP_KEY.to_owned(),
        found: value.to_string(),
        expected: "tables [app.NAME]",
    })?;
    tables
        .iter()
        .map(|(name, value)| AppConfig::parse(name, value))
        .collect()
}

/// The first key of the tables `[app.NAME]`.
pub const APP_KEY: &str = "app";

/// Returns the options that a configuration file may set: all options that take a value, except `--config`.
pub(super) fn keys(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| arg.get_action().takes_values() && arg.get_id() != "config")
}

/// The reason why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A table `[app.NAME]` is wrong.
    #[error("{path}: {error}")]
    App {
        /// The file.
        path: PathBuf,
        /// The reason. The field is no `#[source]`, because the text of this variant already contains the reason.
        error: AppError,
    },
    /// The file cannot be read.
    #[error("could not read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: {message}, expected TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The error of the TOML parser.
        message: String,
    },
    /// A key is no setting.
    #[error(
        "{}: there is no setting `{}`{suggestion}, expected one of {valid}",
        path.display(),
        key.escape_debug()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// A question in brackets that names the most similar key. Empty if no key is similar.
        suggestion: String,
        /// All valid keys, separated by commas.
        valid: String,
    },
    /// The file contains a key twice, once with a dash and once with an underscore.
    #[error("{path}: `{key}` is set twice, expected it once")]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value has a type that no setting accepts, such as a date.
    #[error(
        "{path}: the value of `{key}` is of type {found}, expected a string, a number, or a list of some of them"
    )]
    ValueType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The name of the value's type in TOML.
        found: &'static str,
    },
    /// A value is not valid for its setting.
    #[error("{path}: {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The error of the option's parser.
        message: String,
    },
}

/// Converts a TOML value to texts that are valid on the command line, one for each element of a list. Returns
/// `None` for tables, dates, nested lists and empty lists, because no option accepts them.
pub(super) fn to_flag_values(value: &toml::Value) -> Option<Vec<String>> {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{super::ServerCommand, *};
    use crate::fuzz::{Random, one_line};

    #[test]
    fn a_random_file_has_valid_settings_or_an_error_of_one_line() {
        let command = ServerCommand::command();
        let mut random = Random::new(8);
        let samples = [
            "log-level = \"info,shop=debug\"\nthreads = 4\n",
            "bind = [\"[::1]:1\", \"localhost:2\"]\nkeep_alive = '75s'\n",
            "[app.shop]\nplugin = 'shop'\nmount = ['/', '/a']\nreload = 'auto'\n\
             [app.shop.config]\ntitle = \"A\\nB\"\n",
            "# a comment\nmax-headers = 1_000\nauto-rollback = true\n",
        ];
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..1_000 {
            let text = random.text(&samples);
            match parse("host.toml".into(), &text, &command) {
                Ok(settings) => {
                    accepted += 1;
                    for app in settings.apps {
                        let config = app.config.map(|config| serde_json::from_str(&config));
                        let config: Option<serde_json::Map<_, _>> = config.transpose().unwrap();
                        drop(config);
                    }
                    let tables = parse("printed.toml".into(), &settings.tables, &command);
                    assert_eq!(tables.unwrap().tables, settings.tables, "{text:?}");
                }
                Err(error) => {
                    rejected += 1;
                    let error = one_line(&error, &text);
                    assert!(error.starts_with("host.toml:"), "{error}");
                }
            }
        }
        assert!(accepted > 50 && rejected > 200, "{accepted} {rejected}");
    }
}
