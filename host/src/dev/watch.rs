//! Watches the files that builds read, and reports changes of these files.
//!
//! The watches are on folders, not on files: many editors save by renaming a new file over the old file, and a watch on
//! the old file would be lost. Folders that git ignores are skipped, because a target folder alone would need thousands
//! of watches.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ignore::WalkBuilder;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{sync::mpsc, time};

use super::inputs::{BuildInputs, InputKind};

/// A batch of files that changed shortly after each other.
#[derive(Clone, Debug, Default)]
pub(super) struct FileChanges {
    /// Changed files that builds read.
    pub(super) sources: BTreeSet<PathBuf>,
    /// Changed static files.
    pub(super) assets: BTreeSet<PathBuf>,
    /// Whether the author's configuration file of the server changed.
    pub(super) config: bool,
    /// The time of the first change, or `None` while the batch is empty.
    pub(super) first_change: Option<Instant>,
}

/// Watches the files of a session.
pub(super) struct SourceWatcher {
    watcher: RecommendedWatcher,
    /// The folders that have a watch.
    watched: HashSet<PathBuf>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Decides which folders to watch and which changes count. Shared with the session.
    inputs: Arc<Mutex<BuildInputs>>,
}

impl SourceWatcher {
    /// Starts to watch the folders of `inputs`.
    ///
    /// # Errors
    ///
    /// Fails when the system provides no file events.
    pub(super) fn new(inputs: Arc<Mutex<BuildInputs>>) -> notify::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = event
                && is_change(event.kind)
            {
                // Ignore a failure: the receiver is dropped when the session has ended.
                let _ = sender.send(event);
            }
        })?;
        let mut source_watcher = Self {
            watcher,
            watched: HashSet::new(),
            events,
            inputs,
        };
        source_watcher.watch_new_folders();
        Ok(source_watcher)
    }

    /// Starts to watch those folders of the inputs that have no watch yet.
    pub(super) fn watch_new_folders(&mut self) {
        let folders = self.inputs().folders_to_watch();
        for folder in folders {
            self.watch_folder(&folder);
        }
    }

    /// Waits for the first change, then for a pause of [`DEBOUNCE`] without a change, and adds all changes to
    /// `changes`.
    ///
    /// Cancel-safe: changes that were already added stay in `changes`, and the next call continues with them.
    pub(super) async fn collect(&mut self, changes: &mut FileChanges) {
        while changes.first_change.is_none() {
            let Some(event) = self.events.recv().await else {
                // No event can arrive any more, because the watcher's callback, which owns the sender, is dropped.
                return std::future::pending().await;
            };
            self.add_event(event, changes);
        }
        let deadline = changes
            .first_change
            .map_or_else(Instant::now, |first_change| first_change + DEBOUNCE_MAX);
        loop {
            // Each further change restarts the pause, but not past the deadline: otherwise a program that writes all
            // the time would delay the build for ever.
            let pause_end = (Instant::now() + DEBOUNCE).min(deadline);
            match time::timeout_at(pause_end.into(), self.events.recv()).await {
                Ok(Some(event)) => self.add_event(event, changes),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Adds the files of an event to `changes`.
    fn add_event(&mut self, event: Event, changes: &mut FileChanges) {
        for path in event.paths {
            if path.is_dir() {
                // Report all files of a new folder, because they may have been created before the folder was watched.
                for file in self.watch_folder(&path) {
                    self.add_file(file, changes);
                }
            } else {
                // The path may be a watched folder that was removed. The system has ended the watch of that folder, so
                // a new folder with the same name needs a new watch.
                self.watched.remove(&path);
                self.add_file(path, changes);
            }
        }
    }

    /// Adds a changed file to `changes`, unless the change has no consequence.
    fn add_file(&self, path: PathBuf, changes: &mut FileChanges) {
        let kind = self.inputs().classify(&path);
        match kind {
            InputKind::Source => _ = changes.sources.insert(path),
            InputKind::Asset => _ = changes.assets.insert(path),
            InputKind::Config => changes.config = true,
            InputKind::Other => return,
        }
        changes.first_change.get_or_insert_with(Instant::now);
    }

    /// Starts to watch a folder and all folders below. Returns all files in these folders.
    fn watch_folder(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let walk = WalkBuilder::new(folder)
            .hidden(false)
            // Apply only git's ignore rules: a file `.ignore` is meant for search tools and may list sources.
            .ignore(false)
            // Apply `.gitignore` even outside of a git repository.
            .require_git(false)
            .filter_entry(|entry| !is_skipped(entry.path()))
            .build();
        for entry in walk.flatten() {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            if is_folder && !self.watched.contains(entry.path()) {
                let path = entry.into_path();
                // Skip a folder that cannot be watched, for instance because it was removed again.
                if self
                    .watcher
                    .watch(&path, RecursiveMode::NonRecursive)
                    .is_ok()
                {
                    self.watched.insert(path);
                }
            } else if !is_folder {
                files.push(entry.into_path());
            }
        }
        files
    }

    /// Locks the inputs. Ignores poisoning.
    fn inputs(&self) -> std::sync::MutexGuard<'_, BuildInputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether to skip a folder even if git does not ignore the folder: it usually contains many files and no
/// sources. A `CACHEDIR.TAG` marks a cache folder, such as Cargo's target folder.
fn is_skipped(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    matches!(name, ".git" | "node_modules") || path.join("CACHEDIR.TAG").is_file()
}

/// Returns whether an event means that a file has new contents or a new name.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(_)
        | EventKind::Remove(_)
        | EventKind::Any
        | EventKind::Other => true,
        EventKind::Modify(modified) => !matches!(modified, ModifyKind::Metadata(_)),
        EventKind::Access(_) => false,
    }
}

/// The pause without a change after which changes are reported. The pause is longer than an editor needs to write a
/// file (one or two milliseconds). A formatter that starts later than that causes a second build.
const DEBOUNCE: Duration = Duration::from_millis(15);

/// The time after the first change at which changes are reported even if no pause has occurred.
const DEBOUNCE_MAX: Duration = Duration::from_millis(150);
