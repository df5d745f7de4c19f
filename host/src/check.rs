//! `host check FILE.so`: prints the manifest of a library, and whether this host would load it.
//!
//! The check runs all steps of a load before the start of the app. As in a load, a private copy of the library is
//! opened. The copy is in a folder beside the library, so that the dynamic linker finds the same dependencies.
//! Opening runs the library's static constructors. A constructor may crash or never return, so a separate process
//! opens the copy, with a time limit.

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
    error_chain::chain,
    folder::{
        manifest,
        store::{LibraryBytes, Store, StoreError},
    },
    supervisor::{
        process::{Children, Executable},
        trial::Trial,
    },
    terminal::print,
    worker::library,
};

/// Prints the manifest and the verdict of each library. `limit` is the time that the opening of each library may take.
/// Returns the exit code of the process: 0 when this host would load all libraries, else 1.
#[must_use]
pub fn run(files: &[PathBuf], limit: Duration) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        print_fact("file", file.display());
        match check(file, limit) {
            Ok(()) => print_fact("verdict", "this host would load it"),
            Err(reason) => {
                print_fact("verdict", format_args!("refused: {reason}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Prints a line with a name and a value.
fn print_fact(name: &str, value: impl std::fmt::Display) {
    print(format_args!("{name:<10} {value}"), ExitCode::SUCCESS);
}

/// Prints the manifest of a library, and opens the library.
///
/// # Errors
///
/// Returns the reason, in one line, why this host would not load the library.
fn check(file: &Path, limit: Duration) -> Result<(), String> {
    // Read the file only once: the manifest must belong to the same bytes that are opened.
    let snapshot = LibraryBytes::read(file).map_err(describe)?;
    let manifest = manifest::read_bytes(snapshot.bytes()).map_err(describe)?;
    // Print before `accept`, so that the manifest is shown even if this host would not load the library.
    print_manifest(&manifest, manifest::uses_static_tls(snapshot.bytes()));
    manifest::check_compatible(&manifest).map_err(describe)?;
    // `copies` must outlive the opening: dropping the value removes the copy.
    let copies = CopyFolder::beside(file).map_err(describe)?;
    let copy = copies.store.stage(&snapshot, &manifest.name, 1);
    open_in_process(&copy.map_err(describe)?, limit)
}

fn print_manifest(manifest: &Manifest, uses_static_tls: bool) {
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
        print_fact(name, value);
    }
    if uses_static_tls {
        print_fact("warning", format_args!("it {}", library::STATIC_TLS));
    }
}

/// Opens a copy in a separate process, as the host does before a load. Returns the reason if the opening fails or takes
/// longer than `limit`.
fn open_in_process(copy: &Path, limit: Duration) -> Result<(), String> {
    let trial = Trial {
        executable: Executable::of_this_process().map_err(describe)?.into(),
        children: Children::default(),
        timeout: limit,
        timeout_option: "--timeout",
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(describe)?.block_on(trial.open(copy))
}

/// A folder for private copies. Dropping the value removes the copies. If this check has made the folder, removes the
/// folder too.
struct CopyFolder {
    store: Store,
    /// Whether this check has made the folder. If false, a host may be using the folder.
    is_new: bool,
}

impl CopyFolder {
    /// Opens the folder that a host uses by default: `.host` beside the library. If that folder cannot be written,
    /// opens a folder in the system's folder for temporary files.
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
        let is_new = !folder.exists();
        let store = Store::open(folder)?;
        Ok(Self { store, is_new })
    }
}

impl Drop for CopyFolder {
    fn drop(&mut self) {
        // Ignore a failure: the next host or check that opens the folder removes the copies.
        let _ = self.store.remove();
        if self.is_new {
            self.store.remove_parent();
        }
    }
}

/// Formats an error and its sources in one line.
fn describe(error: impl std::error::Error) -> String {
    chain(&error)
}
