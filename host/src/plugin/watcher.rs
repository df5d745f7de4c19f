//! Watches the plugins folder, and tells which libraries came, changed and went.
//!
//! Events are pokes: they say that it is time to look, never what to see. What is there is read
//! from the folder, and [`Scan`] compares it with what was there before. So lost, doubled and
//! misleading events do no harm, and where there are none (a write through another hard link, a
//! symlink's target replaced, a network file system) a slow rescan makes up for them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::{Notify, mpsc},
    task, time,
};
use tracing::{debug, info, warn};

use super::scan::{Change, Listing, Scan, Stamp, is_library};

/// How patiently to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// How long a library must stay as it is before it is reported.
    pub quiet: Duration,
    /// How long at most until the folder is looked at again when no event says so.
    pub rescan: Duration,
    /// Whether to ask the system for events: some file systems have none, and do not say so.
    pub events: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(75),
            rescan: Duration::from_secs(2),
            events: true,
        }
    }
}

/// Watches one folder. It does so while [`run`](Self::run) is polled.
#[derive(Debug)]
pub struct Watcher {
    options: WatchOptions,
    folder: Folder,
    scan: Scan,
    changes: mpsc::Sender<Change>,
    retries: mpsc::UnboundedReceiver<PathBuf>,
}

impl Watcher {
    /// A watcher of `folder`, which need not exist yet.
    ///
    /// It sends what it finds to `changes`, and waits while that is full. From `retries` it takes
    /// the paths of libraries that turned out to be incomplete, to report them
    /// [again](Scan::retry); that channel is unbounded, so that the two sides never wait for each
    /// other, and holds at most one path for each change sent.
    #[must_use]
    pub fn new(
        folder: PathBuf,
        options: WatchOptions,
        changes: mpsc::Sender<Change>,
        retries: mpsc::UnboundedReceiver<PathBuf>,
    ) -> Self {
        let scan = Scan::new(options.quiet);
        Self {
            options,
            folder: Folder::new(folder, options.events),
            scan,
            changes,
            retries,
        }
    }

    /// Watches until nobody receives the changes any more. Libraries that are there already are
    /// reported first, then [`Change::Listed`].
    pub async fn run(mut self) {
        let poked = Arc::clone(&self.folder.poked);
        let mut listed = false;
        loop {
            let began = Instant::now();
            let mut folder = self.folder;
            // A file system may hang, which must not stall a serving thread.
            let looked = task::spawn_blocking(move || {
                let listing = folder.look();
                (folder, listing)
            });
            // It is cancelled only when the runtime shuts down.
            let Ok((folder, listing)) = looked.await else {
                return;
            };
            self.folder = folder;
            let took = began.elapsed();
            if let Some(listing) = listing {
                for change in self.scan.look(&listing, Instant::now()) {
                    if self.changes.send(change).await.is_err() {
                        return;
                    }
                }
            }

            if !listed {
                listed = true;
                if self.changes.send(Change::Listed).await.is_err() {
                    return;
                }
            }

            // A file that is being written pokes thousands of times a second.
            time::sleep(BETWEEN_LOOKS.max(took * 4)).await;
            let rescan = Instant::now() + self.folder.rescan(self.options.rescan);
            let next_look = self
                .scan
                .next_look()
                .map_or(rescan, |settles| settles.min(rescan));
            tokio::select! {
                () = poked.notified() => {}
                () = time::sleep_until(next_look.into()) => {}
                Some(path) = self.retries.recv() => self.scan.retry(&path, Instant::now()),
                () = self.changes.closed() => return,
            }
        }
    }
}

/// The folder, and the kernel's watch on it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Whether events are wanted.
    events: bool,
    /// Notified when something may have happened in it.
    poked: Arc<Notify>,
    /// Which folder `watch` is for: another one may take its place under the same path.
    identity: Option<Identity>,
    /// `None` when the kernel gives no events.
    watch: Option<RecommendedWatcher>,
    /// Why it cannot be read. Each reason is logged once.
    trouble: Option<io::ErrorKind>,
}

/// Device, inode, and time of birth where there is one: inode numbers are reused at once.
type Identity = (u64, u64, Option<SystemTime>);

impl Folder {
    fn new(path: PathBuf, events: bool) -> Self {
        Self {
            path,
            events,
            poked: Arc::default(),
            identity: None,
            watch: None,
            trouble: None,
        }
    }

    /// Lists the libraries. None are in a folder that is missing; one that cannot be read is not
    /// known to have lost any, so there is nothing to compare.
    fn look(&mut self) -> Option<Listing> {
        let listing = self.watch_and_list();
        let trouble = listing.as_ref().err().map(io::Error::kind);
        let is_news = self.trouble != trouble;
        self.trouble = trouble;
        let folder = self.path.display();
        match listing {
            Ok(listing) => {
                if is_news {
                    info!(%folder, "The plugins folder can be read again");
                }
                Some(listing)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_news {
                    warn!(%folder, "The plugins folder is missing, create it to serve plugins");
                }
                Some(Listing::new())
            }
            Err(error) => {
                if is_news {
                    warn!(%folder, %error, "Cannot read the plugins folder, keeping what is loaded");
                }
                None
            }
        }
    }

    /// Lists after the watch is set, so that nothing happens unseen in between. A folder that
    /// cannot be watched is not tried again: it would only warn again.
    fn watch_and_list(&mut self) -> io::Result<Listing> {
        let found = fs::metadata(&self.path)
            .map(|metadata| (metadata.dev(), metadata.ino(), metadata.created().ok()));
        if found.as_ref().ok() != self.identity.as_ref() {
            self.identity = found.as_ref().ok().copied();
            self.watch = self
                .identity
                .filter(|_| self.events)
                .and_then(|_| watch(&self.path, Arc::clone(&self.poked)));
        }
        found?;
        list(&self.path)
    }

    /// How long to wait for an event before looking anyway.
    fn rescan(&self, usual: Duration) -> Duration {
        if self.watch.is_some() {
            usual
        } else {
            usual.min(RESCAN_WITHOUT_EVENTS)
        }
    }
}

/// Has every event in `folder` notify `poked`. `None`, and a warning, when the system does not
/// allow it.
fn watch(folder: &Path, poked: Arc<Notify>) -> Option<RecommendedWatcher> {
    let poke = move |event: notify::Result<Event>| {
        if event.as_ref().is_ok_and(Event::need_rescan) {
            debug!("Events were lost, looking at the plugins folder");
        }
        if stirs(&event) {
            poked.notify_one();
        }
    };
    let watch = notify::recommended_watcher(poke).and_then(|mut watch| {
        watch.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watch)
    });
    let path = folder.display();
    watch
        .inspect(|_| debug!(folder = %path, "Watching the plugins folder"))
        .inspect_err(|error| {
            let limit = limit(error);
            warn!(folder = %path, %error, limit, "No events from the plugins folder, looking at it often instead");
        })
        .ok()
}

/// Whether an event may have changed what is in the folder. Reading it, as this server does, has
/// not.
fn stirs(event: &notify::Result<Event>) -> bool {
    !matches!(
        event,
        Ok(Event {
            kind: EventKind::Access(
                AccessKind::Open(_) | AccessKind::Read | AccessKind::Close(AccessMode::Read)
            ),
            ..
        })
    )
}

/// The system's limit that an error of setting up a watch speaks of.
fn limit(error: &notify::Error) -> Option<&'static str> {
    match &error.kind {
        ErrorKind::MaxFilesWatch => Some("sysctl fs.inotify.max_user_watches"),
        ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => {
            Some("sysctl fs.inotify.max_user_instances, or ulimit -n")
        }
        _ => None,
    }
}

/// The libraries in `folder`, as their symlinks' targets are. What is no regular file, or cannot be
/// asked, is absent.
fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_library(&entry.file_name())
            && let Ok(metadata) = fs::metadata(entry.path())
            && metadata.is_file()
        {
            listing.insert(entry.path(), Stamp::of(&metadata));
        }
    }
    Ok(listing)
}

/// The least time from one look to the next, unless the look takes long itself.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// How often to look where there are no events: a developer waits for it.
const RESCAN_WITHOUT_EVENTS: Duration = Duration::from_millis(500);

/// Too many open files, or too many inotify instances.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A watcher of the folder `plugins` in a temporary one.
    struct Watch {
        parent: TempDir,
        changes: mpsc::Receiver<Change>,
        retries: mpsc::UnboundedSender<PathBuf>,
    }

    /// So long that only events can explain a change.
    const NEVER: Duration = Duration::from_secs(3600);
    const OFTEN: Duration = Duration::from_millis(20);

    impl Watch {
        fn start(rescan: Duration, prepare: impl FnOnce(&Path)) -> Self {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("plugins");
            fs::create_dir(&folder).unwrap();
            prepare(&folder);
            let (changes, receiver) = mpsc::channel(1);
            let (retries, retried) = mpsc::unbounded_channel();
            let options = WatchOptions {
                quiet: Duration::from_millis(30),
                rescan,
                events: true,
            };
            tokio::spawn(Watcher::new(folder, options, changes, retried).run());
            Self {
                parent,
                changes: receiver,
                retries,
            }
        }

        /// Puts a library there in one step, so that it is one change however slow the machine is.
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
                Change::Present { path, attempt } if path == self.path(name) => attempt,
                other => panic!("expected {name} to be present, found {other:?}"),
            }
        }

        async fn expect_removed(&mut self, name: &str) {
            assert_eq!(
                self.next().await,
                Change::Removed {
                    path: self.path(name)
                }
            );
        }

        async fn next(&mut self) -> Change {
            loop {
                let next = time::timeout(Duration::from_secs(20), self.changes.recv());
                let next = next.await.expect("no change within 20 s");
                match next.expect("the watcher ended") {
                    Change::Listed => {}
                    change => return change,
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
        let mut folder = Folder::new(path.clone(), true);
        assert_eq!(folder.look(), Some(Listing::new()));
        assert!(folder.watch.is_none() && folder.trouble.is_some());
        for _ in 0..3 {
            let before = folder.identity;
            fs::create_dir(&path).unwrap();
            assert_eq!(folder.look(), Some(Listing::new()));
            assert!(folder.watch.is_some() && folder.trouble.is_none());
            assert_ne!(folder.identity, before);
            fs::remove_dir(&path).unwrap();
            fs::create_dir(&path).unwrap();
            let before = folder.identity;
            folder.look();
            assert_ne!(folder.identity, before);
            fs::remove_dir(&path).unwrap();
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_keeps_its_plugins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Folder::new(file.path().to_owned(), true).look(), None);
    }

    #[test]
    fn what_is_no_file_is_not_listed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("folder.so")).unwrap();
        symlink("nowhere", folder.path().join("dangling.so")).unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        fs::write(folder.path().join("a.so"), "").unwrap();
        let names: Vec<_> = list(folder.path()).unwrap().into_keys().collect();
        assert_eq!(names, [folder.path().join("a.so")]);
    }

    #[test]
    fn reading_does_not_stir() {
        let event = |kind| Ok(Event::new(EventKind::Access(kind)));
        assert!(!stirs(&event(AccessKind::Open(AccessMode::Any))));
        assert!(!stirs(&event(AccessKind::Close(AccessMode::Read))));
        assert!(stirs(&event(AccessKind::Close(AccessMode::Write))));
        assert!(stirs(&Ok(Event::new(EventKind::Other))));
        assert!(stirs(&Err(notify::Error::generic("lost"))));
    }
}
