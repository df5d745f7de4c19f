//! The settings in force, written as a configuration file: for `--print-config`, and by key to compare
//! two sets of settings.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, parser::ValueSource};

use super::{Sources, file};

/// Returns the settings as a configuration file, with the source of each in a comment.
pub(super) fn print(sources: &Sources<'_>) -> String {
    let line = |arg: &Arg| {
        let (id, key) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        let Some(value) = value(arg, sources) else {
            return format!("# {key} is not set\n");
        };
        if key == SECRET {
            return format!("# {key} is set, and not shown\n");
        }
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

/// Returns the TOML value of each setting by its key. All tables `[app.NAME]` are one text.
pub(super) fn by_key(sources: &Sources<'_>) -> BTreeMap<String, String> {
    let setting = |arg: &Arg| Some((arg.get_long()?.to_owned(), value(arg, sources)?));
    file::keys(sources.command)
        .filter_map(setting)
        .chain([(file::APP.to_owned(), sources.file.tables.clone())])
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

/// Returns a value of the command line as TOML: a number if it reads as one, else a string.
fn to_toml(text: &str) -> toml::Value {
    text.parse().map_or_else(
        |_| toml::Value::String(text.to_owned()),
        toml::Value::Integer,
    )
}

/// The option whose value is never printed, because whoever knows it can make the host log requests.
const SECRET: &str = "debug-header";
