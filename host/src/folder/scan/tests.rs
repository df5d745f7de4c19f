use super::*;

const QUIET: u64 = 80;
const NOW: i128 = 1_700_000_000_000_000_000;

/// A folder in simulated time. Listings are made as the watcher makes them: after each change, and when the scan
/// requests one.
struct Folder {
    scan: Scan,
    begin: Instant,
    listing: Listing,
    log: Vec<(u64, FolderChange)>,
}

impl Folder {
    fn new() -> Self {
        let mut scan = Scan::new(Duration::from_millis(QUIET));
        let begin = Instant::now();
        assert_eq!(scan.compare(&Listing::new(), begin), []);
        Self {
            scan,
            begin,
            listing: Listing::new(),
            log: Vec::new(),
        }
    }

    /// Lets time pass until `at` (in ms), and then adds, replaces or removes a file.
    fn put(&mut self, at: u64, name: &str, version: Option<i128>) {
        self.pass(at);
        match version {
            Some(version) => self.listing.insert(name.into(), stamp(NOW + version)),
            None => self.listing.remove(Path::new(name)),
        };
        self.list(at);
    }

    fn pass(&mut self, until: u64) {
        let until_instant = self.begin + Duration::from_millis(until);
        while let Some(due_at) = self
            .scan
            .next_listing_at()
            .filter(|due_at| *due_at <= until_instant)
        {
            self.list(u64::try_from((due_at - self.begin).as_millis()).unwrap());
        }
    }

    fn list(&mut self, at: u64) {
        let changes = self
            .scan
            .compare(&self.listing, self.begin + Duration::from_millis(at));
        self.log
            .extend(changes.into_iter().map(|change| (at, change)));
    }

    /// Returns the reports until `at`, each with its time.
    fn reports(&mut self, at: u64) -> Vec<(u64, FolderChange)> {
        self.pass(at);
        std::mem::take(&mut self.log)
    }
}

fn stamp(changed: i128) -> FileStamp {
    FileStamp {
        len: 1,
        modified: changed,
        changed,
        device: 1,
        inode: 1,
    }
}

fn present(path: &str, attempt: u32) -> FolderChange {
    FolderChange::Present {
        path: path.into(),
        attempt,
    }
}

fn removed(path: &str) -> FolderChange {
    FolderChange::Removed { path: path.into() }
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
    assert_eq!(folder.scan.next_listing_at(), None);
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
    assert_eq!(scan.compare(&listing, Instant::now()), [present("a.so", 0)]);
    assert_eq!(scan.next_listing_at(), None);
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
