//! When a library in the plugins folder has settled: a state machine that touches neither files nor
//! clocks.
//!
//! It is fed with listings of the folder, and compares them. Events only say when to make the next
//! listing, so it matters neither which writer made them, nor whether they were complete:
//!
//! | writer | what the listings show | what is reported |
//! |---|---|---|
//! | `cp`, a linker, `scp` | a stamp that changes, then stays | present, after the quiet time |
//! | `install`, `cargo build`, `rm` and `cp` | absent for a moment, then another stamp | present, never removed |
//! | `mv`, a symlink retargeted | another stamp at once | present |
//! | `touch`, the same bytes again | another stamp | present: only the bytes can tell that nothing changed |
//! | `rm` | absent | removed, after the quiet time |
//!
//! A settled library may still be half of one: `scp` can stall for longer than any quiet time. So
//! whoever reads it checks that it is whole and did not change meanwhile, and else asks for a
//! [retry](Scan::retry).

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::Metadata,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The libraries in a folder at one moment.
pub type Listing = BTreeMap<PathBuf, Stamp>;

/// Whether a file of this name counts as a library: `*.so`, but no hidden or temporary name such as
/// `.shop.so.x7Q`.
#[must_use]
pub fn is_library(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") && !name.starts_with(b".")
}

/// What tells one state of a file from another without reading it. No field does so alone: inode
/// numbers are reused at once, and `cp -p` sets the time of modification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The size in bytes.
    pub len: u64,
    /// When the content last changed, in nanoseconds since 1970.
    pub modified: i128,
    /// When content, name or attributes last changed, in nanoseconds since 1970. Cannot be set.
    pub changed: i128,
    /// The device that the file is on.
    pub device: u64,
    /// The number of the file on its device.
    pub inode: u64,
}

impl Stamp {
    /// The stamp of a file; of a symlink's target, when `metadata` is that of the target.
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

/// What happened to a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new, or other than it was reported before.
    Present {
        /// Where it is.
        path: PathBuf,
        /// How many retries were asked for since it last changed: 0 for a new or changed file.
        attempt: u32,
    },
    /// It is gone.
    Removed {
        /// Where it was.
        path: PathBuf,
    },
    /// All that was in the folder at the start has been reported. Comes once, from the watcher.
    Listed,
}

/// Decides from listings of a folder which libraries to report.
#[derive(Debug)]
pub struct Scan {
    quiet: Duration,
    /// Whether there has been a listing to compare with.
    looked: bool,
    files: BTreeMap<PathBuf, File>,
}

impl Scan {
    /// A scan that knows of no file yet.
    ///
    /// A file has settled when its stamp stayed the same for the time `quiet`. What is there at the
    /// first look is reported at once, so that a server starts without waiting: half a file is
    /// found out when it is read.
    #[must_use]
    pub fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            looked: false,
            files: BTreeMap::new(),
        }
    }

    /// Takes in what the folder looks like `now`, and returns what has settled: removals last, so
    /// that a library that got another name is known under the new one before it leaves the old
    /// one.
    pub fn look(&mut self, listing: &Listing, now: Instant) -> Vec<Change> {
        for (path, file) in &mut self.files {
            file.see(listing.get(path).copied(), now, self.quiet);
        }
        for (path, &stamp) in listing {
            self.files.entry(path.clone()).or_insert_with(|| {
                let wait = if self.looked {
                    self.quiet
                } else {
                    Duration::ZERO
                };
                File::new(stamp, now, wait)
            });
        }
        self.looked = true;
        let mut changes: Vec<_> = self
            .files
            .iter_mut()
            .filter(|(_, file)| file.due().is_some_and(|due| due <= now))
            .map(|(path, file)| file.report(path))
            .collect();
        changes.sort_by_key(|change| matches!(change, Change::Removed { .. }));
        self.files
            .retain(|_, file| file.seen.is_some() || file.reported.is_some());
        changes
    }

    /// When to look again even if nothing happens in the folder: something settles then, or a retry
    /// is due.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.files.values().filter_map(File::due).min()
    }

    /// Asks to report a present file again although it stays as it is: it was not whole, or changed
    /// while it was read. Each retry waits twice as long as the one before. A change of the file
    /// comes first and ends the wait.
    pub fn retry(&mut self, path: &Path, now: Instant) {
        // A file that is other than it was reported will be reported anyway.
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

/// What is known of one file.
#[derive(Debug)]
struct File {
    /// As it was in the last listing; `None` when it was absent.
    seen: Option<Stamp>,
    /// When `seen` may be reported, if it stays.
    settles: Instant,
    /// Since when the file has been other than `reported`.
    restless_since: Instant,
    /// As it was last reported; `None` when never, or as removed.
    reported: Option<Stamp>,
    /// When to report it again.
    retry: Option<Instant>,
    attempt: u32,
}

impl File {
    fn new(stamp: Stamp, now: Instant, wait: Duration) -> Self {
        Self {
            seen: Some(stamp),
            settles: now + wait,
            restless_since: now,
            reported: None,
            retry: None,
            attempt: 0,
        }
    }

    fn see(&mut self, seen: Option<Stamp>, now: Instant, quiet: Duration) {
        if self.seen == seen {
            return;
        }
        if self.seen == self.reported {
            self.restless_since = now;
        }
        // A file that never rests would never be reported, so after a while a shorter pause will
        // do. Absence has to last in any case: a writer that unlinks first must not take the plugin
        // down.
        let is_restless = now.duration_since(self.restless_since) >= quiet * RESTLESS_AFTER;
        let wait = if is_restless && seen.is_some() {
            quiet / RESTLESS_DIVISOR
        } else {
            quiet
        };
        self.seen = seen;
        self.settles = now + wait;
        self.attempt = 0;
    }

    fn due(&self) -> Option<Instant> {
        if self.seen == self.reported {
            self.retry
        } else {
            Some(self.settles)
        }
    }

    fn report(&mut self, path: &Path) -> Change {
        self.reported = self.seen;
        self.retry = None;
        let path = path.to_owned();
        match self.seen {
            Some(_) => Change::Present {
                path,
                attempt: self.attempt,
            },
            None => Change::Removed { path },
        }
    }
}

/// After how many quiet times without rest a file need not rest for a whole one: 1.5 s for 75 ms.
const RESTLESS_AFTER: u32 = 20;

/// Which part of the quiet time is then enough.
const RESTLESS_DIVISOR: u32 = 4;

/// How often the wait for a retry doubles: from 75 ms to 4.8 s.
const MAX_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: u64 = 80;
    const NOW: i128 = 1_700_000_000_000_000_000;

    /// A folder in made-up time, looked at as the watcher does: when something happens, and when
    /// the scan says so.
    struct Folder {
        scan: Scan,
        begin: Instant,
        listing: Listing,
        log: Vec<(u64, Change)>,
    }

    impl Folder {
        fn new() -> Self {
            let mut scan = Scan::new(Duration::from_millis(QUIET));
            let begin = Instant::now();
            assert_eq!(scan.look(&Listing::new(), begin), []);
            Self {
                scan,
                begin,
                listing: Listing::new(),
                log: Vec::new(),
            }
        }

        /// Lets time pass until `at` (in ms), then puts a file there, or takes it away.
        fn put(&mut self, at: u64, name: &str, version: Option<i128>) {
            self.pass(at);
            match version {
                Some(version) => self.listing.insert(name.into(), stamp(NOW + version)),
                None => self.listing.remove(Path::new(name)),
            };
            self.look(at);
        }

        fn pass(&mut self, until: u64) {
            let until_instant = self.begin + Duration::from_millis(until);
            while let Some(due) = self.scan.next_look().filter(|due| *due <= until_instant) {
                self.look(u64::try_from((due - self.begin).as_millis()).unwrap());
            }
        }

        fn look(&mut self, at: u64) {
            let changes = self
                .scan
                .look(&self.listing, self.begin + Duration::from_millis(at));
            self.log
                .extend(changes.into_iter().map(|change| (at, change)));
        }

        /// What was reported until `at`, and when.
        fn reports(&mut self, at: u64) -> Vec<(u64, Change)> {
            self.pass(at);
            std::mem::take(&mut self.log)
        }
    }

    fn stamp(changed: i128) -> Stamp {
        Stamp {
            len: 1,
            modified: changed,
            changed,
            device: 1,
            inode: 1,
        }
    }

    fn present(path: &str, attempt: u32) -> Change {
        Change::Present {
            path: path.into(),
            attempt,
        }
    }

    fn removed(path: &str) -> Change {
        Change::Removed { path: path.into() }
    }

    #[test]
    fn a_burst_of_writes_is_one_change_after_the_last() {
        let mut folder = Folder::new();
        for write in 0..50 {
            folder.put(write * 10, "a.so", Some(write.into()));
        }
        assert_eq!(folder.reports(10_000), [(490 + QUIET, present("a.so", 0))]);
    }

    #[test]
    fn a_rename_over_the_old_file_is_one_change() {
        let mut folder = Folder::new();
        folder.put(0, "a.so", Some(1));
        folder.put(1_000, "a.so", Some(2));
        assert_eq!(
            folder.reports(10_000),
            [(80, present("a.so", 0)), (1_080, present("a.so", 0))]
        );
    }

    #[test]
    fn unlinking_first_is_no_removal() {
        let mut folder = Folder::new();
        folder.put(0, "a.so", Some(1));
        folder.put(1_000, "a.so", None);
        // The inode number came back identical, as `install` shows: only the times differ.
        folder.put(1_070, "a.so", Some(2));
        folder.put(1_140, "a.so", None);
        folder.put(1_150, "a.so", Some(3));
        assert_eq!(
            folder.reports(10_000),
            [(80, present("a.so", 0)), (1_230, present("a.so", 0))]
        );
    }

    #[test]
    fn a_removal_is_reported_once_it_lasted() {
        let mut folder = Folder::new();
        folder.put(0, "a.so", Some(1));
        folder.put(1_000, "a.so", None);
        assert_eq!(
            folder.reports(10_000),
            [(80, present("a.so", 0)), (1_080, removed("a.so"))]
        );
        assert_eq!(folder.scan.next_look(), None);
        folder.put(11_000, "a.so", Some(1));
        assert_eq!(folder.reports(20_000), [(11_080, present("a.so", 0))]);
    }

    #[test]
    fn a_file_that_comes_and_goes_unsettled_is_nothing() {
        let mut folder = Folder::new();
        folder.put(0, "a.so", Some(1));
        folder.put(50, "a.so", None);
        assert_eq!(folder.reports(10_000), []);
    }

    #[test]
    fn a_write_that_stalls_is_reported_in_each_pause() {
        let mut folder = Folder::new();
        for write in 0..3 {
            folder.put(write * 100, "a.so", Some(write.into()));
        }
        let reports = folder.reports(10_000);
        assert_eq!(
            reports.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [80, 180, 280]
        );
    }

    #[test]
    fn a_file_that_never_rests_is_reported_in_a_pause_after_the_cap() {
        let mut folder = Folder::new();
        for write in 0..30 {
            folder.put(write * 60, "a.so", Some(write.into()));
        }
        // 1,620 ms is the first write at or after 20 quiet times; a quarter of one later it is
        // still the same.
        assert_eq!(folder.reports(1_700), [(1_640, present("a.so", 0))]);
        // Absence has no such short cut, and after a report the cap begins anew.
        folder.put(1_760, "a.so", None);
        assert_eq!(folder.reports(1_830), []);
    }

    #[test]
    fn a_file_that_changes_at_every_look_is_never_reported() {
        let mut folder = Folder::new();
        for write in 0..1_000 {
            folder.put(write * 10, "a.so", Some(write.into()));
        }
        assert_eq!(folder.reports(9_999), []);
    }

    #[test]
    fn what_is_there_at_the_start_is_reported_at_once() {
        let mut scan = Scan::new(Duration::from_millis(QUIET));
        let listing = Listing::from([("a.so".into(), stamp(NOW))]);
        assert_eq!(scan.look(&listing, Instant::now()), [present("a.so", 0)]);
        assert_eq!(scan.next_look(), None);
    }

    #[test]
    fn a_renamed_library_is_present_before_it_is_removed() {
        let mut folder = Folder::new();
        folder.put(0, "a.so", Some(1));
        folder.reports(500);
        folder.listing.insert("b.so".into(), stamp(NOW + 2));
        folder.put(1_000, "a.so", None);
        assert_eq!(
            folder.reports(2_000),
            [(1_080, present("b.so", 0)), (1_080, removed("a.so"))]
        );
    }

    #[test]
    fn retries_back_off_until_the_file_changes() {
        let mut folder = Folder::new();
        folder.put(0, "a.so", Some(1));
        assert_eq!(folder.reports(80), [(80, present("a.so", 0))]);
        for (now, expected, attempt) in [(100, 180, 1), (180, 340, 2), (340, 660, 3)] {
            folder
                .scan
                .retry(Path::new("a.so"), folder.begin + Duration::from_millis(now));
            assert_eq!(
                folder.reports(expected),
                [(expected, present("a.so", attempt))]
            );
        }
        assert_eq!(folder.reports(9_000), []);
        folder.scan.retry(
            Path::new("a.so"),
            folder.begin + Duration::from_millis(9_000),
        );
        folder.put(9_010, "a.so", Some(2));
        assert_eq!(folder.reports(20_000), [(9_090, present("a.so", 0))]);
    }

    #[test]
    fn a_retry_of_an_unknown_or_removed_file_is_nothing() {
        let mut folder = Folder::new();
        folder.scan.retry(Path::new("b.so"), folder.begin);
        folder.put(0, "a.so", Some(1));
        folder.put(1_000, "a.so", None);
        folder.scan.retry(
            Path::new("a.so"),
            folder.begin + Duration::from_millis(1_010),
        );
        assert_eq!(
            folder.reports(9_000),
            [(80, present("a.so", 0)), (1_080, removed("a.so"))]
        );
    }

    #[test]
    fn temporary_names_are_no_libraries() {
        for (name, expected) in [
            ("libshop.so", true),
            (".libshop.so", false),
            ("libshop.so.tmp", false),
            ("libshop.d", false),
        ] {
            assert_eq!(is_library(OsStr::new(name)), expected, "{name}");
        }
    }
}
