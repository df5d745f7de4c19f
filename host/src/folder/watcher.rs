//! Watches the plugins folder, and reports which libraries were added, changed and removed.
//!
//! An event only triggers a listing of the folder; its content is ignored. [`Scan`] compares the listing with the one
//! before. So lost, repeated and misleading events do no harm. Some changes cause no event: a write through another
//! hard link, a symlink whose target is replaced, or a network file system. A slow periodic listing finds those.

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

/// The timing of a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// How long a library must not change before it is reported (`--quiet-time`).
    pub quiet: Duration,
    /// The longest time between two listings without an event.
    pub rescan: Duration,
    /// Whether to ask the kernel for events. Some file systems have none and do not say so.
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

/// Watches one folder, while [`run`](Self::run) is polled.
#[derive(Debug)]
pub struct Watcher {
    options: WatchOptions,
    folder: WatchedFolder,
    scan: Scan,
    changes: mpsc::Sender<FolderChanges>,
    retries: mpsc::UnboundedReceiver<PathBuf>,
}

/// The changes that one listing found. They belong together: a renamed library is a new one and a removed one.
pub type FolderChanges = Vec<FolderChange>;

impl Watcher {
    /// Creates a watcher of `folder`, which need not exist yet.
    ///
    /// The watcher sends changes to `changes`, and waits while that channel is full. From `retries` it receives the paths
    /// of incomplete libraries, to report them [again](Scan::retry). That channel is unbounded, so that the two sides never
    /// wait for each other; it holds at most one path for each change sent.
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

    /// Watches until the receiver of the changes is dropped. Reports the libraries that exist already first, and then
    /// [`FolderChange::Listed`].
    pub async fn run(mut self) {
        let poked = Arc::clone(&self.folder.poked);
        let mut listed = false;
        loop {
            let began = Instant::now();
            let mut folder = self.folder;
            // A file system may hang, so the folder is listed on a blocking thread.
            let looked = task::spawn_blocking(move || {
                let listing = folder.look();
                (folder, listing)
            });
            // A blocking task is cancelled only when the runtime shuts down.
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

/// The folder, and the kernel's watch for events in it.
#[derive(Debug)]
struct WatchedFolder {
    path: PathBuf,
    /// Whether to ask the kernel for events.
    events: bool,
    /// Notified when something in the folder may have changed.
    poked: Arc<Notify>,
    /// The identity of the folder that `watch` is for. Another folder may replace it under the same path.
    identity: Option<Identity>,
    /// The kernel's watch. `None` when the kernel gives no events.
    watch: Option<RecommendedWatcher>,
    /// The last listing.
    listed: Listing,
    /// Why the folder or a file in it cannot be read. Each reason is logged once.
    last_error: Option<io::ErrorKind>,
}

/// Device, inode, and time of birth if the file system has one, because inode numbers are reused at once.
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

    /// Lists the libraries. A missing folder has none. Returns `None` for a folder that cannot be read, because its
    /// libraries are probably still there.
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

    /// Sets the watch if the folder is a new one, and then lists the folder. In this order no change is missed in between.
    /// A folder whose watch failed is not tried again, because that would only repeat the warning.
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

    /// Returns how long to wait for an event before the next listing.
    fn rescan(&self, usual: Duration) -> Duration {
        if self.watch.is_some() {
            usual
        } else {
            usual.min(RESCAN_WITHOUT_EVENTS)
        }
    }
}

/// Makes every event in `folder` notify `poked`. Logs a warning and returns `None` when the kernel does not allow it.
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

/// Returns whether an event may mean a change in the folder. Reads, which this server itself causes, do not.
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

/// Returns the system limit that caused an error in setting a watch, for the log.
fn limit(error: &notify::Error) -> Option<&'static str> {
    match &error.kind {
        ErrorKind::MaxFilesWatch => Some("sysctl fs.inotify.max_user_watches"),
        ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => {
            Some("sysctl fs.inotify.max_user_instances, or ulimit -n")
        }
        _ => None,
    }
}

/// Lists the libraries in `folder`, with symlinks resolved. Entries that are not regular files are left out. A file whose
/// metadata cannot be read keeps its stamp from `before`, because it is probably still there, and the error is returned.
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

/// Returns the pause after a listing that took this long. Without a pause, a file that is being written would cause
/// thousands of listings a second. The pause is bounded, because a listing can be slow for reasons other than work.
fn pause_after_look(took: Duration) -> Duration {
    (took * 4).clamp(Duration::from_millis(1), Duration::from_millis(50))
}

/// The interval between listings without events. Short, because a developer waits for the reload.
const RESCAN_WITHOUT_EVENTS: Duration = Duration::from_millis(500);

/// The error number for too many open files or too many inotify instances.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests;
