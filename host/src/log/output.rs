//! The output of lines: a stream of the process, or a file that can be reopened.
//!
//! A line is written by one system call, unless the system writes only a part of the line. Lines of several processes
//! that append to the same file are therefore not mixed. An output has no queue of lines. The output only has a backlog
//! of at most `MAX_BACKLOG` bytes for two cases: the rest of a line of which the system wrote a part, and lines of
//! threads that must not wait ([`never_block`]).
//!
//! If the reader of a pipe reads nothing, the pipe becomes full. A thread then waits for the reader, but for at most
//! one second. After that, all lines are lost without a wait until the pipe has room again, so that a stuck reader does
//! not stop the server. The output counts lost lines, and the [`LossMonitor`] reports them.
//!
//! Locks: a thread holds `writer` while it writes a line, and while it waits for room. A thread that must not wait only
//! tries to lock `writer`. If that fails, the thread appends its line to `deferred`, whose lock is held only for the
//! copy. The next thread that locks `writer` moves the deferred lines to the backlog.
//!
//! [`LossMonitor`]: super::losses::LossMonitor

mod sink;
mod stream;
mod writer;

use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use self::{
    sink::Sink,
    stream::StreamNumber,
    writer::{LineWriter, MAX_BACKLOG, Unwritten, WhenFull},
};

/// An output of lines. Clones share the same descriptor and the same counts.
#[derive(Clone, Debug)]
pub struct Output(Arc<OutputInner>);

#[derive(Debug)]
struct OutputInner {
    /// The name of the output in messages.
    name: String,
    /// The path to reopen. `None` for a stream.
    path: Option<PathBuf>,
    writer: Mutex<LineWriter>,
    /// Lines of threads that must not wait for the lock of `writer`.
    deferred: Mutex<Vec<u8>>,
    /// Whether `deferred` is not empty. Readable without the lock, because every write checks this flag.
    has_deferred: AtomicBool,
    /// The number of lost lines that have not been reported.
    lost: AtomicU64,
    /// Why the last line was lost. `None` if a later line was written.
    failure: Mutex<Option<io::Error>>,
    /// Whether `failure` is set. Readable without the lock, because every write checks this flag.
    has_failed: AtomicBool,
}

impl Output {
    /// Returns the process's stdout.
    ///
    /// # Errors
    ///
    /// When stdout is closed.
    pub fn stdout() -> io::Result<Self> {
        Self::stream(StreamNumber::STDOUT)
    }

    /// Returns the process's stderr.
    ///
    /// # Errors
    ///
    /// When stderr is closed.
    pub fn stderr() -> io::Result<Self> {
        Self::stream(StreamNumber::STDERR)
    }

    /// Opens the output of the log. `path` is the path of a file, or names a stream of the process, where `-` is
    /// stderr. Lines are appended to a file. A file that does not exist is created.
    ///
    /// # Errors
    ///
    /// When the stream is closed, or the file cannot be opened.
    pub fn log(path: &Path) -> io::Result<Self> {
        Self::at(path, StreamNumber::STDERR)
    }

    /// Opens the output of the access log as [`log`](Self::log) does, except that `-` is stdout.
    ///
    /// # Errors
    ///
    /// When the stream is closed, or the file cannot be opened.
    pub fn access(path: &Path) -> io::Result<Self> {
        Self::at(path, StreamNumber::STDOUT)
    }

    /// Opens the output that `path` names. `-` is the stream `default`.
    fn at(path: &Path, default: StreamNumber) -> io::Result<Self> {
        match StreamNumber::named(path, default) {
            Some(stream) => Self::stream(stream),
            None => {
                let name = path.display().to_string();
                Ok(Self::new(name, Some(path.to_owned()), Sink::open(path)?))
            }
        }
    }

    /// Returns the output that writes to a stream of the process.
    fn stream(stream: StreamNumber) -> io::Result<Self> {
        Ok(Self::new(stream.name(), None, stream.sink()?))
    }

    fn new(name: String, path: Option<PathBuf>, sink: Sink) -> Self {
        Self(Arc::new(OutputInner {
            name,
            path,
            writer: Mutex::new(LineWriter::new(sink)),
            deferred: Mutex::default(),
            has_deferred: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            failure: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }))
    }

    /// Returns the name of the output in messages: the path of the file, or the name of the stream, such as `stdout`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns whether the output is a stream of the process, not a file.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.0.path.is_none()
    }

    /// Returns whether the output is the process's stdout.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.0.name == StreamNumber::STDOUT.name()
    }

    /// Returns whether the output is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.lock().is_terminal()
    }

    /// Returns whether both outputs write to the same file or pipe.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        // Each guard is dropped at the end of its statement: both outputs may have one lock, and holding both would
        // deadlock.
        let own = self.lock().identity();
        let others = other.lock().identity();
        matches!((own, others), (Ok(own), Ok(others)) if own == others)
    }

    /// Marks the output as shared: other processes, or another output, write to the same pipe. From now on, a lock of
    /// the pipe protects long lines, because the system writes only up to `PIPE_BUF` bytes atomically. The lock costs
    /// two system calls for each line.
    pub fn mark_shared(&self) {
        self.lock().mark_shared();
    }

    /// Writes a line. `line` must end with a line end. A line that cannot be written is counted as lost.
    pub fn write(&self, line: &[u8]) {
        // A thread that may block waits for the lock, and for room.
        if !NEVER_BLOCKS.get() {
            let writer = self.lock();
            return self.write_to(writer, line, WhenFull::Wait);
        }
        match self.try_lock() {
            Some(writer) => self.write_to(writer, line, WhenFull::Queue),
            // Another thread holds the lock, and may be waiting for room.
            None => self.defer(line),
        }
    }

    /// Writes a line if the output has room now. Returns true if the line is written, or is in the backlog and will be
    /// written. If this function returns false, the line does not count as lost.
    pub fn try_write(&self, line: &[u8]) -> bool {
        // Another thread holds the lock, and may be waiting for room.
        let Some(mut writer) = self.try_lock() else {
            return false;
        };
        self.move_deferred(&mut writer);
        !matches!(writer.write(line, WhenFull::Fail), Err(Unwritten::Lost(_)))
    }

    /// Writes a line. If the line is lost, counts the line as lost.
    fn write_to(&self, mut writer: MutexGuard<'_, LineWriter>, line: &[u8], when_full: WhenFull) {
        self.move_deferred(&mut writer);
        match writer.write(line, when_full) {
            Ok(()) if self.0.has_failed.load(Ordering::Relaxed) => self.set_failure(None),
            Ok(()) => {}
            // The monitor writes the backlog as soon as the output has room.
            Err(Unwritten::Queued) => ATTENTION.notify_one(),
            Err(Unwritten::Lost(error)) => self.count_lost(1, error),
        }
    }

    /// Counts lost lines, and wakes the monitor.
    fn count_lost(&self, lines: u64, error: io::Error) {
        self.0.lost.fetch_add(lines, Ordering::Relaxed);
        self.set_failure(Some(error));
        ATTENTION.notify_one();
    }

    /// Stores why the last line was lost, or `None` after a line was written.
    fn set_failure(&self, failure: Option<io::Error>) {
        let has_failed = failure.is_some();
        *lock(&self.0.failure) = failure;
        self.0.has_failed.store(has_failed, Ordering::Relaxed);
    }

    /// Stores a line for the next thread that locks `writer`. If too many lines are stored, the line is lost.
    fn defer(&self, line: &[u8]) {
        let mut deferred = lock(&self.0.deferred);
        if deferred.len() + line.len() > MAX_BACKLOG {
            drop(deferred);
            return self.count_lost(1, io::ErrorKind::WouldBlock.into());
        }
        deferred.extend_from_slice(line);
        self.0.has_deferred.store(true, Ordering::Relaxed);
        // The monitor moves the line if no other thread writes a line soon.
        ATTENTION.notify_one();
    }

    /// Moves the deferred lines to the backlog. Lines that have no room in the backlog are lost.
    fn move_deferred(&self, writer: &mut LineWriter) {
        if self.0.has_deferred.load(Ordering::Relaxed) {
            let mut deferred = lock(&self.0.deferred);
            let lost = writer.queue(&deferred);
            self.0.lost.fetch_add(lost, Ordering::Relaxed);
            // Replaced, not cleared, so that the memory is freed.
            *deferred = Vec::new();
            self.0.has_deferred.store(false, Ordering::Relaxed);
        }
    }

    /// Writes waiting lines as far as the output has room now. Returns the state of the output.
    pub fn try_flush(&self) -> OutputState {
        let lost = self.0.lost.load(Ordering::Relaxed);
        let mut state = OutputState {
            lost,
            is_flushed: false,
            // `has_failed` becomes false as soon as one line is written.
            has_recovered: !self.0.has_failed.load(Ordering::Relaxed),
        };
        // If another thread holds the lock, that thread is writing, and the next check finds the result.
        if let Some(mut writer) = self.try_lock() {
            self.move_deferred(&mut writer);
            state.is_flushed = writer.flush(WhenFull::Fail).is_ok();
            // If lines were lost because of a stuck reader, room means that the reader reads again. After another
            // error, only a written line shows that the output works again.
            let is_read_again = || self.is_reader_stuck() && state.is_flushed && writer.has_room();
            state.has_recovered = state.has_recovered || is_read_again();
        }
        state
    }

    /// Writes waiting lines, and waits for the reader to make room, for up to a second without progress. Lines that
    /// still cannot be written are lost.
    pub fn finish(&self) {
        let mut writer = self.lock();
        self.move_deferred(&mut writer);
        if let Err(error) = writer.flush(WhenFull::Wait) {
            self.count_lost(writer.queued_lines(), error);
        }
    }

    /// Returns why lines cannot be written. Returns `None` if lines can be written.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.0.failure)
            .as_ref()
            .map(|error| match error.kind() {
                io::ErrorKind::WouldBlock => "nobody reads it".to_owned(),
                _ => error.to_string(),
            })
    }

    /// Returns whether lines are lost because the reader reads nothing.
    fn is_reader_stuck(&self) -> bool {
        let failure = lock(&self.0.failure);
        failure
            .as_ref()
            .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Marks `lost` lost lines as reported.
    pub fn mark_reported(&self, lost: u64) {
        // Subtracts, because other threads may have lost more lines since the report was made.
        self.0.lost.fetch_sub(lost, Ordering::Relaxed);
        self.set_failure(None);
    }

    /// Opens the file at the path again, after a rotation. A line that is being written goes to the old file.
    /// All later lines are written to the new file. Does nothing for a stream.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened. Lines are still written to the old file.
    pub fn reopen(&self) -> Result<(), ReopenError> {
        let Some(path) = &self.0.path else {
            return Ok(());
        };
        // Opens the new file before the old one is given up, so that a failure changes nothing.
        let sink = Sink::open(path).map_err(|source| ReopenError {
            path: path.clone(),
            source,
        })?;
        // The backlog belongs to the old file, because the new file must not begin with a part of a line. Lines that
        // the old file has no room for are lost.
        let mut writer = self.lock();
        let _ = writer.flush(WhenFull::Fail);
        let lost = writer.queued_lines();
        writer.reopen(sink);
        drop(writer);
        if lost > 0 {
            self.count_lost(lost, io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, LineWriter> {
        lock(&self.0.writer)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, LineWriter>> {
        match self.0.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(writer)) => Some(writer.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The state of an output.
#[derive(Clone, Copy, Debug)]
pub struct OutputState {
    /// The number of lost lines that have not been reported.
    pub lost: u64,
    /// Whether no lines are waiting to be written. False if another thread was writing.
    pub is_flushed: bool,
    /// Whether the losses have ended: the last line was written, or the output has room again.
    pub has_recovered: bool,
}

/// Makes this thread never wait for a reader of an output from now on. If an output has no room, the line is written
/// later. For the threads that control the server, because these threads must respond to an operator even if the log
/// cannot be written.
pub fn never_block() {
    NEVER_BLOCKS.set(true);
}

/// Waits until an output has waiting lines, which need [`Output::try_flush`], or has lost lines.
pub async fn attention_needed() {
    ATTENTION.notified().await;
}

/// Notified when an output has waiting or lost lines. Only the monitor waits for the notification.
static ATTENTION: Notify = Notify::const_new();

thread_local! {
    /// Set by [`never_block`].
    static NEVER_BLOCKS: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Ignores a panic of another thread that held the lock, because lines can still be written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a log file could not be reopened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {}, so writing continues to the file that was opened before", path.display())]
pub struct ReopenError {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests;
