//! Decides when to build: a state machine without side effects. The caller reports changes and ended builds, and
//! the scheduler returns the build to start.
//!
//! At most one build runs at a time. If a file changes during a build, the decision depends on the crates that the
//! build compiles at this moment:
//!
//! - The author's own crates: the result would be out of date, so the build is cancelled and a new build starts at
//!   once.
//! - Dependencies: their compilation takes long and the change does not affect them, so the build continues.
//!   Another build follows.
//!
//! No change is lost: the build that replaces a cancelled build also covers the changes of the cancelled build.

use std::{collections::BTreeSet, path::PathBuf};

/// The running build, and the changes that have been reported so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BuildScheduler {
    /// The changed files that the running build covers, or `None` while no build runs.
    building: Option<BTreeSet<PathBuf>>,
    /// The files that changed while the running build compiled dependencies. They need another build. `None` if no
    /// change has been reported.
    pending: Option<BTreeSet<PathBuf>>,
    /// The number of the last started build. Builds are numbered from 1.
    last_build: u64,
}

/// The decision to start a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BuildStart {
    /// The number of the build to start.
    pub(super) build: u64,
    /// The number of the running build, which the caller must cancel first. `None` if no build runs.
    pub(super) cancel: Option<u64>,
}

impl BuildScheduler {
    /// Reports changed files. `files` is empty if the author has requested a build. `compiles_dependencies` is true if
    /// the running build has not reached the author's crates.
    ///
    /// Returns the build to start, or `None` if the running build must end first.
    pub(super) fn files_changed(
        &mut self,
        files: impl IntoIterator<Item = PathBuf>,
        compiles_dependencies: bool,
    ) -> Option<BuildStart> {
        if self.building.is_some() && compiles_dependencies {
            self.pending.get_or_insert_default().extend(files);
            return None;
        }
        let cancel = self.building.is_some().then_some(self.last_build);
        let pending = self.pending.take().into_iter().flatten();
        // `building` still contains the changes of the build that is cancelled.
        self.building
            .get_or_insert_default()
            .extend(pending.chain(files));
        self.last_build += 1;
        Some(BuildStart {
            build: self.last_build,
            cancel,
        })
    }

    /// Removes and returns the files that changed while the last build compiled dependencies. The build may have read
    /// these files before the change. Returns `None` if no change was reported.
    pub(super) fn take_pending(&mut self) -> Option<BTreeSet<PathBuf>> {
        self.pending.take()
    }

    /// Reports that a build has ended. Returns the changed files that the build covers, or `None` if a newer build has
    /// replaced this build: the caller must then ignore the result.
    pub(super) fn build_ended(&mut self, build: u64) -> Option<BTreeSet<PathBuf>> {
        if build == self.last_build {
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
        let start = scheduler.files_changed(files(&["a"]), true).unwrap();
        assert_eq!((start.build, start.cancel), (1, None));
        assert!(scheduler.is_building());
        assert_eq!(scheduler.build_ended(1), Some(files(&["a"])));
        assert!(!scheduler.is_building());
        let start = scheduler.files_changed([], false).unwrap();
        assert_eq!((start.build, start.cancel), (2, None));
    }

    #[test]
    fn a_change_during_a_build_cancels_it_and_is_built_with_those_before() {
        let mut scheduler = BuildScheduler::default();
        scheduler.files_changed(files(&["a"]), false);
        let start = scheduler.files_changed(files(&["b"]), false).unwrap();
        assert_eq!((start.build, start.cancel), (2, Some(1)));
        // The first build reports its end after the second one has started.
        assert_eq!(scheduler.build_ended(1), None);
        assert!(scheduler.is_building());
        assert_eq!(scheduler.build_ended(2), Some(files(&["a", "b"])));
        assert_eq!(scheduler.take_pending(), None);
    }

    #[test]
    fn a_change_while_dependencies_are_compiled_is_built_afterwards() {
        let mut scheduler = BuildScheduler::default();
        scheduler.files_changed(files(&["a"]), true);
        assert_eq!(scheduler.files_changed(files(&["b"]), true), None);
        assert_eq!(scheduler.files_changed(files(&["c"]), true), None);
        assert_eq!(scheduler.build_ended(1), Some(files(&["a"])));
        assert_eq!(scheduler.take_pending(), Some(files(&["b", "c"])));
        // A change after the dependencies starts a build that covers the late changes as well.
        scheduler.files_changed([], true);
        scheduler.files_changed(files(&["d"]), true);
        let start = scheduler.files_changed(files(&["e"]), false).unwrap();
        assert_eq!((start.build, start.cancel), (3, Some(2)));
        assert_eq!(scheduler.build_ended(3), Some(files(&["d", "e"])));
        assert_eq!(scheduler.take_pending(), None);
    }
}
