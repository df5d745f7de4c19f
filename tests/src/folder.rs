//! The plugins folder of a test, and the ways in which files get into it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};

use crate::{Library, artifacts};

/// A plugins folder. Dropping the value removes the folder with everything in it.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes an empty folder.
    ///
    /// # Panics
    ///
    /// When the folder cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir_in(artifacts::temporary()).expect("the target folder is writable"))
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

    /// Puts a library into the folder by a rename, as `mv` from the same file system does.
    pub fn put(&self, name: &str, library: &Library) {
        let mut file =
            NamedTempFile::with_prefix_in(".put", self.path()).expect("the folder is writable");
        file.write_all(library.bytes()).expect("there is space");
        file.persist(self.join(name))
            .expect("the folder is writable");
    }

    /// Writes a library into the file of this name, as `cp` does.
    pub fn copy(&self, name: &str, library: &Library) {
        fs::write(self.join(name), library.bytes()).expect("the folder is writable");
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.join(name)).expect("it is there");
    }

    /// Makes an empty file. Some plugins wait for such a file.
    pub fn signal(&self, name: &str) {
        fs::write(self.join(name), "").expect("the folder is writable");
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
