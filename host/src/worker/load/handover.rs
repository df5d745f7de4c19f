//! Takes the state of the serving generation for the generation that replaces it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plugin_api::host::{App, Paused};
use tokio::{task, time};

use super::{LoadError, LoadProgress, loader};
use crate::{
    apps::generation::Generation,
    orders::{Step, StepTimings},
    scoreboard::{self, WorkKind},
};

/// Pauses the serving generation `previous`, waits for its requests in flight, and returns its state. New requests wait
/// until the returned guard is dropped.
///
/// Fails if the generation was closed, if a step takes longer than `timeout`, or if the app does not hand its state
/// over. If a step fails or the returned guard is dropped, the generation serves again.
pub(in crate::worker) async fn take_state(
    previous: &Arc<Generation>,
    thread: String,
    timeout: Duration,
    progress: &Arc<LoadProgress>,
    timings: &mut StepTimings,
) -> Result<(PauseGuard, Bytes), LoadError> {
    let began = Instant::now();
    // An app is closed, and cannot be paused, if its library was removed during the load.
    let paused = previous.app.pause().ok_or(LoadError::Closed)?;
    let paused = PauseGuard {
        paused: Some(paused),
        app: previous.app,
        timeout,
    };
    progress.begin_step(Step::Drain);
    // The author's code is notified on a blocking thread, because the code may block. The notification is awaited, so
    // that it cannot arrive after the notification that the app serves again.
    let notified = previous.spawn_in_app(WorkKind::Drain, App::drain_while_paused);
    let _ = time::timeout(timeout, notified).await;
    let remaining = timeout.saturating_sub(began.elapsed());
    time::timeout(remaining, previous.app.drained())
        .await
        .map_err(|_| LoadError::Busy {
            in_flight: previous.app.in_flight(),
            timeout,
        })?;
    timings.drain = began.elapsed();

    progress.begin_step(Step::HandOver);
    let (app, label) = (previous.app, previous.label);
    let remaining = timeout.saturating_sub(timings.drain);
    let state = loader::run(thread, progress, remaining, move || {
        let _working = scoreboard::enter(label, WorkKind::HandOver);
        app.hand_over(remaining)
    })
    .await?;
    timings.hand_over = began.elapsed() - timings.drain;
    Ok((paused, state?))
}

/// Ends a pause when the guard is dropped: the author's code acquires the resources again that it released for the
/// handover, and afterwards requests enter the app again. This happens on a blocking thread, because the author's code
/// may block.
#[derive(Debug)]
pub(in crate::worker) struct PauseGuard {
    /// The pause. `None` after [`into_paused`](Self::into_paused).
    paused: Option<Paused>,
    app: &'static App,
    /// How long the app may take to acquire its resources again.
    timeout: Duration,
}

impl PauseGuard {
    /// Returns the pause. The guard does not end the pause any more.
    #[expect(clippy::expect_used, reason = "the pause is taken once")]
    pub(in crate::worker) fn into_paused(mut self) -> Paused {
        self.paused
            .take()
            .expect("the pause is taken by whoever owns it")
    }
}

impl Drop for PauseGuard {
    fn drop(&mut self) {
        if let Some(paused) = self.paused.take() {
            let (app, timeout) = (self.app, self.timeout);
            task::spawn_blocking(move || {
                // In this order, because requests need the resources.
                app.cancel_handover(timeout);
                drop(paused);
            });
        }
    }
}
