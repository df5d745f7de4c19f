//! Watches the files that builds read, and reports which of them changed.
//!
//! The system watches folders, not files, because editors replace a file by renaming another one over
//! it. Folders that git ignores are skipped, because a target folder would cost thousands of watches.

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

/// Files that changed within a short time.
#[derive(Clone, Debug, Default)]
pub(super) struct FileChanges {
    /// The files that builds read.
    pub(super) sources: BTreeSet<PathBuf>,
    /// The static files.
    pub(super) assets: BTreeSet<PathBuf>,
    /// Whether the author's configuration file of the server changed.
    pub(super) config: bool,
    /// The time of the first change; `None` while there is none.
    pub(super) since: Option<Instant>,
}

/// Watches the files of a session.
pub(super) struct SourceWatcher {
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
    events: mpsc::UnboundedReceiver<Event>,
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
                // Ignore a failure: the receiver is gone when the session has ended.
                let _ = sender.send(event);
            }
        })?;
        let mut watch = Self {
            watcher,
            watched: HashSet::new(),
            events,
            inputs,
        };
        watch.update();
        Ok(watch)
    }

    /// Starts to watch the folders that the inputs have gained.
    pub(super) fn update(&mut self) {
        let folders = self.inputs().folders();
        for folder in folders {
            self.watch_folder(&folder);
        }
    }

    /// Waits for the next change, then for a pause of [`DEBOUNCE`], and adds the changes to `changes`.
    ///
    /// Cancel-safe: changes that were already added stay in `changes`, and the next call goes on with
    /// them.
    pub(super) async fn changes(&mut self, changes: &mut FileChanges) {
        while changes.since.is_none() {
            let Some(event) = self.events.recv().await else {
                // The watcher is gone, so no event will ever come.
                return std::future::pending().await;
            };
            self.add_event(event, changes);
        }
        let latest = changes
            .since
            .map_or_else(Instant::now, |since| since + DEBOUNCE_MAX);
        loop {
            // Each further change starts the pause anew, until the time of the first change is too long ago.
            let quiet = (Instant::now() + DEBOUNCE).min(latest);
            match time::timeout_at(quiet.into(), self.events.recv()).await {
                Ok(Some(event)) => self.add_event(event, changes),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn add_event(&mut self, event: Event, changes: &mut FileChanges) {
        for path in event.paths {
            if path.is_dir() {
                // Files may have been created in a new folder before the watch on it began.
                for file in self.watch_folder(&path) {
                    self.add_file(file, changes);
                }
            } else {
                // The path may be a watched folder that was removed. The system has ended the watch, so
                // a later folder of this name needs a new one.
                self.watched.remove(&path);
                self.add_file(path, changes);
            }
        }
    }

    fn add_file(&self, path: PathBuf, changes: &mut FileChanges) {
        let kind = self.inputs().kind(&path);
        match kind {
            InputKind::Source => _ = changes.sources.insert(path),
            InputKind::Asset => _ = changes.assets.insert(path),
            InputKind::Config => changes.config = true,
            InputKind::Other => return,
        }
        changes.since.get_or_insert_with(Instant::now);
    }

    /// Starts to watch a folder and every folder below it. Returns all files in them.
    fn watch_folder(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let walk = WalkBuilder::new(folder)
            .hidden(false)
            // Only git's rules count: a file that `.ignore` names for search tools may be a source.
            .ignore(false)
            .require_git(false)
            .filter_entry(|entry| !is_skipped(entry.path()))
            .build();
        for entry in walk.flatten() {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            if is_folder && !self.watched.contains(entry.path()) {
                let path = entry.into_path();
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

    fn inputs(&self) -> std::sync::MutexGuard<'_, BuildInputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a folder is one that is large and holds no sources, even if git does not ignore it.
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

/// The pause without a change after which changes are reported. An editor writes a file within one or
/// two milliseconds. A formatter that takes longer than this pause causes a build of its own.
const DEBOUNCE: Duration = Duration::from_millis(15);

/// The time after the first change at which changes are reported even without a pause.
const DEBOUNCE_MAX: Duration = Duration::from_millis(150);
