//! The file and the listening socket of the control socket.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    },
};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::channel::{Packing, Unpacking};

/// A bound control socket.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    file: SocketFile,
}

impl ControlListener {
    /// Binds the socket at `path`, with mode 0600 from the start. Replaces a socket that no process listens
    /// on, which a killed host leaves behind.
    ///
    /// # Errors
    ///
    /// Fails when the path is in use: by a process that listens, or by a file that is no socket. Also
    /// fails when the system does not allow to bind.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        remove_stale_socket(path)?;
        let failed = |source| ControlError::Bind {
            path: path.to_owned(),
            source,
        };
        let listener = listen_on(path).map_err(failed)?;
        let metadata = fs::metadata(path).map_err(failed)?;
        // A task will own tokio's listener and cannot return it, so keep a duplicate that an upgrade can pass on.
        let kept = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Self {
            listener: UnixListener::from_std(listener).map_err(failed)?,
            file: SocketFile {
                listener: kept,
                path: path.to_owned(),
                id: (metadata.dev(), metadata.ino()),
            },
        })
    }

    /// Takes over the socket that the previous build of the host has bound in this process, before an
    /// upgrade in place.
    ///
    /// # Errors
    ///
    /// Fails when the descriptor is missing, or is no listening socket.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn resume(suspended: SuspendedSocket, descriptors: &mut Unpacking) -> io::Result<Self> {
        let listener = net::UnixListener::from(descriptors.take(suspended.listener)?);
        listener.set_nonblocking(true)?;
        let kept = listener.as_fd().try_clone_to_owned()?;
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            file: SocketFile {
                path: suspended.path,
                id: suspended.id,
                listener: kept,
            },
        })
    }

    /// Splits the socket into the listener and the file.
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Removes a socket that no process listens on. Does nothing if there is no file.
fn remove_stale_socket(path: &Path) -> Result<(), ControlError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        // Usually the file does not exist. Any other problem is reported by the bind that follows.
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotSocket(path.to_owned()));
    }
    match try_connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| ControlError::Bind {
                path: path.to_owned(),
                source,
            }),
        _ => Err(ControlError::InUse(path.to_owned())),
    }
}

/// Connects without blocking: a blocking connect would wait for ever if the backlog of a stopped host is full.
fn try_connect(path: &Path) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?)?)
}

/// Binds and listens, so that only the owner can ever connect.
fn listen_on(path: &Path) -> io::Result<net::UnixListener> {
    let socket: OwnedFd = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // Set the mode before the bind makes the file, so that no other user can connect in between. Linux
    // gives the file the mode of the socket, although unix(7) does not mention it.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The file of a listening socket. Dropping the value removes the file, unless another process has bound
/// the path since.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The device and inode of the file.
    id: (u64, u64),
    /// A duplicate of the listening descriptor, which an upgrade passes on.
    listener: OwnedFd,
}

/// A control socket as JSON can carry it, for the build that an upgrade executes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedSocket {
    path: PathBuf,
    id: (u64, u64),
    /// The index of the listener among the descriptors that are passed on.
    listener: usize,
}

impl SocketFile {
    /// Describes the socket, and adds its listener to the descriptors that are passed on.
    pub fn suspend<'a>(&'a self, packing: &mut Packing<'a>) -> SuspendedSocket {
        SuspendedSocket {
            path: self.path.clone(),
            id: self.id,
            listener: packing.put(&self.listener),
        }
    }

    /// Removes the file, unless another process has bound the path since.
    pub fn remove(&self) {
        let is_ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // Ignore a failure: the next host that binds the path removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The reason why a control socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The system does not allow it.
    #[error("cannot listen on unix:{}", path.display())]
    Bind {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process listens on the socket, or the socket belongs to another user.
    #[error("cannot listen on unix:{}: another process does; give each host a socket of its own", .0.display())]
    InUse(PathBuf),
    /// The path is a file that is no socket. It is not removed, because it may be of value.
    #[error("cannot listen on unix:{}: the path exists and is not a socket; remove it or choose another path", .0.display())]
    NotSocket(PathBuf),
}

/// The number of connections that may wait.
const BACKLOG: i32 = 32;
