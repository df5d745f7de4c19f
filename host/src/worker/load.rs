//! Loads an app from its private copy: opens the library, takes the state of the generation before if that
//! hands it over, and starts the app.

mod error;
mod handover;
mod loader;
mod steps;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use plugin_api::{
    host::{App, Init, Paused, Plugin},
    manifest::Manifest,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::handover::PauseGuard;
pub(super) use self::handover::take_state;
pub use self::{error::LoadError, steps::LoadProgress};

use tracing::debug;

use super::{
    budget::{Budget, Permit},
    crash,
    faults::Faults,
    generation::{Generation, thread_name},
    library, process_guard,
    settings::LoadSettings,
};
use crate::{
    log::{bridge::Bridge, filter::Filter, origin::Origin},
    orders::{StagedGeneration, Step, StepTimings},
    scoreboard::{self, Label, WorkKind},
};

/// A load to carry out.
#[derive(Debug)]
pub struct LoadOrder {
    /// The app's name.
    pub name: &'static str,
    /// The generation to start.
    pub staged: StagedGeneration,
    /// The generation that serves now.
    pub before: Option<Arc<Generation>>,
    /// The state that the app handed over in another worker.
    pub state: Option<Bytes>,
    /// Time limits of the steps, and settings of the app.
    pub settings: LoadSettings,
    /// The log filter, which the library follows before the app starts.
    pub filter: Filter,
}

/// A generation that has started and waits for its commit.
#[derive(Debug)]
pub struct Loaded {
    /// The generation.
    pub generation: Generation,
    /// How long each step took.
    pub timings: StepTimings,
    /// Keeps requests out of the generation before, whose state this one has. Must be dropped after the
    /// generation before was closed.
    pub paused: Option<Paused>,
    /// Counts the load as under way in the budget.
    pub permit: Permit,
}

/// Opens the private copy of a library and starts the app. If the serving generation hands its state over, the
/// app starts with that state.
///
/// Code of the library runs on loader threads, because it may block.
///
/// # Errors
///
/// When a step fails or takes too long. The serving generation then goes on with its state. A start that hangs
/// is abandoned together with its thread.
pub async fn load(
    order: LoadOrder,
    budget: Arc<Budget>,
    opening: Arc<Semaphore>,
    progress: LoadProgress,
) -> Result<Loaded, LoadError> {
    let label = scoreboard::label(order.name, order.staged.generation, &order.staged.copy);
    let (order, progress) = (Arc::new(order), Arc::new(progress));
    let mut timings = StepTimings::default();
    // The permit limits how many libraries are opened at once. The semaphore is never closed.
    let place = opening.acquire_owned().await;
    let permit = budget.take()?;
    progress.at(Step::Open);
    let began = Instant::now();
    let limit = order.settings.init_timeout;
    let opened = loader::run(order.thread_name(), &progress, limit, {
        let order = Arc::clone(&order);
        move || open(&order, label)
    });
    let plugin = opened.await??;
    timings.open = began.elapsed();
    drop(place);

    let before = order.before.as_ref();
    let handed = match before.filter(|before| before.app.hands_over()) {
        Some(before) => Some(
            take_state(
                before,
                order.thread_name(),
                order.settings.handover_timeout,
                &progress,
                &mut timings,
            )
            .await?,
        ),
        None => None,
    };
    let (paused, state) = handed.unzip();
    let state = state.or_else(|| order.state.clone());
    match start(plugin, &order, label, state, &progress, &mut timings).await {
        Ok((app, faults)) => Ok(Loaded {
            generation: order.generation(label, app, faults),
            timings,
            paused: paused.map(PauseGuard::take),
            permit,
        }),
        Err(error) => Err(error),
    }
}

/// Starts the app within `--init-timeout`, and within the rest of the handover timeout if it starts with state.
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
        // Requests wait during the start as well, so the handover timeout covers it.
        let left = settings
            .handover_timeout
            .saturating_sub(timings.drain + timings.hand_over);
        limit = limit.min(left.max(Duration::from_millis(1)));
    }
    progress.at(Step::Init);
    let began = Instant::now();
    let faults = Arc::new(Faults::new(settings.panic_limit));
    let staged = loader::run(order.thread_name(), progress, limit, {
        let (order, faults) = (Arc::clone(order), Arc::clone(&faults));
        move || {
            let _working = scoreboard::enter(label, WorkKind::Init);
            let app = init(plugin, &order, limit, state.as_deref(), faults);
            reinstall_handlers(&order);
            app
        }
    });
    let app = staged.await??;
    timings.init = began.elapsed();
    Ok((app, faults))
}

impl LoadOrder {
    fn thread_name(&self) -> String {
        thread_name(self.name, self.staged.generation)
    }

    fn generation(&self, label: Label, app: &'static App, faults: Arc<Faults>) -> Generation {
        Generation {
            name: self.name,
            number: self.staged.generation,
            version: self.staged.version.clone(),
            spec: Arc::clone(&self.staged.spec),
            copy: self.staged.copy.clone(),
            label,
            app,
            faults,
            since: SystemTime::now(),
            abort: CancellationToken::new(),
        }
    }
}

/// Returns the most verbose log levels that are compiled into a plugin, if `max_level_*` features removed more
/// verbose ones. No log level can bring those back.
#[must_use]
pub fn max_level(manifest: &Manifest) -> Option<String> {
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

fn open(order: &LoadOrder, label: Label) -> Result<Plugin, LoadError> {
    let opened = {
        let _watch = process_guard::watch(order.name);
        let _working = scoreboard::enter(label, WorkKind::Open);
        library::open(&order.staged.copy)
    };
    reinstall_handlers(order);
    let plugin = opened?;
    let name = format!("{}#{}", order.name, order.staged.generation);
    let filter = &order.filter;
    filter.follow(name, move |level| plugin.set_level(level));
    Ok(plugin)
}

/// Puts the host's handlers of fatal signals in front again, after code of a library has run. Other process-wide
/// changes are restored by [`process_guard`].
fn reinstall_handlers(order: &LoadOrder) {
    let (plugin, generation) = (order.name, order.staged.generation);
    for signal in crash::reinstall() {
        debug!(
            plugin,
            generation,
            signal,
            "The library handles the signal, after the host has written it down"
        );
    }
}

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
    let _watch = process_guard::watch(order.name);
    Ok(plugin.init(Bridge::new(origin, faults), &init)?)
}
