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
use crate::config::{LineSink, LogConfig, LogFormat};

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

/// Logs what happens from now on, by `directives`.
///
/// The first call in a process counts; there is one in a program.
///
/// # Errors
///
/// When the file for it cannot be opened.
pub fn init(config: &LogConfig, directives: Directives) -> Result<Log, OpenError> {
    let mut filter = Filter::new(directives, bridge::plugin_of);
    if config.debug_header.is_some() {
        filter = filter.with_loud_requests();
    }
    let output = match &config.log_file {
        Some(path) => Output::log(path).map_err(failed(path))?,
        None => Output::stderr().map_err(OpenError::Stream)?,
    };
    let is_terminal = output.is_terminal();
    let ansi = text::colour(is_terminal, env::var_os("NO_COLOR").as_deref());
    let format = match config.log_format {
        LogFormat::Text => Format::Text(Text { ansi, is_terminal }),
        LogFormat::Json => Format::Json,
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

/// Opens the place for the access log.
///
/// # Errors
///
/// When its file cannot be opened.
pub fn open_access(sink: &LineSink) -> Result<Output, OpenError> {
    match sink {
        LineSink::Stdout => Output::stdout().map_err(OpenError::Stream),
        LineSink::File(path) => Output::access(path).map_err(failed(path)),
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
