//! Writes lines to a descriptor one after the other, with a backlog for bytes that found no room.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::sink::Sink;

/// The part of an output that its lock protects.
#[derive(Debug)]
pub(super) struct LineWriter {
    sink: Sink,
    /// Bytes that have to be written before the next line: the rest of a line that was written in part, and
    /// whole lines of threads that did not wait.
    backlog: Vec<u8>,
    /// Whether a line has waited for [`WRITE_TIMEOUT`] in vain, and nothing was written since then.
    is_stalled: bool,
    /// Whether other processes, or another output, write lines to the same pipe.
    is_shared: bool,
}

/// The fate of a line for which the sink has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// The line is lost.
    Fail,
    /// The line goes to the backlog, if that has room.
    Queue,
    /// The thread waits for room, for at most [`WRITE_TIMEOUT`]. Then the line is lost. Later lines are lost
    /// without a wait, until there is room.
    Wait,
}

/// Why a line was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// The line is in the backlog, in whole or in part.
    Queued,
    /// The line is lost.
    Lost(io::Error),
}

impl LineWriter {
    /// Returns a writer with an empty backlog.
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            backlog: Vec::new(),
            is_stalled: false,
            is_shared: false,
        }
    }

    /// Writes the backlog, and then `line`.
    ///
    /// # Errors
    ///
    /// When the line is not written, at least not completely.
    pub(super) fn write(&mut self, line: &[u8], when_full: WhenFull) -> Result<(), Unwritten> {
        let (written, failed) = match self.flush(when_full) {
            Ok(()) => self.write_bytes(line, when_full),
            Err(error) => (0, Err(error)),
        };
        let Err(error) = failed else {
            return Ok(());
        };
        let has_room = self.backlog.len() + line.len() <= MAX_BACKLOG;
        // The rest of a line that has begun goes to the backlog in any case, so that no line is torn.
        if written > 0 || (when_full == WhenFull::Queue && is_no_room(&error) && has_room) {
            self.backlog.extend_from_slice(&line[written..]);
            return Err(Unwritten::Queued);
        }
        Err(Unwritten::Lost(error))
    }

    /// Writes the backlog.
    ///
    /// # Errors
    ///
    /// When some of the backlog is left.
    pub(super) fn flush(&mut self, when_full: WhenFull) -> io::Result<()> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let backlog = std::mem::take(&mut self.backlog);
        let (written, result) = self.write_bytes(&backlog, when_full);
        if result.is_err() {
            self.backlog = backlog;
            self.backlog.drain(..written);
        }
        result
    }

    /// Appends whole lines to the backlog. Returns how many lines are lost, because the backlog is full.
    pub(super) fn queue(&mut self, lines: &[u8]) -> u64 {
        if self.backlog.len() + lines.len() <= MAX_BACKLOG {
            self.backlog.extend_from_slice(lines);
            return 0;
        }
        count_lines(lines)
    }

    /// Returns how many lines, or parts of lines, are in the backlog.
    pub(super) fn queued_lines(&self) -> u64 {
        count_lines(&self.backlog)
    }

    /// Whether a write now might succeed.
    pub(super) fn has_room(&self) -> bool {
        self.sink.wait(Duration::ZERO).unwrap_or(true)
    }

    /// Writes to `sink` from now on, and drops the backlog.
    pub(super) fn reopen(&mut self, sink: Sink) {
        self.sink = sink;
        self.backlog = Vec::new();
        self.is_stalled = false;
    }

    /// Protects long lines from now on, because others write lines to the same pipe.
    pub(super) fn share(&mut self) {
        self.is_shared = true;
    }

    /// Whether the sink is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.sink.is_terminal()
    }

    /// Returns what identifies the file or pipe.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        self.sink.identity()
    }

    /// Writes `bytes` as far as there is room. Returns how many bytes were written, and the error that kept
    /// the rest from being written.
    fn write_bytes(&mut self, bytes: &[u8], when_full: WhenFull) -> (usize, io::Result<()>) {
        let was_locked = self.sink.is_locked();
        let waits = when_full == WhenFull::Wait && !self.is_stalled;
        let mut deadline = None;
        let mut written = 0;
        let result = loop {
            match self.write_once(bytes, written) {
                Ok(len) if written + len == bytes.len() => break Ok(()),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                // The reader took some bytes, so that it has the full time again.
                Ok(len) => {
                    written += len;
                    deadline = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_no_room(&error) && waits => {
                    let now = Instant::now();
                    let deadline = *deadline.get_or_insert(now + WRITE_TIMEOUT);
                    if now >= deadline {
                        self.is_stalled = true;
                        break Err(error);
                    }
                    if let Err(error) = self.wait(deadline - now) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        if result.is_ok() {
            written = bytes.len();
        }
        // A stall is over when everything could be written. A partial write does not end it.
        if written > 0 {
            self.is_stalled = result.is_err() && self.is_stalled;
        }
        // In the middle of a line this writer keeps the lock of the pipe, until the rest is written. Otherwise
        // another process could write into the line.
        if result.is_ok() || (written == 0 && !was_locked) {
            self.sink.unlock();
        }
        (written, result)
    }

    /// Writes once, from the offset `written` on.
    fn write_once(&mut self, bytes: &[u8], written: usize) -> io::Result<usize> {
        if self.is_shared {
            self.sink.lock(bytes.len())?;
        }
        self.sink.write(&bytes[written..])
    }

    /// Waits until there may be room, for at most `timeout`.
    fn wait(&self, timeout: Duration) -> io::Result<()> {
        if self.is_shared && !self.sink.is_locked() && self.has_room() {
            // There is room, so that the write failed because another process has the lock. poll(2) cannot
            // wait for a lock.
            thread::sleep(timeout.min(LOCK_RETRY));
            return Ok(());
        }
        self.sink.wait(timeout).map(drop)
    }
}

fn is_no_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn count_lines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// How long a thread waits for a reader that takes nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts to get the lock of a pipe.
const LOCK_RETRY: Duration = Duration::from_millis(1);

/// How many bytes the backlog may have.
pub(super) const MAX_BACKLOG: usize = 64 << 10;
