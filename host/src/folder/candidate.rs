//! A candidate: a library that was read and checked without running its code.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use plugin_api::manifest::Manifest;
use tokio::task;

use super::{
    embedded, manifest,
    store::{ContentHash, LibraryBytes},
};
use crate::worker::load::LoadError;

/// A library that can be loaded: its bytes, and the facts in them.
#[derive(Debug)]
pub struct Candidate {
    /// The file in the plugins folder.
    pub path: PathBuf,
    /// The manifest of the library.
    pub manifest: Manifest,
    /// The bytes of the library, from which the private copy is written. Nobody can change them any more.
    pub snapshot: LibraryBytes,
    /// The C library inside that must not be loaded twice in one process, if there is one.
    pub carries: Option<&'static str>,
    /// How long reading and checking took.
    pub read: Duration,
}

impl Candidate {
    /// Returns the hash of the library's content.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.snapshot.hash()
    }

    /// Turns the candidate into a rejected library.
    pub(crate) fn rejected(self, error: LoadError) -> Rejected {
        Rejected {
            error,
            hash: Some(self.hash()),
            plugin: Some(self.manifest.name),
        }
    }
}

/// A library that cannot be loaded, and the facts that could be read.
#[derive(Debug)]
pub struct Rejected {
    /// Why the library cannot be loaded.
    pub error: LoadError,
    /// The hash of the library's content, if the file could be read.
    pub hash: Option<ContentHash>,
    /// The name of the plugin, if the manifest could be read.
    pub plugin: Option<String>,
}

impl From<LoadError> for Rejected {
    fn from(error: LoadError) -> Self {
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
    task::spawn_blocking(|| read(path))
        .await
        .unwrap_or_else(|error| Err(LoadError::Thread(error.into()).into()))
}

fn read(path: PathBuf) -> Result<Candidate, Rejected> {
    let began = Instant::now();
    let snapshot = LibraryBytes::read(&path).map_err(LoadError::from)?;
    let rejected = |error, plugin| Rejected {
        error: LoadError::Manifest(error),
        hash: Some(snapshot.hash()),
        plugin,
    };
    let manifest = manifest::read_bytes(snapshot.bytes()).map_err(|error| rejected(error, None))?;
    manifest::accept(&manifest).map_err(|error| rejected(error, Some(manifest.name.clone())))?;
    Ok(Candidate {
        path,
        manifest,
        carries: embedded::find(snapshot.bytes()),
        snapshot,
        read: began.elapsed(),
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
