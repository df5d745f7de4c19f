//! The errors of the start of a server.

use std::{io, path::PathBuf};

use tokio::task::JoinError;

use crate::{
    config::BindAddress, control_socket::ControlError, folder::store::StoreError, log::OutputError,
};

/// The reason why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: BindAddress,
        /// The system's error.
        source: io::Error,
    },
    /// The output of plugins cannot be captured.
    #[error("cannot capture what plugins print; see --capture-output")]
    Capture(#[source] io::Error),
    /// The control socket cannot be bound.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The plugins folder cannot be read.
    #[error("cannot read the plugins folder {}, expected a folder that is there; see --plugins", folder.display())]
    Folder {
        /// The path of the folder.
        folder: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error(transparent)]
    Log(#[from] OutputError),
    /// The system provides no threads or no event queue.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The file of the running program, which worker processes execute as well, cannot be opened.
    #[error("cannot start worker processes: is /proc mounted?")]
    Executable(#[source] io::Error),
    /// The sockets and folders that the earlier build handed over cannot be used.
    #[error("cannot take over the sockets and folders of the previous build")]
    Resume(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The supervisor's task has ended without a stop. The source is the task's panic.
    #[error("the supervisor failed")]
    Supervisor(#[source] Option<JoinError>),
    /// The folder for private copies cannot be used.
    #[error("cannot keep copies of libraries; see --state-dir")]
    Store(#[from] StoreError),
}
