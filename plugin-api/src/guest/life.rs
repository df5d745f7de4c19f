//! The life of an app, from its start to its end.

use std::{error::Error, time::Duration};

use tokio::{runtime, task, time};

use super::{
    AppFuture, Context,
    app::App,
    context::Facts,
    runtime::{Entered, Runtime},
};
use crate::{
    BoxError,
    crossing::{Guard, cache, chain},
    panics::{self, Mistake, catch, catch_message},
};

/// A started app, as the host holds it. It stays where it is for as long as a call may look at it.
pub(super) struct Guest {
    app: Box<dyn App>,
    context: Context,
    runtime: Runtime,
}

/// How an app is started.
pub(super) struct Settings {
    /// The name of its runtime's threads.
    pub(super) thread_name: String,
    /// How many threads its runtime has.
    pub(super) threads: usize,
    /// How long the start may take; zero for no limit.
    pub(super) timeout: Duration,
}

impl Guest {
    /// Makes the runtime, and in it the app, by the author's function.
    pub(super) fn start(
        build: impl FnOnce(Context) -> AppFuture,
        facts: Facts,
        settings: &Settings,
    ) -> Result<Self, BoxError> {
        let runtime = Runtime::new(&settings.thread_name, settings.threads)?;
        let context = Context::new(facts);
        let built = caught(|| {
            let building = build(context.clone());
            let limit = settings.timeout;
            runtime.handle().block_on(async {
                if limit.is_zero() {
                    return building.await;
                }
                time::timeout(limit, building).await.unwrap_or_else(|_| {
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
                // The hooks may hold the context that they are in, and may want the runtime when they are dropped.
                let _ = runtime.entered().run(|| context.clear_hooks());
                if let Some(tokio) = runtime.take() {
                    tokio.shutdown_timeout(Duration::from_secs(1));
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

    /// Whether the app has a state to hand over.
    pub(super) fn hands_over(&self) -> bool {
        self.context.handover_hook().is_some()
    }

    /// Calls the hook that gives the state for the next generation. The error is a text for the log.
    pub(super) fn hand_over(&self, limit: Duration) -> Result<Vec<u8>, String> {
        let given = caught(|| {
            let hook = self.context.handover_hook();
            let hook = hook.ok_or("it has nothing to hand over")?;
            self.context.set_handed_over(true);
            let given = async { time::timeout(limit, hook()).await };
            let given = self.runtime.handle().block_on(given);
            let given = given.map_err(|_| format!("its hook took longer than {limit:?}"))?;
            // The text of the error is made by the author's code as well.
            Ok(given.map_err(|error| chain(&*error))?)
        });
        given.map_err(|error| error.to_string())
    }

    /// Tells the app whether it is to finish what it has.
    pub(super) fn drain(&self, is_draining: bool) {
        let tell = || self.context.set_draining(is_draining);
        let _ = self.runtime.entered().run(tell);
    }

    /// Sees to it that a blocked thread does not hold up the runtime's timers and sockets.
    pub(super) fn look_after(&self) {
        let _ = catch(|| self.runtime.look_after());
    }

    /// Runs the hook for a handover that failed, if there was a handover.
    pub(super) fn go_on(&self, limit: Duration) {
        let _ = catch(|| {
            let Some(hook) = self.context.take_back_hook() else {
                return;
            };
            let taken_back = async { time::timeout(limit, hook()).await };
            match self.runtime.handle().block_on(taken_back) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(
                    error = &*error as &dyn Error,
                    "The app goes on, but its hook for a handover that failed has failed as well"
                ),
                Err(_) => tracing::error!(
                    ?limit,
                    "The app goes on, but its hook for a handover that failed did not end in time"
                ),
            }
        });
    }

    /// Tells the app that no earlier generation of it runs.
    pub(super) fn previous_ended(&self) {
        let tell = || self.context.set_second(false);
        let _ = self.runtime.entered().run(tell);
    }

    /// Runs the hooks of the end, one after the other. The rest of the end is the result's.
    pub(super) fn end(&self, limit: Duration) -> Ending {
        let deadline = time::Instant::now() + limit;
        let mut timed_out = false;
        while let Some(hook) = self.context.next_shutdown_hook() {
            let hook = async { time::timeout_at(deadline, hook).await };
            // A panic has been reported. The other hooks run nevertheless.
            let ended = catch(|| self.runtime.handle().block_on(hook));
            timed_out |= matches!(ended, Some(Err(_)));
        }
        let _ = self.runtime.entered().run(|| self.context.clear_hooks());
        Ending {
            tokio: self.runtime.take(),
            entered: self.runtime.entered().clone(),
            deadline,
            timed_out,
        }
    }
}

/// An app whose hooks of the end have run.
pub(super) struct Ending {
    /// None when the app was ended before.
    tokio: Option<runtime::Runtime>,
    entered: Entered,
    deadline: time::Instant,
    timed_out: bool,
}

impl Ending {
    /// Drops the app while its runtime still runs, because what the app drops may want it. Tasks that the drop
    /// spawned, to say goodbye or to write something down, have a moment.
    pub(super) fn drop_app(&self, guest: Box<Guest>) {
        let before = self.tasks();
        let _ = self.entered.run(move || drop(guest));
        let Some(tokio) = &self.tokio else {
            return;
        };
        let ended = async {
            while self.tasks() > before {
                time::sleep(Duration::from_millis(1)).await;
            }
            // `finish` waits for work that is on a blocking thread, but drops work that has not begun. Work
            // begins in order: when this one runs, all before it has begun.
            let _ = task::spawn_blocking(|| ()).await;
        };
        let limit = self.left().min(MOMENT);
        let _ = catch(|| tokio.block_on(async { time::timeout(limit, ended).await }));
    }

    /// Whether a hook did not end in time.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Ends the runtime, and gives how many tasks were cancelled.
    pub(super) fn finish(self) -> u64 {
        cache::clear();
        let (tasks, left) = (self.tasks(), self.left());
        if let Some(tokio) = self.tokio {
            let _ = catch(|| tokio.shutdown_timeout(left));
        }
        tasks as u64
    }

    fn tasks(&self) -> usize {
        let tasks = |tokio: &runtime::Runtime| tokio.metrics().num_alive_tasks();
        self.tokio.as_ref().map_or(0, tasks)
    }

    fn left(&self) -> Duration {
        self.deadline
            .saturating_duration_since(time::Instant::now())
    }
}

/// How long tasks that an app spawns while it is dropped have to end.
const MOMENT: Duration = Duration::from_millis(100);

/// Runs `work`. A panic is an error.
pub(super) fn caught<R>(work: impl FnOnce() -> Result<R, BoxError>) -> Result<R, BoxError> {
    catch_message(work).unwrap_or_else(|panic| Err(format!("panicked: {panic}").into()))
}

/// The message of an app that did not start. For a known mistake of the author's it names the mend.
pub(super) fn message(error: &(dyn Error + Send + Sync)) -> String {
    let place = panics::take_authors_place();
    let error = error.to_string();
    match Mistake::of(&error) {
        Some(mistake) => mistake.advice(place.as_deref()),
        None => error,
    }
}
