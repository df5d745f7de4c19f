//! The trial: a new library is first opened in a separate process that serves no requests.
//!
//! Opening a library runs its static constructors while the dynamic linker holds its lock. A constructor that hangs
//! would block every thread that needs the lock. A constructor that crashes or exits would end a serving worker. In a
//! separate process, neither of them harms a request.

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time;

use crate::worker::library;
use crate::{
    error_chain::chain,
    exit,
    supervisor::{
        output_tail::{OutputTail, StandardStream},
        process::{ChildExit, Children, Executable, Spawned},
    },
    terminal,
};

/// The first argument of a trial process. The second argument is the path of the library.
pub const TRIAL_ARGUMENT: &str = "--internal-open";

/// Runs a trial process: opens the library and exits. If the library cannot be opened, prints the error.
pub fn run(library: Option<OsString>) -> ! {
    let opened = library::open(Path::new(&library.unwrap_or_default()));
    match opened {
        // `end_process` skips the exit handlers of the library, because the trial covers only the opening.
        Ok(_) => exit::end_process(OPENED_EXIT_CODE, || {}),
        Err(error) => {
            // The supervisor reads the error from the last line.
            terminal::print(chain(&error), ExitCode::FAILURE);
            exit::end_process(1, || {})
        }
    }
}

/// Starts trial processes and reads their results.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The program of the trial process, which is this program.
    pub executable: Arc<Executable>,
    /// The set of child processes.
    pub children: Children,
    /// How long opening a library may take. After that time the process is killed.
    pub timeout: Duration,
    /// The name of the option that sets the timeout, for error texts.
    pub timeout_option: &'static str,
}

impl Trial {
    /// Opens the library in a trial process.
    ///
    /// # Errors
    ///
    /// Returns the reason in one line when the library cannot be opened, or when the process crashes, exits or hangs
    /// while it opens the library.
    pub async fn open(&self, library: &Path) -> Result<(), String> {
        let mut command: Command = self.executable.command();
        command
            .arg(TRIAL_ARGUMENT)
            .arg(library)
            .stdin(std::process::Stdio::null());
        let started = self.children.start(command);
        let Spawned {
            mut child,
            stdout,
            stderr,
        } = started.map_err(|error| format!("there is no process to open it in: {error}"))?;
        let output = OutputTail::follow(stdout, stderr, |_: StandardStream, _: &str| {});
        let timeout = self.timeout;
        let Ok(exit) = time::timeout(timeout, child.wait()).await else {
            // A failure means that the process has exited at this moment.
            let _ = child.kill(Signal::KILL);
            // Reaped, so that no zombie remains.
            let _ = child.wait().await;
            return Err(format!(
                "opening it did not end within {}: does a static constructor hang? see {}",
                humantime::format_duration(timeout),
                self.timeout_option
            ));
        };
        let exit = exit.map_err(|error| error.to_string())?;
        let lines = output.finish(OUTPUT_TIMEOUT).await;
        let last = lines.last().cloned().unwrap_or_default();
        match exit {
            ChildExit::Exited { code } if code == i32::from(OPENED_EXIT_CODE) => Ok(()),
            // `run` exits with code 1 after it has printed the error.
            ChildExit::Exited { code: 1 } if !last.is_empty() => Err(last),
            _ => Err(format!(
                "opening it ended the process with {exit}: a static constructor, or a C library in it, is to blame{}",
                if last.is_empty() {
                    String::new()
                } else {
                    format!("; it said last: {last}")
                }
            )),
        }
    }
}

/// The exit code of a successful trial. A library whose constructor calls `exit` is unlikely to use this code.
const OPENED_EXIT_CODE: u8 = 71;

/// How long the output is read after the exit of the process, because a child of the process may hold the pipes open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(200);
