//! The log and the access log. The log contains the lines of the host and of the plugins, and one level applies to
//! both.
//!
//! A line of the log is made in these steps. The host emits an event of `tracing`. For an event of a plugin, the
//! [`bridge`] emits the event. The [`filter`] decides whether the event passes. [`lines`] formats the event as [`text`]
//! or as [`json`], and writes the line to an [`output`].
//!
//! [`losses`] reports lines that could not be written. [`level`] changes the level while the host runs. [`request`]
//! stores the facts about a request that its lines contain. [`access`] is the access log.

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

/// The parts of the log that other modules use after the start.
#[derive(Clone, Debug)]
pub struct Log {
    /// Decides which events become lines.
    pub filter: Filter,
    /// The file or stream that lines are written to.
    pub output: Output,
    /// Reports lines that cannot be written.
    pub losses: LossMonitor,
}

/// The options of the log of a process.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions<'a> {
    /// The file that lines are appended to. `None` means the stderr of the process.
    pub file: Option<&'a Path>,
    /// Whether a line is a JSON object. Otherwise a line is text for people.
    pub is_json: bool,
    /// Whether a request can have a header that makes the host log the request at level debug.
    pub has_debug_header: bool,
}

/// Starts the log of this process. `directives` decide which events become lines.
///
/// Should be called only once in a process, because `tracing` accepts only one global subscriber: the subscriber of the
/// first call.
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
    let lines = LineLayer::new(format, output.clone());
    // The filter is the outer layer, because `tracing` calls the outer layer first. The call fails if `init` was called
    // before, and the earlier subscriber stays.
    let _ = tracing::subscriber::set_global_default(registry().with(lines).with(filter.clone()));
    let losses = LossMonitor::new(output.clone(), filter.clone());
    Ok(Log {
        filter,
        output,
        losses,
    })
}

/// Opens the output of the access log: the file at `path`, or stdout if `path` is `None`.
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

/// Returns a function that converts an error of the system about the file at `path`.
fn open_error(path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    |source| OutputError::File { path, source }
}

/// Why an output cannot be opened.
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
    /// The stream of the process is closed.
    #[error("there is no stream to write to")]
    Stream(#[source] io::Error),
}
