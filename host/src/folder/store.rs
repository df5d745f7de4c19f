//! The store of private copies: a library is loaded from a copy, and never from a file that somebody may write to.
//!
//! A library is read once into [`LibraryBytes`]. Its hash, its manifest and its copy all come from these bytes, so
//! nothing can change between check and load. Each generation gets a copy of its own, even of the same bytes: for a
//! file that is mapped already, the dynamic linker would return the old image with its old statics.
//!
//! A copy stays as long as a worker has it mapped, because a backtrace reads symbols from the file. The next host that
//! opens the same folder removes the copies of a host that was killed.

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
    /// The folder that this process shares with other hosts, as the operator names it. The path may lead through a
    /// symlink that changes at each deployment.
    parent: PathBuf,
    /// The folder of this process.
    place: Mutex<CopyFolder>,
}

/// A folder of copies, under its canonical path, which is the path that the kernel reports for mapped files.
#[derive(Debug)]
struct CopyFolder {
    folder: PathBuf,
    /// The lock file, locked until the process exits in any way. The lock tells other hosts that the folder is in
    /// use.
    lock: File,
}

impl Store {
    /// Creates a folder for this process in `parent`, readable by its user only, and removes the folders of hosts that
    /// have exited. Also creates `parent` if it is missing.
    ///
    /// Other users should not be able to write to `parent`. Its file system must not be mounted `noexec`, because no
    /// library could be loaded from there.
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

    /// Describes the folder for the next image of this process, and returns the descriptor of its lock. The caller must
    /// not await until the next image is executed.
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

    /// Takes over the folder of an earlier image of this process.
    ///
    /// # Errors
    ///
    /// When the descriptor of the lock is missing.
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

    /// Returns the folder in use. If somebody has removed the folder, as with the old release that contained it, a new
    /// one is created where the parent's path leads now.
    fn usable_folder(&self) -> Result<PathBuf, StoreError> {
        let mut place = self.place();
        if !place.folder.exists() {
            // The folders above are not created: somebody has removed them, or has yet to create them.
            create(&self.parent, false)?;
            *place = CopyFolder::make(&self.parent)?;
        }
        Ok(place.folder.clone())
    }

    fn place(&self) -> MutexGuard<'_, CopyFolder> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a private copy for a generation of the app `name`, and returns its path. The path was never used before in
    /// this process. The name was checked with the manifest or the configuration, so it is safe in a file name.
    ///
    /// # Errors
    ///
    /// When the copy cannot be written, for example on a full disk, or when the generation has a copy already. No part of
    /// a failed copy is left.
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
            // The first error is the useful one.
            let _ = fs::remove_file(&path);
            failed(source)
        })?;
        Ok(path)
    }

    /// Returns the folder of the copies.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.place().folder.clone()
    }

    /// Removes the folder with all copies, at the end of the process. Libraries that are still mapped go on working, but a
    /// backtrace through them has no names any more. For that reason dropping a store removes nothing.
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

    /// Removes the shared folder, if no other host uses it. Meant for a temporary store, after
    /// [`remove`](Self::remove).
    pub fn remove_parent(&self) {
        // A host that has come meanwhile has a folder there, so the second call fails.
        let _ = fs::remove_file(self.parent.join(LOCK));
        let _ = fs::remove_dir(&self.parent);
    }
}

impl CopyFolder {
    fn make(parent: &Path) -> Result<Self, StoreError> {
        // The kernel reports mapped files by their canonical path.
        let parent = fs::canonicalize(parent).map_err(|source| StoreError::Create {
            path: parent.to_owned(),
            source,
        })?;
        // Only one host at a time may do this. Otherwise one host could remove a folder that another host has created but
        // not locked yet.
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

/// A folder of copies in a form that can be JSON, for the next image of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedStore {
    parent: PathBuf,
    folder: PathBuf,
    /// The index of the descriptor that holds the lock.
    pub lock: usize,
}

/// Why a library could not be read or copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file was written to or replaced while it was read. Another try may succeed.
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
        /// The error of the system.
        source: io::Error,
    },
    /// A folder of copies could not be marked as in use.
    #[error("cannot lock {}; choose a folder on a local file system", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path names a folder or a device.
    #[error("{} is no regular file, expected a library", path.display())]
    NotFile {
        /// The path.
        path: PathBuf,
    },
    /// The library could not be read.
    #[error("cannot read {}, expected a file that the host may read", path.display())]
    Read {
        /// The library.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The copies could not be removed.
    #[error("cannot remove the copies of libraries in {}", path.display())]
    Remove {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The copy could not be written.
    #[error("cannot write the copy {}; see --state-dir", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Creates a folder for its user only, unless it exists. `with_parents` also creates missing folders above.
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

/// Creates the lock file at `path` if it is missing, and locks it until the result is dropped. Blocks while another
/// process holds the lock.
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

/// Removes the folders of hosts that have exited. A folder that cannot be removed costs only disk space, so a failure
/// is a warning.
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
        // The host was killed before it created the lock file. A folder that is not empty was not made by a host,
        // and stays.
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
