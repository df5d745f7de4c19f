//! Background tasks of a worker, and what happens when one of them is done.

use std::sync::Arc;

use tokio::task::JoinError;
use tracing::error;

use super::{Worker, give::Given};
use crate::{
    orders::{Notice, WorkerReport},
    worker::{
        generation::{Generation, Retired},
        load::{LoadError, Loaded},
        probation::Verdict,
    },
};

/// Something that was begun is done.
#[derive(Debug)]
pub(super) enum Done {
    Disconnected,
    Give,
    Given(Given),
    Judged {
        generation: Arc<Generation>,
        verdict: Verdict,
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
        retired: Retired,
    },
    SetLevel {
        number: u64,
        unconfirmed: Vec<String>,
    },
}

impl Worker {
    pub(super) fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Err(error) if error.is_cancelled() => {}
            Err(error) => error!(%error, "A task of the worker failed"),
            Ok(Done::Disconnected) => {
                self.give_once();
                self.is_disconnected = true;
            }
            Ok(Done::Give) => self.give_once(),
            Ok(Done::Given(given)) => {
                self.giving -= 1;
                self.given(given);
            }
            Ok(Done::Judged {
                generation,
                verdict,
            }) => self.judged(&generation, verdict),
            Ok(Done::Loaded {
                app,
                generation,
                loaded,
            }) => self.loaded(&app, generation, *loaded),
            Ok(Done::Reported { number, report }) => {
                self.notices.send(Notice::Report { number, report });
            }
            Ok(Done::Retired {
                generation,
                retired,
            }) => self.retired(&generation, retired),
            Ok(Done::SetLevel {
                number,
                unconfirmed,
            }) => self.notices.send(Notice::InForce {
                number,
                unconfirmed,
            }),
        }
    }
}
