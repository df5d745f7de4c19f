//! The error of a load.

use std::{io, time::Duration};

use plugin_api::host::{HandoverError, InitError};

use crate::{
    orders::Step,
    worker::{budget::BudgetError, library::LibraryError},
};

/// The reason why a library was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// This process can load no more libraries.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The requests in flight of the previous generation, whose state is needed, did not end in time.
    #[error(
        "{in_flight} requests in the version before did not end within {}, expected it to be empty for the handover; \
         see --handover-timeout",
        humantime::format_duration(*timeout)
    )]
    Busy {
        /// The number of these requests.
        in_flight: u64,
        /// The time limit.
        timeout: Duration,
    },
    /// The previous generation, whose state is needed, was stopped before it handed its state over.
    #[error("the version before was stopped before it handed over")]
    Closed,
    /// The previous generation did not hand its state over.
    #[error(
        "the version before did not hand its state over: {0}; to start without it, remove the file first"
    )]
    Handover(#[from] HandoverError),
    /// Code of a library did not return within the time limit.
    #[error(
        "{} within {}, and still blocks a thread; see --init-timeout and --handover-timeout",
        match step {
            Step::Init => "it did not start",
            Step::HandOver => "the version before did not hand its state over",
            Step::Stage | Step::Open | Step::Drain => "it was not opened",
        },
        humantime::format_duration(*limit)
    )]
    Hangs {
        /// The step of the load that hangs.
        step: Step,
        /// The time limit of the step.
        limit: Duration,
    },
    /// The author's start function failed.
    #[error(
        "its start failed; put that right, then replace the file or use host ctl reload, or send SIGHUP for another config in \
         [app.NAME]"
    )]
    Init(#[from] InitError),
    /// The library cannot be opened.
    #[error(transparent)]
    Open(#[from] LibraryError),
    /// The loader thread could not be started, or panicked.
    #[error("the thread that loads it failed")]
    Thread(#[source] io::Error),
}

impl LoadError {
    /// Returns the name of the step that failed.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Budget(_) => "budget",
            Self::Hangs { step, .. } => step.name(),
            Self::Busy { .. } | Self::Closed | Self::Handover(_) => Step::HandOver.name(),
            Self::Open(_) => "open",
            Self::Init(_) | Self::Thread(_) => "init",
        }
    }
}
