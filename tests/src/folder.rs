//! A plugins folder of a test's own, and the ways files get into it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};

use crate::{Library, artifacts};

/// A plugins folder, removed with what is in it when it is dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    ///
    /// # Panics
    ///
    /// When there is no place for it.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir_in(artifacts::temporary()).expect("the target folder is writable"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a library there at once, as `mv` from the same file system does.
    pub fn put(&self, name: &str, library: &Library) {
        let mut file =
            NamedTempFile::with_prefix_in(".put", self.path()).expect("the folder is writable");
        file.write_all(library.bytes()).expect("there is space");
        file.persist(self.join(name))
            .expect("the folder is writable");
    }

    /// Writes a library over what is there, as `cp` does.
    pub fn copy(&self, name: &str, library: &Library) {
        fs::write(self.join(name), library.bytes()).expect("the folder is writable");
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.join(name)).expect("it is there");
    }

    /// Makes an empty file: what some plugins wait for.
    pub fn signal(&self, name: &str) {
        fs::write(self.join(name), "").expect("the folder is writable");
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
