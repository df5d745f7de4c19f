//! Gives the state of apps to the worker that replaces this one.

use std::{sync::Arc, time::Duration};

use plugin_api::host::Paused;
use tokio::task;

use super::{Worker, WorkerTaskOutcome};
use crate::{
    error_chain::chain,
    orders::{Notice, StepTimings},
    worker::{
        generation::{Generation, thread_name},
        load::{self, LoadProgress},
    },
};

/// The result of asking an app for its state.
#[derive(Debug)]
pub(super) struct GivenState {
    app: String,
    state: Result<Vec<u8>, String>,
    /// Keeps requests out of the app, because another worker has its state now.
    paused: Option<Paused>,
}

impl Worker {
    /// Asks each of these apps for its state, after its requests in flight have ended. New requests wait.
    pub(super) fn give(&mut self, apps: Vec<String>) {
        for app in apps {
            let serving = self.apps.get(&app).and_then(|app| app.serving.clone());
            let timeout = self.settings.handover_timeout;
            self.tasks.spawn(async move {
                let given = match serving {
                    Some(serving) => take(serving, timeout).await,
                    None => Err("the app does not serve".to_owned()),
                };
                let (state, paused) = match given {
                    Ok((state, paused)) => (Ok(state), Some(paused)),
                    Err(error) => (Err(error), None),
                };
                WorkerTaskOutcome::Given(GivenState { app, state, paused })
            });
        }
    }

    pub(super) fn given(&mut self, given: GivenState) {
        let GivenState { app, state, paused } = given;
        if state.is_ok() {
            // The state must not change here any more, so the app serves no more requests.
            self.suspend(&app);
        }
        self.notices.send(Notice::State { app, state });
        // Dropping a pause notifies the author's code, which may block.
        task::spawn_blocking(move || drop(paused));
    }
}

async fn take(generation: Arc<Generation>, timeout: Duration) -> Result<(Vec<u8>, Paused), String> {
    let progress = Arc::new(LoadProgress::new(|_| {}));
    let thread = thread_name(generation.name, generation.number);
    let mut timings = StepTimings::default();
    let taken = load::take_state(&generation, thread, timeout, &progress, &mut timings);
    let (paused, state) = taken.await.map_err(|error| chain(&error))?;
    Ok((state.to_vec(), paused.take()))
}
