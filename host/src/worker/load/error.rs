//! Why a library was not loaded.

use std::{io, time::Duration};

use plugin_api::host::{HandoverError, InitError};

use crate::{
    folder::{manifest::ManifestError, store::StoreError},
    orders::Step,
    supervisor::catalog::TakenError,
    worker::{budget::BudgetError, library::LibraryError},
};

/// The reason why a library was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// This process can load no more libraries.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The requests of the generation before, whose state is needed, did not end in time.
    #[error(
        "{in_flight} requests in the version before did not end within {}, expected it to be empty for the handover; \
         see --handover-timeout",
        humantime::format_duration(*timeout)
    )]
    Busy {
        /// How many requests.
        in_flight: u64,
        /// How long they had.
        timeout: Duration,
    },
    /// The generation before, whose state is needed, was stopped.
    #[error("the version before was stopped before it handed over")]
    Closed,
    /// The generation before did not hand over.
    #[error(
        "the version before did not hand its state over: {0}; to start without it, remove the file first"
    )]
    Handover(#[from] HandoverError),
    /// Code of a library did not return.
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
        /// Where the load was.
        step: Step,
        /// How long the step had.
        limit: Duration,
    },
    /// The author's start function failed.
    #[error(
        "its start failed; put that right, then replace the file or use host ctl reload, or send SIGHUP for another config in \
         [app.NAME]"
    )]
    Init(#[from] InitError),
    /// The file is not a plugin for this host.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another app owns the name or a mount of the app.
    #[error(transparent)]
    Taken(Box<TakenError>),
    /// The library cannot be opened.
    #[error(transparent)]
    Open(#[from] LibraryError),
    /// The library could not be read or copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread for the load failed.
    #[error("the thread that loads it failed")]
    Thread(#[source] io::Error),
}

impl LoadError {
    /// Returns the name of the step that failed.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Store(
                StoreError::Changed { .. } | StoreError::NotFile { .. } | StoreError::Read { .. },
            ) => "read",
            Self::Budget(_) => "budget",
            Self::Hangs { step, .. } => step.name(),
            Self::Busy { .. } | Self::Closed | Self::Handover(_) => Step::HandOver.name(),
            Self::Store(_) => "stage",
            Self::Manifest(_) => "manifest",
            Self::Taken(_) => "mount",
            Self::Open(_) => "open",
            Self::Init(_) | Self::Thread(_) => "init",
        }
    }

    /// Returns whether the file may be incomplete, because it is still being copied. Then it is read again.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Changed { .. })
                | Self::Manifest(ManifestError::Incomplete { .. })
        )
    }

    /// Returns whether the file is intact but not meant to be a plugin, such as a library that plugins need.
    #[must_use]
    pub fn is_no_plugin(&self) -> bool {
        matches!(self, Self::Manifest(error) if error.is_no_plugin())
    }

    /// Returns whether the file was removed before it was read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Store(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }
}
