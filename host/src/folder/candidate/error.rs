//! The error for a file in the plugins folder that cannot be loaded.

use std::io;

use crate::folder::{manifest::ManifestError, store::StoreError};

/// The reason why a library cannot be read, checked or copied. None of its code has run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CandidateError {
    /// The file is not a plugin for this host.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The library could not be read or copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that reads or copies the library panicked, or the runtime shut down.
    #[error("the thread that loads it failed")]
    Thread(#[source] io::Error),
}

impl CandidateError {
    /// Returns the name of the failed step of loading.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Store(
                StoreError::Changed { .. } | StoreError::NotFile { .. } | StoreError::Read { .. },
            ) => "read",
            Self::Store(_) => "stage",
            Self::Manifest(_) => "manifest",
            Self::Thread(_) => "init",
        }
    }

    /// Returns whether the file may be incomplete because a program still writes it. The caller reads such a file again
    /// later.
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

    /// Returns whether the file was removed before it could be read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Store(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }
}
