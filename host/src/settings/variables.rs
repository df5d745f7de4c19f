//! The environment variables that set options.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    sync::LazyLock,
};

use clap::{Arg, ArgMatches, parser::ValueSource};

use super::{SettingsError, message};

/// The variables that begin with `HOST_`, as they were when the settings were first read. Later reads, as
/// after SIGHUP, must not see the environment again, because a plugin may have changed it.
///
/// An empty variable counts as not set, because tools such as docker compose cannot unset one.
static VARIABLES: LazyLock<BTreeMap<String, OsString>> = LazyLock::new(|| {
    let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    env::vars_os()
        .filter_map(named)
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect()
});

/// Returns whether an option has a variable that is set and not empty.
pub(crate) fn is_set(arg: &Arg) -> bool {
    value(arg).is_some()
}

/// Returns whether an option was given on the command line.
pub(super) fn is_flag(matches: &ArgMatches, arg: &Arg) -> bool {
    matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// Returns the value of an option's variable, unless the variable is missing or empty.
fn value(arg: &Arg) -> Option<&'static OsStr> {
    VARIABLES.get(&name(arg)?).map(OsString::as_os_str)
}

/// Returns the name of an option's variable. Options without a value have none.
fn name(arg: &Arg) -> Option<String> {
    let takes_value = arg.get_action().takes_values();
    takes_value.then(|| format!("{PREFIX}{}", arg.get_id().as_str().to_uppercase()))
}

/// Returns the values of the variables of `command`'s options, by the option's id. Leaves out the variables
/// of options that are flags in `matches`.
///
/// # Errors
///
/// Fails when an option does not take the value of its variable.
pub(super) fn read(
    command: &clap::Command,
    matches: &ArgMatches,
) -> Result<BTreeMap<String, OsString>, SettingsError> {
    let mut values = BTreeMap::new();
    let options = command.get_arguments();
    for arg in options.filter(|arg| !is_flag(matches, arg)) {
        let (Some(value), Some(long)) = (value(arg), arg.get_long()) else {
            continue;
        };
        let mut flag = OsString::from(format!("--{long}="));
        flag.push(value);
        // Parse the variable alone, so that an error is certainly an error of this variable.
        let args = [command.get_name().into(), flag];
        if let Err(error) = command.clone().try_get_matches_from(args) {
            return Err(SettingsError::Variable {
                variable: name(arg).unwrap_or_default(),
                message: message(&error),
            });
        }
        values.insert(arg.get_id().to_string(), value.to_owned());
    }
    Ok(values)
}

/// Returns a warning for each variable that sets nothing, but whose name is similar to one that does.
/// Variables with other names belong to other programs: Kubernetes sets `HOST_PORT` for a service of the
/// name `host`.
pub(super) fn near_misses(command: &clap::Command) -> Vec<String> {
    let known: Vec<_> = command.get_arguments().filter_map(name).collect();
    let missed = |variable: &&String| !known.contains(variable);
    VARIABLES
        .keys()
        .filter(missed)
        .filter_map(|variable| {
            let near = nearest(variable, known.iter().map(String::as_str))?;
            Some(format!("{variable} sets nothing; is {near} meant?"))
        })
        .collect()
}

/// Returns the word that `text` was probably meant to be, if one is similar: of every ten letters, one
/// may be missing, extra, wrong or swapped with the next. Dashes, underscores and dots do not count.
pub(super) fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.replace(['_', '-', '.'], "");
    let distance = |word: &&str| strsim::damerau_levenshtein(&letters(text), &letters(word));
    let near = words.into_iter().min_by_key(distance)?;
    (distance(&near) <= 1 + letters(text).len() / 10).then_some(near)
}

/// Returns the command with the variable of each option in its `--help`. Use the result for help only:
/// clap would read the variables as well, and a wrong one would stop `host ctl` and `host check`.
pub(crate) fn with_names(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match name(&arg) {
        Some(variable) => arg.env(variable).hide_env_values(true),
        None => arg,
    })
}

/// The first letters of every variable's name.
const PREFIX: &str = "HOST_";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_name_of_somebody_else_is_not() {
        let command = super::super::ServerCommand::command();
        let known: Vec<_> = command.get_arguments().filter_map(name).collect();
        let find = |text| nearest(text, known.iter().map(String::as_str));
        for (missed, meant) in [
            ("HOST_LOGLEVEL", "HOST_LOG_LEVEL"),
            ("HOST_LOG_LEVELS", "HOST_LOG_LEVEL"),
            ("HOST_PLUGIN", "HOST_PLUGINS"),
            ("HOST_MAX_CONECTIONS", "HOST_MAX_CONNECTIONS"),
            ("HOST_ACCESSLOG_FORMAT", "HOST_ACCESS_LOG_FORMAT"),
        ] {
            assert_eq!(find(missed), Some(meant), "{missed}");
        }
        for other in [
            "HOST_PORT",
            "HOST_PORT_8000_TCP",
            "HOST_SERVICE_HOST",
            "HOST_CONTROL_PORT",
            "HOST_NAME",
            "HOST_IP",
            "HOST_TEST_PATIENCE",
        ] {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
