//! What is known of the files in the plugins folder.

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

/// The files in the folder, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Libraries {
    known: BTreeMap<PathBuf, Library>,
    /// Why files that are there cannot be loaded, and which plugin they say they are.
    failures: BTreeMap<PathBuf, (Option<String>, LoadFailure)>,
    /// Files that are not meant as plugins, such as libraries that these need.
    others: BTreeSet<PathBuf>,
    reading: BTreeMap<PathBuf, PendingRead>,
    /// Files that are gone, until the next plan.
    gone: BTreeSet<PathBuf>,
    /// Libraries that were read since the last plan. Their bytes are kept as long as they are few.
    fresh: BTreeMap<PathBuf, Option<Arc<Candidate>>>,
    reads: u64,
    is_listed: bool,
    is_changed: bool,
}

#[derive(Debug)]
struct PendingRead {
    number: u64,
    since: Instant,
}

/// What was known of a file at one moment.
#[derive(Debug)]
pub(super) struct KnownLibrary {
    known: Option<Library>,
    failure: Option<(Option<String>, LoadFailure)>,
}

/// What came of reading a library.
#[derive(Debug)]
pub(super) struct LibraryRead {
    pub(super) path: PathBuf,
    pub(super) purpose: ReadPurpose,
    pub(super) examined: Result<Candidate, Rejected>,
}

/// Why a library is read.
#[derive(Debug)]
pub(super) enum ReadPurpose {
    /// The file changed. The number tells this read from later ones.
    Change { attempt: u32, number: u64 },
    /// The operator wants an app loaded again.
    Reload { app: String, reply_id: ReplyId },
    /// An app is to go back to the library that served before.
    Rollback { app: String, reply_id: ReplyId },
}

impl Libraries {
    /// A file is new or changed: the result reads it.
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

    /// A file is gone.
    pub(super) fn mark_removed(&mut self, path: PathBuf) {
        self.reading.remove(&path);
        self.gone.insert(path);
        self.is_changed = true;
    }

    /// All that was in the folder at the start was told.
    pub(super) fn mark_listed(&mut self) {
        self.is_listed = true;
        self.is_changed = true;
    }

    /// Whether `number` is the last read of the file, which is then over.
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

    /// A library that may be loaded.
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

    /// A file that cannot be loaded, and the plugin that it says it is.
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

    /// A file that is not meant as a plugin. Returns whether that is new.
    pub(super) fn add_other(&mut self, path: PathBuf) -> bool {
        self.failures.remove(&path);
        self.known.insert(path.clone(), Library::Unusable);
        self.is_changed = true;
        self.others.insert(path)
    }

    /// What is known of the file at `path`, for [`restore`](Self::restore).
    pub(super) fn remember(&self, path: &Path) -> KnownLibrary {
        KnownLibrary {
            known: self.known.get(path).cloned(),
            failure: self.failures.get(path).cloned(),
        }
    }

    /// What was learned of the file at `path` since `memory` is not so: a library was not put there.
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

    /// Something else than a file changed, which the next plan is to take into account.
    pub(super) fn mark_changed(&mut self) {
        self.is_changed = true;
    }

    /// Whether it is time for a plan: something changed, and no file is being read, or reading one
    /// takes so long that the others must not wait for it.
    pub(super) fn is_ready_to_plan(&self) -> bool {
        let is_late = |reading: &PendingRead| reading.since.elapsed() >= READ_TIMEOUT;
        self.is_listed && self.is_changed && self.reading.values().all(is_late)
    }

    /// When a file that is being read is no longer waited for.
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

    /// What a plan is made of: the libraries, and those that were read since the last plan.
    pub(super) fn take_fresh(&mut self) -> BTreeMap<PathBuf, Option<Arc<Candidate>>> {
        self.is_changed = false;
        for path in std::mem::take(&mut self.gone) {
            self.known.remove(&path);
            self.failures.remove(&path);
            self.others.remove(&path);
        }
        std::mem::take(&mut self.fresh)
    }

    /// The libraries by path.
    pub(super) fn known(&self) -> &BTreeMap<PathBuf, Library> {
        &self.known
    }

    /// Why files cannot be loaded, by path, with the plugin that they say they are.
    pub(super) fn failures(&self) -> &BTreeMap<PathBuf, (Option<String>, LoadFailure)> {
        &self.failures
    }
}

/// Reads the library at `path`.
pub(super) async fn read(path: PathBuf, purpose: ReadPurpose) -> Box<LibraryRead> {
    let examined = candidate::examine(path.clone()).await;
    Box::new(LibraryRead {
        path,
        purpose,
        examined,
    })
}

/// How long other libraries wait for one that is being read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Up to how many bytes of libraries are kept from reading them to copying them; others are read
/// again.
const MAX_KEPT_BYTES: usize = 64 << 20;
