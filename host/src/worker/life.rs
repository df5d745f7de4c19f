//! The life of a worker: orders come in, notices go out.
//!
//! One task owns all that the worker knows of its apps and is driven by messages: an [`Order`] of the
//! supervisor's, or something that was begun is done. What takes time runs elsewhere and reports
//! back, so that a slow start holds up nobody. The worker decides nothing: what is loaded, committed
//! and ended is what the supervisor says.

mod apps;
mod give;
mod reports;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use plugin_api::host;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinError, JoinSet},
};
use tracing::error;

use self::give::Given;
use super::{
    budget::Budget,
    generation::{Generation, Retired},
    link::{Notices, Orders},
    load::{LoadError, Loaded, Progress},
    probation::{Terms, Verdict},
    quarantine::PanicLimit,
    registry::Registry,
    serving::Serving,
};
use crate::{
    config::Config,
    log::{bridge, filter::Filter, output::Output},
    orders::{Notice, Order},
    scoreboard::WorkKind,
};

/// How a worker loads apps, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
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
    /// When a new generation that is watched has failed.
    pub terms: Terms,
}

impl Settings {
    /// The settings of a server.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let reload = &config.reload;
        Self {
            init_timeout: config.init_timeout,
            handover_timeout: reload.handover_timeout,
            graceful_timeout: config.graceful_timeout,
            app_threads: config.app_threads().into(),
            panic_limit: PanicLimit {
                panics: config.panic_limit,
                window: config.panic_window,
            },
            terms: Terms {
                time: reload.probation,
                failures: reload.rollback_failures,
                percent: reload.rollback_percent,
            },
        }
    }
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    registry: Arc<Registry>,
    filter: Filter,
    outputs: Vec<Output>,
    notices: Notices,
    serving: Serving,
    budget: Arc<Budget>,
    /// How many libraries may be opened at once: each may take memory for its whole size.
    opening: Arc<Semaphore>,
    apps: BTreeMap<String, App>,
    /// Generations that finish what they have.
    retiring: Vec<Retiring>,
    /// The apps and copies of generations that have ended.
    ended: Vec<(String, PathBuf)>,
    /// Requests that they got.
    ended_requests: u64,
    tasks: JoinSet<Done>,
    /// Set when the worker was told to stop.
    stopping: Option<Stopping>,
    /// Whether the last connection of a worker that stops has ended.
    is_disconnected: bool,
    /// How many apps are asked for their state.
    giving: usize,
}

/// What a worker has of an app.
#[derive(Debug, Default)]
struct App {
    serving: Option<Arc<Generation>>,
    /// The generation before, which may serve again.
    kept: Option<Arc<Generation>>,
    loading: BTreeMap<u64, Loading>,
    loaded: BTreeMap<u64, Loaded>,
}

/// A generation that is being started.
#[derive(Debug)]
struct Loading {
    task: AbortHandle,
    /// Whether it takes over without being told so.
    serve: bool,
}

#[derive(Debug)]
struct Retiring {
    generation: Arc<Generation>,
    since: Instant,
}

/// How the worker ends.
#[derive(Debug)]
struct Stopping {
    began: Instant,
    patience: Duration,
    /// The apps whose state another worker waits for.
    give: Vec<String>,
}

/// Something that was begun is done.
#[derive(Debug)]
enum Done {
    Disconnected,
    Give,
    Given(Given),
    Judged {
        generation: Arc<Generation>,
        verdict: Verdict,
    },
    Loaded {
        app: String,
        generation: u64,
        loaded: Box<Result<Loaded, LoadError>>,
    },
    Reported {
        number: u64,
        report: Box<crate::orders::WorkerReport>,
    },
    Retired {
        generation: Arc<Generation>,
        retired: Retired,
    },
    SetLevel {
        number: u64,
        unconfirmed: Vec<String>,
    },
}

/// What a worker works with.
#[derive(Debug)]
pub struct Parts {
    /// How apps are loaded.
    pub settings: Settings,
    /// The routes.
    pub registry: Arc<Registry>,
    /// The level.
    pub filter: Filter,
    /// The log and the access log.
    pub outputs: Vec<Output>,
    /// The connections.
    pub serving: Serving,
}

impl Worker {
    /// A worker that has loaded nothing yet.
    #[must_use]
    pub fn new(parts: Parts, notices: Notices) -> Self {
        Self {
            settings: parts.settings,
            registry: parts.registry,
            filter: parts.filter,
            outputs: parts.outputs,
            notices,
            serving: parts.serving,
            budget: Arc::default(),
            opening: Arc::new(Semaphore::new(OPEN_AT_ONCE)),
            apps: BTreeMap::new(),
            retiring: Vec::new(),
            ended: Vec::new(),
            ended_requests: 0,
            tasks: JoinSet::new(),
            stopping: None,
            is_disconnected: false,
            giving: 0,
        }
    }

    /// Carries out orders until the worker was told to stop, or the supervisor is gone; then ends all
    /// that it has.
    pub async fn run(mut self, mut orders: Orders) {
        self.notices.send(Notice::Ready);
        loop {
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => {
                    self.done(done);
                    if self.is_disconnected && self.giving == 0 {
                        break;
                    }
                }
                order = orders.recv(), if !orders.is_closed() => match order {
                    Some(order) => self.order(order),
                    // Without a supervisor nobody else would end the worker.
                    None => self.stop(self.settings.graceful_timeout, false, Vec::new()),
                },
            }
        }
        self.end_apps().await;
        self.notices.send(Notice::Stopped);
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Hold { app, mounts } => self.hold(&app, mounts),
            Order::Load {
                started,
                serve,
                state,
            } => self.load(started, serve, state),
            Order::Await { app, mounts } => {
                self.apps.entry(app.clone()).or_default();
                self.registry.expect(bridge::intern(&app), mounts);
            }
            Order::Commit(commits) => self.commit(&commits),
            Order::Discard { app, generation } => self.discard(&app, generation),
            Order::Settle {
                app,
                generation,
                back,
            } => self.settle(&app, generation, back),
            Order::Setup(_) => error!("A worker is set up once"),
            Order::Suspend { app } => self.suspend(&app),
            Order::Remove { app } => self.remove(&app),
            Order::SetLevel { number, directives } => self.set_level(number, &directives),
            Order::Reopen => self.reopen(),
            Order::Report { number } => self.report(number),
            Order::Accept => self.serving.accept(),
            Order::Stop {
                patience,
                shared,
                give,
            } => self.stop(patience, shared, give),
        }
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Err(error) if error.is_cancelled() => {}
            Err(error) => error!(%error, "A task of the worker failed"),
            Ok(Done::Disconnected) => {
                self.give_once();
                self.is_disconnected = true;
            }
            Ok(Done::Give) => self.give_once(),
            Ok(Done::Given(given)) => {
                self.giving -= 1;
                self.given(given);
            }
            Ok(Done::Judged {
                generation,
                verdict,
            }) => self.judged(&generation, verdict),
            Ok(Done::Loaded {
                app,
                generation,
                loaded,
            }) => self.loaded(&app, generation, *loaded),
            Ok(Done::Reported { number, report }) => {
                self.notices.send(Notice::Report { number, report });
            }
            Ok(Done::Retired {
                generation,
                retired,
            }) => self.retired(&generation, retired),
            Ok(Done::SetLevel {
                number,
                unconfirmed,
            }) => self.notices.send(Notice::InForce {
                number,
                unconfirmed,
            }),
        }
    }

    /// Gives the state of the apps that another worker waits for, unless that was begun.
    fn give_once(&mut self) {
        let stopping = self.stopping.as_mut();
        let apps = stopping.map(|stopping| std::mem::take(&mut stopping.give));
        let apps = apps.unwrap_or_default();
        self.giving += apps.len();
        self.give(apps);
    }

    /// Accepts no more connections and lets those that are open end. Apps are told to finish.
    /// `give` are the apps whose state another worker waits for.
    fn stop(&mut self, patience: Duration, shared: bool, give: Vec<String>) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping {
            began: Instant::now(),
            patience,
            give,
        });
        for generation in self.registry.serving() {
            // The author's code hears of it, on a thread that it may hold up.
            drop(generation.spawn_in_app(WorkKind::Drain, host::App::drain));
        }
        let closing = self.serving.close(patience, shared);
        let all_requests_read = closing.clone().all_requests_read();
        let latest = self.settings.handover_timeout;
        self.tasks.spawn(async move {
            // Requests wait in the other worker meanwhile.
            let _ = tokio::time::timeout(latest, all_requests_read).await;
            Done::Give
        });
        self.tasks.spawn(async move {
            closing.ended().await;
            Done::Disconnected
        });
    }

    /// Ends all apps, after the last connection.
    async fn end_apps(&mut self) {
        self.serving.closed();
        let patience = self.stopping.as_ref().map_or(Duration::ZERO, |stopping| {
            stopping.patience.saturating_sub(stopping.began.elapsed())
        });
        for (name, mut app) in std::mem::take(&mut self.apps) {
            self.registry.remove(&name);
            for loading in std::mem::take(&mut app.loading).into_values() {
                // A start that is under way has nobody to serve.
                loading.task.abort();
            }
            self.end_app(app, patience);
        }
        while !self.retiring.is_empty() {
            match self.tasks.join_next().await {
                Some(done) => self.done(done),
                None => break,
            };
        }
    }

    fn set_level(&mut self, number: u64, directives: &str) {
        let Ok(directives) = directives.parse() else {
            error!(directives, "The supervisor sent directives that are none");
            return;
        };
        let filter = self.filter.clone();
        self.tasks.spawn(async move {
            let unconfirmed = filter.set(directives).await;
            Done::SetLevel {
                number,
                unconfirmed,
            }
        });
    }

    fn reopen(&self) {
        for output in self.outputs.clone() {
            // A file system may not answer.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = output.reopen() {
                    let error = &error as &dyn std::error::Error;
                    error!(error, "Log file not opened anew");
                }
            });
        }
    }
}

/// How many libraries are opened at once.
const OPEN_AT_ONCE: usize = 4;
