//! The upgrade in place: another build of this program proves that it can take over, and is then executed
//! in this process.
//!
//! execve(2) keeps the process number, the children and the open sockets. The state for the new image is
//! written as JSON to a memory file. That file and all descriptors are sent into a Unix socket pair, whose
//! other end becomes the new image's stdin. Descriptors in the queue of a socket survive an exec, and the
//! new image receives them as owned values. So no descriptor number is passed, and no descriptor is left
//! open by mistake.

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

pub use self::proof::{PROVE, ProofError, check_state, print_proof, prove};
use crate::channel::{
    MAX_DESCRIPTORS, Packing, Unpacking, bytes_to_fd, fd_to_bytes, receive, send, socket_pair,
};

/// Executes `path` in this process with the arguments `args` (the first is the program's name) and this
/// process's environment. Hands over `state`, which names descriptors by their index in `packing`. Does
/// not return on success.
///
/// The exec ends all other threads wherever they are. So the caller must first stop everything that must
/// not be interrupted half-way: it freezes channels with [`crate::channel::Sender::freeze`], and it is
/// itself the only one that starts processes. Signals stay pending until the new image calls
/// [`Adopted::unblock_signals`].
///
/// # Errors
///
/// When the image cannot be executed. Everything is as before then.
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
    let old_stdin = stdin().try_clone_to_owned().map_err(failed)?;
    let handed = hand_over(&state, &old_stdin, packing).map_err(failed)?;

    let blocked = signals().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let before = blocked.map_err(|errno| failed(errno.into()))?;
    let result = dup2_stdin(&handed).map_err(io::Error::from);
    let result = result.and_then(|()| Ok(execve(&image, &args, &environment)?));
    // The exec failed, so this image goes on. An error in restoring stdin or the signal mask must not
    // end the server.
    let _ = dup2_stdin(&old_stdin);
    let _ = before.thread_set_mask();
    result.map_err(failed)
}

/// The state and descriptors that an earlier image of this process has handed over.
#[derive(Debug)]
pub struct Adopted<S> {
    /// The state.
    pub state: S,
    /// The descriptors that the state names. They are closed at the next exec.
    pub descriptors: Unpacking,
}

/// Returns what an earlier image of this process has handed over, or `None` when this process was started
/// in another way. Must be called once, on the first thread, before anything else reads stdin.
///
/// # Errors
///
/// When the state cannot be parsed, because the two builds have different layouts under the same protocol
/// version.
pub fn adopt<S: DeserializeOwned>() -> Result<Option<Adopted<S>>, UpgradeError> {
    let is_upgrade = env::var(UPGRADE).is_ok_and(|pid| pid == process::id().to_string())
        && socket_domain(stdin()).ok() == Some(AddressFamily::UNIX);
    if !is_upgrade {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    while receive(stdin(), &mut [0], &mut descriptors).map_err(io::Error::from)? > 0 {}
    if descriptors.len() < OURS {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let others = descriptors.split_off(OURS);
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
    /// Delivers the signals that are pending since the old image called [`exec`]. Must be called on the first
    /// thread, after signal handlers are installed: before, a signal would end the process.
    ///
    /// # Errors
    ///
    /// When the system refuses, for which no reason is known.
    pub fn unblock_signals(&self) -> io::Result<()> {
        Ok(signals().thread_unblock()?)
    }
}

/// Sends the state and all descriptors into a socket pair. Returns the other end, where they wait in the
/// queue.
fn hand_over(state: &[u8], old_stdin: &OwnedFd, packing: &Packing<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket_pair()?;
    // The queue holds some hundred messages. A nonblocking socket fails when the queue is full; a blocking
    // one would wait for ever, because nobody reads.
    rustix::io::ioctl_fionbio(&ours, true)?;
    let state = bytes_to_fd(state)?;
    send(ours.as_fd(), &[0], &[state.as_fd(), old_stdin.as_fd()])?;
    for descriptors in packing.all().chunks(MAX_DESCRIPTORS) {
        send(ours.as_fd(), &[0], descriptors)?;
    }
    Ok(theirs)
}

/// Returns the environment with [`UPGRADE`] added. Its value is the process number, so that a child that
/// inherits the variable does not take itself for an upgrade.
fn environment() -> io::Result<Vec<CString>> {
    let ours = (OsString::from(UPGRADE), process::id().to_string().into());
    let others = env::vars_os().filter(|(key, _)| key != UPGRADE);
    let entries = others.chain([ours]).map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        c_string(&entry)
    });
    entries.collect()
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// The signals that the server handles. The default action of most of them ends the process.
fn signals() -> SigSet {
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
const UPGRADE: &str = "HOST_INTERNAL_UPGRADE";

/// The number of descriptors that this module adds itself: the state and the old stdin.
const OURS: usize = 2;

/// Why an upgrade failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The new image cannot be executed.
    #[error("cannot execute {}", path.display())]
    Exec {
        /// The image.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The state cannot be received.
    #[error("cannot receive what the image before handed over")]
    Receive(#[from] io::Error),
    /// The state is not JSON of the expected layout.
    #[error("cannot pass the state of the supervisor on to another image")]
    State(#[source] serde_json::Error),
}
