//! Watches the files that builds read, and tells which of them changed.
//!
//! Folders are watched, not files: editors replace files by renaming others over them. Folders that
//! git ignores are left out, so that a target folder costs nothing.

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

use super::inputs::{Inputs, Kind};

/// Files that changed within a short time.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Files that builds read.
    pub(super) sources: BTreeSet<PathBuf>,
    /// Static files.
    pub(super) assets: BTreeSet<PathBuf>,
    /// Whether the author's configuration file of the server is among them.
    pub(super) config: bool,
    /// When the first was reported.
    pub(super) since: Option<Instant>,
}

/// A watch on the files of a session.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
    events: mpsc::UnboundedReceiver<Event>,
    inputs: Arc<Mutex<Inputs>>,
}

impl Watch {
    /// Watches what `inputs` say.
    ///
    /// # Errors
    ///
    /// When the system gives no events.
    pub(super) fn new(inputs: Arc<Mutex<Inputs>>) -> notify::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = event
                && is_change(event.kind)
            {
                // The session may have ended.
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

    /// Watches folders that are new, or of which the inputs say something since now.
    pub(super) fn update(&mut self) {
        let folders = self.inputs().folders();
        for folder in folders {
            self.add(&folder);
        }
    }

    /// The files that changed next. Changes that follow each other within [`QUIET`] come together.
    /// Cancelling the future loses nothing but that, as long as it is called again.
    pub(super) async fn changes(&mut self, changes: &mut Changes) {
        while changes.since.is_none() {
            let Some(event) = self.events.recv().await else {
                return std::future::pending().await;
            };
            self.take(event, changes);
        }
        let latest = changes
            .since
            .map_or_else(Instant::now, |since| since + LONGEST);
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            match time::timeout_at(quiet.into(), self.events.recv()).await {
                Ok(Some(event)) => self.take(event, changes),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take(&mut self, event: Event, changes: &mut Changes) {
        for path in event.paths {
            if path.is_dir() {
                // Files may have come into a new folder before it was watched.
                for file in self.add(&path) {
                    self.note(file, changes);
                }
            } else {
                // The system's watch went with the folder; another may take its name.
                self.watched.remove(&path);
                self.note(path, changes);
            }
        }
    }

    fn note(&self, path: PathBuf, changes: &mut Changes) {
        let kind = self.inputs().kind(&path);
        match kind {
            Kind::Source => _ = changes.sources.insert(path),
            Kind::Asset => _ = changes.assets.insert(path),
            Kind::Config => changes.config = true,
            Kind::Other => return,
        }
        changes.since.get_or_insert_with(Instant::now);
    }

    /// Watches a folder and those in it, and gives the files in those that were not watched before.
    fn add(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let walk = WalkBuilder::new(folder)
            .hidden(false)
            // A file that ripgrep ignores may be a source.
            .ignore(false)
            .require_git(false)
            .filter_entry(|entry| !is_left_out(entry.path()))
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

    fn inputs(&self) -> std::sync::MutexGuard<'_, Inputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Folders without sources that may be large, also where git is not told of them.
fn is_left_out(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    matches!(name, ".git" | "node_modules") || path.join("CACHEDIR.TAG").is_file()
}

/// Whether a file has another content or name since.
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

/// How long no file must change before the changes are told. An editor writes a file within a
/// millisecond or two; a formatter that takes longer gets a build of its own.
const QUIET: Duration = Duration::from_millis(15);

/// How long changes wait for others at most.
const LONGEST: Duration = Duration::from_millis(150);
