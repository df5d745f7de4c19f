//! Where lines go: a stream, or a file that can be opened anew.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tracing::warn;

/// A place for lines. A clone is the same place.
///
/// Lines are written whole, one after the other, each by one call of the system where that takes
/// it all, so that other processes that append to the same file do not tear them either. A line
/// that cannot be written is counted, and the count is logged when lines can be written again.
#[derive(Clone, Debug)]
pub struct Output(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None for a stream, which cannot be opened anew.
    path: Option<PathBuf>,
    file: Mutex<File>,
    lost: AtomicU64,
}

impl Output {
    /// The process's stdout.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn stdout() -> io::Result<Self> {
        Self::stream(io::stdout())
    }

    /// The process's stderr.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn stderr() -> io::Result<Self> {
        Self::stream(io::stderr())
    }

    /// A stream as it is now: what is put in its place later does not count.
    fn stream(stream: impl AsFd) -> io::Result<Self> {
        let file = stream.as_fd().try_clone_to_owned()?.into();
        Ok(Self::new(None, file))
    }

    /// The end of the file at `path`, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Some(path.to_owned()), open(path)?))
    }

    fn new(path: Option<PathBuf>, file: File) -> Self {
        Self(Arc::new(Inner {
            path,
            file: Mutex::new(file),
            lost: AtomicU64::new(0),
        }))
    }

    /// Writes a line, its end included.
    pub fn write(&self, line: &[u8]) {
        let written = self.lock().write_all(line);
        if written.is_err() {
            // There is nowhere to say so now.
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        } else if self.0.lost.load(Ordering::Relaxed) > 0 {
            let lines = self.0.lost.swap(0, Ordering::Relaxed);
            if lines > 0 {
                warn!(lines, "Lines of the log could not be written, and are lost");
            }
        }
    }

    /// Opens the file at the path anew, as after a rotation. Lines that are being written go to the
    /// one that was open; those after it to the new one.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; the one before stays then.
    pub fn reopen(&self) -> Result<(), ReopenError> {
        let Some(path) = &self.0.path else {
            return Ok(());
        };
        let file = open(path).map_err(|source| ReopenError {
            path: path.clone(),
            source,
        })?;
        let before = std::mem::replace(&mut *self.lock(), file);
        drop(before);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, File> {
        self.0.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// A log file that could not be opened anew.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {}, the file opened before is written on", path.display())]
pub struct ReopenError {
    path: PathBuf,
    source: io::Error,
}
