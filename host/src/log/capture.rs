//! Captures stdout and stderr of the process, and logs each printed line. Plugins, and libraries in any language, print
//! to these streams, and possibly nobody reads the streams.
//!
//! The log, and other code that has duplicated a stream before the capture begins, still write to the real stream.

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

/// The outputs for the lines that worker processes print.
#[derive(Clone, Debug)]
pub struct PrintTargets {
    /// The output for lines from stdout. `None` means that the lines are logged.
    pub stdout: Option<Output>,
    /// The output for lines from stderr. `None` means that the lines are logged.
    pub stderr: Option<Output>,
}

impl PrintTargets {
    /// Decides for each stream whether printed lines are written to the stream or are logged.
    ///
    /// If `logs_everything` is true, all lines are logged. `json_logs` are the logs that are written as JSON. If one of
    /// these logs is written to the stream, the printed lines are logged, because a program that reads JSON expects no
    /// other lines.
    ///
    /// `losses` also watches the streams that printed lines are written to.
    #[must_use]
    pub fn new(logs_everything: bool, json_logs: &[&Output], losses: &LossMonitor) -> Self {
        let target = |stream: io::Result<Output>| {
            // Fails if the stream is closed. Its lines are then logged.
            let stream = stream.ok()?;
            if logs_everything || json_logs.iter().any(|log| log.is_same_file(&stream)) {
                return None;
            }
            stream.mark_shared();
            losses.watch("output of apps", stream.clone());
            Some(stream)
        };
        Self {
            stdout: target(Output::stdout()),
            stderr: target(Output::stderr()),
        }
    }
}

/// Restores the real streams when the guard is dropped. The drop then waits until the lines in the pipes are logged.
#[derive(Debug)]
pub struct CaptureGuard {
    /// A duplicate of the real stdout.
    stdout: OwnedFd,
    /// A duplicate of the real stderr.
    stderr: OwnedFd,
    /// Disconnected when both pipes were read to their ends. Never receives a value.
    finished: Receiver<()>,
}

/// Logs the lines that are printed to stdout and stderr, until the guard is dropped.
///
/// # Errors
///
/// When the system provides no descriptor or no thread.
pub fn start() -> io::Result<CaptureGuard> {
    let (done, finished) = mpsc::channel();
    // Created first: if a later step fails, the drop of the guard restores the streams. The duplicates have numbers of
    // at least 3, so that a duplicate never takes the number of a closed standard stream.
    let guard = CaptureGuard {
        stdout: fcntl_dupfd_cloexec(io::stdout(), 3)?,
        stderr: fcntl_dupfd_cloexec(io::stderr(), 3)?,
        finished,
    };
    // Each thread drops its clone of `done` at the end of its pipe. After both threads have dropped their clones,
    // `finished` is disconnected.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let stdout_done = done.clone();
    log_lines(
        "stdout",
        reader,
        stdout_done,
        |line| info!(target: "stdout", "{line}"),
    )?;
    // Replaces the stream after its reading thread has started, so that the pipe always has a reader.
    dup2_stdout(&writer)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    log_lines(
        "stderr",
        reader,
        done,
        |line| info!(target: "stderr", "{line}"),
    )?;
    dup2_stderr(&writer)?;
    Ok(guard)
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
        // A line of unlimited length must not fill the memory, so a longer line is logged as several lines.
        while (&mut reader)
            .take(MAX_LINE_BYTES)
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
        // Replaces the writing ends of the pipes, so that the reading threads reach the ends of the pipes. If a call
        // fails, the stream stays captured.
        let _ = dup2_stdout(&self.stdout);
        let _ = dup2_stderr(&self.stderr);
        // Waits with a time limit, because a child process may still have a writing end of a pipe open.
        let _: Result<(), RecvTimeoutError> = self.finished.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// The largest part of a line that is logged as one line.
const MAX_LINE_BYTES: u64 = 16 << 10;

/// The time limit for logging the lines that are still in the pipes.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
