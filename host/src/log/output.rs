//! Where lines go: a stream, or a file that can be opened anew.
//!
//! A line is written whole, by one call of the system where that takes it all, so that other
//! processes that append to the same file do not tear it either. Nothing is queued, but two things
//! wait in a backlog of at most `MAX_BACKLOG` bytes: the rest of a line of which the system took a
//! part, and the lines of threads that must not wait ([`never_wait`]).
//!
//! A reader that takes nothing for a second holds up no thread after that: lines are lost until there
//! is room again. Lines that cannot be written are counted here, and told by [`Losses`].
//!
//! [`Losses`]: super::losses::Losses

mod place;
mod sink;
mod stream;

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
    place::{MAX_BACKLOG, NoRoom, Place, Unwritten},
    sink::Sink,
    stream::Stream,
};

/// A place for lines. A clone is the same place.
#[derive(Clone, Debug)]
pub struct Output(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What messages call it.
    name: String,
    /// None for a stream, which cannot be opened anew.
    path: Option<PathBuf>,
    place: Mutex<Place>,
    /// Lines of threads that must not wait for `place`.
    aside: Mutex<Vec<u8>>,
    has_aside: AtomicBool,
    /// How many lines are lost and not told of.
    lost: AtomicU64,
    /// Why the last line that could not be written could not; none once one could.
    failure: Mutex<Option<io::Error>>,
    has_failed: AtomicBool,
}

impl Output {
    /// The process's stdout.
    ///
    /// # Errors
    ///
    /// When it is closed.
    pub fn stdout() -> io::Result<Self> {
        Self::stream(Stream::STDOUT)
    }

    /// The process's stderr.
    ///
    /// # Errors
    ///
    /// When it is closed.
    pub fn stderr() -> io::Result<Self> {
        Self::stream(Stream::STDERR)
    }

    /// The place for the log that `path` names: a stream of the process, where `-` is stderr, or the
    /// end of a file, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn log(path: &Path) -> io::Result<Self> {
        Self::at(path, Stream::STDERR)
    }

    /// The same for the access log, where `-` is stdout.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn access(path: &Path) -> io::Result<Self> {
        Self::at(path, Stream::STDOUT)
    }

    fn at(path: &Path, minus: Stream) -> io::Result<Self> {
        match Stream::named(path, minus) {
            Some(stream) => Self::stream(stream),
            None => {
                let name = path.display().to_string();
                Ok(Self::new(name, Some(path.to_owned()), Sink::open(path)?))
            }
        }
    }

    fn stream(stream: Stream) -> io::Result<Self> {
        Ok(Self::new(stream.name(), None, stream.sink()?))
    }

    fn new(name: String, path: Option<PathBuf>, sink: Sink) -> Self {
        Self(Arc::new(Inner {
            name,
            path,
            place: Mutex::new(Place::new(sink)),
            aside: Mutex::default(),
            has_aside: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            failure: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }))
    }

    /// What messages call it: the path of the file, or `stdout` or `stderr`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it is a stream of the process, and no file of its own.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.0.path.is_none()
    }

    /// Whether it is the process's stdout.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.0.name == Stream::STDOUT.name()
    }

    /// Whether it is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.lock().is_terminal()
    }

    /// Whether both write to one and the same file or pipe.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        let own = self.lock().identity();
        let others = other.lock().identity();
        matches!((own, others), (Ok(own), Ok(others)) if own == others)
    }

    /// Keeps lines whole that are longer than `PIPE_BUF`, where others write lines to the same pipe:
    /// other processes, or another output. It costs two calls of the system a line.
    pub fn share(&self) {
        self.lock().share();
    }

    /// Writes a line, its end included. A line that cannot be written is counted.
    pub fn write(&self, line: &[u8]) {
        if !MUST_NOT_WAIT.get() {
            let place = self.lock();
            return self.write_to(place, line, NoRoom::Waits);
        }
        match self.try_lock() {
            Some(place) => self.write_to(place, line, NoRoom::Keeps),
            // Another thread is writing, or waits for room.
            None => self.set_aside(line),
        }
    }

    /// Writes a line, its end included, if there is room now. Whether it will be there.
    pub fn try_write(&self, line: &[u8]) -> bool {
        let Some(mut place) = self.try_lock() else {
            return false;
        };
        self.take_aside(&mut place);
        !matches!(place.write(line, NoRoom::Fails), Err(Unwritten::Lost(_)))
    }

    fn write_to(&self, mut place: MutexGuard<'_, Place>, line: &[u8], no_room: NoRoom) {
        self.take_aside(&mut place);
        match place.write(line, no_room) {
            Ok(()) if self.0.has_failed.load(Ordering::Relaxed) => self.set_failure(None),
            Ok(()) => {}
            Err(Unwritten::Kept) => TROUBLE.notify_one(),
            Err(Unwritten::Lost(error)) => self.lose(1, error),
        }
    }

    fn lose(&self, lines: u64, error: io::Error) {
        self.0.lost.fetch_add(lines, Ordering::Relaxed);
        self.set_failure(Some(error));
        TROUBLE.notify_one();
    }

    fn set_failure(&self, failure: Option<io::Error>) {
        let has_failed = failure.is_some();
        *lock(&self.0.failure) = failure;
        self.0.has_failed.store(has_failed, Ordering::Relaxed);
    }

    fn set_aside(&self, line: &[u8]) {
        let mut aside = lock(&self.0.aside);
        if aside.len() + line.len() > MAX_BACKLOG {
            drop(aside);
            return self.lose(1, io::ErrorKind::WouldBlock.into());
        }
        aside.extend_from_slice(line);
        self.0.has_aside.store(true, Ordering::Relaxed);
        TROUBLE.notify_one();
    }

    fn take_aside(&self, place: &mut Place) {
        if self.0.has_aside.load(Ordering::Relaxed) {
            let mut aside = lock(&self.0.aside);
            let lost = place.keep(&aside);
            self.0.lost.fetch_add(lost, Ordering::Relaxed);
            *aside = Vec::new();
            self.0.has_aside.store(false, Ordering::Relaxed);
        }
    }

    /// Writes what waits, as far as there is room now. How the output is.
    pub fn settle(&self) -> State {
        let lost = self.0.lost.load(Ordering::Relaxed);
        let mut state = State {
            lost,
            is_clear: false,
            is_over: !self.0.has_failed.load(Ordering::Relaxed),
        };
        // A thread that has the lock writes, or waits for room.
        if let Some(mut place) = self.try_lock() {
            self.take_aside(&mut place);
            state.is_clear = place.flush(NoRoom::Fails).is_ok();
            let is_read_again = || self.has_no_reader() && state.is_clear && place.has_room();
            state.is_over = state.is_over || is_read_again();
        }
        state
    }

    /// Writes what waits, and gives the reader the usual time to make room. What is not written then
    /// is lost.
    pub fn finish(&self) {
        let mut place = self.lock();
        self.take_aside(&mut place);
        if let Err(error) = place.flush(NoRoom::Waits) {
            self.lose(place.kept(), error);
        }
    }

    /// Why lines cannot be written; none when they can.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.0.failure)
            .as_ref()
            .map(|error| match error.kind() {
                io::ErrorKind::WouldBlock => "nobody reads it".to_owned(),
                _ => error.to_string(),
            })
    }

    /// Whether lines cannot be written because the reader takes nothing.
    fn has_no_reader(&self) -> bool {
        let failure = lock(&self.0.failure);
        failure
            .as_ref()
            .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Takes note that somebody was told of so many lost lines.
    pub fn told(&self, lost: u64) {
        self.0.lost.fetch_sub(lost, Ordering::Relaxed);
        self.set_failure(None);
    }

    /// Opens the file at the path anew, as after a rotation. Lines that are being written go to the
    /// file that was open before; those after them to the new one.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; the one before stays then.
    pub fn reopen(&self) -> Result<(), ReopenError> {
        let Some(path) = &self.0.path else {
            return Ok(());
        };
        let sink = Sink::open(path).map_err(|source| ReopenError {
            path: path.clone(),
            source,
        })?;
        let mut place = self.lock();
        let _ = place.flush(NoRoom::Fails);
        let lost = place.kept();
        place.reopen(sink);
        drop(place);
        if lost > 0 {
            self.lose(lost, io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        lock(&self.0.place)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Place>> {
        match self.0.place.try_lock() {
            Ok(place) => Some(place),
            Err(TryLockError::Poisoned(place)) => Some(place.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// How an output is.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// How many lines are lost and not told of.
    pub lost: u64,
    /// Whether nothing waits to be written.
    pub is_clear: bool,
    /// Whether the last line could be written, or there is room again.
    pub is_over: bool,
}

/// Lines that this thread writes never wait for a reader from now on: those that find no room are
/// written later. It is for the threads that keep the server in hand.
pub fn never_wait() {
    MUST_NOT_WAIT.set(true);
}

/// Returns when an output needs [`Output::settle`] or has lost lines.
pub async fn trouble() {
    TROUBLE.notified().await;
}

static TROUBLE: Notify = Notify::const_new();

thread_local! {
    static MUST_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log file that could not be opened anew.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {}, the file opened before is written on", path.display())]
pub struct ReopenError {
    path: PathBuf,
    source: io::Error,
}

#[cfg(test)]
mod tests;
