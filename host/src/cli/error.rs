//! The errors of a command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::error::ErrorKind;

use crate::{settings::SettingsError, terminal};

/// A command line that is wrong, or that asks for help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// A folder or a library stands where a subcommand is expected.
    #[error("{0:?} is no command; `{1}` is what it may be meant for")]
    NoCommand(PathBuf, String),
    /// The flags, the environment or the configuration file are wrong, or help is asked for.
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
                terminal::complain(self);
                ExitCode::from(2)
            }
            Self::Settings(error) => error.report(),
        }
    }

    /// Turns an error of clap's into one that suggests a command, if the first argument is a folder or a
    /// file.
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

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> Self {
        Self::Settings(error.into())
    }
}
