//! The state of an output, under its lock: the descriptor, and what waits to be written to it.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::sink::Sink;

/// Where lines are written, one after the other.
#[derive(Debug)]
pub(super) struct Place {
    sink: Sink,
    /// What goes before the next line: the rest of a line that was written in part, and whole lines
    /// of threads that did not wait.
    backlog: Vec<u8>,
    /// Whether there was no room for as long as a line waits, and none since.
    is_stalled: bool,
    /// Whether other processes, or another output, write lines to the same pipe.
    is_shared: bool,
}

/// What a line does where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// It is lost.
    Fails,
    /// It is kept for later, while the backlog is short.
    Keeps,
    /// Its thread waits for room, for at most [`PATIENCE`]. Then it is lost, and so is every line
    /// after it, at once, until there is room.
    Waits,
}

/// A line that was not written for now, and where it is.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// In the backlog, in whole or in part.
    Kept,
    /// Nowhere.
    Lost(io::Error),
}

impl Place {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink,
            backlog: Vec::new(),
            is_stalled: false,
            is_shared: false,
        }
    }

    /// Writes the backlog, then `line`.
    pub(super) fn write(&mut self, line: &[u8], no_room: NoRoom) -> Result<(), Unwritten> {
        let (written, failed) = match self.flush(no_room) {
            Ok(()) => self.push(line, no_room),
            Err(error) => (0, Err(error)),
        };
        let Err(error) = failed else {
            return Ok(());
        };
        let has_room = self.backlog.len() + line.len() <= MAX_BACKLOG;
        // What has begun is written to its end, so that no line is torn.
        if written > 0 || (no_room == NoRoom::Keeps && is_no_room(&error) && has_room) {
            self.backlog.extend_from_slice(&line[written..]);
            return Err(Unwritten::Kept);
        }
        Err(Unwritten::Lost(error))
    }

    /// Writes the backlog.
    pub(super) fn flush(&mut self, no_room: NoRoom) -> io::Result<()> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let backlog = std::mem::take(&mut self.backlog);
        let (written, result) = self.push(&backlog, no_room);
        if result.is_err() {
            self.backlog = backlog;
            self.backlog.drain(..written);
        }
        result
    }

    /// Puts whole lines behind the backlog. How many are lost, as it is full.
    pub(super) fn keep(&mut self, lines: &[u8]) -> u64 {
        if self.backlog.len() + lines.len() <= MAX_BACKLOG {
            self.backlog.extend_from_slice(lines);
            return 0;
        }
        count_lines(lines)
    }

    /// How many lines are in the backlog, also in part.
    pub(super) fn kept(&self) -> u64 {
        count_lines(&self.backlog)
    }

    /// Whether a write now might succeed.
    pub(super) fn has_room(&self) -> bool {
        self.sink.wait(Duration::ZERO).unwrap_or(true)
    }

    /// Writes to another file from now on, and drops the backlog.
    pub(super) fn reopen(&mut self, sink: Sink) {
        self.sink = sink;
        self.backlog = Vec::new();
        self.is_stalled = false;
    }

    /// Others write lines to the same pipe from now on.
    pub(super) fn share(&mut self) {
        self.is_shared = true;
    }

    /// Whether it is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.sink.is_terminal()
    }

    /// Which file it is.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        self.sink.identity()
    }

    /// Writes `bytes` as far as there is room. How many were written, and what kept the rest.
    fn push(&mut self, bytes: &[u8], no_room: NoRoom) -> (usize, io::Result<()>) {
        let was_locked = self.sink.is_locked();
        let waits = no_room == NoRoom::Waits && !self.is_stalled;
        let mut deadline = None;
        let mut written = 0;
        let result = loop {
            match self.attempt(bytes, written) {
                Ok(len) if written + len == bytes.len() => break Ok(()),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    written += len;
                    deadline = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_no_room(&error) && waits => {
                    let now = Instant::now();
                    let deadline = *deadline.get_or_insert(now + PATIENCE);
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
        if written > 0 {
            self.is_stalled = result.is_err() && self.is_stalled;
        }
        // In the middle of a line the lock stays, until the rest is written.
        if result.is_ok() || (written == 0 && !was_locked) {
            self.sink.unlock();
        }
        (written, result)
    }

    fn attempt(&mut self, bytes: &[u8], written: usize) -> io::Result<usize> {
        if self.is_shared {
            self.sink.lock(bytes.len())?;
        }
        self.sink.write(&bytes[written..])
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        if self.is_shared && !self.sink.is_locked() && self.has_room() {
            // Another process has the lock, which poll(2) does not tell.
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

/// How long a line waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon a lock is tried again that another process has.
const LOCK_RETRY: Duration = Duration::from_millis(1);

/// How many bytes of lines are kept for threads that do not wait.
pub(super) const MAX_BACKLOG: usize = 64 << 10;
