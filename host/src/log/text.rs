//! The text format: each event is one line, for people.
//!
//! ```text
//! 2026-11-23T08:17:21.123456Z WARN     shop#3: shop::cart: item is gone sku=12 name="a b" in request{id=7f}:cart{user=1}
//! ```
//!
//! The parts of a line are: time (UTC), level, plugin and generation or `host`, target, message, fields, request, and
//! the spans from the outermost span to the innermost.

use std::{
    ffi::OsStr,
    fmt::{self, Write},
};

use plugin_api::level::Level;
use tracing::Event;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::{
    escape::{self, Escape},
    event::{Buffers, LineBuffer, LineContext, for_each_span},
    fields::{self, Value},
    request::RequestMeta,
    worker,
};

/// Formats events as text.
#[derive(Clone, Copy, Debug)]
pub struct TextFormat {
    /// Whether a line has escape sequences that colour the level and dim the time.
    pub ansi: bool,
    /// Whether lines are written to a terminal. On a terminal, a backtrace is written as several lines after the line
    /// of the event.
    pub is_terminal: bool,
}

/// Returns whether lines have colours: on a terminal, unless the environment variable `NO_COLOR` is set and not empty
/// (no-color.org). `no_color` is the value of the variable.
#[must_use]
pub fn uses_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

impl TextFormat {
    /// Appends the line of `event` to `buffers.line`, without a line end.
    ///
    /// # Errors
    ///
    /// Never fails, because formatting into memory does not fail.
    pub fn write<S>(
        self,
        buffers: &mut Buffers,
        event: &Event<'_>,
        context: &LineContext<'_>,
        spans: Option<Scope<'_, S>>,
    ) -> fmt::Result
    where
        S: for<'span> LookupSpan<'span>,
    {
        let Buffers { line, scratch } = buffers;
        self.write_prefix(line, event, context)?;
        let has_message = fields::write_message(&mut Escape(&mut *line), event)?;
        let mut separator = if has_message { " " } else { "" };
        let mut written = Ok(());
        let mut backtrace = String::new();
        fields::visit(scratch, event, |field, value| {
            // On a terminal, the backtrace is written after the line.
            if self.is_terminal
                && let ("backtrace", Value::Str(text)) = (fields::name(field), value)
            {
                backtrace.push_str(text);
                return;
            }
            let before = std::mem::replace(&mut separator, " ");
            // `visit` cannot stop early, so `written` stores the first error, and later fields are not written.
            written = written
                .and_then(|()| line.write_str(before))
                .and_then(|()| write_field(line, fields::name(field), &value));
        });
        written?;
        if let Some(worker) = worker::number_in_text() {
            write!(line, "{separator}worker={worker}")?;
        }
        write_spans(line, context.request, spans)?;
        // The indentation shows that the lines of a backtrace are not lines of the log.
        for frame in backtrace.lines() {
            line.write_str("\n    ")?;
            Escape(&mut *line).write_str(frame)?;
        }
        Ok(())
    }

    /// Writes the parts before the message: time, level, origin and target.
    fn write_prefix(
        self,
        line: &mut LineBuffer,
        event: &Event<'_>,
        context: &LineContext<'_>,
    ) -> fmt::Result {
        let time = humantime::format_rfc3339_micros(context.time);
        let (label, colour) = label_and_colour(Level::of(event.metadata()));
        if self.ansi {
            write!(line, "{DIM}{time}{RESET} {colour}{label:<8}{RESET}")?;
        } else {
            write!(line, "{time} {label:<8}")?;
        }
        // Writes each part with a separate call, because one `write!` with several texts costs more.
        line.write_char(' ')?;
        let target = event.metadata().target();
        match context.origin {
            Some(origin) => {
                Escape(&mut *line).write_str(origin.plugin)?;
                write!(line, "#{}: ", origin.generation)?;
            }
            // The target of the host's own code begins with `host` already.
            None if target.starts_with("host::") => {}
            None => line.write_str("host: ")?,
        }
        Escape(&mut *line).write_str(target)?;
        line.write_str(": ")
    }
}

/// Writes the request and the spans of an event: ` in request{id=7f}:cart{user=1}`.
fn write_spans<S>(
    line: &mut LineBuffer,
    request: Option<&RequestMeta>,
    spans: Option<Scope<'_, S>>,
) -> fmt::Result
where
    S: for<'span> LookupSpan<'span>,
{
    // The separator before the next span.
    let mut separator = " in ";
    if let Some(request) = request {
        write!(
            Escape(&mut *line),
            " in request{{id={}",
            request.id.as_str()
        )?;
        if let Some(trace) = &request.trace {
            write!(
                line,
                " trace_id={} span_id={}",
                trace.trace_id(),
                trace.span_id()
            )?;
        }
        line.write_char('}')?;
        separator = ":";
    }
    for_each_span(spans, |name, fields| {
        line.write_str(std::mem::replace(&mut separator, ":"))?;
        Escape(&mut *line).write_str(name)?;
        // A brace before the first field, and spaces between the fields.
        let mut before = '{';
        for (name, value) in fields.iter() {
            line.write_char(std::mem::replace(&mut before, ' '))?;
            write_field(line, name, &value)?;
        }
        if fields.is_empty() {
            Ok(())
        } else {
            line.write_char('}')
        }
    })
}

/// Writes `name=value`.
fn write_field(line: &mut LineBuffer, name: &str, value: &Value<'_>) -> fmt::Result {
    escape::write_value(line, name)?;
    line.write_char('=')?;
    match value {
        Value::Bool(value) => write!(line, "{value}"),
        Value::U64(value) => write!(line, "{value}"),
        Value::I64(value) => write!(line, "{value}"),
        Value::U128(value) => write!(line, "{value}"),
        Value::I128(value) => write!(line, "{value}"),
        // Uses `Debug`, because `Debug` writes the float 1 as `1.0`, and `Display` writes `1`.
        Value::F64(value) => write!(line, "{value:?}"),
        Value::Str(text) => escape::write_value(line, text),
    }
}

/// Returns the name of a level in a line, and the escape sequence of its colour. No event has the level off.
fn label_and_colour(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Off | Level::Critical => ("CRITICAL", "\x1b[1;31m"),
        Level::Error => ("ERROR", "\x1b[31m"),
        Level::Warn => ("WARN", "\x1b[33m"),
        Level::Info => ("INFO", "\x1b[32m"),
        Level::Debug => ("DEBUG", "\x1b[34m"),
        Level::Trace => ("TRACE", "\x1b[35m"),
    }
}

/// The escape sequence that dims the text that follows.
const DIM: &str = "\x1b[2m";
/// The escape sequence that ends colour and dimming.
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests;
