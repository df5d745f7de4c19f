//! What the process prints to stdout and stderr, as lines of the log: plugins, and libraries in any
//! language, print where there may be nobody to read it.
//!
//! The log itself, and whatever else opened a stream before, goes on writing to the stream as it
//! was.

use std::{
    io::{self, BufRead, BufReader, Read},
    os::fd::OwnedFd,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    pipe::{PipeFlags, pipe_with},
    stdio::{dup2_stderr, dup2_stdout},
};
use tracing::info;

use super::{losses::Losses, output::Output};

/// Where the lines go that worker processes print: to the streams of the server, or to the log.
#[derive(Clone, Debug)]
pub struct Printed {
    /// None where what is printed to stdout is logged.
    pub stdout: Option<Output>,
    /// None where what is printed to stderr is logged.
    pub stderr: Option<Output>,
}

impl Printed {
    /// Decides for each stream whether lines go on to it or are logged. All are logged when
    /// `logs_everything` is true. Lines are also logged in place of a stream that is one of `json`, the
    /// logs that are written as JSON: the program that reads such a log expects no other lines in it.
    ///
    /// `losses` also watches the streams that lines go on to.
    #[must_use]
    pub fn new(logs_everything: bool, json: &[&Output], losses: &Losses) -> Self {
        let goes_on = |stream: io::Result<Output>| {
            let stream = stream.ok()?;
            if logs_everything || json.iter().any(|json| json.is_same_file(&stream)) {
                return None;
            }
            stream.share();
            losses.watch("output of apps", stream.clone());
            Some(stream)
        };
        Self {
            stdout: goes_on(Output::stdout()),
            stderr: goes_on(Output::stderr()),
        }
    }
}

/// The streams as they were. Dropping it puts them back, after what was printed has been logged.
#[derive(Debug)]
pub struct Captured {
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// Hangs up when both streams were read to their ends.
    read: Receiver<()>,
}

/// Logs what is printed to stdout and stderr from now on.
///
/// # Errors
///
/// When the system has no pipe or thread for it.
pub fn start() -> io::Result<Captured> {
    let (done, read) = mpsc::channel();
    let captured = Captured {
        stdout: fcntl_dupfd_cloexec(io::stdout(), 3)?,
        stderr: fcntl_dupfd_cloexec(io::stderr(), 3)?,
        read,
    };
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let held = done.clone();
    log_lines(
        "stdout",
        reader,
        held,
        |line| info!(target: "stdout", "{line}"),
    )?;
    dup2_stdout(&writer)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    log_lines(
        "stderr",
        reader,
        done,
        |line| info!(target: "stderr", "{line}"),
    )?;
    dup2_stderr(&writer)?;
    Ok(captured)
}

fn log_lines(
    name: &str,
    reader: OwnedFd,
    done: mpsc::Sender<()>,
    log: impl Fn(&str) + Send + 'static,
) -> io::Result<()> {
    let mut reader = BufReader::new(std::fs::File::from(reader));
    let read = move || {
        let mut line = Vec::new();
        // A line that does not end must not fill the memory: it becomes several.
        while (&mut reader)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .is_ok_and(|len| len > 0)
        {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            log(&String::from_utf8_lossy(text));
            line.clear();
        }
        drop(done);
    };
    thread::Builder::new().name(name.to_owned()).spawn(read)?;
    Ok(())
}

impl Drop for Captured {
    fn drop(&mut self) {
        // What fails here leaves the streams captured, by pipes that nobody reads.
        let _ = dup2_stdout(&self.stdout);
        let _ = dup2_stderr(&self.stderr);
        // A child process may still hold the pipes open.
        let _: Result<(), RecvTimeoutError> = self.read.recv_timeout(FLUSH);
    }
}

/// Up to how many bytes are a line.
const LONGEST: u64 = 16 << 10;

/// How long what is still in the pipes has to get to the log.
const FLUSH: Duration = Duration::from_millis(500);
