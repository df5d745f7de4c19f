//! The errors of settings, and how the program reports them.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};

use super::FileError;
use crate::{error_chain::chain, terminal};

/// Settings that are wrong, or a call for help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The configuration file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command line is not that of a server.
    #[error("the command line is not that of a server")]
    NotServing,
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
            // Ignore a failure: when the terminal is gone, there is nowhere to report it.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
        terminal::complain(chain(self));
        ExitCode::from(2)
    }
}

/// Returns clap's complaint about a value in one line, with the accepted words if there are few. Leaves
/// out the usage text that follows. Line breaks in the value are shown as escapes.
pub(super) fn message(error: &clap::Error) -> String {
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
