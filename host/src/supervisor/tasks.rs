//! The background tasks of the supervisor, and the reaction to the outcome of each task.

use std::path::PathBuf;

use tokio::task::JoinError;
use tracing::error;

use super::{
    Supervisor, app::WorkerId, deploy::Deployment, libraries::LibraryRead, outcome::LoadFailure,
    upgrade::ProofError, upgrading::UpgradeReply,
};
use crate::{
    channel::Hello,
    orders::{StagedGeneration, StepTimings},
};

/// The outcome of a background task. The supervisor's main loop receives the outcome when the task ends. Some tasks
/// only wait: their outcome is the action that is due.
#[derive(Debug)]
pub(super) enum TaskOutcome {
    /// The memory of each worker in bytes.
    WorkersMeasured(Vec<(WorkerId, Option<u64>)>),
    /// The size in bytes of a worker's private copies that no app needs, and the free bytes of their disk.
    CopiesMeasured {
        worker: WorkerId,
        size: u64,
        free: Option<u64>,
    },
    /// All loads of a deployment have ended.
    Deployed(Box<Deployment>),
    /// The delay before the start of a worker has ended.
    StartDelayedWorker,
    /// The delay before another try of a load at a worker's boot has ended.
    RetryBoot {
        worker: WorkerId,
        app: String,
        generation: u64,
    },
    /// The private copy of a generation is written and was opened in a trial process, or the preparation failed.
    Prepared {
        app: String,
        generation: u64,
        prepared: Result<Box<(StagedGeneration, StepTimings)>, LoadFailure>,
    },
    /// The time has passed after which a generation that still serves counts as good.
    ServedLongEnough { app: String, generation: u64 },
    /// A library was read.
    Read(Box<LibraryRead>),
    /// Another build has proved that it can take over, or has not.
    ProofFinished {
        path: PathBuf,
        proof: Result<Hello, ProofError>,
        reply: UpgradeReply,
    },
    /// The answer about an upgrade was sent, so the build at this path is executed now.
    ExecuteUpgrade(PathBuf),
    /// The time for the reports of a query with this number has ended.
    ReportTimedOut(u64),
}

impl Supervisor {
    /// Handles the outcome of a background task. A task that panicked is only logged.
    pub(super) fn handle_task_outcome(&mut self, outcome: Result<TaskOutcome, JoinError>) {
        match outcome {
            Err(error) => error!(%error, "A task of the supervisor failed"),
            Ok(TaskOutcome::Prepared {
                app,
                generation,
                prepared,
            }) => self.prepared(&app, generation, prepared),
            Ok(TaskOutcome::ServedLongEnough { app, generation }) => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.mark_good(generation);
                }
            }
            Ok(TaskOutcome::Deployed(deployment)) => self.deployed(*deployment),
            Ok(TaskOutcome::StartDelayedWorker) => {
                self.delayed_starts -= 1;
                self.start_missing_workers();
            }
            Ok(TaskOutcome::WorkersMeasured(sizes)) => self.workers_measured(sizes),
            Ok(TaskOutcome::CopiesMeasured { worker, size, free }) => {
                self.copies_measured(worker, size, free);
            }
            Ok(TaskOutcome::RetryBoot {
                worker,
                app,
                generation,
            }) => self.retry_boot(worker, &app, generation),
            Ok(TaskOutcome::ProofFinished { path, proof, reply }) => {
                self.proof_finished(&path, proof, reply)
            }
            Ok(TaskOutcome::ExecuteUpgrade(path)) => self.execute(&path),
            Ok(TaskOutcome::Read(read)) => self.read(*read),
            Ok(TaskOutcome::ReportTimedOut(number)) => self.report_timed_out(number),
        }
    }
}
