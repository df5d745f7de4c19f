//! The facts that the supervisor knows about the files in the plugins folder.
//!
//! Files are read in background tasks. A plan is made only when no read is under way, so that files that change
//! together become one plan. A plan does not wait for a read that takes longer than [`READ_TIMEOUT`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    app::ReplyId,
    catalog::{Library, LibraryInfo},
    outcome::LoadFailure,
};
use crate::folder::candidate::{self, Candidate, Rejected};

/// The files in the plugins folder that were read.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    /// The facts about each file, as input for a plan.
    known: BTreeMap<PathBuf, Library>,
    /// The files that cannot be loaded: the name of the plugin, if the manifest could be read, and the failure.
    failures: BTreeMap<PathBuf, (Option<String>, LoadFailure)>,
    /// Files that are not meant to be plugins, such as libraries that plugins need.
    non_plugins: BTreeSet<PathBuf>,
    /// The files that are being read, each with its latest read.
    reading: BTreeMap<PathBuf, PendingRead>,
    /// Files that were removed. The next plan forgets these files. A new file at the same path cancels the removal if
    /// it appears before that plan.
    removed: BTreeSet<PathBuf>,
    /// Libraries that were read since the last plan. The bytes stay in memory, up to [`MAX_CACHED_BYTES`] in all, so
    /// that the library need not be read again for the private copy. `None` if the bytes were dropped.
    read_since_plan: BTreeMap<PathBuf, Option<Arc<Candidate>>>,
    /// The number of reads so far.
    read_count: u64,
    /// Whether the watcher has reported all files that existed at the start.
    is_folder_listed: bool,
    /// Whether a file or other input of the plan has changed since the last plan.
    has_changes: bool,
}

/// A read under way.
#[derive(Debug)]
struct PendingRead {
    /// The number of the read, which distinguishes it from earlier reads of the same file.
    number: u64,
    /// When the read began.
    since: Instant,
}

/// The facts about one file before a deployment. They are restored if the deployment fails.
#[derive(Debug)]
pub(super) struct KnownLibrary {
    known: Option<Library>,
    failure: Option<(Option<String>, LoadFailure)>,
}

/// The result of reading a library.
#[derive(Debug)]
pub(super) struct LibraryRead {
    pub(super) path: PathBuf,
    pub(super) purpose: ReadPurpose,
    pub(super) examined: Result<Candidate, Rejected>,
}

/// Why a library is read.
#[derive(Debug)]
pub(super) enum ReadPurpose {
    /// The file is new or has changed. `attempt` counts the earlier reads of the incomplete file. `number` is the
    /// number of the read.
    Change { attempt: u32, number: u64 },
    /// An operator requested a reload of an app.
    Reload { app: String, reply_id: ReplyId },
    /// An operator requested a rollback of an app.
    Rollback { app: String, reply_id: ReplyId },
}

impl Libraries {
    /// Handles a new or changed file. Returns the future that reads the file.
    pub(super) fn start_read(
        &mut self,
        path: PathBuf,
        attempt: u32,
    ) -> impl Future<Output = Box<LibraryRead>> + Send + use<> {
        self.read_count += 1;
        let number = self.read_count;
        // The file exists again, so the next plan must not forget it.
        self.removed.remove(&path);
        let since = Instant::now();
        self.reading
            .insert(path.clone(), PendingRead { number, since });
        read(path, ReadPurpose::Change { attempt, number })
    }

    /// Records the removal of a file. The next plan forgets the file.
    pub(super) fn mark_removed(&mut self, path: PathBuf) {
        // The result of a read under way is outdated.
        self.reading.remove(&path);
        self.removed.insert(path);
        self.has_changes = true;
    }

    /// Records that the watcher has reported all files that existed at the start.
    pub(super) fn mark_listed(&mut self) {
        self.is_folder_listed = true;
        self.has_changes = true;
    }

    /// Ends a read. Returns false if the result is outdated, because a later read of the file has begun or the file was
    /// removed.
    pub(super) fn finish_read(&mut self, path: &Path, number: u64) -> bool {
        let is_last = self
            .reading
            .get(path)
            .is_some_and(|reading| reading.number == number);
        if is_last {
            self.reading.remove(path);
            self.has_changes = true;
        }
        is_last
    }

    /// Records a library that can be loaded.
    pub(super) fn add_plugin(&mut self, path: PathBuf, candidate: Candidate) -> Arc<Candidate> {
        let facts = LibraryInfo::of(&candidate);
        let candidate = Arc::new(candidate);
        let kept = self.read_since_plan.values().flatten();
        let bytes: usize = kept.map(|kept| kept.snapshot.bytes().len()).sum();
        // The bytes of this library are not counted, so the last library may exceed the limit.
        let is_kept = bytes < MAX_CACHED_BYTES;
        self.read_since_plan
            .insert(path.clone(), is_kept.then(|| Arc::clone(&candidate)));
        self.failures.remove(&path);
        self.non_plugins.remove(&path);
        self.known.insert(path, Library::Plugin(facts));
        self.has_changes = true;
        candidate
    }

    /// Records a file that cannot be loaded. `plugin` is the name of the plugin, if the manifest could be read.
    pub(super) fn add_unusable(
        &mut self,
        path: PathBuf,
        plugin: Option<String>,
        failure: LoadFailure,
    ) {
        self.failures.insert(path.clone(), (plugin, failure));
        self.known.insert(path, Library::Unusable);
        self.has_changes = true;
    }

    /// Records a file that is not meant to be a plugin. Returns true if the file was not recorded as such before.
    pub(super) fn add_non_plugin(&mut self, path: PathBuf) -> bool {
        self.failures.remove(&path);
        self.known.insert(path.clone(), Library::Unusable);
        self.has_changes = true;
        self.non_plugins.insert(path)
    }

    /// Returns the facts about the file at `path`, as input for [`restore`](Self::restore).
    pub(super) fn save(&self, path: &Path) -> KnownLibrary {
        KnownLibrary {
            known: self.known.get(path).cloned(),
            failure: self.failures.get(path).cloned(),
        }
    }

    /// Restores the facts about the file at `path`, because a deployed library was not moved to that path.
    pub(super) fn restore(&mut self, path: &Path, saved: KnownLibrary) {
        self.read_since_plan.remove(path);
        match saved.known {
            Some(known) => {
                self.known.insert(path.to_owned(), known);
            }
            // The file did not exist, so the next plan must forget it.
            None => {
                self.removed.insert(path.to_owned());
            }
        }
        if let Some(failure) = saved.failure {
            self.failures.insert(path.to_owned(), failure);
        }
        self.has_changes = true;
    }

    /// Requests a new plan, because an input other than a file has changed, for example the settings, or a mount that
    /// is free now.
    pub(super) fn mark_changed(&mut self) {
        self.has_changes = true;
    }

    /// Returns whether a plan must be made now: an input has changed, and no read is under way that began less than
    /// [`READ_TIMEOUT`] ago.
    pub(super) fn is_ready_to_plan(&self) -> bool {
        let is_timed_out = |reading: &PendingRead| reading.since.elapsed() >= READ_TIMEOUT;
        self.is_folder_listed && self.has_changes && self.reading.values().all(is_timed_out)
    }

    /// Returns the time at which a plan no longer waits for reads. Returns `None` if no plan waits for a read.
    pub(super) fn next_read_timeout(&self) -> Option<Instant> {
        if !self.has_changes || !self.is_folder_listed {
            return None;
        }
        let ends = self
            .reading
            .values()
            .map(|reading| reading.since + READ_TIMEOUT);
        // The latest time, because the plan waits for all reads.
        ends.filter(|end| *end > Instant::now()).max()
    }

    /// Begins a plan: forgets the removed files. Returns the libraries that were read since the last plan.
    pub(super) fn begin_plan(&mut self) -> BTreeMap<PathBuf, Option<Arc<Candidate>>> {
        self.has_changes = false;
        for path in std::mem::take(&mut self.removed) {
            self.known.remove(&path);
            self.failures.remove(&path);
            self.non_plugins.remove(&path);
        }
        std::mem::take(&mut self.read_since_plan)
    }

    /// Returns the facts about each file, by path.
    pub(super) fn known(&self) -> &BTreeMap<PathBuf, Library> {
        &self.known
    }

    /// Returns the files that cannot be loaded, by path: the name of the plugin, if known, and the failure.
    pub(super) fn failures(&self) -> &BTreeMap<PathBuf, (Option<String>, LoadFailure)> {
        &self.failures
    }
}

/// Reads and checks the library at `path`. The result contains the purpose.
pub(super) async fn read(path: PathBuf, purpose: ReadPurpose) -> Box<LibraryRead> {
    let examined = candidate::examine(path.clone()).await;
    Box::new(LibraryRead {
        path,
        purpose,
        examined,
    })
}

/// How long a plan waits for a file that is being read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The limit for the bytes of libraries in memory between read and private copy. After the limit is reached, the bytes
/// of further libraries are dropped, and these libraries are read twice.
const MAX_CACHED_BYTES: usize = 64 << 20;
