//! Writes lines to a descriptor one after the other. A backlog stores bytes for which the descriptor had no room.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::sink::Sink;

/// The part of an output that its lock protects.
#[derive(Debug)]
pub(super) struct LineWriter {
    sink: Sink,
    /// The bytes that must be written before the next line: the rest of a line of which a part was written, and whole
    /// lines of threads that must not wait.
    backlog: Vec<u8>,
    /// Whether a line has waited for [`WRITE_TIMEOUT`] without success, and no call has written all its bytes since
    /// then. While the writer is stalled, no line waits.
    is_stalled: bool,
    /// Whether other processes, or another output, write lines to the same pipe.
    is_shared: bool,
}

/// What happens to a line if the sink has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// The line is lost.
    Fail,
    /// The line is added to the backlog. If the backlog is full, the line is lost.
    Queue,
    /// The thread waits for room. After [`WRITE_TIMEOUT`] without progress, the line is lost. Later lines are lost
    /// without a wait, until the sink has room again.
    Wait,
}

/// Why a line was not written completely.
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

    /// Writes the backlog, and afterwards `line`.
    ///
    /// # Errors
    ///
    /// When the line is not written, or not completely.
    pub(super) fn write(&mut self, line: &[u8], when_full: WhenFull) -> Result<(), Unwritten> {
        let (written, result) = match self.flush(when_full) {
            Ok(()) => self.write_bytes(line, when_full),
            Err(error) => (0, Err(error)),
        };
        let Err(error) = result else {
            return Ok(());
        };
        let has_room = self.backlog.len() + line.len() <= MAX_BACKLOG;
        // If a part of the line is written, the rest is always added to the backlog, even if the backlog is full. The
        // output then never contains an incomplete line.
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
    /// When the backlog is not empty afterwards.
    pub(super) fn flush(&mut self, when_full: WhenFull) -> io::Result<()> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        // Moved out, because `write_bytes` borrows all of `self`.
        let backlog = std::mem::take(&mut self.backlog);
        let (written, result) = self.write_bytes(&backlog, when_full);
        if result.is_err() {
            self.backlog = backlog;
            self.backlog.drain(..written);
        }
        result
    }

    /// Appends whole lines to the backlog. Returns the number of lost lines: 0, or the number of all `lines` if the
    /// backlog has no room for all of them.
    pub(super) fn queue(&mut self, lines: &[u8]) -> u64 {
        if self.backlog.len() + lines.len() <= MAX_BACKLOG {
            self.backlog.extend_from_slice(lines);
            return 0;
        }
        count_lines(lines)
    }

    /// Returns the number of lines in the backlog. The rest of a line counts as a line.
    pub(super) fn queued_lines(&self) -> u64 {
        count_lines(&self.backlog)
    }

    /// Returns whether a write might succeed now.
    pub(super) fn has_room(&self) -> bool {
        self.sink.wait(Duration::ZERO).unwrap_or(true)
    }

    /// Replaces the sink, and drops the backlog.
    pub(super) fn reopen(&mut self, sink: Sink) {
        self.sink = sink;
        self.backlog = Vec::new();
        self.is_stalled = false;
    }

    /// Marks the pipe as shared: other processes, or another output, write lines to the same pipe. From now on, a lock
    /// of the pipe protects long lines.
    pub(super) fn mark_shared(&mut self) {
        self.is_shared = true;
    }

    /// Returns whether the sink is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.sink.is_terminal()
    }

    /// Returns device and inode of the file or pipe.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        self.sink.identity()
    }

    /// Writes `bytes` until all are written or a write fails. Returns the number of written bytes, and the error of the
    /// failed write.
    fn write_bytes(&mut self, bytes: &[u8], when_full: WhenFull) -> (usize, io::Result<()>) {
        let was_locked = self.sink.is_locked();
        // After a stall, later lines do not wait: otherwise each line would delay its thread by a second.
        let may_wait = when_full == WhenFull::Wait && !self.is_stalled;
        // Set at the first wait, so that a line that needs no wait does not read the clock.
        let mut deadline = None;
        let mut written = 0;
        let result = loop {
            match self.write_once(bytes, written) {
                Ok(len) if written + len == bytes.len() => break Ok(()),
                // Not an error of the system, but the loop would never end.
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                // The reader has read bytes, so the full timeout begins again at the next wait.
                Ok(len) => {
                    written += len;
                    deadline = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_no_room(&error) && may_wait => {
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
        // A stall ends when all bytes are written. A partial write does not end the stall.
        if written > 0 {
            self.is_stalled = result.is_err() && self.is_stalled;
        }
        // After a part of a line, this writer holds the lock of the pipe until the rest is written. Otherwise another
        // process could write into the middle of the line. `was_locked` means that an earlier call has written a part.
        if result.is_ok() || (written == 0 && !was_locked) {
            self.sink.unlock();
        }
        (written, result)
    }

    /// Locks the pipe if it is shared, and writes once, from the offset `written` on.
    fn write_once(&mut self, bytes: &[u8], written: usize) -> io::Result<usize> {
        if self.is_shared {
            self.sink.lock(bytes.len())?;
        }
        self.sink.write(&bytes[written..])
    }

    /// Waits until the sink may have room, for at most `timeout`.
    fn wait(&self, timeout: Duration) -> io::Result<()> {
        if self.is_shared && !self.sink.is_locked() && self.has_room() {
            // The pipe has room, so the write failed because another process has the lock. poll(2) cannot wait for a
            // lock, so this thread sleeps and tries again.
            thread::sleep(timeout.min(LOCK_RETRY));
            return Ok(());
        }
        self.sink.wait(timeout).map(drop)
    }
}

/// Returns whether a write failed because the sink has no room, or because another process has the lock of the pipe.
fn is_no_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Returns the number of line ends in `text`.
fn count_lines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// The time limit for a wait for a reader that reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two attempts to get the lock of a pipe.
const LOCK_RETRY: Duration = Duration::from_millis(1);

/// The largest size of the backlog in bytes.
pub(super) const MAX_BACKLOG: usize = 64 << 10;
