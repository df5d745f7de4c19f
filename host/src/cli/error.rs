//! The errors of a command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::error::ErrorKind;

use crate::{settings::SettingsError, terminal};

/// The reason why a command line runs no command: the command line is wrong, or asks for help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The first argument is this folder or file and no subcommand. The text is the command line that the
    /// author probably meant.
    #[error("{0:?} is no command; `{1}` is what it may be meant for")]
    NoCommand(PathBuf, String),
    /// The flags, the environment or the configuration file are wrong, or the command line asks for help.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl CliError {
    /// Prints the error and its causes to stderr, or the help to stdout. Returns the exit code of the
    /// process: 2, or 0 after help.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::NoCommand(..) => {
                terminal::print_error(self);
                ExitCode::from(2)
            }
            Self::Settings(error) => error.report(),
        }
    }

    /// Converts an error of clap. If the first argument is a folder or a file, the result suggests a command.
    pub(super) fn with_suggestion(error: clap::Error, args: &[OsString]) -> Self {
        // clap reports a path in place of a subcommand as an unknown subcommand or argument.
        let is_unknown_argument = matches!(
            error.kind(),
            ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
        );
        let Some(first) = args.get(1).filter(|_| is_unknown_argument).map(Path::new) else {
            return error.into();
        };
        if first.is_dir() {
            let suggestion = format!("host --plugins {}", first.display());
            Self::NoCommand(first.to_owned(), suggestion)
        } else if first.is_file() {
            let suggestion = format!("host check {}", first.display());
            Self::NoCommand(first.to_owned(), suggestion)
        } else {
            error.into()
        }
    }
}

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> Self {
        Self::Settings(error.into())
    }
}
