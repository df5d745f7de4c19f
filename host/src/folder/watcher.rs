//! Watches the plugins folder, and reports which libraries were added, changed and removed.
//!
//! An event of the file system only triggers a listing of the folder. The content of the event is ignored. [`Scan`]
//! compares the listing with the listing before, so lost, repeated and misleading events do no harm. Some changes cause
//! no event: a write through another hard link, a new target of a symlink, and changes in a network file system. A slow
//! periodic listing finds these changes.

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
    pub quiet_time: Duration,
    /// The longest time between two listings when no event occurs (`--rescan`).
    pub rescan_interval: Duration,
    /// Whether to request events from the kernel. Some file systems accept the request but send no events.
    pub use_events: bool,
}

/// Watches one folder while the future of [`run`](Self::run) is polled.
#[derive(Debug)]
pub struct Watcher {
    options: WatchOptions,
    folder: WatchedFolder,
    scan: Scan,
    /// Sends the changes of each listing to the supervisor.
    changes: mpsc::Sender<FolderChanges>,
    /// Receives the paths of libraries to report again.
    retries: mpsc::UnboundedReceiver<PathBuf>,
}

/// The changes that one listing found. The receiver handles the changes of one listing together, because a renamed
/// library appears as a new library and a removed library.
pub type FolderChanges = Vec<FolderChange>;

impl Watcher {
    /// Creates a watcher of `folder`, which need not exist yet.
    ///
    /// The watcher sends changes to `changes`, and waits while that channel is full. From `retries` the watcher
    /// receives the paths of incomplete libraries, which it reports [again](Scan::retry) later. The channel of
    /// `retries` is unbounded, so that watcher and supervisor never wait for each other. The channel holds at most one
    /// path for each change sent.
    #[must_use]
    pub fn new(
        folder: PathBuf,
        options: WatchOptions,
        changes: mpsc::Sender<FolderChanges>,
        retries: mpsc::UnboundedReceiver<PathBuf>,
    ) -> Self {
        let scan = Scan::new(options.quiet_time);
        Self {
            options,
            folder: WatchedFolder::new(folder, options.use_events),
            scan,
            changes,
            retries,
        }
    }

    /// Watches the folder until the receiver of the changes is dropped. First reports the libraries that exist at the
    /// start, followed by [`FolderChange::InitialListingDone`].
    pub async fn run(mut self) {
        let event_notify = Arc::clone(&self.folder.event_notify);
        let mut is_initial_listing_done = false;
        loop {
            let began = Instant::now();
            // The blocking task must own the folder, and returns it with the listing.
            let mut folder = self.folder;
            // A network file system may hang, so the folder is listed on a blocking thread.
            let listing_task = task::spawn_blocking(move || {
                let listing = folder.list_and_log();
                (folder, listing)
            });
            // A blocking task is cancelled only when the runtime shuts down.
            let Ok((folder, listing)) = listing_task.await else {
                return;
            };
            self.folder = folder;
            let took = began.elapsed();
            let mut changes = listing.map_or_else(FolderChanges::new, |listing| {
                self.scan.compare(&listing, Instant::now())
            });
            // Sent even if the folder could not be read, because the supervisor waits for this change before it plans.
            if !is_initial_listing_done {
                is_initial_listing_done = true;
                changes.push(FolderChange::InitialListingDone);
            }
            if !changes.is_empty() && self.changes.send(changes).await.is_err() {
                return;
            }

            time::sleep(pause_after_listing(took)).await;
            let rescan_at =
                Instant::now() + self.folder.rescan_interval(self.options.rescan_interval);
            let next_listing_at = self
                .scan
                .next_listing_at()
                .map_or(rescan_at, |due_at| due_at.min(rescan_at));
            // `Notify` stores one notification, so an event during the listing or the pause ends this wait at once.
            tokio::select! {
                () = event_notify.notified() => {}
                () = time::sleep_until(next_listing_at.into()) => {}
                Some(path) = self.retries.recv() => self.scan.retry(&path, Instant::now()),
                () = self.changes.closed() => return,
            }
        }
    }
}

/// The folder, and the kernel's watch for events in the folder.
#[derive(Debug)]
struct WatchedFolder {
    path: PathBuf,
    /// Whether to request events from the kernel.
    use_events: bool,
    /// Notified by events after which the folder may have changed.
    event_notify: Arc<Notify>,
    /// The identity of the folder that `watch` belongs to. A program may replace the folder by another folder of the
    /// same path.
    identity: Option<Identity>,
    /// The kernel's watch. `None` if the kernel sends no events.
    watch: Option<RecommendedWatcher>,
    /// The last listing that succeeded.
    last_listing: Listing,
    /// Why the folder or a file in the folder could not be read at the last attempt. A reason is logged when it differs
    /// from the reason of the attempt before.
    last_error: Option<io::ErrorKind>,
}

/// Device, inode number, and time of creation if the file system stores that time. The inode number alone is not
/// enough, because a file system may reuse a number at once.
type Identity = (u64, u64, Option<SystemTime>);

impl WatchedFolder {
    fn new(path: PathBuf, use_events: bool) -> Self {
        Self {
            path,
            use_events,
            event_notify: Arc::default(),
            identity: None,
            watch: None,
            last_listing: Listing::new(),
            last_error: None,
        }
    }

    /// Lists the libraries, and logs when the folder or a file becomes unreadable or readable again.
    ///
    /// A missing folder counts as an empty folder. Returns `None` if the folder cannot be read, because the libraries
    /// probably still exist then, and their apps must continue to serve.
    fn list_and_log(&mut self) -> Option<Listing> {
        let (listing, last_error) = match self.watch_and_list() {
            Ok((listing, last_error)) => (Some(listing), last_error),
            Err(error) => (None, Some(error)),
        };
        let kind = last_error.as_ref().map(io::Error::kind);
        let is_new = self.last_error != kind;
        self.last_error = kind;
        let folder = self.path.display();
        let listing = match last_error {
            None => {
                if is_new {
                    info!(%folder, "The plugins folder can be read again");
                }
                listing
            }
            Some(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_new {
                    warn!(%folder, "The plugins folder is missing, create it to serve plugins");
                }
                Some(Listing::new())
            }
            Some(error) => {
                if is_new {
                    warn!(%folder, %error, "Cannot read the plugins folder, keeping what is loaded");
                }
                listing
            }
        };
        // The stamps are needed at the next listing, for files that cannot be read then.
        if let Some(listing) = &listing {
            self.last_listing.clone_from(listing);
        }
        listing
    }

    /// Watches the folder if it is another folder than at the last call, and then lists the libraries. In this order no
    /// change is missed, because a change after the listing causes an event. A folder whose watch failed is not watched
    /// again, because a second attempt would only repeat the warning.
    ///
    /// Returns the listing, and the last error of a single file if there was one. Fails if the folder cannot be read.
    fn watch_and_list(&mut self) -> io::Result<(Listing, Option<io::Error>)> {
        let found = fs::metadata(&self.path)
            .map(|metadata| (metadata.dev(), metadata.ino(), metadata.created().ok()));
        if found.as_ref().ok() != self.identity.as_ref() {
            self.identity = found.as_ref().ok().copied();
            self.watch = self
                .identity
                .filter(|_| self.use_events)
                .and_then(|_| watch(&self.path, Arc::clone(&self.event_notify)));
        }
        found?;
        list(&self.path, &self.last_listing)
    }

    /// Returns how long to wait for an event before the next listing: the `configured` time, or a shorter time if the
    /// folder has no watch.
    fn rescan_interval(&self, configured: Duration) -> Duration {
        if self.watch.is_some() {
            configured
        } else {
            configured.min(RESCAN_WITHOUT_EVENTS)
        }
    }
}

/// Watches `folder`: each event that may be a change of the folder notifies `event_notify`. The watch ends when the
/// result is dropped. Logs a warning and returns `None` if the kernel does not allow the watch.
fn watch(folder: &Path, event_notify: Arc<Notify>) -> Option<RecommendedWatcher> {
    let handle_event = move |event: notify::Result<Event>| {
        if event.as_ref().is_ok_and(Event::need_rescan) {
            debug!("Events were lost, looking at the plugins folder");
        }
        if may_change_folder(&event) {
            event_notify.notify_one();
        }
    };
    let watch = notify::recommended_watcher(handle_event).and_then(|mut watch| {
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

/// Returns whether the folder may have changed when this event arrives. An event of a read is no change. Such events
/// must be ignored, because each listing and each read by this server causes more of them.
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

/// Returns the name of the system limit because of which a watch failed, for the log. Returns `None` if no limit is the
/// reason.
fn limit(error: &notify::Error) -> Option<&'static str> {
    match &error.kind {
        ErrorKind::MaxFilesWatch => Some("sysctl fs.inotify.max_user_watches"),
        ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => {
            Some("sysctl fs.inotify.max_user_instances, or ulimit -n")
        }
        _ => None,
    }
}

/// Lists the libraries in `folder`. The stamp of a symlink is the stamp of the target. Omits entries that are not
/// regular files.
///
/// A file whose metadata cannot be read keeps the stamp from the listing `before`, because the file probably still
/// exists. The last such error is returned beside the listing.
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
            // The file was removed after the folder was read, or the entry is a symlink without a target.
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

/// Returns the pause after a listing that took the time `took`. Without a pause, a program that writes a file would
/// cause thousands of listings a second. With a pause of four times `took`, listings use at most a fifth of the time.
/// The pause has an upper limit, because a listing can also be slow while it only waits.
fn pause_after_listing(took: Duration) -> Duration {
    (took * 4).clamp(Duration::from_millis(1), Duration::from_millis(50))
}

/// The longest interval between listings of a folder without a watch. The interval is short, because a developer may
/// wait for the reload.
const RESCAN_WITHOUT_EVENTS: Duration = Duration::from_millis(500);

/// The error number of the kernel for too many open files or too many inotify instances.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests;
