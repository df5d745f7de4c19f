//! The errors of settings, and their report to the user.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};

use super::FileError;
use crate::{error_chain::chain, terminal};

/// The reason why settings are not used: they are wrong, or the command line asks for help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The configuration file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command line does not start a server.
    #[error("the command line is not that of a server")]
    NotServerCommand,
    /// The command line is wrong, or asks for help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// An environment variable is wrong.
    #[error("{variable}: {message}")]
    Variable {
        /// The name of the variable.
        variable: String,
        /// The reason why its value is wrong.
        message: String,
    },
}

impl SettingsError {
    /// Prints the error and its causes to stderr, or the help to stdout. Returns the exit code of the
    /// process: 2, or 0 after help.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if let Self::Usage(error) = self {
            // Ignore a failure: without a terminal the failure cannot be reported either.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
        terminal::print_error(chain(self));
        ExitCode::from(2)
    }
}

/// Returns the first line of clap's error about a value, with the valid words if the option takes only certain
/// words. Line breaks in the value are escaped, because otherwise the first line would end within the value.
pub(super) fn one_line_message(error: &clap::Error) -> String {
    let mut text = error.to_string();
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
        && value.contains(['\n', '\r'])
    {
        text = text.replace(&**value, &value.escape_debug().to_string());
    }
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("error: ");
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => {
            format!("{line}, expected {}", words.join(" or "))
        }
        _ => line.to_owned(),
    }
}
