//! The errors of operators' commands.

use crate::config::MAX_WORKERS;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The load failed. The version that served continues to serve.
    #[error("it was not loaded: {0}")]
    Failed(String),
    /// No other library served before the current one.
    #[error("no other library of {0} has served, so a rollback is not possible")]
    NoPrevious(String),
    /// No app has this name.
    #[error("there is no app {name:?}, expected one of: {known}")]
    NotFound {
        /// The name.
        name: String,
        /// The names of all apps, separated by commas.
        known: String,
    },
    /// An uploaded library was not moved into the plugins folder.
    #[error("{plugin} is not deployed, and the plugins folder is as it was: {reason}")]
    NotDeployed {
        /// The plugin.
        plugin: String,
        /// The cause.
        reason: String,
    },
    /// The server has no worker processes (`--workers=0`).
    #[error("there are no worker processes: the server was started with --workers=0")]
    OneProcess,
    /// The library serves, but its file could not be moved into the plugins folder.
    #[error(
        "it serves, but {file} cannot be put in place, so the next start of the host loads what the folder has: {reason}"
    )]
    NotPlaced {
        /// The file.
        file: String,
        /// The error of the system.
        reason: String,
    },
    /// The host stops.
    #[error("the host is stopping")]
    Stopping,
    /// A newer request replaced this one, or the app was removed.
    #[error("a newer request replaced it before it was loaded")]
    Superseded,
    /// The number of workers is out of range.
    #[error("there cannot be {wanted} workers, expected 1 to {MAX_WORKERS}; there are {was}")]
    WorkerCount {
        /// The requested number.
        wanted: usize,
        /// The current target number.
        was: usize,
    },
}
