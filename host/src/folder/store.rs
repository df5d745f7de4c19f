//! Private copies of libraries: what is loaded is never the file that somebody may write to.
//!
//! A library is read once into a [`LibraryBytes`]. Its hash, its manifest and its copy all come from
//! those bytes, so nothing can change between check and load. Each generation gets a copy of its
//! own, even of the same bytes: the loader would take the same file for the same library, and hand
//! out the old image with its old statics.
//!
//! Copies stay while the process lives, because libraries are never unloaded and a backtrace reads
//! symbols from the file. What a killed host left behind is swept by the next one that opens the
//! same folder.

mod snapshot;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::channel::Unpacking;

pub use self::snapshot::{ContentHash, LibraryBytes};

/// This process's folder of copies.
#[derive(Debug)]
pub struct Store {
    /// The folder that this process shares with others, as the operator names it: it may lead through a
    /// symlink that is set anew at each deploy.
    parent: PathBuf,
    /// The folder of this process.
    place: Mutex<CopyFolder>,
}

/// A folder, under the name by which the system knows what is mapped from there.
#[derive(Debug)]
struct CopyFolder {
    folder: PathBuf,
    /// Held locked until the process ends, however it ends: the lock tells other hosts that the folder
    /// is in use.
    lock: File,
}

impl Store {
    /// Creates a folder for this process in `parent` (which is created too if it is missing),
    /// readable by its user only, and removes those of hosts that have ended.
    ///
    /// Nobody else should be able to write to `parent`, and it should not be on a file system
    /// mounted `noexec`: nothing could be loaded from there.
    ///
    /// # Errors
    ///
    /// When a folder or a lock file cannot be created, or the file system cannot lock.
    pub fn open(parent: &Path) -> Result<Self, StoreError> {
        create(parent, true)?;
        Ok(Self {
            parent: parent.to_owned(),
            place: Mutex::new(CopyFolder::make(parent)?),
        })
    }

    /// Describes the folder, and adds its lock to the descriptors that travel to the next image of this
    /// process. No await may happen before that is executed.
    ///
    /// # Errors
    ///
    /// When this process may not open more files.
    pub fn suspend(&self) -> io::Result<(SuspendedStore, OwnedFd)> {
        let place = self.place();
        let lock = place.lock.as_fd().try_clone_to_owned()?;
        let suspended = SuspendedStore {
            parent: self.parent.clone(),
            folder: place.folder.clone(),
            lock: 0,
        };
        Ok((suspended, lock))
    }

    /// Goes on with the folder of an earlier image of this process.
    ///
    /// # Errors
    ///
    /// When the descriptor of its lock is missing.
    pub fn resume(suspended: SuspendedStore, descriptors: &mut Unpacking) -> io::Result<Self> {
        let lock = File::from(descriptors.take(suspended.lock)?);
        Ok(Self {
            parent: suspended.parent,
            place: Mutex::new(CopyFolder {
                folder: suspended.folder,
                lock,
            }),
        })
    }

    /// The folder in use. When somebody removed it, as with an old release that it was in, there is a
    /// new one, where the parent's path leads now.
    fn usable_folder(&self) -> Result<PathBuf, StoreError> {
        let mut place = self.place();
        if !place.folder.exists() {
            // Without the folders above, which somebody removed or has yet to make.
            create(&self.parent, false)?;
            *place = CopyFolder::make(&self.parent)?;
        }
        Ok(place.folder.clone())
    }

    fn place(&self) -> MutexGuard<'_, CopyFolder> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a copy of `snapshot` for a generation of the plugin `name`, a new file that no path
    /// of this process ever named before, and returns where it is. The name is that of a manifest,
    /// so it is safe in a file name. A folder that was removed is made anew.
    ///
    /// # Errors
    ///
    /// When the copy cannot be written, for want of space say, or the generation has one already.
    /// Then nothing is left of it.
    pub fn stage(
        &self,
        snapshot: &LibraryBytes,
        name: &str,
        generation: u64,
    ) -> Result<PathBuf, StoreError> {
        let path = self.usable_folder()?.join(format!(
            "{name}.g{generation}.{}.so",
            snapshot.hash().short()
        ));
        let failed = |source| StoreError::Write {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o500)
            .open(&path)
            .map_err(failed)?;
        file.write_all(snapshot.bytes()).map_err(|source| {
            // The error worth telling is the first one.
            let _ = fs::remove_file(&path);
            failed(source)
        })?;
        Ok(path)
    }

    /// Where the next copy will be, unless somebody removes the folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.place().folder.clone()
    }

    /// Removes the folder with all copies. For the end of the process: libraries that are still
    /// mapped go on working, but a backtrace through them has no names any more. That is why
    /// dropping a store removes nothing.
    ///
    /// # Errors
    ///
    /// When something in the folder cannot be removed.
    pub fn remove(&self) -> Result<(), StoreError> {
        let folder = self.folder();
        match fs::remove_dir_all(&folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::Remove {
                path: folder,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Removes the folder that this process shares with others, if no other is there: for one that was
    /// made for a moment, after [`remove`](Self::remove).
    pub fn remove_parent(&self) {
        // Whoever has come meanwhile has a folder there, so that the second call fails.
        let _ = fs::remove_file(self.parent.join(LOCK));
        let _ = fs::remove_dir(&self.parent);
    }
}

impl CopyFolder {
    fn make(parent: &Path) -> Result<Self, StoreError> {
        // As the system names what is mapped from there.
        let parent = fs::canonicalize(parent).map_err(|source| StoreError::Create {
            path: parent.to_owned(),
            source,
        })?;
        // One host at a time: else one could sweep the folder that another has made but not yet
        // locked.
        let _turn = lock(&parent.join(LOCK))?;
        sweep(&parent);
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // The process id alone is not unique: hosts in several containers may share `parent`.
        let folder = parent.join(format!(
            "{PREFIX}{}-{:x}",
            process::id(),
            started.as_nanos()
        ));
        create(&folder, false)?;
        Ok(Self {
            lock: lock(&folder.join(LOCK))?,
            folder,
        })
    }
}

/// A folder of copies as a value that can be JSON, for the next image of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedStore {
    parent: PathBuf,
    folder: PathBuf,
    /// The number of the descriptor that holds the lock.
    pub lock: usize,
}

/// Why a library could not be read or copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file was written to or replaced while it was read. It is worth another try.
    #[error("{} changed while it was read, expected a file that nobody writes to; it needs another try", path.display())]
    Changed {
        /// The library.
        path: PathBuf,
    },
    /// A folder of copies could not be made.
    #[error("cannot create the folder {} for copies of libraries; choose one that the host may write to", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder of copies could not be marked as in use.
    #[error("cannot lock {}; choose a folder on a local file system", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The path names a folder or a device.
    #[error("{} is no regular file, expected a library", path.display())]
    NotFile {
        /// What is no file.
        path: PathBuf,
    },
    /// The library could not be read.
    #[error("cannot read {}, expected a file that the host may read", path.display())]
    Read {
        /// The library.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The copies could not be removed.
    #[error("cannot remove the copies of libraries in {}", path.display())]
    Remove {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The copy could not be written.
    #[error("cannot write the copy {}; see --state-dir", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Creates a folder, for its user only, if it is missing; and the folders above it as well, when
/// `with_parents` says so.
fn create(path: &Path, with_parents: bool) -> Result<(), StoreError> {
    let created = DirBuilder::new()
        .recursive(with_parents)
        .mode(0o700)
        .create(path);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        created => created.map_err(|source| StoreError::Create {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Creates the lock file at `path` if need be, and holds it locked for as long as the result lives.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    file.and_then(|file| file.lock().map(|()| file))
        .map_err(|source| StoreError::Lock {
            path: path.to_owned(),
            source,
        })
}

/// Removes the folders of hosts that have ended. What cannot be removed costs space only, so it is
/// no error.
fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let folder = entry.path();
        match remove_if_abandoned(&folder) {
            Ok(true) => {
                debug!(folder = %folder.display(), "Removed the copies of a host that has ended")
            }
            Ok(false) => {}
            Err(error) => {
                warn!(folder = %folder.display(), %error, "Cannot remove the copies of another host")
            }
        }
    }
}

fn remove_if_abandoned(folder: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(folder.join(LOCK)) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => fs::remove_dir_all(folder)?,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        },
        // Its host was killed before it put anything there. A folder that is not empty is none of
        // ours, and stays.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_dir(folder)?,
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// The name of a lock file, in the parent and in each host's folder.
const LOCK: &str = "lock";

/// How the name of a host's folder begins.
const PREFIX: &str = "host-";

#[cfg(test)]
mod tests;
