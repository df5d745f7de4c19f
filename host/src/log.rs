//! The log: one stream of lines, from host and plugins alike, under one level.

pub mod bridge;
pub mod escape;
pub mod fields;
pub mod filter;
pub mod level;
pub mod origin;
pub mod text;

use std::{
    env,
    io::{self, IsTerminal},
};

use plugin_api::level::Directives;
use tracing_subscriber::{layer::SubscriberExt, registry};

use self::{filter::Filter, text::Text};

/// Sends what is logged from now on to stderr, by `directives`. The result changes them.
///
/// The first call in a process counts; there is one in a program.
pub fn init(directives: Directives) -> Filter {
    let filter = Filter::new(directives, bridge::plugin_of);
    let ansi = text::colour(
        io::stderr().is_terminal(),
        env::var_os("NO_COLOR").as_deref(),
    );
    let lines = Text { ansi }.layer(io::stderr);
    // It fails when there was one before, which then is this one.
    let _ = tracing::subscriber::set_global_default(registry().with(lines).with(filter.clone()));
    filter
}
