//! Logs what the process prints to stdout and stderr. Plugins, and libraries in any language, print there,
//! where perhaps nobody reads.
//!
//! The log itself, and other code that has duplicated a stream before, goes on writing to the real stream.

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

use super::{losses::LossMonitor, output::Output};

/// The outputs of the lines that worker processes print.
#[derive(Clone, Debug)]
pub struct PrintTargets {
    /// The output of lines from stdout. None to log them.
    pub stdout: Option<Output>,
    /// The output of lines from stderr. None to log them.
    pub stderr: Option<Output>,
}

impl PrintTargets {
    /// Decides for each stream whether lines go on to it or are logged. All are logged when
    /// `logs_everything` is true. Lines are also logged in place of a stream that is one of `json`, the
    /// logs that are written as JSON: the program that reads such a log expects no other lines in it.
    ///
    /// `losses` also watches the streams that lines go on to.
    #[must_use]
    pub fn new(logs_everything: bool, json: &[&Output], losses: &LossMonitor) -> Self {
        let target = |stream: io::Result<Output>| {
            let stream = stream.ok()?;
            if logs_everything || json.iter().any(|json| json.is_same_file(&stream)) {
                return None;
            }
            stream.share();
            losses.watch("output of apps", stream.clone());
            Some(stream)
        };
        Self {
            stdout: target(Output::stdout()),
            stderr: target(Output::stderr()),
        }
    }
}

/// Restores the real streams when it is dropped, after all that was printed has been logged.
#[derive(Debug)]
pub struct CaptureGuard {
    /// A duplicate of the real stdout.
    stdout: OwnedFd,
    /// A duplicate of the real stderr.
    stderr: OwnedFd,
    /// Disconnected when both pipes were read to their ends.
    finished: Receiver<()>,
}

/// Logs what is printed to stdout and stderr, until the guard is dropped.
///
/// # Errors
///
/// When the system gives no pipe or no thread.
pub fn start() -> io::Result<CaptureGuard> {
    let (done, finished) = mpsc::channel();
    let captured = CaptureGuard {
        stdout: fcntl_dupfd_cloexec(io::stdout(), 3)?,
        stderr: fcntl_dupfd_cloexec(io::stderr(), 3)?,
        finished,
    };
    // `done` is dropped by both threads when their pipes are at the end. Then `finished` is disconnected.
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

/// Starts a thread that passes each line from `reader` to `log`, and then drops `done`.
fn log_lines(
    name: &str,
    reader: OwnedFd,
    done: mpsc::Sender<()>,
    log: impl Fn(&str) + Send + 'static,
) -> io::Result<()> {
    let mut reader = BufReader::new(std::fs::File::from(reader));
    let read = move || {
        let mut line = Vec::new();
        // A line without an end must not fill the memory. It is logged as several lines.
        while (&mut reader)
            .take(MAX_LINE)
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

impl Drop for CaptureGuard {
    fn drop(&mut self) {
        // If this fails, the stream stays captured.
        let _ = dup2_stdout(&self.stdout);
        let _ = dup2_stderr(&self.stderr);
        // With a time limit, because a child process may still hold a pipe open.
        let _: Result<(), RecvTimeoutError> = self.finished.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// How many bytes a line may have.
const MAX_LINE: u64 = 16 << 10;

/// How long the lines that are still in the pipes have to get to the log.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
