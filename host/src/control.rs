//! The control socket: HTTP/1.1 on a Unix socket that only the host's own user may open.
//!
//! It is there when the operator asks for it. What can be asked of it is in [`verbs`]; `host ctl`
//! ([`ctl`](crate::ctl)) is its client, and so is `curl --unix-socket`.

mod upload;
pub mod verbs;

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
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::{
    fs::{Mode, fchmod},
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, sync::Semaphore};
use tracing::debug;

use self::verbs::Control;
use crate::channel::{Packing, Unpacking};
use crate::shortage::Shortage;

/// A bound control socket.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    file: SocketFile,
}

impl ControlListener {
    /// Binds the socket at `path`, with mode 0600 from the start. A socket that is there but that
    /// nobody listens on, as a killed host leaves it, is replaced.
    ///
    /// # Errors
    ///
    /// When something else is there, when somebody listens there, or when the system refuses.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        make_way(path)?;
        let failed = |source| ControlError::Bind {
            path: path.to_owned(),
            source,
        };
        let listener = listen_on(path).map_err(failed)?;
        let metadata = fs::metadata(path).map_err(failed)?;
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

    /// Goes on with a socket that an earlier image of this process bound.
    ///
    /// # Errors
    ///
    /// When its descriptor is missing, or no listening socket.
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

    /// Answers what is asked from now on, until the runtime ends. The file is removed when the
    /// result is dropped.
    pub fn start(self, control: Control) -> SocketFile {
        tokio::spawn(serve(self.listener, control));
        self.file
    }
}

async fn serve(listener: UnixListener, control: Control) {
    let control = Arc::new(control);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shortage = Shortage::new("control connections");
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                shortage.wait(&error).await;
                continue;
            }
        };
        shortage.over();
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let service = service_fn(|request| verbs::answer(&control, request));
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "Control connection failed");
            }
            drop(permit);
        });
    }
}

/// Removes a socket that nobody listens on.
fn make_way(path: &Path) -> Result<(), ControlError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        // Binding says what is wrong, if anything is.
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

/// Connects, without waiting where many others wait already: a host that is stopped accepts nobody.
fn try_connect(path: &Path) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?)?)
}

fn listen_on(path: &Path) -> io::Result<net::UnixListener> {
    let socket: OwnedFd = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // Before it has a name: Linux gives the file the mode of the socket (unix(7) leaves it out), so
    // that nobody else can open it in between.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The file of a socket, which is removed with it, unless another took its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
    /// The socket, for the next image of this process.
    listener: OwnedFd,
}

/// A control socket as a value that can be JSON, for the next image of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedSocket {
    path: PathBuf,
    id: (u64, u64),
    /// The number of the descriptor.
    listener: usize,
}

impl SocketFile {
    /// Describes the socket, and adds it to the descriptors that travel.
    pub fn suspend<'a>(&'a self, packing: &mut Packing<'a>) -> SuspendedSocket {
        SuspendedSocket {
            path: self.path.clone(),
            id: self.id,
            listener: packing.put(&self.listener),
        }
    }

    /// Removes the file, unless another took its place.
    pub fn remove(&self) {
        let is_ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.id;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // The next one that starts makes way for itself.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A control socket that was asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The system refuses.
    #[error("cannot listen on unix:{}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process is there, or a user whose sockets this one may not open.
    #[error("cannot listen on unix:{}: another process does; give each host a socket of its own", .0.display())]
    InUse(PathBuf),
    /// A file that may be somebody's.
    #[error("cannot listen on unix:{}: it is there, and is no socket; remove it or choose another path", .0.display())]
    NotSocket(PathBuf),
}

/// How many clients are served at once; more wait.
const CONNECTIONS: usize = 32;

/// How many clients may wait.
const BACKLOG: i32 = 32;

/// How long a client may take to send the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
