//! A library is opened for the first time in a process of its own, which serves nobody.
//!
//! Opening a library runs its static constructors while the dynamic linker's lock is held. One that
//! hangs would freeze every thread that needs that lock; one that crashes, or ends the process, would
//! take a serving worker with it.

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

/// The first argument of a process that opens a library; the second is the library.
pub const OPEN: &str = "--internal-open";

/// Opens the library, says what came of it, and ends the process.
pub fn run(library: Option<OsString>) -> ! {
    let opened = library::open(Path::new(&library.unwrap_or_default()));
    match opened {
        Ok(_) => exit::leave(OPENED, || {}),
        Err(error) => {
            // The supervisor reads the last line.
            terminal::print(chain(&error), ExitCode::FAILURE);
            exit::leave(1, || {})
        }
    }
}

/// Opens libraries in processes of their own.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The program.
    pub executable: Arc<Executable>,
    /// The processes.
    pub children: Children,
    /// How long opening a library may take.
    pub limit: Duration,
    /// The option that says so.
    pub option: &'static str,
}

impl Trial {
    /// Opens the library.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or ends or hangs the process that opens it: why, in one line.
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
            // It may have ended at this moment.
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

/// The exit code of a process that has opened its library: no code that a library would choose.
const OPENED: u8 = 71;

/// How long the last lines of the process have to come.
const LAST_WORDS: Duration = Duration::from_millis(200);
