//! `host new`: writes a crate with an app that builds, serves, is tested, and also runs alone.

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
    source::{Source, SourceError},
    template::Template,
};
use crate::{error_chain::chain, terminal};

/// What to write, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder to make; its last part is the name of the crate and of the app
    #[arg(value_name = "NAME")]
    path: PathBuf,

    /// What to begin with
    #[arg(long, value_name = "TEMPLATE", default_value = "axum")]
    template: Template,

    /// Where the crate takes plugin-api from: a folder, a version, or a dependency as in Cargo.toml,
    /// such as '{ git = "https://…" }' [default: the sources that this program carries]
    #[arg(long, value_name = "SPEC")]
    plugin_api: Option<Source>,
}

/// Writes the crate and says what to do with it. The result is for `main`: 0, or 1 when it was not
/// written.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match write(args) {
        Ok(said) => {
            let path = args.path.display();
            let next = "builds and serves it, and does so again whenever a file is saved";
            let said = format_args!("{said}`host dev {path}` {next}");
            terminal::print(said, ExitCode::SUCCESS)
        }
        Err(error) => {
            terminal::complain(chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Writes the crate. The result is what Cargo said of it.
fn write(args: &Args) -> Result<String, NewError> {
    let path = &args.path;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| is_name(name.as_bytes()));
    let name = name.ok_or_else(|| NewError::Name(path.clone()))?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(NewError::Exists(path.clone()));
    }
    let source = match &args.plugin_api {
        Some(source) => source.clone().below(path)?,
        None => match Source::of_repository(path) {
            Some(source) => source,
            None => Source::folder(Sdk::unpack()?.into_path()),
        },
    };
    let said = create(path)?;
    for file in args.template.files(name, &source) {
        let path = path.join(file.path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = written.and_then(|()| fs::write(&path, file.contents));
        written.map_err(|source| NewError::Write { path, source })?;
    }
    Ok(said)
}

/// Has Cargo make the package: it knows which names are none, adds the package to the workspace that
/// it is in, and puts a new repository around it where there is none. The result is what it says of
/// that, in lines.
fn create(path: &Path) -> Result<String, NewError> {
    let output = Command::new("cargo")
        .args(["new", "--lib", "--edition=2024", "--color=never"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(NewError::Cargo)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(NewError::Refused(said.trim().to_owned()));
    }
    let lines = said.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("note:"));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// A crate that was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewError {
    /// There is no Cargo.
    #[error("cannot run cargo: install Rust, see https://rustup.rs")]
    Cargo(#[source] io::Error),
    /// Something is there already.
    #[error("{} is there already: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// The name is none.
    #[error(
        "{:?} does not end with the name of an app, expected up to 64 ASCII letters, digits, `-` and `_`",
        .0.display()
    )]
    Name(PathBuf),
    /// Cargo refuses to make the package.
    #[error("cargo did not make the package: {0}")]
    Refused(String),
    /// The sources of plugin-api cannot be unpacked.
    #[error(transparent)]
    Sdk(#[from] SdkError),
    /// The source of plugin-api is none.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
