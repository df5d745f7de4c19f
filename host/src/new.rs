//! `host new`: writes a crate with an app, a test of the app, and a program that runs the app without a host.

mod sdk;
mod source;
mod template;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use plugin_api::manifest::is_name;

pub use self::{
    sdk::{Sdk, SdkError},
    source::{SdkSource, SdkSourceError},
    template::Template,
};
use crate::{error_chain::chain, terminal};

/// The command line of `host new`.
#[derive(Clone, Debug, clap::Args)]
pub struct NewArgs {
    /// The folder to make; its last part is the name of the crate and of the app
    #[arg(value_name = "NAME")]
    path: PathBuf,

    /// What to begin with
    #[arg(long, value_name = "TEMPLATE", default_value = "axum")]
    template: Template,

    /// Where the crate takes plugin-api from: a folder, a version, or a dependency as in Cargo.toml,
    /// such as '{ git = "https://…" }' [default: the sources that this program carries]
    #[arg(long, value_name = "SPEC")]
    plugin_api: Option<SdkSource>,
}

/// Writes the crate, and prints the command that serves it. Returns the exit code of the process: 0, or 1 when the
/// crate was not written.
#[must_use]
pub fn run(args: &NewArgs) -> ExitCode {
    match write_crate(args) {
        Ok(notes) => {
            let path = args.path.display();
            let next = "builds and serves it, and does so again whenever a file is saved";
            let text = format_args!("{notes}`host dev {path}` {next}");
            terminal::print(text, ExitCode::SUCCESS)
        }
        Err(error) => {
            terminal::print_error(chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Writes the crate. Returns Cargo's notes about the new package, one per line.
fn write_crate(args: &NewArgs) -> Result<String, NewError> {
    let path = &args.path;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| is_name(name.as_bytes()));
    let name = name.ok_or_else(|| NewError::Name(path.clone()))?;
    // Use `symlink_metadata`, not `exists`: `exists` returns false for a symbolic link whose target does not exist.
    if fs::symlink_metadata(path).is_ok() {
        return Err(NewError::Exists(path.clone()));
    }
    // Find the source of plugin-api before anything is written, so that a wrong `--plugin-api` leaves no folder behind.
    let source = match &args.plugin_api {
        Some(source) => source.clone().relative_to(path)?,
        // Prefer the repository of `host`, if the new crate is in it, to the packed sources.
        None => match SdkSource::of_repository(path) {
            Some(source) => source,
            None => SdkSource::from_folder(Sdk::unpack()?.into_path()),
        },
    };
    let notes = run_cargo_new(path)?;
    for file in args.template.files(name, &source) {
        let path = path.join(file.path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = written.and_then(|()| fs::write(&path, file.contents));
        written.map_err(|source| NewError::Write { path, source })?;
    }
    Ok(notes)
}

/// Makes the package with `cargo new`. Cargo rejects invalid names, adds the package to the enclosing workspace, and
/// makes a git repository if the package is not in a repository yet. Returns Cargo's notes, one per line.
fn run_cargo_new(path: &Path) -> Result<String, NewError> {
    let output = Command::new("cargo")
        .args(["new", "--lib", "--edition=2024", "--color=never"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(NewError::NoCargo)?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(NewError::Cargo(text.trim().to_owned()));
    }
    let lines = text.lines().map(str::trim);
    // Leave out Cargo's general hints, which begin with `note:`.
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("note:"));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// The reason why a crate was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewError {
    /// Cargo rejects the package. The text is Cargo's error.
    #[error("cargo did not make the package: {0}")]
    Cargo(String),
    /// A file or folder with this path already exists.
    #[error("{} exists already: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// The last part of the path is not a valid name for an app.
    #[error(
        "{:?} does not end with the name of an app, expected up to 64 ASCII letters, digits, `-` and `_`",
        .0.display()
    )]
    Name(PathBuf),
    /// Cargo is not installed, or cannot be run.
    #[error("cannot run cargo: install Rust, see https://rustup.rs")]
    NoCargo(#[source] io::Error),
    /// The sources of plugin-api cannot be unpacked.
    #[error(transparent)]
    Sdk(#[from] SdkError),
    /// The value of `--plugin-api` is not valid.
    #[error(transparent)]
    Source(#[from] SdkSourceError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}
