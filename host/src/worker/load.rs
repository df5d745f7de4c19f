//! Loads an app from its private copy: opens the library, takes the state of the previous generation if that generation
//! hands its state over, and starts the app.

mod error;
mod handover;
mod loader;
mod steps;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use plugin_api::host::{App, Init, Paused, Plugin};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::handover::PauseGuard;
pub(super) use self::handover::take_state;
pub use self::{error::LoadError, steps::LoadProgress};

use tracing::debug;

use super::{
    budget::{Budget, LoadPermit},
    crash, library, process_guard,
    settings::LoadSettings,
};
use crate::{
    apps::{
        faults::Faults,
        generation::{Generation, thread_name},
    },
    log::{bridge::Bridge, filter::Filter, origin::Origin},
    orders::{StagedGeneration, Step, StepTimings},
    scoreboard::{self, Label, WorkKind},
};

/// The input of a load.
#[derive(Debug)]
pub struct LoadOrder {
    /// The app's name.
    pub name: &'static str,
    /// The generation to start.
    pub staged: StagedGeneration,
    /// The generation that serves now. `None` if no generation of the app serves.
    pub previous: Option<Arc<Generation>>,
    /// The state that the app handed over in another worker. `None` without such a state.
    pub state: Option<Bytes>,
    /// Time limits of the steps, and settings of the app.
    pub settings: LoadSettings,
    /// The log filter. The library is informed of the log level before the app starts, and after each change.
    pub filter: Filter,
}

/// A generation that has started and waits for its commit.
#[derive(Debug)]
pub struct Loaded {
    /// The generation.
    pub generation: Generation,
    /// How long each step took.
    pub timings: StepTimings,
    /// Keeps requests out of the previous generation, whose state this generation has. Must be dropped after the
    /// previous generation was closed. `None` if no state was handed over in this worker.
    pub paused: Option<Paused>,
    /// Counts the load as running in the budget.
    pub permit: LoadPermit,
}

/// Opens the private copy of a library and starts the app. If the serving generation hands its state over, the app
/// starts with that state. `open_permits` limits how many libraries are opened at once.
///
/// Code of the library runs on loader threads, because the code may block.
///
/// # Errors
///
/// When a step fails or takes too long. The serving generation then continues with its state. A start that hangs is
/// abandoned together with its thread.
pub async fn load(
    order: LoadOrder,
    budget: Arc<Budget>,
    open_permits: Arc<Semaphore>,
    progress: LoadProgress,
) -> Result<Loaded, LoadError> {
    // The label must exist before the library is opened, so that a crash in an initializer is attributed to this
    // generation.
    let label = scoreboard::add_label(order.name, order.staged.generation, &order.staged.copy);
    let (order, progress) = (Arc::new(order), Arc::new(progress));
    let mut timings = StepTimings::default();
    // The result is not checked, because acquiring fails only if the semaphore is closed, and this semaphore is never
    // closed.
    let open_permit = open_permits.acquire_owned().await;
    let load_permit = budget.acquire()?;
    progress.begin_step(Step::Open);
    let began = Instant::now();
    let limit = order.settings.init_timeout;
    let opened = loader::run(order.thread_name(), &progress, limit, {
        let order = Arc::clone(&order);
        move || open(&order, label)
    });
    // The outer error is that of the loader thread, and the inner error is that of the library.
    let plugin = opened.await??;
    timings.open = began.elapsed();
    drop(open_permit);

    let previous = order.previous.as_ref();
    let handed_over = match previous.filter(|previous| previous.app.hands_over()) {
        Some(previous) => Some(
            take_state(
                previous,
                order.thread_name(),
                order.settings.handover_timeout,
                &progress,
                &mut timings,
            )
            .await?,
        ),
        None => None,
    };
    let (paused, state) = handed_over.unzip();
    let state = state.or_else(|| order.state.clone());
    match start(plugin, &order, label, state, &progress, &mut timings).await {
        Ok((app, faults)) => Ok(Loaded {
            generation: order.generation(label, app, faults),
            timings,
            paused: paused.map(PauseGuard::into_paused),
            permit: load_permit,
        }),
        Err(error) => Err(error),
    }
}

/// Starts the app within `--init-timeout`. An app that starts with a state must also start within the rest of the
/// handover timeout.
async fn start(
    plugin: Plugin,
    order: &Arc<LoadOrder>,
    label: Label,
    state: Option<Bytes>,
    progress: &Arc<LoadProgress>,
    timings: &mut StepTimings,
) -> Result<(&'static App, Arc<Faults>), LoadError> {
    let settings = &order.settings;
    let mut limit = settings.init_timeout;
    if state.is_some() {
        // The handover timeout limits how long requests wait, and they also wait during the start.
        let remaining = settings
            .handover_timeout
            .saturating_sub(timings.drain + timings.hand_over);
        limit = limit.min(remaining.max(Duration::from_millis(1)));
    }
    progress.begin_step(Step::Init);
    let began = Instant::now();
    let faults = Arc::new(Faults::new(settings.panic_limit));
    let started = loader::run(order.thread_name(), progress, limit, {
        let (order, faults) = (Arc::clone(order), Arc::clone(&faults));
        move || {
            // While this value exists, the scoreboard attributes a crash or a hang of the thread to the app.
            let _working = scoreboard::enter(label, WorkKind::Init);
            let app = init(plugin, &order, limit, state.as_deref(), faults);
            reinstall_handlers(&order);
            app
        }
    });
    // The outer error is that of the loader thread, and the inner error is that of the start.
    let app = started.await??;
    timings.init = began.elapsed();
    Ok((app, faults))
}

impl LoadOrder {
    /// Returns the name for threads that the author's code starts.
    fn thread_name(&self) -> String {
        thread_name(self.name, self.staged.generation)
    }

    /// Returns the generation that has started.
    fn generation(&self, label: Label, app: &'static App, faults: Arc<Faults>) -> Generation {
        Generation {
            name: self.name,
            number: self.staged.generation,
            version: self.staged.version.clone(),
            spec: Arc::clone(&self.staged.spec),
            staged_path: self.staged.copy.clone(),
            label,
            app,
            faults,
            started_at: SystemTime::now(),
            abort: CancellationToken::new(),
        }
    }
}

/// Opens the library, and makes the log level of the library follow the log filter. Runs on a loader thread.
fn open(order: &LoadOrder, label: Label) -> Result<Plugin, LoadError> {
    let opened = {
        let _guard = process_guard::guard_start(order.name);
        let _working = scoreboard::enter(label, WorkKind::Open);
        library::open(&order.staged.copy)
    };
    // Before the error is returned, because initializers may have run even if the library cannot be used.
    reinstall_handlers(order);
    let plugin = opened?;
    let name = format!("{}#{}", order.name, order.staged.generation);
    let filter = &order.filter;
    filter.follow(name, move |level| plugin.set_level(level));
    Ok(plugin)
}

/// Installs the host's handlers of fatal signals again, after code of a library has run. Other process-wide settings
/// are restored by [`process_guard`].
fn reinstall_handlers(order: &LoadOrder) {
    let (plugin, generation) = (order.name, order.staged.generation);
    for signal in crash::reinstall() {
        debug!(
            plugin,
            generation, signal, "The library handles this signal, after the host has recorded it"
        );
    }
}

/// Runs the author's start function. Runs on a loader thread.
fn init(
    plugin: Plugin,
    order: &LoadOrder,
    timeout: Duration,
    state: Option<&[u8]>,
    faults: Arc<Faults>,
) -> Result<&'static App, LoadError> {
    let (spec, generation) = (&order.staged.spec, order.staged.generation);
    let origin = Origin {
        plugin: order.name,
        generation,
    };
    let init = Init {
        name: order.name,
        mount: spec.mounts.first().map_or("/", |mount| mount),
        config: spec.config.as_deref(),
        previous_state: state,
        thread_name: &order.thread_name(),
        generation,
        timeout,
        worker_threads: order.settings.app_threads,
    };
    let _guard = process_guard::guard_start(order.name);
    Ok(plugin.init(Bridge::new(origin, faults), &init)?)
}
