//! The errors of a command line, and how they are reported.

use std::{
    error,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::FileError;
use crate::terminal;

/// A command line, environment or configuration file that is wrong, or a call for help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder or a library stands where a command is expected.
    #[error("{0:?} is no command; `{1}` is what it may be meant for")]
    NoCommand(PathBuf, String),
    /// The command line is not that of a server, which was expected.
    #[error("the command line is not that of a server")]
    NotServing,
    /// The command line is wrong, or the call is for help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A variable of the environment is wrong.
    #[error("{variable}: {message}")]
    Variable {
        /// Its name.
        variable: String,
        /// Why the value of the variable cannot be used.
        message: String,
    },
}

impl Error {
    /// Prints the error and its causes to stderr, or the help asked for to stdout. The result is
    /// for `main`: 2, or 0 after help.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if let Self::Usage(error) = self {
            // Printing fails when the terminal is gone, and then there is nowhere to report it.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
        let cause =
            error::Error::source(self).map_or_else(String::new, |cause| format!(": {cause}"));
        terminal::complain(format_args!("{self}{cause}"));
        ExitCode::from(2)
    }

    /// The error of a command line, which says what a path in the place of a command may be meant for.
    pub(super) fn of_usage(error: clap::Error, args: &[OsString]) -> Self {
        let is_positional = matches!(
            error.kind(),
            ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
        );
        let Some(first) = args.get(1).filter(|_| is_positional).map(Path::new) else {
            return error.into();
        };
        if first.is_dir() {
            let meant = format!("host --plugins {}", first.display());
            Self::NoCommand(first.to_owned(), meant)
        } else if first.is_file() {
            let meant = format!("host check {}", first.display());
            Self::NoCommand(first.to_owned(), meant)
        } else {
            error.into()
        }
    }
}

/// What clap finds wrong with a value, and which words are accepted, in one line; without how to use
/// the command line.
pub(super) fn message(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("error: ");
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => {
            format!("{line}, expected {}", words.join(" or "))
        }
        _ => line.to_owned(),
    }
}
