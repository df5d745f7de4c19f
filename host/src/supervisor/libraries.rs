//! The supervisor's knowledge of the files in the plugins folder.
//!
//! Files are read in background tasks, and a plan is made only when no read is under way: files that
//! change together become one plan. A read that takes longer than [`READ_TIMEOUT`] is not waited for.

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

/// The files in the plugins folder, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    /// The facts about each file, as input for a plan.
    known: BTreeMap<PathBuf, Library>,
    /// Why files cannot be loaded, and the plugin name in each, if it could be read.
    failures: BTreeMap<PathBuf, (Option<String>, LoadFailure)>,
    /// Files that are not meant to be plugins, such as libraries that plugins need.
    others: BTreeSet<PathBuf>,
    /// The latest read of each file that is being read.
    reading: BTreeMap<PathBuf, PendingRead>,
    /// Files that were removed. The next plan forgets them; until then a new file at the same path cancels
    /// the removal.
    gone: BTreeSet<PathBuf>,
    /// Libraries that were read since the last plan. Their bytes are kept up to [`MAX_KEPT_BYTES`], so that
    /// they need not be read again for the private copy.
    fresh: BTreeMap<PathBuf, Option<Arc<Candidate>>>,
    /// The number of reads so far.
    reads: u64,
    /// Whether the watcher has reported all files that were there at the start.
    is_listed: bool,
    /// Whether anything changed since the last plan.
    is_changed: bool,
}

#[derive(Debug)]
struct PendingRead {
    number: u64,
    since: Instant,
}

/// The knowledge of one file at one moment, for a deployment that may fail.
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
    /// The file changed. The number distinguishes this read from later ones of the same file.
    Change { attempt: u32, number: u64 },
    /// An operator asked for a reload of an app.
    Reload { app: String, reply_id: ReplyId },
    /// An operator asked for a rollback of an app.
    Rollback { app: String, reply_id: ReplyId },
}

impl Libraries {
    /// Handles a new or changed file. Returns the future that reads the file.
    pub(super) fn start_read(
        &mut self,
        path: PathBuf,
        attempt: u32,
    ) -> impl Future<Output = Box<LibraryRead>> + Send + use<> {
        self.reads += 1;
        let number = self.reads;
        self.gone.remove(&path);
        let since = Instant::now();
        self.reading
            .insert(path.clone(), PendingRead { number, since });
        read(path, ReadPurpose::Change { attempt, number })
    }

    /// Handles the removal of a file.
    pub(super) fn mark_removed(&mut self, path: PathBuf) {
        self.reading.remove(&path);
        self.gone.insert(path);
        self.is_changed = true;
    }

    /// Records that all files of the start were reported.
    pub(super) fn mark_listed(&mut self) {
        self.is_listed = true;
        self.is_changed = true;
    }

    /// Ends a read. Returns false when a later read of the file has begun, so that this result is outdated.
    pub(super) fn finish_read(&mut self, path: &Path, number: u64) -> bool {
        let is_last = self
            .reading
            .get(path)
            .is_some_and(|reading| reading.number == number);
        if is_last {
            self.reading.remove(path);
            self.is_changed = true;
        }
        is_last
    }

    /// Records a library that can be loaded.
    pub(super) fn add_plugin(&mut self, path: PathBuf, candidate: Candidate) -> Arc<Candidate> {
        let facts = LibraryInfo::of(&candidate);
        let candidate = Arc::new(candidate);
        let kept = self.fresh.values().flatten();
        let bytes: usize = kept.map(|kept| kept.snapshot.bytes().len()).sum();
        let is_kept = bytes < MAX_KEPT_BYTES;
        self.fresh
            .insert(path.clone(), is_kept.then(|| Arc::clone(&candidate)));
        self.failures.remove(&path);
        self.others.remove(&path);
        self.known.insert(path, Library::Plugin(facts));
        self.is_changed = true;
        candidate
    }

    /// Records a file that cannot be loaded, with the plugin name in it if it could be read.
    pub(super) fn add_unusable(
        &mut self,
        path: PathBuf,
        plugin: Option<String>,
        failure: LoadFailure,
    ) {
        self.failures.insert(path.clone(), (plugin, failure));
        self.known.insert(path, Library::Unusable);
        self.is_changed = true;
    }

    /// Records a file that is not meant to be a plugin. Returns whether that was unknown before.
    pub(super) fn add_other(&mut self, path: PathBuf) -> bool {
        self.failures.remove(&path);
        self.known.insert(path.clone(), Library::Unusable);
        self.is_changed = true;
        self.others.insert(path)
    }

    /// Returns the knowledge of the file at `path`, for [`restore`](Self::restore).
    pub(super) fn remember(&self, path: &Path) -> KnownLibrary {
        KnownLibrary {
            known: self.known.get(path).cloned(),
            failure: self.failures.get(path).cloned(),
        }
    }

    /// Restores earlier knowledge of the file at `path`, because a deployed library was not moved there.
    pub(super) fn restore(&mut self, path: &Path, memory: KnownLibrary) {
        self.fresh.remove(path);
        match memory.known {
            Some(known) => {
                self.known.insert(path.to_owned(), known);
            }
            None => {
                self.gone.insert(path.to_owned());
            }
        }
        if let Some(failure) = memory.failure {
            self.failures.insert(path.to_owned(), failure);
        }
        self.is_changed = true;
    }

    /// Requests a new plan because something other than a file changed, such as settings or a free mount.
    pub(super) fn mark_changed(&mut self) {
        self.is_changed = true;
    }

    /// Returns whether it is time for a plan: something changed, and no file is being read, except for reads
    /// that take too long to wait for.
    pub(super) fn is_ready_to_plan(&self) -> bool {
        let is_late = |reading: &PendingRead| reading.since.elapsed() >= READ_TIMEOUT;
        self.is_listed && self.is_changed && self.reading.values().all(is_late)
    }

    /// Returns when the last read is no longer waited for, if a plan waits for a read.
    pub(super) fn next_read_timeout(&self) -> Option<Instant> {
        if !self.is_changed || !self.is_listed {
            return None;
        }
        let ends = self
            .reading
            .values()
            .map(|reading| reading.since + READ_TIMEOUT);
        ends.filter(|end| *end > Instant::now()).max()
    }

    /// Begins a plan: forgets removed files, and returns the libraries that were read since the last plan.
    pub(super) fn take_fresh(&mut self) -> BTreeMap<PathBuf, Option<Arc<Candidate>>> {
        self.is_changed = false;
        for path in std::mem::take(&mut self.gone) {
            self.known.remove(&path);
            self.failures.remove(&path);
            self.others.remove(&path);
        }
        std::mem::take(&mut self.fresh)
    }

    /// Returns the facts about each file, by path.
    pub(super) fn known(&self) -> &BTreeMap<PathBuf, Library> {
        &self.known
    }

    /// Returns why files cannot be loaded, by path, with the plugin name in each.
    pub(super) fn failures(&self) -> &BTreeMap<PathBuf, (Option<String>, LoadFailure)> {
        &self.failures
    }
}

/// Reads and checks the library at `path`.
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

/// How many bytes of libraries are kept in memory from the read to the private copy. Further libraries
/// are read twice.
const MAX_KEPT_BYTES: usize = 64 << 20;
