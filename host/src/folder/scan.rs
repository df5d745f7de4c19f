//! Decides when a library in the plugins folder has settled. The scan is a state machine that touches neither files
//! nor clocks.
//!
//! The scan compares successive listings of the folder. Events only decide when the next listing is made, so it
//! does not matter which events a writer causes, or whether events are lost:
//!
//! | writer | what the listings show | what is reported |
//! |---|---|---|
//! | `cp`, a linker, `scp` | a stamp that changes, then stays | present, after the quiet time |
//! | `install`, `cargo build`, `rm` and `cp` | absent for a moment, then another stamp | present, never removed |
//! | `mv`, a symlink retargeted | another stamp at once | present |
//! | `touch`, the same bytes again | another stamp | present: only the bytes can tell that nothing changed |
//! | `rm` | absent | removed, after the quiet time |
//!
//! A settled file may still be incomplete: `scp` can stall for longer than any quiet time. So the reader checks that
//! the library is complete and did not change during the read, and asks for a [retry](Scan::retry) otherwise.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The libraries in a folder at one moment.
pub type Listing = BTreeMap<PathBuf, FileStamp>;

/// Returns whether a file of this name counts as a library: `*.so`, but not a hidden or temporary name such as
/// `.shop.so.x7Q`.
#[must_use]
pub fn is_library(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") && !name.starts_with(b".")
}

/// Distinguishes two states of a file without reading it. No field is enough alone: inode numbers are reused at
/// once, and `cp -p` sets the time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// The size in bytes.
    pub len: u64,
    /// When the content last changed, in nanoseconds since 1970.
    pub modified: i128,
    /// When content, name or attributes last changed, in nanoseconds since 1970. Programs cannot set this time.
    pub changed: i128,
    /// The device that the file is on.
    pub device: u64,
    /// The number of the file on its device.
    pub inode: u64,
}

impl FileStamp {
    /// Returns the stamp of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let nanos =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            len: metadata.len(),
            modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
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
        /// Where it is.
        path: PathBuf,
        /// The number of retries since the last change of the file: 0 for a new or changed file.
        attempt: u32,
    },
    /// A library was removed.
    Removed {
        /// Where the library was.
        path: PathBuf,
    },
    /// All libraries that were in the folder at the start have been reported. The watcher sends this once.
    Listed,
}

/// Decides from listings of a folder which libraries to report.
#[derive(Debug)]
pub struct Scan {
    quiet: Duration,
    /// Whether a listing was made before.
    has_listing: bool,
    files: BTreeMap<PathBuf, TrackedFile>,
}

impl Scan {
    /// Creates a scan without files.
    ///
    /// A file has settled when its stamp stayed the same for the time `quiet`. Files in the first listing are reported
    /// at once, so that a server starts without delay. An incomplete file is noticed when it is read.
    #[must_use]
    pub fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            has_listing: false,
            files: BTreeMap::new(),
        }
    }

    /// Compares a listing made at `now` with the files known so far, and returns the changes that have settled.
    /// Removals come last, so that a renamed library is known under its new name before the old name goes.
    pub fn look(&mut self, listing: &Listing, now: Instant) -> Vec<FolderChange> {
        for (path, file) in &mut self.files {
            file.observe(listing.get(path).copied(), now, self.quiet);
        }
        for (path, &stamp) in listing {
            self.files.entry(path.clone()).or_insert_with(|| {
                let wait = if self.has_listing {
                    self.quiet
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
        self.files
            .retain(|_, file| file.seen.is_some() || file.reported.is_some());
        changes
    }

    /// Returns when to make the next listing even without an event, because a file settles then or a retry
    /// is due.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.files.values().filter_map(TrackedFile::due_at).min()
    }

    /// Asks to report a file again although its stamp stays the same, because the file was incomplete or changed while
    /// it was read. Each retry waits twice as long as the one before. A change of the file ends the wait.
    pub fn retry(&mut self, path: &Path, now: Instant) {
        // A file that differs from its last report will be reported anyway.
        if let Some(file) = self
            .files
            .get_mut(path)
            .filter(|file| file.seen == file.reported)
        {
            file.retry = Some(now + self.quiet * 2_u32.pow(file.attempt.min(MAX_DOUBLINGS)));
            file.attempt = file.attempt.saturating_add(1);
        }
    }
}

/// The state of one file.
#[derive(Debug)]
struct TrackedFile {
    /// The stamp in the last listing; `None` when the file was absent.
    seen: Option<FileStamp>,
    /// When `seen` has settled, if it does not change until then.
    settles_at: Instant,
    /// Since when the file has differed from `reported`.
    unstable_since: Instant,
    /// The stamp in the last report; `None` when the file was never reported, or was reported as removed.
    reported: Option<FileStamp>,
    /// When to report the file again.
    retry: Option<Instant>,
    attempt: u32,
}

impl TrackedFile {
    fn new(stamp: FileStamp, now: Instant, wait: Duration) -> Self {
        Self {
            seen: Some(stamp),
            settles_at: now + wait,
            unstable_since: now,
            reported: None,
            retry: None,
            attempt: 0,
        }
    }

    fn observe(&mut self, seen: Option<FileStamp>, now: Instant, quiet: Duration) {
        if self.seen == seen {
            return;
        }
        if self.seen == self.reported {
            self.unstable_since = now;
        }
        // A file that changes all the time would never settle. So after a while a shorter quiet time is enough.
        // Absence must always last for the whole quiet time, because a writer that unlinks first must not take
        // the plugin down.
        let is_unstable = now.duration_since(self.unstable_since) >= quiet * UNSTABLE_AFTER;
        let wait = if is_unstable && seen.is_some() {
            quiet / UNSTABLE_DIVISOR
        } else {
            quiet
        };
        self.seen = seen;
        self.settles_at = now + wait;
        self.attempt = 0;
    }

    fn due_at(&self) -> Option<Instant> {
        if self.seen == self.reported {
            self.retry
        } else {
            Some(self.settles_at)
        }
    }

    fn report(&mut self, path: &Path) -> FolderChange {
        self.reported = self.seen;
        self.retry = None;
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

/// A file that keeps changing for this many quiet times needs only a shorter one: after 4 s for 200 ms.
const UNSTABLE_AFTER: u32 = 20;

/// For a file that keeps changing, the quiet time is divided by this.
const UNSTABLE_DIVISOR: u32 = 4;

/// How many times the wait for a retry doubles at most: from 200 ms to 12.8 s.
const MAX_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests;
