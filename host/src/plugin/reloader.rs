//! The sequence: what the watcher reports and the operator asks, and what is done about it.
//!
//! One task owns the state of all apps and is driven by messages: a library settled or went
//! ([`Change`]), an operator asks ([`Handle`]), something that was begun is done, the server
//! stops. What takes time runs elsewhere and reports back, so that a slow start holds up nobody,
//! and all that is known of an app is in its `State`:
//!
//! ```text
//!   library settled ─► examine ─► admit ─► Loading: stage, open, (drain, hand over,) init
//!                                              │ failed: what serves, serves on
//!                                              ▼
//!        Resting ◄── passed ── Probation ◄── swap ── without probation ──► Resting
//!                                 │ failed                  │
//!                                 ▼                         ▼
//!                      the one before is back     the one before: drain, stop
//! ```
//!
//! A failure anywhere leaves what serves as it is, and is one line in the log.

mod app;
mod apps;
mod control;
mod line;
mod loads;
mod places;
mod probation;
mod reports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time,
};
use tracing::error;

pub use self::control::{AskError, Command, Handle};
use self::{
    app::{App, State, Wanted, Why},
    control::Reply,
    line::Line,
};
use super::{
    budget::Budget,
    generation::{self, Generation},
    load::{Candidate, LoadError, Loaded, Rejected},
    probation::{Terms, Verdict},
    quarantine::PanicLimit,
    registry::Registry,
    report::{Failure, Proof},
    scan::Change,
    store::Store,
};
use crate::{config, log::filter::Filter};

/// How to load, from the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where apps are mounted, if not where they ask for.
    pub mounts: Vec<config::Mount>,
    /// The apps that the operator describes.
    pub apps: Vec<config::App>,
    /// How long a start may take.
    pub init_timeout: Duration,
    /// How long requests may wait for a handover.
    pub handover_timeout: Duration,
    /// How long requests may stay in a generation that is replaced or removed.
    pub graceful_timeout: Duration,
    /// How many threads a plugin's runtime has.
    pub app_threads: u32,
    /// How often a generation may panic.
    pub panic_limit: PanicLimit,
    /// When a new generation is replaced by the one before; none for never.
    pub probation: Option<Terms>,
}

/// Loads, replaces and removes apps as their libraries come, change and go.
#[derive(Debug)]
pub struct Reloader {
    options: Options,
    store: Arc<Store>,
    registry: Arc<Registry>,
    filter: Filter,
    budget: Arc<Budget>,
    /// Where to ask for another look at a library.
    retries: mpsc::UnboundedSender<PathBuf>,
    /// The apps by name. They come with a library and go with it.
    apps: BTreeMap<&'static str, App>,
    /// Those that went: something of them may still be at work.
    removed: BTreeMap<&'static str, App>,
    /// How often each app was loaded: the numbers go on when a library comes back.
    loads: BTreeMap<&'static str, u64>,
    /// Libraries that are no app: their name or mount is taken, or they are bad.
    refused: BTreeMap<PathBuf, Refused>,
    /// Libraries that are being read, and for which change of them.
    examining: BTreeMap<PathBuf, u64>,
    examinations: u64,
    /// Libraries that are to be admitted one after the other.
    line: Line,
    /// Whether all that was in the folder at the start is known.
    listed: bool,
    /// Generations that finish what they have.
    retiring: Vec<Retiring>,
    /// The copies of generations that have ended.
    ended: BTreeMap<&'static str, BTreeSet<PathBuf>>,
    /// Whether to look, once all is read, for apps that the operator speaks of and that are not there.
    stranger_check: bool,
    tasks: JoinSet<Done>,
    retirements: JoinSet<Done>,
}

/// A library that is no app.
#[derive(Debug)]
struct Refused {
    /// The plugin in it, as far as it says so.
    plugin: Option<String>,
    /// Whether it may yet become one, when another gives up its name or mount.
    waits: bool,
    failure: Failure,
}

#[derive(Debug)]
struct Retiring {
    generation: Arc<Generation>,
    since: Instant,
}

/// Something that was begun is done.
#[derive(Debug)]
enum Done {
    Examined {
        purpose: Purpose,
        examined: Result<Candidate, Rejected>,
    },
    Judged {
        generation: Arc<Generation>,
        verdict: Verdict,
    },
    Loaded {
        name: &'static str,
        generation: u64,
        loaded: Box<Result<Loaded, LoadError>>,
    },
    Retired {
        generation: Arc<Generation>,
        retired: generation::Retired,
        asked: Option<(Reply, Proof)>,
    },
}

/// What came of reading a library that changed.
#[derive(Debug)]
struct Read {
    path: PathBuf,
    attempt: u32,
    examined: Result<Candidate, Rejected>,
}

/// Why a library is read.
#[derive(Debug)]
enum Purpose {
    /// It changed.
    Change {
        path: PathBuf,
        attempt: u32,
        examination: u64,
    },
    /// An app is to be loaded from it.
    App {
        name: &'static str,
        why: Why,
        reply: Option<Reply>,
    },
}

impl Reloader {
    /// A reloader that has loaded nothing yet.
    #[must_use]
    pub fn new(
        options: Options,
        store: Arc<Store>,
        registry: Arc<Registry>,
        filter: Filter,
        retries: mpsc::UnboundedSender<PathBuf>,
    ) -> Self {
        Self {
            options,
            store,
            registry,
            filter,
            budget: Arc::default(),
            retries,
            apps: BTreeMap::new(),
            removed: BTreeMap::new(),
            loads: BTreeMap::new(),
            refused: BTreeMap::new(),
            examining: BTreeMap::new(),
            examinations: 0,
            line: Line::default(),
            listed: false,
            retiring: Vec::new(),
            ended: BTreeMap::new(),
            stranger_check: true,
            tasks: JoinSet::new(),
            retirements: JoinSet::new(),
        }
    }

    /// Follows `changes` and does what `commands` ask until `stop` is sent or dropped; then ends
    /// all apps, giving what is in them the time sent.
    ///
    /// `ready` is sent when all that was in the folder at the start serves, or failed to.
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut commands: mpsc::Receiver<Command>,
        ready: oneshot::Sender<()>,
        mut stop: oneshot::Receiver<Duration>,
    ) {
        let mut ready = Some(ready);
        let patience = loop {
            tokio::select! {
                biased;
                patience = &mut stop => break patience.unwrap_or_default(),
                Some(done) = self.tasks.join_next() => self.done(done),
                Some(done) = self.retirements.join_next() => self.done(done),
                Some(command) = commands.recv() => self.command(command),
                Some(change) = changes.recv() => match change {
                    Change::Present { path, .. } if !self.listed => self.present_in_line(path),
                    Change::Present { path, attempt } => self.present(path, attempt),
                    Change::Removed { path } => self.removed(&path),
                    Change::Listed => self.listed = true,
                },
                Some(()) = at(self.line.end()) => {}
            }
            while let Some(read) = self.line.next() {
                self.take(read);
            }
            let is_loading = |app: &App| matches!(app.state, State::Loading { .. });
            if self.listed && self.examining.is_empty() {
                self.check_for_strangers();
            }
            if self.listed && self.examining.is_empty() && !self.apps.values().any(is_loading) {
                // The server may have stopped waiting for it.
                ready.take().map(|ready| ready.send(()));
            }
        };
        self.stop(patience).await;
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Err(error) => error!(%error, "A task of the reloader failed"),
            Ok(done) => self.handle(done),
        }
    }

    fn handle(&mut self, done: Done) {
        match done {
            Done::Examined { purpose, examined } => self.examined(purpose, examined),
            Done::Judged {
                generation,
                verdict,
            } => self.judged(&generation, verdict),
            Done::Loaded {
                name,
                generation,
                loaded,
            } => self.loaded(name, generation, *loaded),
            Done::Retired {
                generation,
                retired,
                asked,
            } => self.retired(&generation, retired, asked),
        }
    }

    async fn stop(mut self, patience: Duration) {
        // A start that is under way has nobody to serve.
        self.tasks.abort_all();
        for (name, mut app) in std::mem::take(&mut self.apps) {
            self.registry.remove(name);
            for generation in app.leave() {
                self.retire(generation, patience, None);
            }
        }
        while self.retirements.join_next().await.is_some() {}
    }
}

/// Waits until `time`; without one, there is nothing to wait for.
async fn at(time: Option<Instant>) -> Option<()> {
    time::sleep_until(time?.into()).await;
    Some(())
}
