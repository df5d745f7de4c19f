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
/// that cannot be written is counted, and the count is logged when lines can be written again; what
/// is there of one is a line of its own.
#[derive(Clone, Debug)]
pub struct Output(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None for a stream, which cannot be opened anew.
    path: Option<PathBuf>,
    place: Mutex<Place>,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Place {
    file: File,
    /// Whether the last line is there in part only, as where a disk got full.
    is_torn: bool,
}

impl Place {
    fn new(file: File) -> Self {
        let is_torn = false;
        Self { file, is_torn }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            // What is there of the other line must not be the beginning of this one.
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
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
            place: Mutex::new(Place::new(file)),
            lost: AtomicU64::new(0),
        }))
    }

    /// Writes a line, its end included.
    pub fn write(&self, line: &[u8]) {
        let written = self.lock().write(line);
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
        let before = std::mem::replace(&mut *self.lock(), Place::new(file));
        drop(before);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

    use super::*;

    #[test]
    fn after_a_torn_line_the_next_one_is_whole() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        let room = fcntl_setpipe_size(&writer, 4096).unwrap();
        let output = Output::new(None, writer.into());
        let mut reader = File::from(reader);
        let mut read = vec![0; 2 * room];

        let long = [vec![b'x'; room + 10], vec![b'\n']].concat();
        output.write(&long);
        // Nothing of this one.
        output.write(b"lost\n");
        assert_eq!(output.0.lost.load(Ordering::Relaxed), 2);
        assert_eq!(reader.read(&mut read).unwrap(), room);

        output.write(b"next\n");
        output.write(b"last\n");
        let len = reader.read(&mut read).unwrap();
        assert_eq!(&read[..len], b"\nnext\nlast\n");
    }
}
