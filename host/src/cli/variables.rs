//! The variables of the environment that set options.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    sync::LazyLock,
};

use clap::{Arg, ArgMatches, parser::ValueSource};

use super::{Error, message};

/// The variables that begin with `HOST_`, as they were when the process started: a plugin may change
/// the environment of the process, and SIGHUP reads the settings again. A variable that is empty
/// counts as not set, because tools such as docker compose cannot unset one.
static VARIABLES: LazyLock<BTreeMap<String, OsString>> = LazyLock::new(|| {
    let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    env::vars_os()
        .filter_map(named)
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect()
});

/// The value of the variable that sets an option, unless it is missing or empty.
pub(super) fn value(arg: &Arg) -> Option<&'static OsStr> {
    VARIABLES.get(&name(arg)?).map(OsString::as_os_str)
}

/// The name of the variable that sets an option; options without a value have none.
pub(super) fn name(arg: &Arg) -> Option<String> {
    let takes_value = arg.get_action().takes_values();
    takes_value.then(|| format!("{PREFIX}{}", arg.get_id().as_str().to_uppercase()))
}

/// The values of all variables that set options of `command` and that no flag of `matches`
/// overrules, by the id of the option.
///
/// # Errors
///
/// When the option does not take the value.
pub(super) fn read(
    command: &clap::Command,
    matches: &ArgMatches,
) -> Result<BTreeMap<String, OsString>, Error> {
    let is_flag =
        |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut values = BTreeMap::new();
    for arg in command.get_arguments().filter(|arg| !is_flag(arg)) {
        let (Some(value), Some(long)) = (value(arg), arg.get_long()) else {
            continue;
        };
        let mut flag = OsString::from(format!("--{long}="));
        flag.push(value);
        // Alone, so that what is wrong is wrong in this variable.
        let args = [command.get_name().into(), flag];
        if let Err(error) = command.clone().try_get_matches_from(args) {
            return Err(Error::Variable {
                variable: name(arg).unwrap_or_default(),
                message: message(&error),
            });
        }
        values.insert(arg.get_id().to_string(), value.to_owned());
    }
    Ok(values)
}

/// A line for each variable that sets nothing, but whose name is nearly that of one that does. Others
/// are somebody else's: Kubernetes sets `HOST_PORT` for a service of the name `host`.
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

/// The word that `text` is probably meant to be: it differs in letters that were forgotten, doubled
/// or swapped, or in what stands between the words.
pub(super) fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.replace(['_', '-', '.'], "");
    let distance = |word: &&str| strsim::damerau_levenshtein(&letters(text), &letters(word));
    let near = words.into_iter().min_by_key(distance)?;
    (distance(&near) <= 1 + letters(text).len() / 10).then_some(near)
}

/// The command whose `--help` names the variable of each option. Clap itself must not read the variables:
/// `host ctl` and `host check` have no use for them, and would fail on a wrong one.
pub(super) fn with_names(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match name(&arg) {
        Some(variable) => arg.env(variable).hide_env_values(true),
        None => arg,
    })
}

/// What the names of variables begin with.
const PREFIX: &str = "HOST_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_name_of_somebody_else_is_not() {
        let command = super::super::command();
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
