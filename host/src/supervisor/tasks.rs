//! Background tasks of the supervisor, and what happens when one of them is done.

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

/// The result of a background task. The supervisor's main loop receives one when the task ends.
#[derive(Debug)]
pub(super) enum TaskOutcome {
    Checked(Vec<(WorkerId, Option<u64>)>),
    CopiesMeasured {
        worker: WorkerId,
        size: u64,
        free: Option<u64>,
    },
    Deployed(Box<Deployment>),
    Hire,
    Retry {
        worker: WorkerId,
        app: String,
        generation: u64,
    },
    Prepared {
        app: String,
        generation: u64,
        prepared: Result<Box<(StagedGeneration, StepTimings)>, LoadFailure>,
    },
    Proved {
        app: String,
        generation: u64,
    },
    Read(Box<LibraryRead>),
    Upgrade {
        path: PathBuf,
        proved: Result<Hello, ProofError>,
        reply: UpgradeReply,
    },
    Execute(PathBuf),
    ReportTimedOut(u64),
}

impl Supervisor {
    pub(super) fn done(&mut self, done: Result<TaskOutcome, JoinError>) {
        match done {
            Err(error) => error!(%error, "A task of the supervisor failed"),
            Ok(TaskOutcome::Prepared {
                app,
                generation,
                prepared,
            }) => self.prepared(&app, generation, prepared),
            Ok(TaskOutcome::Proved { app, generation }) => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.mark_good(generation);
                }
            }
            Ok(TaskOutcome::Deployed(deployment)) => self.deployed(*deployment),
            Ok(TaskOutcome::Hire) => {
                self.delayed_starts -= 1;
                self.start_missing_workers();
            }
            Ok(TaskOutcome::Checked(sizes)) => self.checked(sizes),
            Ok(TaskOutcome::CopiesMeasured { worker, size, free }) => {
                self.copies_measured(worker, size, free);
            }
            Ok(TaskOutcome::Retry {
                worker,
                app,
                generation,
            }) => self.retry(worker, &app, generation),
            Ok(TaskOutcome::Upgrade {
                path,
                proved,
                reply,
            }) => self.proved(&path, proved, reply),
            Ok(TaskOutcome::Execute(path)) => self.execute(&path),
            Ok(TaskOutcome::Read(read)) => self.read(*read),
            Ok(TaskOutcome::ReportTimedOut(number)) => self.report_timed_out(number),
        }
    }
}
