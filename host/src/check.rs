//! `host check FILE.so`: what a library says of itself, and whether this host would load it.

use std::{fs, path::Path, process::ExitCode};

use plugin_api::manifest::{AbiVersion, Manifest};

use crate::{
    folder::manifest,
    worker::{library, load},
};

/// Prints the manifest and the verdict. The result is for `main`: 0 when this host would load the
/// library, else 1.
///
/// The library is opened, as a load does it, but its app is not started.
#[must_use]
pub fn run(file: &Path) -> ExitCode {
    println!("{:<10} {}", "file", file.display());
    let verdict = manifest::read(file).map_err(describe).and_then(|manifest| {
        print(&manifest);
        manifest::accept(&manifest).map_err(describe)?;
        // A name without a slash is one that the dynamic linker looks for elsewhere.
        let path = fs::canonicalize(file).map_err(describe)?;
        library::open(&path).map_err(describe)
    });
    match verdict {
        Ok(_) => {
            println!("{:<10} this host would load it", "verdict");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            println!("{:<10} refused: {reason}", "verdict");
            ExitCode::FAILURE
        }
    }
}

fn print(manifest: &Manifest) {
    let abi = format!("{} (this host: {})", manifest.abi, AbiVersion::CURRENT);
    let levels = format!(
        "tracing {}, log {}",
        manifest.tracing_max_level, manifest.log_max_level
    );
    for (fact, value) in [
        ("plugin", &manifest.name),
        ("version", &manifest.version),
        ("mount", &manifest.mount),
        ("abi", &abi),
        ("rustc", &manifest.rustc),
        ("target", &manifest.target),
        ("panic", &manifest.panic),
        ("max level", &levels),
    ] {
        println!("{fact:<10} {value}");
    }
}

/// An error and its sources in one line.
fn describe(error: impl std::error::Error) -> String {
    load::chain(&error)
}
