//! One load of a library, from its bytes to a started app: examine, stage, open, (drain, hand
//! over,) init.

mod error;
mod steps;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use plugin_api::{
    host::{App, HandoverError, Init, Paused, Plugin},
    manifest::Manifest,
};
use tokio::{sync::oneshot, task, time};
use tokio_util::sync::CancellationToken;

pub use self::{
    error::{LoadError, chain},
    steps::{Progress, Step, Took},
};

pub(crate) use self::{error::one_line, steps::as_ms};

use super::{
    budget::Budget,
    faults::Faults,
    generation::{Generation, Spec, thread_name},
    library,
    quarantine::PanicLimit,
};
pub use crate::folder::candidate::{Candidate, Rejected, examine};
use crate::{
    folder::store::Store,
    log::{bridge::Bridge, filter::Filter, origin::Origin},
};

/// What to start, and how.
#[derive(Debug)]
pub struct Order {
    /// The app's name.
    pub name: &'static str,
    /// What the generation is to be made of.
    pub spec: Arc<Spec>,
    /// Which load of the app this will be.
    pub generation: u64,
    /// What serves now.
    pub serving: Option<Arc<Generation>>,
    /// How long the start may take.
    pub init_timeout: Duration,
    /// How long requests may wait for a handover.
    pub handover_timeout: Duration,
    /// How many threads its runtime has.
    pub app_threads: u32,
    /// How often it may panic.
    pub panic_limit: PanicLimit,
    /// The level, which the library follows from before its start on.
    pub filter: Filter,
}

/// A generation that has started, and is to be published.
#[derive(Debug)]
pub struct Loaded {
    /// The generation.
    pub generation: Generation,
    /// How long each step took.
    pub took: Took,
    /// Keeps requests out of the generation before, whose state this one has. To be dropped after
    /// that one was closed.
    pub paused: Option<Paused>,
}

/// Loads the candidate: stages it, opens the copy, and starts the app, with the state of the
/// generation that serves, if that hands it over.
///
/// What may block runs on threads of its own.
///
/// # Errors
///
/// When one of the steps fails, or takes too long. What serves goes on serving then, with its
/// state. A start that hangs is left behind with its thread.
pub async fn load(
    candidate: Arc<Candidate>,
    order: Arc<Order>,
    store: Arc<Store>,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
) -> Result<Loaded, LoadError> {
    let mut took = Took {
        read: candidate.read,
        ..Took::default()
    };
    let opened = on_thread(&order, &progress, order.init_timeout, {
        let (candidate, order, progress) = (
            Arc::clone(&candidate),
            Arc::clone(&order),
            Arc::clone(&progress),
        );
        move || open(&candidate, &order, &store, &budget, &progress)
    });
    let (plugin, copy);
    (plugin, copy, (took.stage, took.open)) = opened.await??;

    let mut limit = order.init_timeout;
    let mut handed = None;
    if let Some(serving) = order
        .serving
        .as_ref()
        .filter(|serving| serving.app.hands_over())
    {
        let began = Instant::now();
        handed = Some(take_state(serving, &order, &progress, &mut took).await?);
        // Requests wait for the start, too.
        let left = order.handover_timeout.saturating_sub(began.elapsed());
        limit = limit.min(left.max(Duration::from_millis(1)));
    }

    progress.at(Step::Init);
    let began = Instant::now();
    let (paused, state) = handed.unzip();
    let faults = Arc::new(Faults::new(order.panic_limit));
    let started = on_thread(&order, &progress, limit, {
        let (order, faults) = (Arc::clone(&order), Arc::clone(&faults));
        move || init(plugin, &order, limit, state.as_deref(), faults)
    });
    let app = started.await??;
    took.init = began.elapsed();
    Ok(Loaded {
        generation: Generation {
            name: order.name,
            number: order.generation,
            version: candidate.manifest.version.clone(),
            max_level: max_level(&candidate.manifest),
            spec: Arc::clone(&order.spec),
            copy,
            app,
            faults,
            since: SystemTime::now(),
            cut: CancellationToken::new(),
        },
        took,
        paused,
    })
}

/// What `max_level_*` features left out of a plugin no level brings back.
fn max_level(manifest: &Manifest) -> Option<String> {
    let levels = [
        ("tracing", &manifest.tracing_max_level),
        ("log", &manifest.log_max_level),
    ];
    let lower = levels.into_iter().filter(|(_, level)| *level != "trace");
    let lower: Vec<_> = lower
        .map(|(name, level)| format!("{name}={level}"))
        .collect();
    (!lower.is_empty()).then(|| lower.join(","))
}

type Opened = (Plugin, PathBuf, (Duration, Duration));

fn open(
    candidate: &Candidate,
    order: &Order,
    store: &Store,
    budget: &Budget,
    progress: &Progress,
) -> Result<Opened, LoadError> {
    budget.take()?;
    let began = Instant::now();
    let copy = store.stage(&candidate.snapshot, order.name, order.generation)?;
    let staged = began.elapsed();
    progress.at(Step::Open);
    let plugin = library::open(&copy)?;
    order.filter.follow(move |level| plugin.set_level(level));
    Ok((plugin, copy, (staged, began.elapsed() - staged)))
}

/// Empties the app that serves, while new requests for it wait, and takes its state.
async fn take_state(
    serving: &Arc<Generation>,
    order: &Arc<Order>,
    progress: &Progress,
    took: &mut Took,
) -> Result<(Paused, Bytes), LoadError> {
    let began = Instant::now();
    let timeout = order.handover_timeout;
    // It is closed when its library was removed meanwhile.
    let paused = serving.app.pause().ok_or(LoadError::Closed)?;
    progress.at(Step::Drain);
    let app = serving.app;
    // The author's code hears of it, on a thread that it may hold up; and before it is told that it
    // goes on after all.
    let _ = time::timeout(
        timeout,
        task::spawn_blocking(move || app.drain_while_paused()),
    )
    .await;
    time::timeout(timeout, serving.app.drained())
        .await
        .map_err(|_| LoadError::Busy {
            in_flight: serving.app.in_flight(),
            timeout,
        })?;
    took.drain = began.elapsed();

    progress.at(Step::HandOver);
    let app = serving.app;
    let left = timeout.saturating_sub(took.drain);
    let state = on_thread(order, progress, left, move || app.hand_over(left)).await?;
    took.hand_over = began.elapsed() - took.drain;
    Ok((paused, state?))
}

fn init(
    plugin: Plugin,
    order: &Order,
    timeout: Duration,
    state: Option<&[u8]>,
    faults: Arc<Faults>,
) -> Result<&'static App, LoadError> {
    let origin = Origin {
        plugin: order.name,
        generation: order.generation,
    };
    let init = Init {
        name: order.name,
        mount: order.spec.mounts.first().map_or("/", |mount| mount),
        config: order.spec.config.as_deref(),
        previous_state: state,
        thread_name: &thread_name(order.name, order.generation),
        generation: order.generation,
        timeout,
        worker_threads: order.app_threads,
    };
    Ok(plugin.init(Bridge::new(origin, faults), &init)?)
}

/// Runs what may block on a thread of the generation's own: the author's code, which may also start
/// threads, and these get its name. A thread that is not done in time is left behind.
async fn on_thread<T: Late + Send + 'static>(
    order: &Order,
    progress: &Progress,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LoadError> {
    let (sender, done) = oneshot::channel();
    let run = move || {
        // Nobody waits any more when it took too long.
        if let Err(late) = sender.send(work()) {
            late.discard();
        }
    };
    thread::Builder::new()
        .name(thread_name(order.name, order.generation))
        .spawn(run)
        .map_err(LoadError::Thread)?;
    // What can be ended is ended by the plugin's runtime, so that nothing of it is left behind.
    let done = time::timeout(limit.saturating_add(GRACE), done)
        .await
        .map_err(|_| LoadError::Hangs {
            step: progress.step(),
            limit,
        })?;
    done.map_err(|_| LoadError::Thread(io::Error::other("it panicked")))
}

/// A result that comes after nobody waits for it.
trait Late {
    fn discard(self);
}

impl Late for Result<&'static App, LoadError> {
    fn discard(self) {
        if let Ok(app) = self {
            app.stop(Duration::ZERO);
        }
    }
}

impl Late for Result<Opened, LoadError> {
    fn discard(self) {}
}

impl Late for Result<Bytes, HandoverError> {
    fn discard(self) {}
}

/// How much longer than its time a start may take to notice that the time is over.
const GRACE: Duration = Duration::from_millis(500);
