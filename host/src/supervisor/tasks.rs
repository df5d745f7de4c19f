//! Background tasks of the supervisor, and what happens when one of them is done.

use std::path::PathBuf;

use tokio::task::JoinError;
use tracing::error;

use super::{
    Supervisor, app::WorkerId, deploy::Deployment, libraries::Read, outcome::Failure,
    upgrade::ProofError, upgrading::UpgradeReply,
};
use crate::{
    channel::Hello,
    orders::{Started, Took},
};

/// Something that was begun is done.
#[derive(Debug)]
pub(super) enum Done {
    Checked(Vec<(WorkerId, Option<u64>)>),
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
        prepared: Result<Box<(Started, Took)>, Failure>,
    },
    Proved {
        app: String,
        generation: u64,
    },
    Read(Box<Read>),
    Upgrade {
        path: PathBuf,
        proved: Result<Hello, ProofError>,
        reply: UpgradeReply,
    },
    Execute(PathBuf),
    ReportTimedOut(u64),
}

impl Supervisor {
    pub(super) fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Err(error) => error!(%error, "A task of the supervisor failed"),
            Ok(Done::Prepared {
                app,
                generation,
                prepared,
            }) => self.prepared(&app, generation, prepared),
            Ok(Done::Proved { app, generation }) => {
                if let Some(app) = self.apps.get_mut(&app) {
                    app.proved_good(generation);
                }
            }
            Ok(Done::Deployed(deployment)) => self.deployed(*deployment),
            Ok(Done::Hire) => {
                self.hiring -= 1;
                self.hire();
            }
            Ok(Done::Checked(sizes)) => self.checked(sizes),
            Ok(Done::Retry {
                worker,
                app,
                generation,
            }) => self.retry(worker, &app, generation),
            Ok(Done::Upgrade {
                path,
                proved,
                reply,
            }) => self.proved(&path, proved, reply),
            Ok(Done::Execute(path)) => self.execute(&path),
            Ok(Done::Read(read)) => self.read(*read),
            Ok(Done::ReportTimedOut(number)) => self.report_timed_out(number),
        }
    }
}
