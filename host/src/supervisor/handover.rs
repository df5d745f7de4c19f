//! What one image of the supervisor hands to the next at an upgrade in place.
//!
//! Descriptors are named by their numbers in the list that travels with this value. The new image
//! goes on with the workers as they are, and then replaces them by fresh ones of its own build.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    app::{App, Aside, WorkerId},
    last_words::SuspendedWords,
};
use crate::{
    channel::Suspended,
    control::SuspendedSocket,
    folder::store::{Hash, SuspendedStore},
    orders::Started,
};

/// All that the next image needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    /// Which build hands over.
    pub build: String,
    /// The sockets that workers accept from.
    pub listeners: Vec<usize>,
    /// The control socket.
    pub control: Option<SuspendedSocket>,
    /// The private copies.
    pub store: SuspendedStore,
    /// The directives in force.
    pub level: String,
    /// The workers that run.
    pub workers: Vec<WorkerState>,
    /// The number of the last worker.
    pub last_worker: WorkerId,
    /// How many workers there are to be.
    pub wanted_workers: usize,
    /// The apps.
    pub apps: Vec<AppState>,
    /// How often the apps were loaded that are not there any more.
    pub loads: BTreeMap<String, u64>,
}

/// A worker that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerState {
    /// Its number.
    pub id: WorkerId,
    /// Its process.
    pub pid: i32,
    /// The channel to it.
    pub channel: Suspended,
    /// What it prints.
    pub words: SuspendedWords,
    /// The private copies that it has opened.
    pub opened: BTreeSet<PathBuf>,
}

/// An app that is at rest.
#[derive(Debug, Serialize, Deserialize)]
pub struct AppState {
    name: String,
    plugin: String,
    library: PathBuf,
    serving: Option<Started>,
    previous: Option<Started>,
    good: Option<Started>,
    /// By the content's hash.
    aside: Vec<(Hash, Aside)>,
    failed: BTreeSet<Hash>,
    loads: u64,
    hands_over: bool,
    by_process: Option<String>,
}

impl AppState {
    /// The app as it is.
    #[must_use]
    pub fn of(app: &App) -> Self {
        let aside = app.aside.iter();
        Self {
            name: app.name.clone(),
            plugin: app.plugin.clone(),
            library: app.library.clone(),
            serving: app.serving.clone(),
            previous: app.previous.clone(),
            good: app.good.clone(),
            aside: aside.map(|(hash, aside)| (*hash, aside.clone())).collect(),
            failed: app.failed.clone(),
            loads: app.loads,
            hands_over: app.hands_over,
            by_process: app.by_process.clone(),
        }
    }

    /// The same app, at rest.
    #[must_use]
    pub fn into_app(self, watches: bool) -> App {
        let mut app = App::new(self.name, self.plugin, self.library, self.loads, watches);
        if let Some(serving) = &self.serving {
            app.mounts.clone_from(&serving.spec.mounts);
            app.tried = Some(serving.spec.clone());
        }
        app.serving = self.serving;
        app.previous = self.previous;
        app.good = self.good;
        app.aside = self.aside.into_iter().collect();
        app.failed = self.failed;
        app.hands_over = self.hands_over;
        app.by_process = self.by_process;
        app
    }
}
