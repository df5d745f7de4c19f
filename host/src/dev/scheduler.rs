//! Decides when to build: a pure value that is told of changes and answers which build to start.
//!
//! At most one build runs at a time. The answer to a change depends on what that build is compiling:
//!
//! - The author's own crates: the result would be out of date, so the build is cancelled and a new one
//!   starts at once.
//! - Dependencies: these take long and do not change, so the build goes on, and another build
//!   follows it.
//!
//! No change is lost: the changes of a cancelled build count as changes of the build that replaces it.

use std::{collections::BTreeSet, path::PathBuf};

/// The build that runs, and the files that changed for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BuildScheduler {
    /// The changed files that the running build covers; `None` while no build runs.
    building: Option<BTreeSet<PathBuf>>,
    /// Files that changed while the running build compiled dependencies.
    late: Option<BTreeSet<PathBuf>>,
    /// The number of the last build that was started. Builds are numbered from 1.
    number: u64,
}

/// The answer to a change: which build to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuildStart {
    /// The number of the build to start.
    pub(super) build: u64,
    /// The build to cancel first.
    pub(super) cancel: Option<u64>,
}

impl BuildScheduler {
    /// Takes in files that changed, or none when the author asks for a build. `compiles_dependencies`
    /// says that the running build has not reached the author's crates.
    ///
    /// Returns the build to start, or `None` when the running build goes on first.
    pub(super) fn changed(
        &mut self,
        files: impl IntoIterator<Item = PathBuf>,
        compiles_dependencies: bool,
    ) -> Option<BuildStart> {
        if self.building.is_some() && compiles_dependencies {
            self.late.get_or_insert_default().extend(files);
            return None;
        }
        let cancel = self.building.is_some().then_some(self.number);
        let late = self.late.take().into_iter().flatten();
        self.building
            .get_or_insert_default()
            .extend(late.chain(files));
        self.number += 1;
        Some(BuildStart {
            build: self.number,
            cancel,
        })
    }

    /// Returns the files that changed while the last build compiled dependencies, and forgets them.
    /// The build may have read the files before the change. `None` means that there was no change.
    pub(super) fn take_late(&mut self) -> Option<BTreeSet<PathBuf>> {
        self.late.take()
    }

    /// Takes in that a build has ended. Returns the files that changed for that build, or `None` when
    /// another build has replaced it, so that its result is of no use.
    pub(super) fn finished(&mut self, build: u64) -> Option<BTreeSet<PathBuf>> {
        if build == self.number {
            self.building.take()
        } else {
            None
        }
    }

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
        let mut scheduler = BuildScheduler::default();
        let start = scheduler.changed(files(&["a"]), true).unwrap();
        assert_eq!((start.build, start.cancel), (1, None));
        assert!(scheduler.is_building());
        assert_eq!(scheduler.finished(1), Some(files(&["a"])));
        assert!(!scheduler.is_building());
        let start = scheduler.changed([], false).unwrap();
        assert_eq!((start.build, start.cancel), (2, None));
    }

    #[test]
    fn a_change_during_a_build_cancels_it_and_is_built_with_those_before() {
        let mut scheduler = BuildScheduler::default();
        scheduler.changed(files(&["a"]), false);
        let start = scheduler.changed(files(&["b"]), false).unwrap();
        assert_eq!((start.build, start.cancel), (2, Some(1)));
        // The first build reports its end after the second one has started.
        assert_eq!(scheduler.finished(1), None);
        assert!(scheduler.is_building());
        assert_eq!(scheduler.finished(2), Some(files(&["a", "b"])));
        assert_eq!(scheduler.take_late(), None);
    }

    #[test]
    fn a_change_while_dependencies_are_compiled_is_built_afterwards() {
        let mut scheduler = BuildScheduler::default();
        scheduler.changed(files(&["a"]), true);
        assert_eq!(scheduler.changed(files(&["b"]), true), None);
        assert_eq!(scheduler.changed(files(&["c"]), true), None);
        assert_eq!(scheduler.finished(1), Some(files(&["a"])));
        assert_eq!(scheduler.take_late(), Some(files(&["b", "c"])));
        // A change after the dependencies starts a build that covers the late changes as well.
        scheduler.changed([], true);
        scheduler.changed(files(&["d"]), true);
        let start = scheduler.changed(files(&["e"]), false).unwrap();
        assert_eq!((start.build, start.cancel), (3, Some(2)));
        assert_eq!(scheduler.finished(3), Some(files(&["d", "e"])));
        assert_eq!(scheduler.take_late(), None);
    }
}
