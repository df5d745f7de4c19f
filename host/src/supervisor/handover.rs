//! The state that one image of the supervisor hands to the next image at an upgrade in place.
//!
//! The state names a descriptor by its index in the list of descriptors that is handed over together with the state.
//! The new image takes over the running workers, and then recycles them, because they still run the old build.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{
    app::{App, AsideReason, WorkerId},
    output_tail::SuspendedOutput,
};
use crate::{
    channel::SuspendedChannel,
    control_socket::SuspendedSocket,
    folder::store::{ContentHash, SuspendedStore},
    orders::StagedGeneration,
};

/// The state for the next image.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The name of the build that hands over.
    pub build: String,
    /// The indices of the listening sockets.
    pub listeners: Vec<usize>,
    /// The control socket.
    pub control: Option<SuspendedSocket>,
    /// The folder of private copies.
    pub store: SuspendedStore,
    /// The log directives in force.
    pub level: String,
    /// The running workers.
    pub workers: Vec<WorkerSnapshot>,
    /// The number of the newest worker.
    pub last_worker: WorkerId,
    /// The target number of workers.
    pub wanted_workers: usize,
    /// The apps.
    pub apps: Vec<AppSnapshot>,
    /// The load count of each removed app, by name.
    pub loads: BTreeMap<String, u64>,
}

/// A running worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    /// The worker's number.
    pub id: WorkerId,
    /// The process number.
    pub pid: i32,
    /// The channel to the worker.
    pub channel: SuspendedChannel,
    /// The pipes of its stdout and stderr.
    pub words: SuspendedOutput,
    /// The private copies that the worker has opened.
    pub opened: BTreeSet<PathBuf>,
}

/// An app that has no load under way. A probation is not handed over: the serving generation simply continues.
#[derive(Debug, Serialize, Deserialize)]
pub struct AppSnapshot {
    name: String,
    plugin: String,
    library: PathBuf,
    serving: Option<StagedGeneration>,
    previous: Option<StagedGeneration>,
    good: Option<StagedGeneration>,
    /// A list of pairs, because a hash cannot be a key of a JSON object.
    aside: Vec<(ContentHash, AsideReason)>,
    failed: BTreeSet<ContentHash>,
    loads: u64,
    hands_over: bool,
    by_process: Option<String>,
}

impl AppSnapshot {
    /// Returns the snapshot of an app.
    #[must_use]
    pub fn of(app: &App) -> Self {
        let aside = app.aside.iter();
        Self {
            name: app.name.clone(),
            plugin: app.plugin.clone(),
            library: app.library.clone(),
            serving: app.serving.clone(),
            previous: app.previous.clone(),
            good: app.last_good.clone(),
            aside: aside.map(|(hash, aside)| (*hash, aside.clone())).collect(),
            failed: app.failed.clone(),
            loads: app.loads,
            hands_over: app.hands_over,
            by_process: app.by_process.clone(),
        }
    }

    /// Creates the app again, without a load or a probation.
    #[must_use]
    pub fn into_app(self, uses_probation: bool) -> App {
        let mut app = App::new(
            self.name,
            self.plugin,
            self.library,
            self.loads,
            uses_probation,
        );
        if let Some(serving) = &self.serving {
            app.mounts.clone_from(&serving.spec.mounts);
            // The first plan of the new image must not load the serving spec again.
            app.requested_spec = Some(serving.spec.clone());
        }
        app.serving = self.serving;
        app.previous = self.previous;
        app.last_good = self.good;
        app.aside = self.aside.into_iter().collect();
        app.failed = self.failed;
        app.hands_over = self.hands_over;
        app.by_process = self.by_process;
        app
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Random, one_line};

    /// A handover as an earlier build writes it.
    const STATE: &str = r#"{
        "build": "0.1.0 (4711)", "listeners": [0, 1],
        "control": { "path": "/run/host.sock", "id": [66, 99], "listener": 2 },
        "store": { "parent": "/srv/.host", "folder": "/srv/.host/1", "lock": 3 },
        "level": "info,shop=debug",
        "workers": [{
            "id": 7, "pid": 4711,
            "channel": {
                "socket": 4, "unread": "AAE=", "unread_descriptors": [5], "unsent": [["AAE=", []]]
            },
            "words": { "stdout": [6, "cut"], "stderr": [8, ""], "kept": ["a line"] },
            "opened": ["/srv/.host/1/shop.g1.so"]
        }],
        "last_worker": 7, "wanted_workers": 1,
        "apps": [{
            "name": "shop", "plugin": "shop", "library": "/srv/libshop.so",
            "serving": {
                "app": "shop", "generation": 1, "copy": "/srv/.host/1/shop.g1.so",
                "spec": {
                    "hash": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
                    "mounts": ["/shop"], "config": "{}"
                },
                "version": "1.0.0", "max_level": null
            },
            "previous": null, "good": null,
            "aside": [[
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
                { "Crashed": "SIGSEGV" }
            ]],
            "failed": [], "loads": 1, "hands_over": false, "by_process": null
        }],
        "loads": { "blog": 3 }
    }"#;

    #[test]
    fn a_damaged_handover_is_an_error_of_one_line_or_a_state_that_can_be_written_again() {
        let mut random = Random::new(10);
        let valid: Handover = serde_json::from_str(STATE).unwrap();
        let compact = serde_json::to_string(&valid).unwrap();
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..3_000 {
            let bytes = random.input(&[STATE.as_bytes(), compact.as_bytes()]);
            match serde_json::from_slice::<Handover>(&bytes) {
                Ok(handover) => {
                    accepted += 1;
                    let written = serde_json::to_value(&handover).unwrap();
                    let read: Handover = serde_json::from_value(written.clone()).unwrap();
                    assert_eq!(serde_json::to_value(&read).unwrap(), written);
                    for app in handover.apps {
                        let (name, loads) = (app.name.clone(), app.loads);
                        let app = app.into_app(true);
                        assert_eq!((app.name, app.loads), (name, loads));
                    }
                }
                Err(error) => {
                    rejected += 1;
                    one_line(error, String::from_utf8_lossy(&bytes));
                }
            }
        }
        assert!(accepted > 300 && rejected > 300, "{accepted} {rejected}");
    }
}
