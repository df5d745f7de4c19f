//! The output of lines: a stream of the process, or a file that can be reopened.
//!
//! A line is written by one system call if the system takes the whole line. So lines of several processes
//! that append to one file are not mixed. There is no queue, except a backlog of at most `MAX_BACKLOG` bytes
//! for two things: the rest of a line of which the system took only a part, and lines of threads that must
//! not wait ([`never_block`]).
//!
//! A pipe whose reader takes nothing is full after a while. Then a thread waits for the reader, but for one
//! second only. From then on all lines are lost at once, until there is room again, so that a dead reader
//! does not stop the server. Lost lines are counted here, and reported by the [`LossMonitor`].
//!
//! Locks: `writer` is held while a line is written, and while a thread waits for room. A thread that must not
//! wait only tries to take it. If that fails, its line goes to `deferred`, whose lock is held for a copy
//! only, and the next thread that has `writer` moves the deferred lines to the backlog.
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

/// An output of lines. Clones are one output.
#[derive(Clone, Debug)]
pub struct Output(Arc<OutputInner>);

#[derive(Debug)]
struct OutputInner {
    /// The name in messages.
    name: String,
    /// The path to reopen. None for a stream.
    path: Option<PathBuf>,
    writer: Mutex<LineWriter>,
    /// Lines of threads that must not wait for `writer`.
    deferred: Mutex<Vec<u8>>,
    /// Whether `deferred` has lines.
    has_deferred: AtomicBool,
    /// How many lost lines have not been reported.
    lost: AtomicU64,
    /// Why the last line was lost. None after a line could be written.
    failure: Mutex<Option<io::Error>>,
    /// Whether `failure` is set.
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

    /// Opens the output of the log. `path` names a stream of the process, where `-` is stderr, or a file. A
    /// file is made if it does not exist, and lines are appended to it.
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

    /// Returns the name in messages: the path of the file, or `stdout` or `stderr`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the output is a stream of the process, not a file.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.0.path.is_none()
    }

    /// Whether the output is the process's stdout.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.0.name == StreamNumber::STDOUT.name()
    }

    /// Whether the output is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.lock().is_terminal()
    }

    /// Whether both outputs write to the same file or pipe.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        let own = self.lock().identity();
        let others = other.lock().identity();
        matches!((own, others), (Ok(own), Ok(others)) if own == others)
    }

    /// Protects long lines from now on, because other processes or another output write to the same pipe. The
    /// system itself only keeps writes of up to `PIPE_BUF` bytes whole. It costs two more system calls a
    /// line.
    pub fn share(&self) {
        self.lock().share();
    }

    /// Writes a line, which includes its line end. A line that cannot be written is counted as lost.
    pub fn write(&self, line: &[u8]) {
        // A usual thread waits for the lock, and for room.
        if !NEVER_BLOCKS.get() {
            let writer = self.lock();
            return self.write_to(writer, line, WhenFull::Wait);
        }
        match self.try_lock() {
            Some(writer) => self.write_to(writer, line, WhenFull::Queue),
            // Another thread is writing, and may be waiting for room.
            None => self.defer(line),
        }
    }

    /// Writes a line if there is room now. Returns whether the line is written, or will be. A line that is
    /// not is not counted as lost.
    pub fn try_write(&self, line: &[u8]) -> bool {
        let Some(mut writer) = self.try_lock() else {
            return false;
        };
        self.take_deferred(&mut writer);
        !matches!(writer.write(line, WhenFull::Fail), Err(Unwritten::Lost(_)))
    }

    /// Writes a line, and counts it if it is lost.
    fn write_to(&self, mut writer: MutexGuard<'_, LineWriter>, line: &[u8], when_full: WhenFull) {
        self.take_deferred(&mut writer);
        match writer.write(line, when_full) {
            Ok(()) if self.0.has_failed.load(Ordering::Relaxed) => self.set_failure(None),
            Ok(()) => {}
            // The monitor writes the rest as soon as there is room.
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

    fn set_failure(&self, failure: Option<io::Error>) {
        let has_failed = failure.is_some();
        *lock(&self.0.failure) = failure;
        self.0.has_failed.store(has_failed, Ordering::Relaxed);
    }

    /// Keeps a line for the next thread that has the writer.
    fn defer(&self, line: &[u8]) {
        let mut deferred = lock(&self.0.deferred);
        if deferred.len() + line.len() > MAX_BACKLOG {
            drop(deferred);
            return self.count_lost(1, io::ErrorKind::WouldBlock.into());
        }
        deferred.extend_from_slice(line);
        self.0.has_deferred.store(true, Ordering::Relaxed);
        ATTENTION.notify_one();
    }

    /// Moves the deferred lines to the backlog.
    fn take_deferred(&self, writer: &mut LineWriter) {
        if self.0.has_deferred.load(Ordering::Relaxed) {
            let mut deferred = lock(&self.0.deferred);
            let lost = writer.queue(&deferred);
            self.0.lost.fetch_add(lost, Ordering::Relaxed);
            *deferred = Vec::new();
            self.0.has_deferred.store(false, Ordering::Relaxed);
        }
    }

    /// Writes lines that wait, as far as there is room now. Returns the state of the output.
    pub fn settle(&self) -> OutputState {
        let lost = self.0.lost.load(Ordering::Relaxed);
        let mut state = OutputState {
            lost,
            is_flushed: false,
            // True as soon as one line could be written.
            has_recovered: !self.0.has_failed.load(Ordering::Relaxed),
        };
        // If this fails, another thread is writing.
        if let Some(mut writer) = self.try_lock() {
            self.take_deferred(&mut writer);
            state.is_flushed = writer.flush(WhenFull::Fail).is_ok();
            let is_read_again = || self.has_no_reader() && state.is_flushed && writer.has_room();
            state.has_recovered = state.has_recovered || is_read_again();
        }
        state
    }

    /// Writes lines that wait, and gives the reader the usual time to make room. Lines that cannot be written
    /// then are lost.
    pub fn finish(&self) {
        let mut writer = self.lock();
        self.take_deferred(&mut writer);
        if let Err(error) = writer.flush(WhenFull::Wait) {
            self.count_lost(writer.queued_lines(), error);
        }
    }

    /// Returns why lines cannot be written. None when they can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.0.failure)
            .as_ref()
            .map(|error| match error.kind() {
                io::ErrorKind::WouldBlock => "nobody reads it".to_owned(),
                _ => error.to_string(),
            })
    }

    /// Whether lines are lost because the reader takes nothing.
    fn has_no_reader(&self) -> bool {
        let failure = lock(&self.0.failure);
        failure
            .as_ref()
            .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Marks this many lost lines as reported.
    pub fn mark_reported(&self, lost: u64) {
        self.0.lost.fetch_sub(lost, Ordering::Relaxed);
        self.set_failure(None);
    }

    /// Opens the file at the path again, after a rotation. A line that is being written goes to the old file,
    /// and all later lines to the new one. Does nothing for a stream.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened. Lines still go to the old file then.
    pub fn reopen(&self) -> Result<(), ReopenError> {
        let Some(path) = &self.0.path else {
            return Ok(());
        };
        let sink = Sink::open(path).map_err(|source| ReopenError {
            path: path.clone(),
            source,
        })?;
        // The backlog belongs to the old file. Lines that do not fit there now are lost, because a part of a
        // line must not begin the new file.
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
    /// How many lost lines have not been reported.
    pub lost: u64,
    /// Whether no line waits to be written.
    pub is_flushed: bool,
    /// Whether the losses are over: the last line could be written, or there is room again.
    pub has_recovered: bool,
}

/// Makes this thread never wait for a reader from now on. A line that finds no room is written later. It is for
/// the threads that control the server: they must react to an operator, whatever happens to the log.
pub fn never_block() {
    NEVER_BLOCKS.set(true);
}

/// Waits until some output needs [`Output::settle`], or has lost lines.
pub async fn attention_needed() {
    ATTENTION.notified().await;
}

/// Notified when an output needs the monitor.
static ATTENTION: Notify = Notify::const_new();

thread_local! {
    /// Set by [`never_block`].
    static NEVER_BLOCKS: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log file that could not be reopened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {}, the file opened before is written on", path.display())]
pub struct ReopenError {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests;
