//! Decides when a library in the plugins folder has settled. The scan is a state machine that reads neither files nor
//! clocks: the caller provides listings and times.
//!
//! The scan compares successive listings of the folder. Events of the file system only decide when the next listing is
//! made. Therefore the result does not depend on which events a writer causes, or on whether events are lost:
//!
//! | writer | what the listings show | what is reported |
//! |---|---|---|
//! | `cp`, a linker, `scp` | a stamp that changes, then stays | present, after the quiet time |
//! | `install`, `cargo build`, `rm` and `cp` | absent for a moment, then another stamp | present, never removed |
//! | `mv`, a symlink retargeted | another stamp at once | present |
//! | `touch`, the same bytes again | another stamp | present: only the bytes show that nothing changed |
//! | `rm` | absent | removed, after the quiet time |
//!
//! A settled file may still be incomplete, because `scp` can stall for longer than any quiet time. Therefore the reader
//! of the file checks that the library is complete and did not change during the read. If the check fails, the reader
//! requests a [retry](Scan::retry).

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The libraries in a folder at one moment, by their paths.
pub type Listing = BTreeMap<PathBuf, FileStamp>;

/// Returns whether a file of this name counts as a library: `*.so`, but not a hidden or temporary name such as
/// `.shop.so.x7Q`.
#[must_use]
pub fn is_library(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") && !name.starts_with(b".")
}

/// Metadata of a file that differs between two contents of the file. Comparing stamps replaces reading the file. No
/// field is enough alone: a file system may reuse an inode number at once, and `cp -p` sets the time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// The size in bytes.
    pub len: u64,
    /// The time of modification (mtime) in nanoseconds since 1970. Programs can set this time.
    pub modified: i128,
    /// The time of the last change of content, name or attributes (ctime) in nanoseconds since 1970. Programs cannot
    /// set this time.
    pub changed: i128,
    /// The device that the file is on.
    pub device: u64,
    /// The inode number of the file on its device.
    pub inode: u64,
}

impl FileStamp {
    /// Returns the stamp of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let since_1970 =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            len: metadata.len(),
            modified: since_1970(metadata.mtime(), metadata.mtime_nsec()),
            changed: since_1970(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A change in the plugins folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderChange {
    /// A library is new, or differs from its last report.
    Present {
        /// The path of the library.
        path: PathBuf,
        /// The number of retries since the last change of the file: 0 for a new or changed file.
        attempt: u32,
    },
    /// A library was removed.
    Removed {
        /// The path that the library had.
        path: PathBuf,
    },
    /// All libraries that were in the folder at the start have been reported. The watcher sends this change once.
    InitialListingDone,
}

/// Decides from listings of a folder which libraries to report.
#[derive(Debug)]
pub struct Scan {
    /// How long the stamp of a file must stay the same until the file has settled.
    quiet_time: Duration,
    /// Whether a listing was compared before.
    has_listing: bool,
    /// The files that are in the last listing, or whose removal was not reported yet.
    files: BTreeMap<PathBuf, TrackedFile>,
}

impl Scan {
    /// Creates a scan without files.
    ///
    /// A file has settled when its stamp stayed the same for `quiet_time`. Files in the first listing are reported at
    /// once, so that a server starts without delay. Reading the file reveals an incomplete file among them.
    #[must_use]
    pub fn new(quiet_time: Duration) -> Self {
        Self {
            quiet_time,
            has_listing: false,
            files: BTreeMap::new(),
        }
    }

    /// Compares a listing made at `now` with the files known so far, and returns the changes that have settled.
    /// Removals come last, so that the receiver learns the new name of a renamed library before the old name is
    /// removed.
    pub fn compare(&mut self, listing: &Listing, now: Instant) -> Vec<FolderChange> {
        for (path, file) in &mut self.files {
            file.observe(listing.get(path).copied(), now, self.quiet_time);
        }
        for (path, &stamp) in listing {
            self.files.entry(path.clone()).or_insert_with(|| {
                let wait = if self.has_listing {
                    self.quiet_time
                } else {
                    Duration::ZERO
                };
                TrackedFile::new(stamp, now, wait)
            });
        }
        self.has_listing = true;
        let mut changes: Vec<_> = self
            .files
            .iter_mut()
            .filter(|(_, file)| file.due_at().is_some_and(|due_at| due_at <= now))
            .map(|(path, file)| file.report(path))
            .collect();
        changes.sort_by_key(|change| matches!(change, FolderChange::Removed { .. }));
        // A file that is absent, and that the receiver does not know or knows to be removed, needs no state.
        self.files
            .retain(|_, file| file.seen.is_some() || file.reported.is_some());
        changes
    }

    /// Returns when the next listing is due even without an event, because a file settles or a retry is due at that
    /// time. Returns `None` when only an event can bring news.
    #[must_use]
    pub fn next_listing_at(&self) -> Option<Instant> {
        self.files.values().filter_map(TrackedFile::due_at).min()
    }

    /// Schedules another report of a file whose stamp stays the same. The reader calls this for a file that was
    /// incomplete or that changed while it was read. Each retry waits twice as long as the retry before, up to a limit.
    /// A change of the file replaces the wait by an ordinary quiet time.
    pub fn retry(&mut self, path: &Path, now: Instant) {
        // A file that differs from its last report will be reported anyway.
        if let Some(file) = self
            .files
            .get_mut(path)
            .filter(|file| file.seen == file.reported)
        {
            file.retry_at =
                Some(now + self.quiet_time * 2_u32.pow(file.attempt.min(MAX_DOUBLINGS)));
            file.attempt = file.attempt.saturating_add(1);
        }
    }
}

/// The state of one file.
#[derive(Debug)]
struct TrackedFile {
    /// The stamp in the last listing. `None` if the file was absent.
    seen: Option<FileStamp>,
    /// When `seen` counts as settled, unless the stamp changes before.
    settles_at: Instant,
    /// When the file began to differ from `reported`. The file may have changed several times since.
    unstable_since: Instant,
    /// The stamp in the last report. `None` if the file was never reported, or was reported as removed.
    reported: Option<FileStamp>,
    /// When to report the file again with the same stamp. `None` without a pending retry.
    retry_at: Option<Instant>,
    /// The number of retries since the last change of the file.
    attempt: u32,
}

impl TrackedFile {
    fn new(stamp: FileStamp, now: Instant, wait: Duration) -> Self {
        Self {
            seen: Some(stamp),
            settles_at: now + wait,
            unstable_since: now,
            reported: None,
            retry_at: None,
            attempt: 0,
        }
    }

    /// Compares the stamp in a new listing with the last one. If the stamp changed, the wait until the file settles
    /// starts again.
    fn observe(&mut self, seen: Option<FileStamp>, now: Instant, quiet_time: Duration) {
        if self.seen == seen {
            return;
        }
        // The file begins to differ from its last report. Later changes before the next report do not move this time.
        if self.seen == self.reported {
            self.unstable_since = now;
        }
        // A file that changes all the time would never settle. For such a file a shorter quiet time is enough after a
        // while. A file must always be absent for the whole quiet time before its removal is reported, because some
        // writers remove the old file first, and their app must continue to serve.
        let is_unstable = now.duration_since(self.unstable_since) >= quiet_time * UNSTABLE_AFTER;
        let wait = if is_unstable && seen.is_some() {
            quiet_time / UNSTABLE_DIVISOR
        } else {
            quiet_time
        };
        self.seen = seen;
        self.settles_at = now + wait;
        self.attempt = 0;
    }

    /// Returns when the file must be reported, or `None` when no report is due.
    fn due_at(&self) -> Option<Instant> {
        if self.seen == self.reported {
            self.retry_at
        } else {
            Some(self.settles_at)
        }
    }

    /// Records that the file is reported now, and returns the change to report.
    fn report(&mut self, path: &Path) -> FolderChange {
        self.reported = self.seen;
        self.retry_at = None;
        let path = path.to_owned();
        match self.seen {
            Some(_) => FolderChange::Present {
                path,
                attempt: self.attempt,
            },
            None => FolderChange::Removed { path },
        }
    }
}

/// The number of quiet times after which a file that keeps changing needs only a shorter quiet time. With a quiet time
/// of 200 ms that is after 4 s.
const UNSTABLE_AFTER: u32 = 20;

/// The quiet time of a file that keeps changing is divided by this number.
const UNSTABLE_DIVISOR: u32 = 4;

/// How many times the wait before a retry doubles at most. With a quiet time of 200 ms the wait grows to 12.8 s.
const MAX_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests;
