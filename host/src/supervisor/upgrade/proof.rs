//! The proof of another build before an upgrade: it starts, reads the configuration and the state that
//! it would take over, and prints which protocol version it speaks.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tokio::time;

use super::UpgradeError;
use crate::{
    channel::{Hello, bytes_to_fd},
    supervisor::{
        output_tail::{OutputTail, StandardStream},
        process::{ChildExit, Children},
    },
};

/// The first argument of a process that gives a proof. The arguments of the server follow.
pub const PROVE: &str = "--internal-prove";

/// Prints the proof. A process that was started with [`PROVE`] calls this after it has read the
/// configuration, and then exits with code 0.
///
/// # Errors
///
/// Returns the system's error when stdout is closed.
pub fn print_proof(hello: &Hello) -> io::Result<()> {
    let hello = serde_json::to_string(hello)?;
    io::stdout().write_all(format!("{MARK}{hello}\n").as_bytes())
}

/// Reads the state that this build is to take over from stdin. A process that was started with [`PROVE`]
/// calls this before it prints the proof. An earlier build passes no state.
///
/// # Errors
///
/// Fails when the state has another layout than this build knows.
pub fn check_state<S: DeserializeOwned>() -> Result<(), UpgradeError> {
    let mut state = Vec::new();
    io::stdin().read_to_end(&mut state)?;
    if !state.is_empty() {
        serde_json::from_slice::<S>(&state).map_err(UpgradeError::State)?;
    }
    Ok(())
}

/// Runs `path` with [`PROVE`] and the server's arguments `args` (without the program's name), with `state`
/// as its stdin, and returns the hello of that build. Must be called within a tokio runtime with I/O and time.
///
/// # Errors
///
/// With the reason why that build must not take over. Its process has exited then.
pub async fn prove(
    children: &Children,
    path: &Path,
    args: &[OsString],
    ours: &Hello,
    state: &[u8],
    limit: Duration,
) -> Result<Hello, ProofError> {
    let path = path.to_owned();
    let failed = |source| ProofError::Start {
        path: path.clone(),
        source,
    };
    let mut command = Command::new(&path);
    let mut state = File::from(bytes_to_fd(state).map_err(failed)?);
    state.rewind().map_err(failed)?;
    command.arg(PROVE).args(args).stdin(state);
    let mut started = children.start(command).map_err(failed)?;
    let printed = Arc::new(Mutex::new(String::new()));
    let words = {
        let printed = Arc::clone(&printed);
        OutputTail::follow(started.stdout, started.stderr, move |stream, line| {
            if stream == StandardStream::Stdout && line.starts_with(MARK) {
                line.clone_into(&mut printed.lock().unwrap_or_else(PoisonError::into_inner));
            }
        })
    };
    let Ok(ended) = time::timeout(limit, started.child.wait()).await else {
        started.child.kill(Signal::KILL).map_err(failed)?;
        started.child.wait().await.map_err(failed)?;
        return Err(ProofError::TimedOut { path, limit });
    };
    let ended = ended.map_err(failed)?;
    let said = words.finish(FLUSH).await.join("\n");
    if !ended.is_success() {
        return Err(ProofError::Refused { path, ended, said });
    }
    let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
    let theirs = printed
        .strip_prefix(MARK)
        .map(serde_json::from_str::<Hello>);
    match theirs {
        Some(Ok(theirs)) if theirs.protocol == ours.protocol => Ok(theirs),
        Some(Ok(theirs)) => Err(ProofError::Protocol {
            path,
            theirs,
            ours: ours.clone(),
        }),
        _ => Err(ProofError::NoProof { path, said }),
    }
}

/// The start of the line that is the proof.
const MARK: &str = "host can take over: ";

/// How long to read the output after the exit of the process.
const FLUSH: Duration = Duration::from_secs(1);

/// Why another build must not take over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The program exited with code 0 but printed no proof.
    #[error("{} is no `host` that can take over: it gave no proof, but {said:?}", path.display())]
    NoProof {
        /// The program.
        path: PathBuf,
        /// The last lines that the program printed.
        said: String,
    },
    /// The program speaks another protocol version.
    #[error(
        "{} speaks {theirs}, this server {ours}: it cannot take over and needs a restart",
        path.display()
    )]
    Protocol {
        /// The program.
        path: PathBuf,
        /// The hello of that build.
        theirs: Hello,
        /// The hello of this process.
        ours: Hello,
    },
    /// The program cannot serve with this configuration, or crashes.
    #[error(
        "{} cannot take over: {ended}, {}",
        path.display(),
        if said.is_empty() { "and it said nothing" } else { said }
    )]
    Refused {
        /// The program.
        path: PathBuf,
        /// The exit status of the program.
        ended: ChildExit,
        /// The last lines that the program printed.
        said: String,
    },
    /// The program cannot be started.
    #[error("cannot run {}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The program did not exit in time.
    #[error("{} cannot take over: it gave no proof within {limit:?}", path.display())]
    TimedOut {
        /// The program.
        path: PathBuf,
        /// The time limit.
        limit: Duration,
    },
}
