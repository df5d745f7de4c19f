//! The log: one stream of lines, from host and plugins alike, under one level; and the access log
//! beside it.

pub mod access;
pub mod bridge;
pub mod capture;
pub mod escape;
pub mod event;
pub mod fields;
pub mod filter;
mod followers;
pub mod json;
pub mod level;
pub mod lines;
pub mod losses;
pub mod origin;
pub mod output;
pub mod recent;
pub mod request;
pub mod request_id;
pub mod streams;
pub mod text;
pub mod worker;

use std::{
    env, io,
    path::{Path, PathBuf},
};

use plugin_api::level::Directives;
use tracing_subscriber::{layer::SubscriberExt, registry};

use self::{
    filter::Filter,
    lines::{Format, Lines},
    losses::Losses,
    output::Output,
    text::Text,
};

/// What can be changed of the log while it is written.
#[derive(Clone, Debug)]
pub struct Log {
    /// The level.
    pub filter: Filter,
    /// Where it goes.
    pub output: Output,
    /// What is told of lines that cannot be written.
    pub losses: Losses,
}

/// How the log of a process is written.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions<'a> {
    /// The file that lines are appended to. None for the process's stderr.
    pub file: Option<&'a Path>,
    /// Whether a line is a JSON object. Otherwise it is text for people.
    pub is_json: bool,
    /// Whether a header of a request can ask for that request to be logged at debug.
    pub has_debug_header: bool,
}

/// Starts the log of this process, at the level of `directives`.
///
/// Only the first call in a process has an effect on `tracing`, which accepts one global subscriber. A
/// program calls it once.
///
/// # Errors
///
/// When the file of the log cannot be opened, or stderr is closed.
pub fn init(options: LogOptions<'_>, directives: Directives) -> Result<Log, OpenError> {
    let mut filter = Filter::new(directives, bridge::plugin_of);
    if options.has_debug_header {
        filter = filter.with_loud_requests();
    }
    let output = match options.file {
        Some(path) => Output::log(path).map_err(failed(path))?,
        None => Output::stderr().map_err(OpenError::Stream)?,
    };
    let is_terminal = output.is_terminal();
    let ansi = text::colour(is_terminal, env::var_os("NO_COLOR").as_deref());
    let format = if options.is_json {
        Format::Json
    } else {
        Format::Text(Text { ansi, is_terminal })
    };
    let lines = Lines::new(format, output.clone());
    // It fails when there was one before, which then is this one.
    let _ = tracing::subscriber::set_global_default(registry().with(lines).with(filter.clone()));
    let losses = Losses::new(output.clone(), filter.clone());
    Ok(Log {
        filter,
        output,
        losses,
    })
}

/// Opens the output of the access log: the file at `path`, or stdout when there is no path.
///
/// # Errors
///
/// When the file cannot be opened, or stdout is closed.
pub fn open_access(path: Option<&Path>) -> Result<Output, OpenError> {
    match path {
        None => Output::stdout().map_err(OpenError::Stream),
        Some(path) => Output::access(path).map_err(failed(path)),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    |source| OpenError::File { path, source }
}

/// A place for lines that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file.
    #[error("cannot open {} to append to it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A stream of the process.
    #[error("there is no stream to write to")]
    Stream(#[source] io::Error),
}
