//! When to build: a value that is told what happened, and says what to do.
//!
//! At most one build is under way. A change while it compiles the author's crates makes its result
//! useless, so it is cancelled, and the next one begins at once. While it still compiles what these
//! depend on, which takes long and is the same afterwards, it goes on, and another follows. No change is
//! lost: those of a cancelled build count as changes of the next.

use std::{collections::BTreeSet, path::PathBuf};

/// Whether a build is under way, and for which changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Builder {
    building: Option<BTreeSet<PathBuf>>,
    /// Changes that came while that build compiled dependencies.
    late: Option<BTreeSet<PathBuf>>,
    /// The number of the build that was started last.
    number: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The number of the build to start.
    pub(super) build: u64,
    /// The build to cancel first.
    pub(super) cancel: Option<u64>,
}

impl Builder {
    /// Files changed, or the author asked for a build of what is there. `is_early` says whether a
    /// build that is under way has not come to the author's crates; then there is nothing to do yet.
    pub(super) fn changed(
        &mut self,
        files: impl IntoIterator<Item = PathBuf>,
        is_early: bool,
    ) -> Option<Start> {
        if self.building.is_some() && is_early {
            self.late.get_or_insert_default().extend(files);
            return None;
        }
        let cancel = self.building.is_some().then_some(self.number);
        let late = self.late.take().into_iter().flatten();
        self.building
            .get_or_insert_default()
            .extend(late.chain(files));
        self.number += 1;
        Some(Start {
            build: self.number,
            cancel,
        })
    }

    /// The changes that a build which has ended may not have seen, if there are some.
    pub(super) fn late(&mut self) -> Option<BTreeSet<PathBuf>> {
        self.late.take()
    }

    /// A build came to its end. The result is what changed for it, or none when the build was
    /// cancelled meanwhile, and what came of it is of no use.
    pub(super) fn finished(&mut self, build: u64) -> Option<BTreeSet<PathBuf>> {
        if build == self.number {
            self.building.take()
        } else {
            None
        }
    }

    /// Whether a build is under way.
    #[cfg(test)]
    fn is_building(&self) -> bool {
        self.building.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_change_starts_a_build() {
        let mut builder = Builder::default();
        let start = builder.changed(files(&["a"]), true).unwrap();
        assert_eq!((start.build, start.cancel), (1, None));
        assert!(builder.is_building());
        assert_eq!(builder.finished(1), Some(files(&["a"])));
        assert!(!builder.is_building());
        let start = builder.changed([], false).unwrap();
        assert_eq!((start.build, start.cancel), (2, None));
    }

    #[test]
    fn a_change_during_a_build_cancels_it_and_is_built_with_those_before() {
        let mut builder = Builder::default();
        builder.changed(files(&["a"]), false);
        let start = builder.changed(files(&["b"]), false).unwrap();
        assert_eq!((start.build, start.cancel), (2, Some(1)));
        // The end of the first was on its way already.
        assert_eq!(builder.finished(1), None);
        assert!(builder.is_building());
        assert_eq!(builder.finished(2), Some(files(&["a", "b"])));
        assert_eq!(builder.late(), None);
    }

    #[test]
    fn a_change_while_dependencies_are_compiled_is_built_afterwards() {
        let mut builder = Builder::default();
        builder.changed(files(&["a"]), true);
        assert_eq!(builder.changed(files(&["b"]), true), None);
        assert_eq!(builder.changed(files(&["c"]), true), None);
        assert_eq!(builder.finished(1), Some(files(&["a"])));
        assert_eq!(builder.late(), Some(files(&["b", "c"])));
        // Or at once, when one comes later.
        builder.changed([], true);
        builder.changed(files(&["d"]), true);
        let start = builder.changed(files(&["e"]), false).unwrap();
        assert_eq!((start.build, start.cancel), (3, Some(2)));
        assert_eq!(builder.finished(3), Some(files(&["d", "e"])));
        assert_eq!(builder.late(), None);
    }
}
