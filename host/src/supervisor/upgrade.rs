//! The upgrade in place: another build of this program proves that it can take over, and is
//! executed in this process.
//!
//! The process keeps its number, its children and its open connections (execve(2)). What the new
//! image has to know is a value, written as JSON to a memory file. That file and all descriptors
//! travel in one Unix socket, whose other end is the new image's stdin: descriptors in a socket's
//! queue survive an exec, and arrive as owned values. No descriptor number is passed, and none is
//! left open by mistake.

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

pub use self::proof::{PROVE, ProofError, print_proof, prove};
use crate::channel::{
    MAX_DESCRIPTORS, Packing, Unpacking, bytes_to_fd, fd_to_bytes, receive, send, socket_pair,
};

/// Executes `path` in this process with the arguments `args`, the first of which is the program's
/// name, and this process's environment. Hands over `state`, which names descriptors by their
/// numbers in `packing`. Does not return when it succeeds.
///
/// All other threads end where they are. So the caller stops whatever must not be cut in two:
/// channels by [`crate::channel::Sender::freeze`], starts of processes by being the one who starts
/// them. Signals that come from now on wait until the new image calls [`Adopted::unblock_signals`].
///
/// # Errors
///
/// Returns the reason when the image cannot be executed. Then everything is as it was before.
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
    // What fails here leaves this image with stdin or signals that nobody needs as much as the
    // server.
    let _ = dup2_stdin(&old_stdin);
    let _ = before.thread_set_mask();
    result.map_err(failed)
}

/// What an earlier image of this process has handed over.
#[derive(Debug)]
pub struct Adopted<S> {
    /// The value.
    pub state: S,
    /// The descriptors that the value names. They are closed at the next exec.
    pub descriptors: Unpacking,
}

/// Returns what an earlier image of this process has handed over, or `None` when this process was
/// started in another way. To be called once, on the first thread, before anything else reads
/// stdin.
///
/// # Errors
///
/// Fails when the state cannot be read: the images have different layouts of it under one protocol
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
    /// Lets signals come that waited since the old image called [`exec`]. To be called on the first
    /// thread, when the handlers of signals are installed; before, a signal would end the process.
    ///
    /// # Errors
    ///
    /// Returns the system's error, which none is known for.
    pub fn unblock_signals(&self) -> io::Result<()> {
        Ok(signals().thread_unblock()?)
    }
}

/// Returns a socket in whose queue the state and all descriptors wait.
fn hand_over(state: &[u8], old_stdin: &OwnedFd, packing: &Packing<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = socket_pair()?;
    // The queue has room for some hundred messages; with more, a blocking socket would wait for
    // ever.
    rustix::io::ioctl_fionbio(&ours, true)?;
    let state = bytes_to_fd(state)?;
    send(ours.as_fd(), &[0], &[state.as_fd(), old_stdin.as_fd()])?;
    for descriptors in packing.all().chunks(MAX_DESCRIPTORS) {
        send(ours.as_fd(), &[0], descriptors)?;
    }
    Ok(theirs)
}

/// The environment, with the note that the process is upgraded. The note holds the process's
/// number, so that it means nothing to a child that inherits it.
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

/// The signals that the server handles, most of which end a process that does not handle them.
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

/// The variable of the environment that holds the number of a process that is upgraded.
const UPGRADE: &str = "HOST_INTERNAL_UPGRADE";

/// How many descriptors are not the caller's: the state and stdin.
const OURS: usize = 2;

/// Why an upgrade failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The other image cannot be executed.
    #[error("cannot execute {}", path.display())]
    Exec {
        /// The image.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was handed over cannot be received.
    #[error("cannot receive what the image before handed over")]
    Receive(#[from] io::Error),
    /// The state is no JSON, or not of this layout.
    #[error("cannot pass the state of the supervisor on to another image")]
    State(#[source] serde_json::Error),
}
