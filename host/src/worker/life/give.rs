//! Takes the state of apps and sends the state to the supervisor, for the worker that replaces this worker.

use std::{sync::Arc, time::Duration};

use plugin_api::host::Paused;
use tokio::task;

use super::{Worker, WorkerTaskOutcome};
use crate::{
    apps::generation::{Generation, thread_name},
    error_chain::chain,
    orders::{Notice, StepTimings},
    worker::load::{self, LoadProgress},
};

/// The result of an attempt to take the state of an app.
#[derive(Debug)]
pub(super) struct TakenState {
    app: String,
    /// The state, or the reason why the app did not hand its state over.
    state: Result<Vec<u8>, String>,
    /// Keeps requests out of the app, because another worker gets the state. `None` if no state was taken.
    paused: Option<Paused>,
}

impl Worker {
    /// Starts a task for each of these apps, which takes the state of the app after the requests in flight have ended.
    /// New requests wait.
    pub(super) fn take_states(&mut self, apps: Vec<String>) {
        for app in apps {
            let serving = self.apps.get(&app).and_then(|app| app.serving.clone());
            let timeout = self.settings.handover_timeout;
            self.tasks.spawn(async move {
                let result = match serving {
                    Some(serving) => take_state(serving, timeout).await,
                    None => Err("the app does not serve".to_owned()),
                };
                let (state, paused) = match result {
                    Ok((state, paused)) => (Ok(state), Some(paused)),
                    Err(error) => (Err(error), None),
                };
                WorkerTaskOutcome::StateTaken(TakenState { app, state, paused })
            });
        }
    }

    /// Sends the state of an app to the supervisor.
    pub(super) fn send_state(&mut self, taken: TakenState) {
        let TakenState { app, state, paused } = taken;
        if state.is_ok() {
            // Another worker continues with this state, so the app must not change the state here by serving requests.
            self.suspend(&app);
        }
        self.notices.send(Notice::State { app, state });
        // Dropped on a blocking thread, because dropping a pause notifies the author's code, which may block.
        task::spawn_blocking(move || drop(paused));
    }
}

/// Pauses and drains a generation, and returns its state. Returns an error as one line of text.
async fn take_state(
    generation: Arc<Generation>,
    timeout: Duration,
) -> Result<(Vec<u8>, Paused), String> {
    let progress = Arc::new(LoadProgress::new(|_step| {}));
    let thread = thread_name(generation.name, generation.number);
    let mut timings = StepTimings::default();
    let result = load::take_state(&generation, thread, timeout, &progress, &mut timings);
    let (paused, state) = result.await.map_err(|error| chain(&error))?;
    Ok((state.to_vec(), paused.into_paused()))
}
