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

use super::scan::{FileStamp, FolderChange, Listing, Scan, is_library};

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
    folder: WatchedFolder,
    scan: Scan,
    changes: mpsc::Sender<FolderChanges>,
    retries: mpsc::UnboundedReceiver<PathBuf>,
}

/// What one look at the folder found. The changes of one look belong together: a library that was
/// renamed is a new one and one that is gone.
pub type FolderChanges = Vec<FolderChange>;

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
        changes: mpsc::Sender<FolderChanges>,
        retries: mpsc::UnboundedReceiver<PathBuf>,
    ) -> Self {
        let scan = Scan::new(options.quiet);
        Self {
            options,
            folder: WatchedFolder::new(folder, options.events),
            scan,
            changes,
            retries,
        }
    }

    /// Watches until nobody receives the changes any more. Libraries that are there already are
    /// reported first, then [`FolderChange::Listed`].
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
            let mut look = listing.map_or_else(FolderChanges::new, |listing| {
                self.scan.look(&listing, Instant::now())
            });
            if !listed {
                listed = true;
                look.push(FolderChange::Listed);
            }
            if !look.is_empty() && self.changes.send(look).await.is_err() {
                return;
            }

            time::sleep(pause_after_look(took)).await;
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
struct WatchedFolder {
    path: PathBuf,
    /// Whether events are wanted.
    events: bool,
    /// Notified when something may have happened in it.
    poked: Arc<Notify>,
    /// Which folder `watch` is for: another one may take its place under the same path.
    identity: Option<Identity>,
    /// `None` when the kernel gives no events.
    watch: Option<RecommendedWatcher>,
    /// What was in it when it was last read.
    listed: Listing,
    /// Why it, or something in it, cannot be read. Each reason is logged once.
    last_error: Option<io::ErrorKind>,
}

/// Device, inode, and time of birth where there is one: inode numbers are reused at once.
type Identity = (u64, u64, Option<SystemTime>);

impl WatchedFolder {
    fn new(path: PathBuf, events: bool) -> Self {
        Self {
            path,
            events,
            poked: Arc::default(),
            identity: None,
            watch: None,
            listed: Listing::new(),
            last_error: None,
        }
    }

    /// Lists the libraries. None are in a folder that is missing; one that cannot be read is not
    /// known to have lost any, so there is nothing to compare.
    fn look(&mut self) -> Option<Listing> {
        let (listing, last_error) = match self.watch_and_list() {
            Ok((listing, last_error)) => (Some(listing), last_error),
            Err(error) => (None, Some(error)),
        };
        let kind = last_error.as_ref().map(io::Error::kind);
        let is_news = self.last_error != kind;
        self.last_error = kind;
        let folder = self.path.display();
        let listing = match last_error {
            None => {
                if is_news {
                    info!(%folder, "The plugins folder can be read again");
                }
                listing
            }
            Some(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_news {
                    warn!(%folder, "The plugins folder is missing, create it to serve plugins");
                }
                Some(Listing::new())
            }
            Some(error) => {
                if is_news {
                    warn!(%folder, %error, "Cannot read the plugins folder, keeping what is loaded");
                }
                listing
            }
        };
        if let Some(listing) = &listing {
            self.listed.clone_from(listing);
        }
        listing
    }

    /// Lists after the watch is set, so that nothing happens unseen in between. A folder that
    /// cannot be watched is not tried again: it would only warn again.
    fn watch_and_list(&mut self) -> io::Result<(Listing, Option<io::Error>)> {
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
        list(&self.path, &self.listed)
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
        if may_change_folder(&event) {
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
fn may_change_folder(event: &notify::Result<Event>) -> bool {
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

/// The libraries in `folder`, as their symlinks' targets are. What is no regular file is absent. One
/// that cannot be asked is not known to be gone: it is as it was `before`, and the error is told.
fn list(folder: &Path, before: &Listing) -> io::Result<(Listing, Option<io::Error>)> {
    let (mut listing, mut last_error) = (Listing::new(), None);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_library(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                listing.insert(path, FileStamp::of(&metadata));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if let Some(&stamp) = before.get(&path) {
                    listing.insert(path, stamp);
                }
                last_error = Some(error);
            }
        }
    }
    Ok((listing, last_error))
}

/// How long to leave the folder alone after a look that took so long: a file that is being written pokes
/// thousands of times a second. A look that took long has waited, and must not make everybody wait on.
fn pause_after_look(took: Duration) -> Duration {
    (took * 4).clamp(Duration::from_millis(1), Duration::from_millis(50))
}

/// How often to look where there are no events: a developer waits for it.
const RESCAN_WITHOUT_EVENTS: Duration = Duration::from_millis(500);

/// Too many open files, or too many inotify instances.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests;
