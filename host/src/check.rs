//! `host check FILE.so`: what a library says of itself, and whether this host would load it.
//!
//! The check does what a load does, short of starting the app: it opens a private copy, from a folder
//! beside the library, so that the dynamic linker finds what it would find for the host, and no more.
//! Opening runs the library's static constructors. These may crash or never return, so a process of
//! its own opens the copy, with a time limit.

use std::{
    env,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use plugin_api::manifest::{AbiVersion, Manifest};
use tokio::runtime::Builder;

use crate::{
    error_chain,
    folder::{
        manifest,
        store::{Snapshot, Store, StoreError},
    },
    supervisor::process::{Children, Executable},
    terminal::print,
    worker::{library, trial::Trial},
};

/// Prints the manifest and the verdict of each library. The result is for `main`: 0 when this host
/// would load all of them, else 1.
#[must_use]
pub fn run(files: &[PathBuf], limit: Duration) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        fact("file", file.display());
        match check(file, limit) {
            Ok(()) => fact("verdict", "this host would load it"),
            Err(reason) => {
                fact("verdict", format_args!("refused: {reason}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn fact(name: &str, value: impl std::fmt::Display) {
    print(format_args!("{name:<10} {value}"), ExitCode::SUCCESS);
}

/// The reason, in one line, for which this host would not load the library.
fn check(file: &Path, limit: Duration) -> Result<(), String> {
    let snapshot = Snapshot::read(file).map_err(describe)?;
    let manifest = manifest::read_bytes(snapshot.bytes()).map_err(describe)?;
    show(&manifest, manifest::uses_static_tls(snapshot.bytes()));
    manifest::accept(&manifest).map_err(describe)?;
    let copies = Copies::beside(file).map_err(describe)?;
    let copy = copies.store.stage(&snapshot, &manifest.name, 1);
    open_elsewhere(&copy.map_err(describe)?, limit)
}

fn show(manifest: &Manifest, uses_static_tls: bool) {
    let abi = format!("{} (this host: {})", manifest.abi, AbiVersion::CURRENT);
    let levels = format!(
        "tracing {}, log {}",
        manifest.tracing_max_level, manifest.log_max_level
    );
    for (name, value) in [
        ("plugin", &manifest.name),
        ("version", &manifest.version),
        ("mount", &manifest.mount),
        ("abi", &abi),
        ("rustc", &manifest.rustc),
        ("target", &manifest.target),
        ("panic", &manifest.panic),
        ("max level", &levels),
    ] {
        fact(name, value);
    }
    if uses_static_tls {
        fact("warning", format_args!("it {}", library::STATIC_TLS));
    }
}

/// Opens a copy in a process of its own, as the host does.
fn open_elsewhere(copy: &Path, limit: Duration) -> Result<(), String> {
    let trial = Trial {
        executable: Executable::of_this_process().map_err(describe)?.into(),
        children: Children::default(),
        limit,
        option: "--timeout",
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(describe)?.block_on(trial.open(copy))
}

/// Copies in a folder that is removed when this value is dropped.
struct Copies {
    store: Store,
    /// Whether the folder that others may share was made for this check.
    is_made: bool,
}

impl Copies {
    /// As the host has them for the plugins folder that the library is in, by default; in the folder
    /// for temporary files when there is no writing there.
    fn beside(file: &Path) -> Result<Self, StoreError> {
        let folder = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).join(".host");
        match Self::open(&folder) {
            Err(StoreError::Create { source, .. })
                if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem]
                    .contains(&source.kind()) =>
            {
                Self::open(&env::temp_dir().join("host-check"))
            }
            opened => opened,
        }
    }

    fn open(folder: &Path) -> Result<Self, StoreError> {
        let is_made = !folder.exists();
        let store = Store::open(folder)?;
        Ok(Self { store, is_made })
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // Copies that cannot be removed now are removed by the next host or check that starts.
        let _ = self.store.remove();
        if self.is_made {
            self.store.remove_parent();
        }
    }
}

/// An error and its sources in one line.
fn describe(error: impl std::error::Error) -> String {
    error_chain::chain(&error)
}
