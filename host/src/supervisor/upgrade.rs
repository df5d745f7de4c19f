//! The upgrade in place: another build of this program proves that it can take over, and is executed in this process
//! after that.
//!
//! execve(2) preserves the process number, the children and the open sockets. The state for the new image is written as
//! JSON to a memory file. That file and all descriptors are sent into a Unix socket pair, whose other end becomes the
//! stdin of the new image. Descriptors in the queue of a socket survive an exec, and the new image receives them as
//! owned values. So no descriptor number has to be passed, and no descriptor stays open by mistake.

mod proof;

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process,
};

use nix::{
    sys::signal::{SigSet, SigmaskHow, Signal},
    unistd::execve,
};
use rustix::{
    net::{AddressFamily, sockopt::socket_domain},
    stdio::{dup2_stdin, stdin},
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::proof::{PROOF_ARGUMENT, ProofError, check_state, print_proof, prove};
use crate::channel::{
    MAX_DESCRIPTORS, Packing, Unpacking, bytes_to_fd, fd_to_bytes, receive, send, socket_pair,
};

/// Executes `path` in this process with the arguments `args` (the first is the program's name) and this process's
/// environment. Hands over `state`, which names descriptors by their index in `packing`. Does not return on success.
///
/// The exec ends all other threads at any point of their work. So the caller must first stop all work that must not be
/// interrupted: it must freeze the channels with [`crate::channel::Sender::freeze`], and no other thread may start a
/// process. Signals stay pending until the new image calls [`Adopted::unblock_signals`].
///
/// # Errors
///
/// When the image cannot be executed. After an error, this image continues with its old stdin and signal mask.
pub fn exec(
    path: &Path,
    args: &[OsString],
    state: &impl Serialize,
    packing: &Packing<'_>,
) -> Result<Infallible, UpgradeError> {
    let failed = |source| UpgradeError::Exec {
        path: path.to_owned(),
        source,
    };
    let image = c_string(path.as_os_str()).map_err(failed)?;
    let args = args.iter().map(|arg| c_string(arg));
    let args = args.collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let environment = environment().map_err(failed)?;
    let state = serde_json::to_vec(state).map_err(UpgradeError::State)?;
    // The new image restores this stdin after it has received the state, and this image restores it if the exec fails.
    let old_stdin = stdin().try_clone_to_owned().map_err(failed)?;
    let handover_socket = send_handover(&state, &old_stdin, packing).map_err(failed)?;

    // Blocked, because an exec resets all signal handlers: until the new image has installed its own handlers, a signal
    // would end the process.
    let blocked = handled_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let old_mask = blocked.map_err(|errno| failed(errno.into()))?;
    // Stdin is the only descriptor whose number the new image knows.
    let result = dup2_stdin(&handover_socket).map_err(io::Error::from);
    let result = result.and_then(|()| Ok(execve(&image, &args, &environment)?));
    // The exec failed, so this image continues. Errors while stdin and the signal mask are restored are ignored,
    // because they must not end the server.
    let _ = dup2_stdin(&old_stdin);
    let _ = old_mask.thread_set_mask();
    result.map_err(failed)
}

/// The state and descriptors that an earlier image of this process has handed over.
#[derive(Debug)]
pub struct Adopted<S> {
    /// The state.
    pub state: S,
    /// The descriptors that the state names by their index. They are closed at the next exec.
    pub descriptors: Unpacking,
}

/// Returns the state and descriptors that an earlier image of this process has handed over, or `None` if this process
/// is not the result of an upgrade. Must be called once, on the first thread, before other code reads stdin.
///
/// # Errors
///
/// When the state or a descriptor cannot be received, or when the state cannot be parsed. The latter happens if the two
/// builds have different layouts of the state but the same protocol version.
pub fn adopt<S: DeserializeOwned>() -> Result<Option<Adopted<S>>, UpgradeError> {
    let is_upgrade = env::var(UPGRADE_VARIABLE).is_ok_and(|pid| pid == process::id().to_string())
        && socket_domain(stdin()).ok() == Some(AddressFamily::UNIX);
    if !is_upgrade {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    // Each call receives one message: one byte and some descriptors. `receive` returns 0 after the last message,
    // because the exec has closed the old image's end of the socket pair.
    while receive(stdin(), &mut [0], &mut descriptors).map_err(io::Error::from)? > 0 {}
    if descriptors.len() < OWN_DESCRIPTORS {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let others = descriptors.split_off(OWN_DESCRIPTORS);
    let [state, old_stdin] = &descriptors[..] else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    };
    dup2_stdin(old_stdin).map_err(io::Error::from)?;
    let state = fd_to_bytes(state)?;
    Ok(Some(Adopted {
        state: serde_json::from_slice(&state).map_err(UpgradeError::State)?,
        descriptors: Unpacking::from(others),
    }))
}

impl<S> Adopted<S> {
    /// Unblocks the signals that the old image blocked in [`exec`]. The system then delivers the pending signals. Must
    /// be called on the first thread after the signal handlers are installed, because without a handler a signal would
    /// end the process.
    ///
    /// # Errors
    ///
    /// Returns the system's error. No cause of an error is known.
    pub fn unblock_signals(&self) -> io::Result<()> {
        Ok(handled_signals().thread_unblock()?)
    }
}

/// Sends the state and all descriptors into a socket pair. Returns the other end, in whose queue the messages wait.
fn send_handover(state: &[u8], old_stdin: &OwnedFd, packing: &Packing<'_>) -> io::Result<OwnedFd> {
    let (sending_end, receiving_end) = socket_pair()?;
    // The queue has room for some hundred messages. If the queue is full, a nonblocking socket returns an error. A
    // blocking socket would wait forever, because nobody reads from the other end yet.
    rustix::io::ioctl_fionbio(&sending_end, true)?;
    let state = bytes_to_fd(state)?;
    send(
        sending_end.as_fd(),
        &[0],
        &[state.as_fd(), old_stdin.as_fd()],
    )?;
    for descriptors in packing.all().chunks(MAX_DESCRIPTORS) {
        send(sending_end.as_fd(), &[0], descriptors)?;
    }
    Ok(receiving_end)
}

/// Returns the environment of this process with [`UPGRADE_VARIABLE`] added. The value of the variable is the process
/// number, so that a child process that inherits the variable does not mistake its own start for an upgrade.
fn environment() -> io::Result<Vec<CString>> {
    let own_entry = (
        OsString::from(UPGRADE_VARIABLE),
        process::id().to_string().into(),
    );
    let others = env::vars_os().filter(|(key, _)| key != UPGRADE_VARIABLE);
    let entries = others.chain([own_entry]).map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        c_string(&entry)
    });
    entries.collect()
}

/// Returns `text` as a C string. Fails if `text` contains a NUL byte.
fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// Returns the signals that the server handles. The default action of most of these signals ends the process.
fn handled_signals() -> SigSet {
    [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGPIPE,
    ]
    .into_iter()
    .collect()
}

/// The environment variable that marks an upgrade. Its value is the process number.
const UPGRADE_VARIABLE: &str = "HOST_INTERNAL_UPGRADE";

/// The number of descriptors that this module adds before the others: the state and the old stdin.
const OWN_DESCRIPTORS: usize = 2;

/// Why an upgrade failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The new image cannot be executed, or the state cannot be sent to it.
    #[error("cannot execute {}", path.display())]
    Exec {
        /// The image.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The state cannot be received.
    #[error("cannot receive the state of the previous build")]
    Receive(#[from] io::Error),
    /// The state cannot be written as JSON, or is not JSON of the expected layout.
    #[error("cannot pass the state of the supervisor on to another image")]
    State(#[source] serde_json::Error),
}
