//! The results of a worker's background tasks, and the function that handles them.

use std::sync::Arc;

use tokio::task::JoinError;
use tracing::error;

use super::{Worker, give::TakenState};
use crate::{
    apps::generation::{DrainResult, Generation},
    orders::{Notice, WorkerReport},
    worker::{
        load::{LoadError, Loaded},
        probation::ProbationVerdict,
    },
};

/// The result of a background task.
#[derive(Debug)]
pub(super) enum WorkerTaskOutcome {
    /// During a stop, no connection can bring another request, or the wait for that took too long.
    AllRequestsRead,
    /// During a stop, all connections have ended.
    Disconnected,
    /// A probation has ended with a verdict.
    Judged {
        generation: Arc<Generation>,
        verdict: ProbationVerdict,
    },
    /// A load has succeeded or failed.
    Loaded {
        app: String,
        generation: u64,
        result: Box<Result<Loaded, LoadError>>,
    },
    /// A report was created.
    Reported {
        number: u64,
        report: Box<WorkerReport>,
    },
    /// A generation has ended.
    Retired {
        generation: Arc<Generation>,
        drain_result: DrainResult,
    },
    /// A change of the log level was applied.
    SetLevel {
        number: u64,
        /// The generations that did not confirm the level in time.
        unconfirmed: Vec<String>,
    },
    /// The state of an app was taken for another worker.
    StateTaken(TakenState),
}

impl Worker {
    /// Handles the result of a background task.
    pub(super) fn handle_outcome(&mut self, outcome: Result<WorkerTaskOutcome, JoinError>) {
        match outcome {
            // The worker aborts loads when it stops.
            Err(error) if error.is_cancelled() => {}
            Err(error) => error!(%error, "A task of the worker failed"),
            Ok(WorkerTaskOutcome::Disconnected) => {
                // Without connections no request can arrive any more, even if `AllRequestsRead` is still to come.
                self.take_states_once();
                self.is_disconnected = true;
            }
            Ok(WorkerTaskOutcome::AllRequestsRead) => self.take_states_once(),
            Ok(WorkerTaskOutcome::StateTaken(taken)) => {
                self.pending_states -= 1;
                self.send_state(taken);
            }
            Ok(WorkerTaskOutcome::Judged {
                generation,
                verdict,
            }) => self.send_verdict(&generation, verdict),
            Ok(WorkerTaskOutcome::Loaded {
                app,
                generation,
                result,
            }) => self.finish_load(&app, generation, *result),
            Ok(WorkerTaskOutcome::Reported { number, report }) => {
                self.notices.send(Notice::Report { number, report });
            }
            Ok(WorkerTaskOutcome::Retired {
                generation,
                drain_result,
            }) => self.finish_retire(&generation, drain_result),
            Ok(WorkerTaskOutcome::SetLevel {
                number,
                unconfirmed,
            }) => self.notices.send(Notice::InForce {
                number,
                unconfirmed,
            }),
        }
    }
}
