//! The store of private copies: a library is loaded from a private copy, and never from a file to which another program
//! may write.
//!
//! A library is read once into [`LibraryBytes`]. The hash, the manifest and the copy of the library all come from these
//! bytes, so the library cannot change between the check and the load. Each generation gets its own copy, even of equal
//! bytes, because the dynamic linker returns the old image with the old statics for a file that is mapped already.
//!
//! A copy is not removed while a worker maps the copy, because a backtrace reads symbols from the file. The copies of a
//! host that was killed are removed by the next host that opens the same folder.

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

/// The private copies that this process makes.
#[derive(Debug)]
pub struct Store {
    /// The folder that this process shares with other hosts, as the operator names the folder. The path may lead
    /// through a symlink that gets another target at each deployment.
    parent: PathBuf,
    /// The folder of this process.
    copy_folder: Mutex<CopyFolder>,
}

/// A folder of copies in use.
#[derive(Debug)]
struct CopyFolder {
    /// The canonical path, because the kernel reports mapped files by their canonical paths.
    path: PathBuf,
    /// The lock file. The lock lasts until the process exits in any way, and tells other hosts that the folder is in
    /// use.
    lock: File,
}

impl Store {
    /// Creates a folder for this process in `parent`, readable by its user only, and removes the folders of hosts that
    /// have exited. Also creates `parent` if it is missing.
    ///
    /// Other users should not be able to write to `parent`. The file system of `parent` must not be mounted `noexec`,
    /// because the kernel refuses to map code from such a file system.
    ///
    /// # Errors
    ///
    /// When a folder or a lock file cannot be created, or the file system cannot lock.
    pub fn open(parent: &Path) -> Result<Self, StoreError> {
        create_folder(parent, true)?;
        Ok(Self {
            parent: parent.to_owned(),
            copy_folder: Mutex::new(CopyFolder::create(parent)?),
        })
    }

    /// Describes the folder for the next image of this process, and returns a descriptor of the folder's lock. The
    /// caller must not await until the next image is executed, because a load may replace the folder during an await.
    ///
    /// # Errors
    ///
    /// When this process may not open more files.
    pub fn suspend(&self) -> io::Result<(SuspendedStore, OwnedFd)> {
        let copy_folder = self.copy_folder();
        let lock = copy_folder.lock.as_fd().try_clone_to_owned()?;
        let suspended = SuspendedStore {
            parent: self.parent.clone(),
            folder: copy_folder.path.clone(),
            // The caller stores the index of the returned descriptor here.
            lock: 0,
        };
        Ok((suspended, lock))
    }

    /// Takes over the folder of the image of this process that ran before. The lock stays held, because a lock belongs
    /// to the descriptor.
    ///
    /// # Errors
    ///
    /// When `descriptors` does not contain the descriptor of the lock.
    pub fn resume(suspended: SuspendedStore, descriptors: &mut Unpacking) -> io::Result<Self> {
        let lock = File::from(descriptors.take(suspended.lock)?);
        Ok(Self {
            parent: suspended.parent,
            copy_folder: Mutex::new(CopyFolder {
                path: suspended.folder,
                lock,
            }),
        })
    }

    /// Returns the folder in use. If the folder was removed, for example with an old release that contained the folder,
    /// creates a new folder in the folder to which the path `parent` leads now.
    fn usable_folder(&self) -> Result<PathBuf, StoreError> {
        let mut copy_folder = self.copy_folder();
        if !copy_folder.path.exists() {
            // Folders above `parent` are not created, because a deployment may be about to create or replace them.
            create_folder(&self.parent, false)?;
            *copy_folder = CopyFolder::create(&self.parent)?;
        }
        Ok(copy_folder.path.clone())
    }

    fn copy_folder(&self) -> MutexGuard<'_, CopyFolder> {
        self.copy_folder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a private copy for a generation of the app `name`, and returns the path of the copy. This process never
    /// used the path before. `name` must be safe in a file name, as the names of apps in manifests and configurations
    /// are.
    ///
    /// # Errors
    ///
    /// When the copy cannot be written, for example on a full disk, or when the generation has a copy already. A copy
    /// that could not be written completely is removed.
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
            // An existing file must not be overwritten, because a process may have mapped the file.
            .create_new(true)
            .mode(0o500)
            .open(&path)
            .map_err(failed)?;
        file.write_all(snapshot.bytes()).map_err(|source| {
            // An error of the removal is ignored, because the error of the write explains the failure.
            let _ = fs::remove_file(&path);
            failed(source)
        })?;
        Ok(path)
    }

    /// Returns the folder of the copies.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.copy_folder().path.clone()
    }

    /// Removes the folder with all copies, at the end of the process. Libraries that are still mapped continue to work,
    /// but backtraces contain no names of their functions any more. Dropping a store removes nothing for that reason.
    ///
    /// # Errors
    ///
    /// When a file in the folder, or the folder, cannot be removed.
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

    /// Removes the shared folder, unless another host uses the folder. For a temporary store, after
    /// [`remove`](Self::remove).
    pub fn remove_parent(&self) {
        // Errors are ignored. If another host has created a folder in the shared folder, `remove_dir` fails, as
        // intended.
        let _ = fs::remove_file(self.parent.join(LOCK_FILE));
        let _ = fs::remove_dir(&self.parent);
    }
}

impl CopyFolder {
    /// Creates and locks a new folder in `parent`, and removes the folders of hosts that have exited.
    fn create(parent: &Path) -> Result<Self, StoreError> {
        // The kernel reports mapped files by their canonical paths.
        let parent = fs::canonicalize(parent).map_err(|source| StoreError::Create {
            path: parent.to_owned(),
            source,
        })?;
        // Only one host at a time may run the rest of this function. Otherwise one host could remove a folder that
        // another host has created but not locked yet.
        let _parent_lock = lock_file(&parent.join(LOCK_FILE))?;
        remove_abandoned_folders(&parent);
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // The process id alone is not unique: hosts in several containers may share `parent`.
        let path = parent.join(format!(
            "{FOLDER_PREFIX}{}-{:x}",
            process::id(),
            started.as_nanos()
        ));
        create_folder(&path, false)?;
        Ok(Self {
            lock: lock_file(&path.join(LOCK_FILE))?,
            path,
        })
    }
}

/// A description of a folder of copies, which is passed as JSON to the next image of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SuspendedStore {
    parent: PathBuf,
    folder: PathBuf,
    /// The index of the descriptor that holds the lock, among the descriptors that are passed with the JSON.
    pub lock: usize,
}

/// Why a library could not be read or copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A program wrote to the file or replaced the file during the read. Another read may succeed.
    #[error("{} changed while it was read, expected a file that nobody writes to; it needs another try", path.display())]
    Changed {
        /// The library.
        path: PathBuf,
    },
    /// A folder of copies could not be created.
    #[error("cannot create the folder {} for copies of libraries; choose one that the host may write to", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A lock file could not be created or locked.
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

/// Creates a folder that only this user can access, unless the folder exists. `with_parents` also creates missing
/// folders above.
fn create_folder(path: &Path, with_parents: bool) -> Result<(), StoreError> {
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

/// Creates the lock file at `path` if the file is missing, and locks the file until the result is dropped. Blocks while
/// another process holds the lock.
fn lock_file(path: &Path) -> Result<File, StoreError> {
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

/// Removes the folders of hosts that have exited. A failure is only logged as a warning, because a folder that stays
/// costs only disk space.
fn remove_abandoned_folders(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(FOLDER_PREFIX)
    }) {
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

/// Removes the folder of another host if that host has exited. Returns whether the folder was removed.
fn remove_if_abandoned(folder: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(folder.join(LOCK_FILE)) {
        // The kernel releases a lock when its process exits, so a lock that is free belongs to a host that has exited.
        Ok(lock) => match lock.try_lock() {
            Ok(()) => fs::remove_dir_all(folder)?,
            // The host of this folder is still running.
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        },
        // A host that was killed before it created the lock file has left an empty folder. `remove_dir` fails for a
        // folder with content, because such a folder was not created by a host.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_dir(folder)?,
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// The name of the lock files, in the shared folder and in the folder of each host.
const LOCK_FILE: &str = "lock";

/// The prefix of the name of a host's folder.
const FOLDER_PREFIX: &str = "host-";

#[cfg(test)]
mod tests;
