//! The plugins folder of a test, and the ways in which an operator puts files into it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};

use crate::{Library, artifacts};

/// A plugins folder. Dropping the value removes the folder and its files.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Creates an empty folder.
    ///
    /// # Panics
    ///
    /// Panics if the folder cannot be created.
    #[must_use]
    pub fn new() -> Self {
        Self(
            tempfile::tempdir_in(artifacts::temporary_folder())
                .expect("the target folder is writable"),
        )
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path of a file in the folder.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a library into the folder by a rename, like `mv` within a file system.
    pub fn put(&self, name: &str, library: &Library) {
        let mut file =
            NamedTempFile::with_prefix_in(".put", self.path()).expect("the folder is writable");
        file.write_all(library.bytes()).expect("there is space");
        file.persist(self.join(name))
            .expect("the folder is writable");
    }

    /// Writes a library to the file `name` in place, like `cp`.
    pub fn copy(&self, name: &str, library: &Library) {
        fs::write(self.join(name), library.bytes()).expect("the folder is writable");
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.join(name)).expect("the file exists");
    }

    /// Creates an empty file. Some plugins wait until a file exists.
    pub fn create_empty(&self, name: &str) {
        fs::write(self.join(name), "").expect("the folder is writable");
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
