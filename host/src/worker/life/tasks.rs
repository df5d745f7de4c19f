//! Background tasks of a worker, and what happens when one of them is done.

use std::sync::Arc;

use tokio::task::JoinError;
use tracing::error;

use super::{Worker, give::GivenState};
use crate::{
    orders::{Notice, WorkerReport},
    worker::{
        generation::{DrainResult, Generation},
        load::{LoadError, Loaded},
        probation::ProbationVerdict,
    },
};

/// Something that was begun is done.
#[derive(Debug)]
pub(super) enum WorkerTaskOutcome {
    Disconnected,
    Give,
    Given(GivenState),
    Judged {
        generation: Arc<Generation>,
        verdict: ProbationVerdict,
    },
    Loaded {
        app: String,
        generation: u64,
        loaded: Box<Result<Loaded, LoadError>>,
    },
    Reported {
        number: u64,
        report: Box<WorkerReport>,
    },
    Retired {
        generation: Arc<Generation>,
        retired: DrainResult,
    },
    SetLevel {
        number: u64,
        unconfirmed: Vec<String>,
    },
}

impl Worker {
    pub(super) fn done(&mut self, done: Result<WorkerTaskOutcome, JoinError>) {
        match done {
            Err(error) if error.is_cancelled() => {}
            Err(error) => error!(%error, "A task of the worker failed"),
            Ok(WorkerTaskOutcome::Disconnected) => {
                self.give_once();
                self.is_disconnected = true;
            }
            Ok(WorkerTaskOutcome::Give) => self.give_once(),
            Ok(WorkerTaskOutcome::Given(given)) => {
                self.giving -= 1;
                self.given(given);
            }
            Ok(WorkerTaskOutcome::Judged {
                generation,
                verdict,
            }) => self.judged(&generation, verdict),
            Ok(WorkerTaskOutcome::Loaded {
                app,
                generation,
                loaded,
            }) => self.loaded(&app, generation, *loaded),
            Ok(WorkerTaskOutcome::Reported { number, report }) => {
                self.notices.send(Notice::Report { number, report });
            }
            Ok(WorkerTaskOutcome::Retired {
                generation,
                retired,
            }) => self.retired(&generation, retired),
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
