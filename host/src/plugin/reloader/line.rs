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
    /// When the wait for the first one ends.
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

    /// Who is to be admitted now. One that is still read when the wait is over is no longer in line.
    pub(super) fn next(&mut self) -> Option<Read> {
        let now = Instant::now();
        let is_over = self.end.is_some_and(|end| end <= now);
        while let Some(first) = self.places.first_entry() {
            if first.get().is_none() && !is_over {
                return None;
            }
            if let Some(read) = first.remove() {
                // It gets on: the wait is for the next one.
                self.end = Some(now + PATIENCE);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::load::LoadError;

    fn read(path: &str) -> Read {
        Read {
            path: path.into(),
            attempt: 0,
            examined: Err(LoadError::Closed.into()),
        }
    }

    fn next(line: &mut Line) -> Option<PathBuf> {
        line.next().map(|read| read.path)
    }

    #[test]
    fn the_order_is_that_of_paths_whatever_was_read_first() {
        let mut line = Line::default();
        for path in ["b", "a", "c"] {
            line.join(path.into());
        }
        assert!(line.done(read("c")).is_none());
        assert!(line.done(read("b")).is_none());
        assert_eq!(next(&mut line), None);
        line.leave(Path::new("a"));
        assert_eq!(next(&mut line), Some("b".into()));
        assert_eq!(next(&mut line), Some("c".into()));
        assert_eq!(next(&mut line), None);
        assert_eq!(line.end(), None);
        // Who does not stand in line need not wait.
        assert!(line.done(read("d")).is_some());
    }

    #[test]
    fn one_that_hangs_does_not_hold_up_the_others() {
        let mut line = Line::default();
        for path in ["a", "b"] {
            line.join(path.into());
        }
        assert!(line.done(read("b")).is_none());
        assert_eq!(next(&mut line), None);
        line.end = Some(Instant::now());
        assert_eq!(next(&mut line), Some("b".into()));
        assert!(line.done(read("a")).is_some());
    }
}
