//! The main loop of a worker: receives orders and sends notices.
//!
//! One task owns all state of the apps. It handles orders of the supervisor and the results of background tasks.
//! Everything that takes time runs in a background task, so a slow start does not delay other apps. The worker
//! makes no decisions: the supervisor says what is loaded, committed and ended.

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
    generation::Generation,
    link::{Notices, Orders},
    load::Loaded,
    registry::Registry,
    serving::Serving,
    settings::LoadSettings,
};
use crate::{
    log::{bridge, filter::Filter, output::Output},
    orders::{Notice, Order},
};

/// The state of a worker. [`Worker::run`] is its main loop.
#[derive(Debug)]
pub struct Worker {
    settings: LoadSettings,
    registry: Arc<Registry>,
    filter: Filter,
    outputs: Vec<Output>,
    notices: Notices,
    serving: Serving,
    budget: Arc<Budget>,
    /// Limits how many libraries are opened at once, because each may take memory for its whole size.
    opening: Arc<Semaphore>,
    apps: BTreeMap<String, WorkerApp>,
    /// Generations that drain.
    retiring: Vec<RetiringGeneration>,
    /// The app and the private copy of each generation that has ended.
    ended: Vec<(String, PathBuf)>,
    /// The number of requests that ended generations had.
    ended_requests: u64,
    tasks: JoinSet<WorkerTaskOutcome>,
    /// Set when the worker was told to stop.
    stopping: Option<StopRequest>,
    /// Whether the last connection has ended after a stop.
    is_disconnected: bool,
    /// The number of apps that are being asked for their state.
    giving: usize,
}

/// The generations of an app in this worker.
#[derive(Debug, Default)]
struct WorkerApp {
    serving: Option<Arc<Generation>>,
    /// The generation before, kept for a probation.
    kept: Option<Arc<Generation>>,
    loading: BTreeMap<u64, RunningLoad>,
    loaded: BTreeMap<u64, Loaded>,
}

/// A load under way.
#[derive(Debug)]
struct RunningLoad {
    task: AbortHandle,
    /// Whether the generation serves as soon as it has started, without a commit.
    serve: bool,
}

#[derive(Debug)]
struct RetiringGeneration {
    generation: Arc<Generation>,
    since: Instant,
}

/// The parts that a worker is built from.
#[derive(Debug)]
pub struct WorkerParts {
    /// How apps are loaded.
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

    /// Carries out orders until the worker is told to stop or the supervisor is gone. Then ends all connections
    /// and apps.
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
                    // The supervisor is gone, so the worker stops by itself.
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
            Order::Setup(_) => error!("A worker is set up once"),
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

    fn set_level(&mut self, number: u64, directives: &str) {
        let Ok(directives) = directives.parse() else {
            error!(directives, "The supervisor sent directives that are none");
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

    fn reopen(&self) {
        for output in self.outputs.clone() {
            // A file system may hang, so files are reopened on a blocking thread.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = output.reopen() {
                    let error = &error as &dyn std::error::Error;
                    error!(error, "Log file not opened anew");
                }
            });
        }
    }
}

/// The number of libraries that are opened at once.
const OPEN_AT_ONCE: usize = 4;
