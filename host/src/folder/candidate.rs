//! A candidate is a library that was read and checked, and whose code has not run.

mod error;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use plugin_api::manifest::Manifest;
use tokio::task;

pub use self::error::CandidateError;
use super::{
    embedded, manifest,
    store::{ContentHash, LibraryBytes},
};

/// A library that passed all checks, with its bytes and the facts that were read from the bytes.
#[derive(Debug)]
pub struct Candidate {
    /// The path of the file that was read.
    pub path: PathBuf,
    /// The manifest of the library.
    pub manifest: Manifest,
    /// The bytes of the library. The private copy is written from these bytes, so later writes to the file have no
    /// effect.
    pub snapshot: LibraryBytes,
    /// The name of a C library that is linked into this library and must not be loaded twice in one process. `None` if
    /// the library contains no such C library.
    pub embedded_library: Option<&'static str>,
    /// How long reading and checking took.
    pub read_time: Duration,
}

impl Candidate {
    /// Returns the hash of the library's content.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.snapshot.hash()
    }

    /// Returns the log levels to which `max_level_*` features of the crates `tracing` and `log` limit the plugin, such
    /// as `tracing=info,log=warn`. More verbose lines are not compiled into the plugin, so no log level of the host can
    /// enable them. Returns `None` when neither crate is limited.
    #[must_use]
    pub fn max_level(&self) -> Option<String> {
        let levels = [
            ("tracing", &self.manifest.tracing_max_level),
            ("log", &self.manifest.log_max_level),
        ];
        let limited = levels.into_iter().filter(|(_, level)| *level != "trace");
        let limited: Vec<_> = limited
            .map(|(name, level)| format!("{name}={level}"))
            .collect();
        (!limited.is_empty()).then(|| limited.join(","))
    }
}

/// A file that cannot be loaded, with the facts that could be read before the failure.
#[derive(Debug)]
pub struct Rejected {
    /// Why the library cannot be loaded.
    pub error: CandidateError,
    /// The hash of the library's content, if the file could be read.
    pub hash: Option<ContentHash>,
    /// The name of the plugin, if the manifest could be read.
    pub plugin: Option<String>,
}

impl From<CandidateError> for Rejected {
    fn from(error: CandidateError) -> Self {
        Self {
            error,
            hash: None,
            plugin: None,
        }
    }
}

/// Reads the library at `path` and checks everything that can be checked without running its code.
///
/// # Errors
///
/// When the file cannot be read, is not a complete library, or is a library that this host does not load.
pub async fn examine(path: PathBuf) -> Result<Candidate, Rejected> {
    // Reading and hashing a large file would block a thread of the async runtime for too long.
    task::spawn_blocking(|| read(path))
        .await
        .unwrap_or_else(|error| Err(CandidateError::Thread(error.into()).into()))
}

fn read(path: PathBuf) -> Result<Candidate, Rejected> {
    let began = Instant::now();
    let snapshot = LibraryBytes::read(&path).map_err(CandidateError::from)?;
    let reject = |error, plugin| Rejected {
        error: CandidateError::Manifest(error),
        hash: Some(snapshot.hash()),
        plugin,
    };
    let manifest = manifest::read_bytes(snapshot.bytes()).map_err(|error| reject(error, None))?;
    manifest::check_compatible(&manifest)
        .map_err(|error| reject(error, Some(manifest.name.clone())))?;
    Ok(Candidate {
        path,
        manifest,
        embedded_library: embedded::find(snapshot.bytes()),
        snapshot,
        read_time: began.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error_chain::chain,
        fuzz::{Random, one_line},
    };

    #[test]
    fn files_of_any_content_are_rejected_with_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut random = Random::new(2);
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for _ in 0..1_000 {
            // The head of a program is an ELF header, whose tables are elsewhere.
            let bytes = random.input(&[&program[..512], b"#!/bin/sh\n", b""]);
            std::fs::write(file.path(), &bytes).unwrap();
            let rejected = read(file.path().to_owned()).unwrap_err();
            one_line(chain(&rejected.error), &bytes);
            assert!(rejected.hash.is_some() && rejected.plugin.is_none());
        }
    }
}
