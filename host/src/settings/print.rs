//! Writes the settings in force as TOML: as a configuration file for `--print-config`, or as a map by key, in
//! which two sets of settings can be compared.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, parser::ValueSource};

use super::{Sources, file};

/// Returns the settings as a configuration file, with the source of each in a comment.
pub(super) fn to_config_file(sources: &Sources<'_>) -> String {
    let line = |arg: &Arg| {
        let (id, key) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        let Some(value) = value(arg, sources) else {
            return format!("# {key} is not set\n");
        };
        if key == SECRET_KEY {
            return format!("# {key} is set, and not shown\n");
        }
        // For clap, values of variables and of the file are defaults, so these two are checked before the default.
        // A variable overrides the file.
        let source = match sources.matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            _ if sources.variables.contains_key(id) => "environment",
            _ if sources.file.options.contains_key(id) => "file",
            _ => "default",
        };
        format!("{key} = {value}  # {source}\n")
    };
    file::keys(sources.command)
        .map(line)
        .chain([sources.file.tables.clone()])
        .collect()
}

/// Returns the TOML value of each setting by its key. The text of all tables `[app.NAME]` is one value, with
/// the key [`APP_KEY`](file::APP_KEY).
pub(super) fn by_key(sources: &Sources<'_>) -> BTreeMap<String, String> {
    let setting = |arg: &Arg| Some((arg.get_long()?.to_owned(), value(arg, sources)?));
    file::keys(sources.command)
        .filter_map(setting)
        .chain([(file::APP_KEY.to_owned(), sources.file.tables.clone())])
        .collect()
}

/// Returns the value of an option as TOML, or `None` if the option is not set.
fn value(arg: &Arg, sources: &Sources<'_>) -> Option<String> {
    let values = sources.matches.get_raw(arg.get_id().as_str())?;
    let values: Vec<_> = values
        .map(|value| to_toml(&value.to_string_lossy()))
        .collect();
    Some(match values.as_slice() {
        [value] if !matches!(arg.get_action(), ArgAction::Append) => value.to_string(),
        // A repeatable option is a list even with one value, as in `bind = ["127.0.0.1:8000"]`.
        _ => toml::Value::Array(values).to_string(),
    })
}

/// Converts a value of the command line to TOML: to an integer if the text is a number, else to a string.
fn to_toml(text: &str) -> toml::Value {
    text.parse().map_or_else(
        |_| toml::Value::String(text.to_owned()),
        toml::Value::Integer,
    )
}

/// The option whose value is never printed. The value is a secret: a client that sends it makes the host log
/// requests at debug.
const SECRET_KEY: &str = "debug-header";
