//! A worker that is replaced gives the state of its apps to the one that takes its place.

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

/// What came of asking an app for its state.
#[derive(Debug)]
pub(super) struct GivenState {
    app: String,
    state: Result<Vec<u8>, String>,
    /// Keeps requests out of the app, whose state another worker has.
    paused: Option<Paused>,
}

impl Worker {
    /// Asks each of these apps for its state. Requests that are in it are waited for, and new ones wait.
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
            // Nothing may change the state here any more.
            self.suspend(&app);
        }
        self.notices.send(Notice::State { app, state });
        // The author's code may hear that the app goes on, on a thread that it may hold up.
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
