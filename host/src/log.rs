//! The log: one stream of lines, from host and plugins alike, under one level.

pub mod bridge;
pub mod escape;
pub mod fields;
pub mod filter;
pub mod json;
pub mod level;
pub mod lines;
pub mod origin;
pub mod output;
pub mod request;
pub mod text;

use std::{
    env,
    io::{self, IsTerminal},
};

use plugin_api::level::Directives;
use tracing_subscriber::{layer::SubscriberExt, registry};

use self::{
    filter::Filter,
    lines::{Format, Lines},
    output::Output,
    text::Text,
};

/// Sends what is logged from now on to stderr, by `directives`. The result changes them.
///
/// The first call in a process counts; there is one in a program.
///
/// # Errors
///
/// When there is no stderr.
pub fn init(directives: Directives) -> io::Result<Filter> {
    let filter = Filter::new(directives, bridge::plugin_of);
    let ansi = text::colour(
        io::stderr().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
    );
    let lines = Lines::new(Format::Text(Text { ansi }), Output::stderr()?);
    // It fails when there was one before, which then is this one.
    let _ = tracing::subscriber::set_global_default(registry().with(lines).with(filter.clone()));
    Ok(filter)
}
