//! The errors that end a session.

use std::{io, path::PathBuf, process::ExitStatus};

use crate::{
    dev::{addresses::BindError, project::ProjectError, settings::ServerConfigError},
    settings::SettingsError,
};

/// The reason why a session cannot start or continue.
#[derive(Debug, thiserror::Error)]
pub(in crate::dev) enum SessionError {
    /// The server cannot listen on an address, or other machines could reach the address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Two plugins have the same name.
    #[error("two of the crates are named {0}, expected names that differ")]
    Duplicate(String),
    /// A folder of static files does not exist or cannot be read.
    #[error("cannot watch {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A path contains no project with a plugin.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The server ended soon after its start.
    #[error("the server ended ({0}) soon after it was started, which its log explains")]
    Server(ExitStatus),
    /// The server's configuration file cannot be written.
    #[error(transparent)]
    ServerConfig(#[from] ServerConfigError),
    /// The system refuses a folder, a socket, a signal handler or a process.
    #[error("cannot start the session")]
    System(#[source] io::Error),
    /// The server's settings are wrong.
    #[error(transparent)]
    Usage(Box<SettingsError>),
    /// The system provides no file events.
    #[error("cannot watch the sources")]
    Watch(#[source] notify::Error),
}
