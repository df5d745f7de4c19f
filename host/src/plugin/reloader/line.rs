//! Whose turn it is when several libraries are read at once: they are admitted in the order of their
//! paths, so that it is no matter of chance which of two gets the name or the mount that both want.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Read;

/// Libraries that are read, or wait for those before them to be.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// What came of reading each; none as long as it is read.
    places: BTreeMap<PathBuf, Option<Read>>,
    /// When the wait for those that are still read ends.
    end: Option<Instant>,
}

impl Line {
    /// The library is about to be read.
    pub(super) fn join(&mut self, path: PathBuf) {
        self.end.get_or_insert_with(|| Instant::now() + PATIENCE);
        self.places.insert(path, None);
    }

    /// The library is about to be read anew, wherever it stands.
    pub(super) fn again(&mut self, path: &Path) {
        if let Some(place) = self.places.get_mut(path) {
            *place = None;
        }
    }

    /// The library is gone.
    pub(super) fn leave(&mut self, path: &Path) {
        self.places.remove(path);
    }

    /// The library was read. It is back at once when it does not stand in line.
    pub(super) fn done(&mut self, read: Read) -> Option<Read> {
        match self.places.get_mut(&read.path) {
            None => Some(read),
            Some(place) => {
                *place = Some(read);
                None
            }
        }
    }

    /// Who is to be admitted now. Those that are read after the end of the wait are no longer in line.
    pub(super) fn next(&mut self) -> Option<Read> {
        let is_over = self.end.is_some_and(|end| end <= Instant::now());
        while let Some(first) = self.places.first_entry() {
            if first.get().is_none() && !is_over {
                return None;
            }
            if let Some(read) = first.remove() {
                return Some(read);
            }
        }
        self.end = None;
        None
    }

    /// When to ask for who is next although nothing was read.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end
    }
}

/// How long to wait for who is still read: a file system that hangs must not hold up the others.
const PATIENCE: Duration = Duration::from_secs(1);
