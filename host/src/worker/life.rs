//! The main loop of a worker: executes orders of the supervisor and sends notices.
//!
//! One task owns the state of all apps. The task handles orders of the supervisor and the results of background tasks.
//! Everything that takes time runs in a background task, so a slow start does not delay other apps. The worker makes no
//! decisions: the supervisor decides which generations are loaded, committed and ended.

mod apps;
mod give;
mod load;
mod probation;
mod reports;
mod stop;
mod tasks;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};
use tracing::error;

use self::{stop::StopRequest, tasks::WorkerTaskOutcome};
use super::{
    budget::Budget,
    link::{Notices, Orders},
    load::Loaded,
    serving::Serving,
    settings::LoadSettings,
};
use crate::{
    apps::{generation::Generation, registry::Registry},
    log::{bridge, filter::Filter, output::Output},
    orders::{Notice, Order},
};

/// The state of a worker. [`Worker::run`] is its main loop.
#[derive(Debug)]
pub struct Worker {
    settings: LoadSettings,
    registry: Arc<Registry>,
    filter: Filter,
    /// The outputs of the log and of the access log.
    outputs: Vec<Output>,
    notices: Notices,
    serving: Serving,
    budget: Arc<Budget>,
    /// Limits how many libraries are opened at once, because opening a library may need as much memory as the library
    /// has bytes.
    open_permits: Arc<Semaphore>,
    /// The apps by name.
    apps: BTreeMap<String, WorkerApp>,
    /// The generations that are ending.
    retiring: Vec<RetiringGeneration>,
    /// The app and the private copy of each generation that has ended.
    ended: Vec<(String, PathBuf)>,
    /// The number of requests that ended generations have had.
    ended_requests: u64,
    /// The background tasks.
    tasks: JoinSet<WorkerTaskOutcome>,
    /// The stop of the worker. `None` until the stop begins.
    stop_request: Option<StopRequest>,
    /// Whether the last connection has ended after a stop.
    is_disconnected: bool,
    /// The number of apps whose state is being taken for another worker.
    pending_states: usize,
}

/// The generations of an app in this worker.
#[derive(Debug, Default)]
struct WorkerApp {
    /// The generation that serves.
    serving: Option<Arc<Generation>>,
    /// The previous generation, which keeps running while `serving` is on probation.
    previous: Option<Arc<Generation>>,
    /// The running loads, by the number of the generation.
    loading: BTreeMap<u64, RunningLoad>,
    /// The generations that have started and wait for their commit, by number.
    loaded: BTreeMap<u64, Loaded>,
}

/// A load that is running.
#[derive(Debug)]
struct RunningLoad {
    task: AbortHandle,
    /// Whether the generation serves as soon as it has started, without a commit.
    serve: bool,
}

/// A generation that is ending.
#[derive(Debug)]
struct RetiringGeneration {
    generation: Arc<Generation>,
    /// When the generation was replaced or removed.
    since: Instant,
}

/// The parts that a worker is built from.
#[derive(Debug)]
pub struct WorkerParts {
    /// The settings for loading apps.
    pub settings: LoadSettings,
    /// The routes to the apps.
    pub registry: Arc<Registry>,
    /// The log filter.
    pub filter: Filter,
    /// The log and the access log.
    pub outputs: Vec<Output>,
    /// The connections.
    pub serving: Serving,
}

impl Worker {
    /// Creates a worker without apps.
    #[must_use]
    pub fn new(parts: WorkerParts, notices: Notices) -> Self {
        Self {
            settings: parts.settings,
            registry: parts.registry,
            filter: parts.filter,
            outputs: parts.outputs,
            notices,
            serving: parts.serving,
            budget: Arc::default(),
            open_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_OPENS)),
            apps: BTreeMap::new(),
            retiring: Vec::new(),
            ended: Vec::new(),
            ended_requests: 0,
            tasks: JoinSet::new(),
            stop_request: None,
            is_disconnected: false,
            pending_states: 0,
        }
    }

    /// Executes orders until the supervisor orders a stop or is disconnected. Afterwards ends all connections and apps.
    pub async fn run(mut self, mut orders: Orders) {
        self.notices.send(Notice::Ready);
        loop {
            tokio::select! {
                // Results are handled before orders, so that an order sees the state after all finished tasks.
                biased;
                Some(outcome) = self.tasks.join_next() => {
                    self.handle_outcome(outcome);
                    // Apps may still be handing their states over when the last connection has ended.
                    if self.is_disconnected && self.pending_states == 0 {
                        break;
                    }
                }
                // After the disconnect, `recv` would return `None` again and again.
                order = orders.recv(), if !orders.is_closed() => match order {
                    Some(order) => self.handle_order(order),
                    // The supervisor is disconnected, so the worker stops without an order.
                    None => self.stop(self.settings.graceful_timeout, false, Vec::new()),
                },
            }
        }
        self.end_apps().await;
        self.notices.send(Notice::Stopped);
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Hold { app, mounts } => self.hold(&app, mounts),
            Order::Load {
                staged,
                serve,
                state,
            } => self.load(staged, serve, state),
            Order::Await { app, mounts } => {
                self.apps.entry(app.clone()).or_default();
                self.registry.await_app(bridge::intern(&app), mounts);
            }
            Order::Commit(commits) => self.commit(&commits),
            Order::Discard { app, generation } => self.discard(&app, generation),
            Order::Settle {
                app,
                generation,
                back,
            } => self.settle(&app, generation, back),
            // The setup is handled before the main loop starts.
            Order::Setup(_) => error!("A worker accepts only one setup"),
            Order::Suspend { app } => self.suspend(&app),
            Order::Remove { app } => self.remove(&app),
            Order::SetLevel { number, directives } => self.set_level(number, &directives),
            Order::Reopen => self.reopen(),
            Order::Report { number } => self.report(number),
            Order::Accept => self.serving.accept(),
            Order::Stop {
                timeout,
                shared,
                give,
            } => self.stop(timeout, shared, give),
        }
    }

    /// Applies log directives in a background task, because plugins must confirm the level and their code may block.
    fn set_level(&mut self, number: u64, directives: &str) {
        let Ok(directives) = directives.parse() else {
            error!(directives, "The supervisor sent invalid log directives");
            return;
        };
        let filter = self.filter.clone();
        self.tasks.spawn(async move {
            let unconfirmed = filter.set(directives).await;
            WorkerTaskOutcome::SetLevel {
                number,
                unconfirmed,
            }
        });
    }

    /// Reopens the log files.
    fn reopen(&self) {
        for output in self.outputs.clone() {
            // A file system may hang, so files are reopened on a blocking thread.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = output.reopen() {
                    let error = &error as &dyn std::error::Error;
                    error!(error, "Log file not reopened");
                }
            });
        }
    }
}

/// The largest number of libraries that are opened at the same time.
const MAX_CONCURRENT_OPENS: usize = 4;
