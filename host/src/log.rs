//! The log, which has the lines of host and plugins under one level, and the access log.
//!
//! A line takes this way: an event of `tracing`, or of a plugin by way of the [`bridge`], passes the
//! [`filter`]. [`lines`] formats the event as [`text`] or [`json`] and writes it to an [`output`]. [`losses`]
//! reports lines that could not be written. [`level`] changes the level while the host runs, and
//! [`request`] has what a line says of its request. [`access`] is the access log.

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
    lines::{Format, LineLayer},
    losses::LossMonitor,
    output::Output,
    text::TextFormat,
};

/// The parts of the log that are needed while it is written.
#[derive(Clone, Debug)]
pub struct Log {
    /// Decides which events become lines.
    pub filter: Filter,
    /// The output of the lines.
    pub output: Output,
    /// Reports lines that cannot be written.
    pub losses: LossMonitor,
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
pub fn init(options: LogOptions<'_>, directives: Directives) -> Result<Log, OutputError> {
    let mut filter = Filter::new(directives, bridge::plugin_of);
    if options.has_debug_header {
        filter = filter.with_forced_debug();
    }
    let output = match options.file {
        Some(path) => Output::log(path).map_err(open_error(path))?,
        None => Output::stderr().map_err(OutputError::Stream)?,
    };
    let is_terminal = output.is_terminal();
    let ansi = text::uses_colours(is_terminal, env::var_os("NO_COLOR").as_deref());
    let format = if options.is_json {
        Format::Json
    } else {
        Format::Text(TextFormat { ansi, is_terminal })
    };
    // The filter is the outer layer, which `tracing` asks first.
    let lines = LineLayer::new(format, output.clone());
    // Fails when `init` was called before. The earlier subscriber stays.
    let _ = tracing::subscriber::set_global_default(registry().with(lines).with(filter.clone()));
    let losses = LossMonitor::new(output.clone(), filter.clone());
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
pub fn open_access(path: Option<&Path>) -> Result<Output, OutputError> {
    match path {
        None => Output::stdout().map_err(OutputError::Stream),
        Some(path) => Output::access(path).map_err(open_error(path)),
    }
}

/// Returns the conversion of an error that concerns the file at `path`.
fn open_error(path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    |source| OutputError::File { path, source }
}

/// An output that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A file cannot be opened.
    #[error("cannot open {} to append to it", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The process has no such stream, because it is closed.
    #[error("there is no stream to write to")]
    Stream(#[source] io::Error),
}
