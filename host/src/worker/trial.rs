//! The trial: a library is opened for the first time in a separate process that serves no requests.
//!
//! Opening a library runs its static constructors while the dynamic linker holds its lock. A constructor that
//! hangs would freeze every thread that needs the lock. A constructor that crashes or exits would take a
//! serving worker down. In a separate process neither harms a request.

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time;

use super::library;
use crate::{
    error_chain::chain,
    exit,
    supervisor::{
        output_tail::{OutputTail, StandardStream},
        process::{ChildExit, Children, Executable, Spawned},
    },
    terminal,
};

/// The first argument of a trial process. The second is the path of the library.
pub const OPEN: &str = "--internal-open";

/// Opens the library, prints the error if there is one, and exits.
pub fn run(library: Option<OsString>) -> ! {
    let opened = library::open(Path::new(&library.unwrap_or_default()));
    match opened {
        Ok(_) => exit::leave(OPENED, || {}),
        Err(error) => {
            // The supervisor reads the error from the last line.
            terminal::print(chain(&error), ExitCode::FAILURE);
            exit::leave(1, || {})
        }
    }
}

/// Runs trials.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The program.
    pub executable: Arc<Executable>,
    /// The set of child processes.
    pub children: Children,
    /// How long opening a library may take.
    pub limit: Duration,
    /// The name of the option for the limit, for error texts.
    pub option: &'static str,
}

impl Trial {
    /// Opens the library in a trial process.
    ///
    /// # Errors
    ///
    /// With the reason in one line, when the library cannot be opened, or when it ends or hangs the process.
    pub async fn open(&self, library: &Path) -> Result<(), String> {
        let mut command: Command = self.executable.command();
        command
            .arg(OPEN)
            .arg(library)
            .stdin(std::process::Stdio::null());
        let started = self.children.start(command);
        let Spawned {
            mut child,
            stdout,
            stderr,
        } = started.map_err(|error| format!("there is no process to open it in: {error}"))?;
        let words = OutputTail::follow(stdout, stderr, |_: StandardStream, _: &str| {});
        let limit = self.limit;
        let Ok(ended) = time::timeout(limit, child.wait()).await else {
            // The process may have exited at this moment.
            let _ = child.kill(Signal::KILL);
            let _ = child.wait().await;
            return Err(format!(
                "opening it did not end within {}: does a static constructor hang? see {}",
                humantime::format_duration(limit),
                self.option
            ));
        };
        let ended = ended.map_err(|error| error.to_string())?;
        let words = words.finish(LAST_WORDS).await;
        let last = words.last().cloned().unwrap_or_default();
        match ended {
            ChildExit::Exited { code } if code == i32::from(OPENED) => Ok(()),
            ChildExit::Exited { code: 1 } if !last.is_empty() => Err(last),
            _ => Err(format!(
                "opening it ended the process with {ended}: a static constructor, or a C library in it, is to blame{}",
                if last.is_empty() {
                    String::new()
                } else {
                    format!("; it said last: {last}")
                }
            )),
        }
    }
}

/// The exit code of a successful trial. No library is likely to exit with this code by itself.
const OPENED: u8 = 71;

/// How long to read the output after the exit of the process.
const LAST_WORDS: Duration = Duration::from_millis(200);
