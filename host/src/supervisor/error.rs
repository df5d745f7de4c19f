//! Why something that was asked of the supervisor is not done.

use crate::config::MOST_WORKERS;

/// What was asked is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The load failed; what served, serves on.
    #[error("it was not loaded: {0}")]
    Failed(String),
    /// No library served before the one that does.
    #[error("no other library of {0} served before, so there is none to go back to")]
    NoPrevious(String),
    /// There is no app of this name.
    #[error("there is no app {name:?}, expected one of: {known}")]
    NotFound {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A library was not put into the plugins folder.
    #[error("{plugin} is not deployed, and the plugins folder is as it was: {reason}")]
    NotDeployed {
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
    /// There are no worker processes.
    #[error("there are no worker processes: the server was started with --workers=0")]
    OneProcess,
    /// The library serves, but the file could not be put into the folder.
    #[error(
        "it serves, but {file} cannot be put in place, so the next start of the host loads what the folder has: {reason}"
    )]
    NotPlaced {
        /// The file.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// The host stops.
    #[error("the host is stopping")]
    Stopping,
    /// Something newer took its place, or the app was removed.
    #[error("something newer took its place before it was loaded")]
    Superseded,
    /// So many workers are too few or too many.
    #[error("there cannot be {wanted} workers, expected 1 to {MOST_WORKERS}; there are {was}")]
    WorkerCount {
        /// How many were asked for.
        wanted: usize,
        /// How many there are to be.
        was: usize,
    },
}
