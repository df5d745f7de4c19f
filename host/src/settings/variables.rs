//! The environment variables that set options.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    sync::LazyLock,
};

use clap::{Arg, ArgMatches, parser::ValueSource};

use super::{SettingsError, nearest::nearest, one_line_message};

/// The environment variables whose names begin with `HOST_`, copied when the settings were first read. Later
/// reads of the settings (SIGHUP) must not read the environment again, because a plugin may have changed it.
///
/// Empty variables are left out, because tools such as docker compose can set a variable to an empty value but
/// cannot unset the variable.
static VARIABLES: LazyLock<BTreeMap<String, OsString>> = LazyLock::new(|| {
    let with_utf8_name =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    env::vars_os()
        .filter_map(with_utf8_name)
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect()
});

/// Returns whether the variable of an option is set and not empty.
pub(crate) fn is_variable_set(arg: &Arg) -> bool {
    value(arg).is_some()
}

/// Returns whether the command line sets an option.
pub(super) fn is_flag(matches: &ArgMatches, arg: &Arg) -> bool {
    matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// Returns the value of an option's variable, or `None` if the variable is missing or empty.
fn value(arg: &Arg) -> Option<&'static OsStr> {
    VARIABLES.get(&variable_name(arg)?).map(OsString::as_os_str)
}

/// Returns the name of an option's variable, or `None` for an option that takes no value.
fn variable_name(arg: &Arg) -> Option<String> {
    let takes_value = arg.get_action().takes_values();
    takes_value.then(|| format!("{PREFIX}{}", arg.get_id().as_str().to_uppercase()))
}

/// Returns the values of the variables of `command`'s options, by the option's id. Skips options that the
/// command line sets (see `matches`), because a flag overrides a variable.
///
/// # Errors
///
/// Fails when the value of a variable is not valid for its option.
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
        // Parse this value alone, so that an error is certainly caused by this variable.
        let args = [command.get_name().into(), flag];
        if let Err(error) = command.clone().try_get_matches_from(args) {
            return Err(SettingsError::Variable {
                variable: variable_name(arg).unwrap_or_default(),
                message: one_line_message(&error),
            });
        }
        values.insert(arg.get_id().to_string(), value.to_owned());
    }
    Ok(values)
}

/// Returns a warning for each variable that is no setting, but whose name is similar to the variable of a
/// setting. Other names that begin with `HOST_` cause no warning, because they belong to other programs:
/// Kubernetes sets `HOST_PORT` for a service with the name `host`.
pub(super) fn variable_warnings(command: &clap::Command) -> Vec<String> {
    let known: Vec<_> = command.get_arguments().filter_map(variable_name).collect();
    let is_unknown = |variable: &&String| !known.contains(variable);
    VARIABLES
        .keys()
        .filter(is_unknown)
        .filter_map(|variable| {
            let near = nearest(variable, known.iter().map(String::as_str))?;
            Some(format!("{variable} sets nothing; is {near} meant?"))
        })
        .collect()
}

/// Returns the command with the name of each option's variable in the help. Use the result only for help and
/// documentation: clap would read the variables as well when it parses, and a wrong variable would stop
/// `host ctl` and `host check`.
pub(crate) fn with_variable_names(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| match variable_name(&arg) {
        Some(variable) => arg.env(variable).hide_env_values(true),
        None => arg,
    })
}

/// The prefix of the names of all variables.
const PREFIX: &str = "HOST_";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_name_of_somebody_else_is_not() {
        let command = super::super::ServerCommand::command();
        let known: Vec<_> = command.get_arguments().filter_map(variable_name).collect();
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
