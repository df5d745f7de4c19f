//! The life of an app on the plugin side: start, handover, draining, and shutdown. The functions here run the author's
//! code in the plugin's runtime, and catch its panics.

use std::{error::Error, time::Duration};

use tokio::{runtime, task, time};

use super::{
    AppFuture, Context,
    app::App,
    context::ContextData,
    runtime::{Runtime, RuntimeScope},
};
use crate::{
    BoxError,
    crossing::{PanicBoundary, cache, error_chain},
    panics::{self, Mistake, catch, catch_message},
};

/// A started app. The host holds a pointer to this struct, and passes the pointer to the functions of
/// [`Plugin`](crate::abi::Plugin). The struct therefore stays at its address until the app is stopped.
pub(super) struct StartedApp {
    app: Box<dyn App>,
    context: Context,
    runtime: Runtime,
}

/// The settings of the plugin's runtime, and the time limit for the start.
pub(super) struct StartSettings {
    /// The name of the runtime's threads.
    pub(super) thread_name: String,
    /// The number of the runtime's threads.
    pub(super) worker_threads: usize,
    /// The time limit for the author's function. Zero means no limit.
    pub(super) timeout: Duration,
}

impl StartedApp {
    /// Creates the runtime, runs the author's function in the runtime, and returns the app that the function creates.
    ///
    /// # Errors
    ///
    /// Returns an error if the runtime cannot start, or if the author's function fails, panics or exceeds the time
    /// limit. The runtime is then shut down again.
    pub(super) fn start(
        build: impl FnOnce(Context) -> AppFuture,
        data: ContextData,
        settings: &StartSettings,
    ) -> Result<Self, BoxError> {
        let runtime = Runtime::new(&settings.thread_name, settings.worker_threads)?;
        let context = Context::new(data);
        let built = catch_as_error(|| {
            let app = build(context.clone());
            let limit = settings.timeout;
            runtime.handle().block_on(async {
                if limit.is_zero() {
                    return app.await;
                }
                time::timeout(limit, app).await.unwrap_or_else(|_| {
                    let limit = limit.as_secs_f64();
                    Err(format!("it did not start within {limit} s, see --init-timeout").into())
                })
            })
        });
        match built {
            Ok(app) => Ok(Self {
                app,
                context,
                runtime,
            }),
            Err(error) => {
                // The hooks are dropped explicitly, because a hook may hold a clone of the context and would then be
                // leaked. The hooks are dropped before the runtime, because their destructors may use the runtime.
                let _ = runtime.scope().run(|| context.clear_hooks());
                if let Some(tokio) = runtime.take() {
                    // A timeout, because the drop of a tokio runtime waits without a limit for blocking tasks.
                    tokio.shutdown_timeout(FAILED_START_TIMEOUT);
                }
                Err(error)
            }
        }
    }

    pub(super) fn app(&self) -> &dyn App {
        &*self.app
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Returns whether the app has set a handover hook.
    pub(super) fn hands_over(&self) -> bool {
        self.context.handover_hook().is_some()
    }

    /// Calls the handover hook, and returns the state for the next generation.
    ///
    /// # Errors
    ///
    /// Returns a text for the log if the app has no handover hook, or if the hook fails, panics or takes longer than
    /// `limit`.
    pub(super) fn hand_over(&self, limit: Duration) -> Result<Vec<u8>, String> {
        let state = catch_as_error(|| {
            let hook = self.context.handover_hook();
            let hook = hook.ok_or("it has nothing to hand over")?;
            // Set before the hook runs, because a hook that fails may already have released resources. The hook for a
            // failed handover must then acquire them again.
            self.context.set_handover_started(true);
            // `hook()` and `timeout` are within the future, because both need the runtime when they are called.
            let result = async { time::timeout(limit, hook()).await };
            let result = self.runtime.handle().block_on(result);
            let result = result.map_err(|_| format!("its hook took longer than {limit:?}"))?;
            // The error becomes text within `catch_as_error`, because its `Display` is the author's code and may panic.
            Ok(result.map_err(|error| error_chain(&*error))?)
        });
        state.map_err(|error| error.to_string())
    }

    /// Starts the draining of the app, or ends the draining if `is_draining` is false. The start makes the futures of
    /// [`Context::draining`] ready.
    pub(super) fn set_draining(&self, is_draining: bool) {
        // `set_draining` wakes tasks, and waking may run the author's code. The scope of the runtime lets that code use tokio, and
        // catches its panics.
        let set = || self.context.set_draining(is_draining);
        let _ = self.runtime.scope().run(set);
    }

    /// Wakes an idle thread of the runtime if a blocked thread keeps the runtime from serving its timers and sockets.
    pub(super) fn wake_if_stalled(&self) {
        let _ = catch(|| self.runtime.wake_if_stalled());
    }

    /// Runs the hook of [`Context::on_handover_failed`], if [`hand_over`](Self::hand_over) has called the handover hook
    /// before. Logs an error if the hook fails or takes longer than `limit`.
    pub(super) fn run_handover_failed_hook(&self, limit: Duration) {
        let _ = catch(|| {
            let Some(hook) = self.context.take_handover_failed_hook() else {
                return;
            };
            let result = async { time::timeout(limit, hook()).await };
            match self.runtime.handle().block_on(result) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(
                    error = &*error as &dyn Error,
                    "The app continues to serve, but its on_handover_failed hook has failed too"
                ),
                Err(_) => tracing::error!(
                    ?limit,
                    "The app continues to serve, but its on_handover_failed hook did not end in time"
                ),
            }
        });
    }

    /// Makes the futures of [`Context::previous_ended`] ready. Called when no earlier generation of the app runs any
    /// more.
    pub(super) fn set_previous_ended(&self) {
        // `set_has_predecessor` wakes tasks, and waking may run the author's code. The scope of the runtime lets that code use tokio, and
        // catches its panics.
        let set = || self.context.set_has_predecessor(false);
        let _ = self.runtime.scope().run(set);
    }

    /// Runs the shutdown hooks one after the other. Returns a [`Shutdown`], which does the rest of the shutdown. The
    /// hooks and the rest together have the time `limit`.
    pub(super) fn shut_down(&self, limit: Duration) -> Shutdown {
        let deadline = time::Instant::now() + limit;
        let mut timed_out = false;
        // The hooks are taken one by one, because a hook may add another hook.
        while let Some(hook) = self.context.next_shutdown_hook() {
            let hook = async { time::timeout_at(deadline, hook).await };
            // A panic is already reported and does not keep the other hooks from running.
            let result = catch(|| self.runtime.handle().block_on(hook));
            timed_out |= matches!(result, Some(Err(_)));
        }
        let _ = self.runtime.scope().run(|| self.context.clear_hooks());
        Shutdown {
            tokio: self.runtime.take(),
            scope: self.runtime.scope().clone(),
            deadline,
            timed_out,
        }
    }
}

/// The shutdown of an app whose shutdown hooks have run. Owns the tokio runtime, because the runtime must outlive the
/// app.
pub(super) struct Shutdown {
    /// `None` if an earlier shutdown of the same app has taken the runtime.
    tokio: Option<runtime::Runtime>,
    /// Runs the author's code inside the context of the runtime, and catches its panics.
    scope: RuntimeScope,
    /// The end of the time limit for the whole shutdown.
    deadline: time::Instant,
    /// Whether a shutdown hook did not end in time.
    timed_out: bool,
}

impl Shutdown {
    /// Drops the app while its runtime still runs, because destructors of the app may use the runtime. Waits up to
    /// [`DROP_TASKS_TIMEOUT`] for the tasks that these destructors spawn, for example to close a connection or to save
    /// data.
    pub(super) fn drop_app(&self, app: Box<StartedApp>) {
        let task_count_before = self.task_count();
        let _ = self.scope.run(move || drop(app));
        let Some(tokio) = &self.tokio else {
            return;
        };
        let spawned_tasks_ended = async {
            // tokio has no way to wait until the number of tasks falls to a given value, so this loop polls the number.
            while self.task_count() > task_count_before {
                time::sleep(Duration::from_millis(1)).await;
            }
            // `finish` waits for blocking tasks that have begun, but drops blocking tasks that have not begun. Blocking
            // tasks begin in the order in which they were spawned, so all earlier tasks have begun when this empty task
            // runs.
            let _ = task::spawn_blocking(|| ()).await;
        };
        let limit = self.remaining_time().min(DROP_TASKS_TIMEOUT);
        // A timeout is no error here, because `finish` cancels the remaining tasks.
        let _ = catch(|| tokio.block_on(async { time::timeout(limit, spawned_tasks_ended).await }));
    }

    /// Returns whether a shutdown hook did not end in time.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Shuts the runtime down. Returns the number of cancelled tasks.
    pub(super) fn finish(self) -> u64 {
        // The library is never unloaded, so nothing else would free the caches.
        cache::clear();
        let (task_count, limit) = (self.task_count(), self.remaining_time());
        if let Some(tokio) = self.tokio {
            let _ = catch(|| tokio.shutdown_timeout(limit));
        }
        task_count as u64
    }

    /// Returns the number of tasks of the runtime that have not ended.
    fn task_count(&self) -> usize {
        let count = |tokio: &runtime::Runtime| tokio.metrics().num_alive_tasks();
        self.tokio.as_ref().map_or(0, count)
    }

    fn remaining_time(&self) -> Duration {
        self.deadline
            .saturating_duration_since(time::Instant::now())
    }
}

/// The time limit for the tasks that an app spawns while it is dropped.
const DROP_TASKS_TIMEOUT: Duration = Duration::from_millis(100);

/// The time limit for the shutdown of the runtime after a failed start.
const FAILED_START_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs `work`. Returns a panic of `work` as an error.
pub(super) fn catch_as_error<R>(work: impl FnOnce() -> Result<R, BoxError>) -> Result<R, BoxError> {
    catch_message(work).unwrap_or_else(|panic| Err(format!("panicked: {panic}").into()))
}

/// Returns the text for the log about an app that did not start. For a known mistake of the author, the text says how
/// to fix the mistake.
pub(super) fn start_error_text(error: &(dyn Error + Send + Sync)) -> String {
    let location = panics::take_author_location();
    let error = error.to_string();
    match Mistake::of(&error) {
        Some(mistake) => mistake.advice(location.as_deref()),
        None => error,
    }
}
