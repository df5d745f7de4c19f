//! Takes the state of the serving generation for the one that replaces it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plugin_api::host::{App, Paused};
use tokio::{task, time};

use super::{LoadError, LoadProgress, loader};
use crate::{
    orders::{Step, StepTimings},
    scoreboard::{self, WorkKind},
    worker::generation::Generation,
};

/// Pauses the serving app, drains it, and takes its state. New requests wait meanwhile. If a step fails or the
/// returned guard is dropped, the app goes on.
pub(in crate::worker) async fn take_state(
    before: &Arc<Generation>,
    thread: String,
    timeout: Duration,
    progress: &Arc<LoadProgress>,
    timings: &mut StepTimings,
) -> Result<(PauseGuard, Bytes), LoadError> {
    let began = Instant::now();
    // The app cannot be paused if it was closed, because its library was removed meanwhile.
    let paused = before.app.pause().ok_or(LoadError::Closed)?;
    let paused = PauseGuard {
        paused: Some(paused),
        app: before.app,
        timeout,
    };
    progress.at(Step::Drain);
    // The author's code is notified on a blocking thread. The notification is awaited, so that it cannot
    // come after a later one that the app goes on.
    let told = before.spawn_in_app(WorkKind::Drain, App::drain_while_paused);
    let _ = time::timeout(timeout, told).await;
    let left = timeout.saturating_sub(began.elapsed());
    time::timeout(left, before.app.drained())
        .await
        .map_err(|_| LoadError::Busy {
            in_flight: before.app.in_flight(),
            timeout,
        })?;
    timings.drain = began.elapsed();

    progress.at(Step::HandOver);
    let (app, label) = (before.app, before.label);
    let left = timeout.saturating_sub(timings.drain);
    let state = loader::run(thread, progress, left, move || {
        let _working = scoreboard::enter(label, WorkKind::HandOver);
        app.hand_over(left)
    })
    .await?;
    timings.hand_over = began.elapsed() - timings.drain;
    Ok((paused, state?))
}

/// Ends a pause when dropped, on a blocking thread: the author's code takes back what it released for the
/// handover, and then requests are let in again.
#[derive(Debug)]
pub(in crate::worker) struct PauseGuard {
    paused: Option<Paused>,
    app: &'static App,
    /// How long the app may take to take back what it released.
    timeout: Duration,
}

impl PauseGuard {
    #[expect(clippy::expect_used, reason = "the pause is taken once")]
    pub(in crate::worker) fn take(mut self) -> Paused {
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
                app.take_back(timeout);
                drop(paused);
            });
        }
    }
}
