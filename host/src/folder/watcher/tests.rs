use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A watcher of the folder `plugins` in a temporary folder.
struct Watch {
    parent: TempDir,
    changes: mpsc::Receiver<FolderChanges>,
    /// The changes of the last listing that the test has not read yet.
    unread: std::collections::VecDeque<FolderChange>,
    retries: mpsc::UnboundedSender<PathBuf>,
}

/// An interval so long that only an event can cause a listing.
const NEVER: Duration = Duration::from_secs(3600);
const OFTEN: Duration = Duration::from_millis(20);

impl Watch {
    fn start(rescan_interval: Duration, prepare: impl FnOnce(&Path)) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        prepare(&folder);
        let (changes, receiver) = mpsc::channel(1);
        let (retries, retried) = mpsc::unbounded_channel();
        let options = WatchOptions {
            quiet_time: Duration::from_millis(30),
            rescan_interval,
            use_events: true,
        };
        tokio::spawn(Watcher::new(folder, options, changes, retried).run());
        Self {
            parent,
            changes: receiver,
            unread: std::collections::VecDeque::new(),
            retries,
        }
    }

    /// Puts a library into the folder by a rename, so that even a slow machine sees one change.
    fn put(&self, name: &str, content: &str) {
        let temporary = self.parent.path().join("temporary");
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.parent.path().join("plugins").join(name)
    }

    async fn expect_present(&mut self, name: &str) -> u32 {
        match self.next().await {
            FolderChange::Present { path, attempt } if path == self.path(name) => attempt,
            other => panic!("expected {name} to be present, found {other:?}"),
        }
    }

    async fn expect_removed(&mut self, name: &str) {
        assert_eq!(
            self.next().await,
            FolderChange::Removed {
                path: self.path(name)
            }
        );
    }

    async fn next(&mut self) -> FolderChange {
        loop {
            match self.unread.pop_front() {
                Some(FolderChange::InitialListingDone) => {}
                Some(change) => return change,
                None => {
                    let next = time::timeout(Duration::from_secs(20), self.changes.recv());
                    let next = next.await.expect("no change within 20 s");
                    self.unread.extend(next.expect("the watcher ended"));
                }
            }
        }
    }
}

#[tokio::test]
async fn libraries_come_change_and_go_by_events_alone() {
    let mut watch = Watch::start(NEVER, |folder| {
        fs::write(folder.join("old.so"), "1").unwrap()
    });
    watch.expect_present("old.so").await;
    watch.put("new.so", "1");
    watch.expect_present("new.so").await;
    watch.put("new.so", "22");
    watch.expect_present("new.so").await;
    fs::remove_file(watch.path("new.so")).unwrap();
    watch.expect_removed("new.so").await;
    fs::hard_link(watch.path("old.so"), watch.path("linked.so")).unwrap();
    // The other name of the same file has another count of links now.
    watch.expect_present("linked.so").await;
    watch.expect_present("old.so").await;
}

#[tokio::test]
async fn a_write_through_another_hard_link_is_found_by_rescan() {
    let mut watch = Watch::start(OFTEN, |folder| {
        fs::write(folder.join("../deps.so"), "1").unwrap();
        fs::hard_link(folder.join("../deps.so"), folder.join("a.so")).unwrap();
    });
    watch.expect_present("a.so").await;
    fs::write(watch.path("../deps.so"), "22").unwrap();
    watch.expect_present("a.so").await;
}

#[tokio::test]
async fn a_swapped_data_folder_is_seen_through_its_symlinks() {
    let mut watch = Watch::start(NEVER, |folder| {
        for version in ["..1", "..2"] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("a.so"), version).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/a.so", folder.join("a.so")).unwrap();
    });
    watch.expect_present("a.so").await;
    symlink("..2", watch.path("..data_tmp")).unwrap();
    fs::rename(watch.path("..data_tmp"), watch.path("..data")).unwrap();
    watch.expect_present("a.so").await;
    fs::remove_dir_all(watch.path("..2")).unwrap();
    fs::remove_file(watch.path("..data")).unwrap();
    watch.expect_removed("a.so").await;
}

#[tokio::test]
async fn a_folder_that_is_made_anew_is_watched_again() {
    let mut watch = Watch::start(OFTEN, |folder| fs::write(folder.join("a.so"), "1").unwrap());
    watch.expect_present("a.so").await;
    fs::remove_dir_all(watch.path("")).unwrap();
    watch.expect_removed("a.so").await;
    fs::create_dir(watch.path("")).unwrap();
    watch.put("b.so", "1");
    watch.expect_present("b.so").await;
}

#[tokio::test]
async fn an_incomplete_library_is_reported_again() {
    let mut watch = Watch::start(NEVER, |folder| fs::write(folder.join("a.so"), "1").unwrap());
    for attempt in 0..3 {
        assert_eq!(watch.expect_present("a.so").await, attempt);
        watch.retries.send(watch.path("a.so")).unwrap();
    }
}

#[test]
fn a_new_folder_of_the_same_path_gets_a_watch_and_a_missing_one_none() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("plugins");
    let mut folder = WatchedFolder::new(path.clone(), true);
    assert_eq!(folder.list_and_log(), Some(Listing::new()));
    assert!(folder.watch.is_none() && folder.last_error.is_some());
    for _ in 0..3 {
        let before = folder.identity;
        fs::create_dir(&path).unwrap();
        assert_eq!(folder.list_and_log(), Some(Listing::new()));
        assert!(folder.watch.is_some() && folder.last_error.is_none());
        assert_ne!(folder.identity, before);
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let before = folder.identity;
        folder.list_and_log();
        assert_ne!(folder.identity, before);
        fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_read_keeps_its_plugins() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(
        WatchedFolder::new(file.path().to_owned(), true).list_and_log(),
        None
    );
}

#[test]
fn what_is_no_file_is_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("folder.so")).unwrap();
    symlink("nowhere", folder.path().join("dangling.so")).unwrap();
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    fs::write(folder.path().join("a.so"), "").unwrap();
    let (listing, last_error) = list(folder.path(), &Listing::new()).unwrap();
    let names: Vec<_> = listing.into_keys().collect();
    assert_eq!(names, [folder.path().join("a.so")]);
    assert!(last_error.is_none());
}

#[tokio::test]
async fn a_file_that_cannot_be_asked_is_not_gone() {
    let mut watch = Watch::start(NEVER, |folder| fs::write(folder.join("a.so"), "1").unwrap());
    watch.expect_present("a.so").await;
    // A file system that is gone for a while has other errors, and root may ask about everything.
    let temporary = watch.path("../temporary");
    symlink("a.so", &temporary).unwrap();
    fs::rename(temporary, watch.path("a.so")).unwrap();
    for name in ["b.so", "c.so"] {
        watch.put(name, "1");
        watch.expect_present(name).await;
    }
    fs::remove_file(watch.path("a.so")).unwrap();
    watch.expect_removed("a.so").await;
}

#[test]
fn a_listing_that_took_long_does_not_delay_the_next() {
    let pauses = [0, 2, 200].map(|ms| pause_after_listing(Duration::from_millis(ms)).as_millis());
    assert_eq!(pauses, [1, 8, 50]);
}

#[test]
fn reading_does_not_stir() {
    let event = |kind| Ok(Event::new(EventKind::Access(kind)));
    assert!(!may_change_folder(&event(AccessKind::Open(
        AccessMode::Any
    ))));
    assert!(!may_change_folder(&event(AccessKind::Close(
        AccessMode::Read
    ))));
    assert!(may_change_folder(&event(AccessKind::Close(
        AccessMode::Write
    ))));
    assert!(may_change_folder(&Ok(Event::new(EventKind::Other))));
    assert!(may_change_folder(&Err(notify::Error::generic("lost"))));
}
