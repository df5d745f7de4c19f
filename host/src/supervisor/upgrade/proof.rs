//! The proof that another build gives before an upgrade. A process of that build reads the configuration and the state
//! that it would take over, and prints its protocol version.

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

/// The first argument of a process that gives a proof. The next arguments are those of the server.
pub const PROOF_ARGUMENT: &str = "--internal-prove";

/// Prints the proof. A process that was started with [`PROOF_ARGUMENT`] calls this function after it has read the
/// configuration and the state, and exits with code 0 afterwards.
///
/// # Errors
///
/// Returns the system's error when stdout is closed.
pub fn print_proof(hello: &Hello) -> io::Result<()> {
    let hello = serde_json::to_string(hello)?;
    io::stdout().write_all(format!("{PROOF_PREFIX}{hello}\n").as_bytes())
}

/// Reads from stdin the state that this build would take over. A process that was started with [`PROOF_ARGUMENT`] calls
/// this function before it prints the proof. An empty stdin is accepted, because earlier builds pass no state.
///
/// # Errors
///
/// Fails when the state does not have the layout that this build expects.
pub fn check_state<S: DeserializeOwned>() -> Result<(), UpgradeError> {
    let mut state = Vec::new();
    io::stdin().read_to_end(&mut state)?;
    if !state.is_empty() {
        serde_json::from_slice::<S>(&state).map_err(UpgradeError::State)?;
    }
    Ok(())
}

/// Runs `path` with [`PROOF_ARGUMENT`], the server's arguments `args` (without the program's name), and `state` as its
/// stdin. Returns the hello of that build. Must be called within a tokio runtime with I/O and time.
///
/// # Errors
///
/// Returns the reason why that build must not take over. The process of that build has exited by then.
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
    command.arg(PROOF_ARGUMENT).args(args).stdin(state);
    let mut started = children.start(command).map_err(failed)?;
    let proof_line = Arc::new(Mutex::new(String::new()));
    let output = {
        let proof_line = Arc::clone(&proof_line);
        OutputTail::follow(started.stdout, started.stderr, move |stream, line| {
            // The proof is stored here, because the stored last lines may not contain it if many lines follow.
            if stream == StandardStream::Stdout && line.starts_with(PROOF_PREFIX) {
                line.clone_into(&mut proof_line.lock().unwrap_or_else(PoisonError::into_inner));
            }
        })
    };
    let Ok(exit) = time::timeout(limit, started.child.wait()).await else {
        started.child.kill(Signal::KILL).map_err(failed)?;
        // Reaped, so that no zombie remains.
        started.child.wait().await.map_err(failed)?;
        return Err(ProofError::TimedOut { path, limit });
    };
    let exit = exit.map_err(failed)?;
    let printed_lines = output.finish(OUTPUT_TIMEOUT).await.join("\n");
    if !exit.is_success() {
        return Err(ProofError::Refused {
            path,
            exit,
            printed_lines,
        });
    }
    let proof_line = proof_line.lock().unwrap_or_else(PoisonError::into_inner);
    let theirs = proof_line
        .strip_prefix(PROOF_PREFIX)
        .map(serde_json::from_str::<Hello>);
    match theirs {
        Some(Ok(theirs)) if theirs.protocol == ours.protocol => Ok(theirs),
        Some(Ok(theirs)) => Err(ProofError::Protocol {
            path,
            theirs,
            ours: ours.clone(),
        }),
        _ => Err(ProofError::NoProof {
            path,
            printed_lines,
        }),
    }
}

/// The start of the line that contains the proof. The hello of the build follows as JSON.
const PROOF_PREFIX: &str = "host can take over: ";

/// How long the output is read after the exit of the process, because a child of the process may hold the pipes open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why another build must not take over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The program exited with code 0 but printed no proof.
    #[error("{} is no `host` that can take over: it gave no proof, but {printed_lines:?}", path.display())]
    NoProof {
        /// The program.
        path: PathBuf,
        /// The last lines that the program printed.
        printed_lines: String,
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
        "{} cannot take over: {exit}, {}",
        path.display(),
        if printed_lines.is_empty() { "and it said nothing" } else { printed_lines }
    )]
    Refused {
        /// The program.
        path: PathBuf,
        /// The exit status of the program.
        exit: ChildExit,
        /// The last lines that the program printed.
        printed_lines: String,
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
