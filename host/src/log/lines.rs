//! From an event to a line in an [`Output`], in one of the formats.

use std::{cell::Cell, fmt, time::SystemTime};

use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::{LookupSpan, Scope},
};

use super::{
    fields::SpanFields,
    json::Json,
    losses,
    origin::{self, Origin},
    output::Output,
    request::{self, Facts},
    text::Text,
};

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// A line for people.
    Text(Text),
    /// A line for programs.
    Json,
}

/// Writes each event as a line. A line is written at once: nothing is queued.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    output: Output,
}

impl Lines {
    /// Writes to `output`.
    #[must_use]
    pub fn new(format: Format, output: Output) -> Self {
        Self { format, output }
    }
}

/// What a line says beside the event and its spans.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// When the event happened.
    pub time: SystemTime,
    /// The plugin that it comes from; none for the host.
    pub origin: Option<Origin>,
    /// The thread's name.
    pub thread: Option<&'a str>,
    /// The request that it belongs to.
    pub request: Option<&'a Facts>,
}

/// Buffers that a thread uses line after line.
#[derive(Debug, Default)]
pub struct Buffers {
    /// The line.
    pub line: Line,
    /// Where values are put together.
    pub scratch: String,
}

/// A line that grows.
#[derive(Debug, Default)]
pub struct Line(pub Vec<u8>);

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn write_char(&mut self, letter: char) -> fmt::Result {
        match u8::try_from(letter) {
            Ok(byte) if byte.is_ascii() => self.0.push(byte),
            _ => return self.write_str(letter.encode_utf8(&mut [0; 4])),
        }
        Ok(())
    }
}

impl Buffers {
    /// Lends the thread's buffers to `work`; others when a value logs while it is being written.
    fn lend<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static KEPT: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
        }
        // While a thread ends its locals are gone, and plugins log in the drop code of theirs.
        let mut buffers = KEPT.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let done = work(&mut buffers);
        buffers.line.0.clear();
        buffers.line.0.shrink_to(KEPT_BYTES);
        buffers.scratch.clear();
        buffers.scratch.shrink_to(KEPT_BYTES);
        let _ = KEPT.try_with(|kept| kept.set(Some(buffers)));
        done
    }
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // What the span of a request says is in its facts.
        if attributes.is_empty() || request::is_span(attributes.metadata()) {
            return;
        }
        let mut fields = SpanFields::default();
        Buffers::lend(|buffers| {
            fields.add(&mut buffers.scratch, |visit| attributes.record(visit));
        });
        if let Some(span) = context.span(id).filter(|_| !fields.is_empty()) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        // Written first: what a value's own code logs may want the span.
        let mut later = SpanFields::default();
        Buffers::lend(|buffers| {
            later.add(&mut buffers.scratch, |visit| values.record(visit));
        });
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<SpanFields>() {
            Some(fields) => fields.extend(later),
            None => extensions.insert(later),
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let innermost = context.event_span(event);
        let write = |request: Option<&Facts>| {
            origin::with_thread_name(|thread| {
                let head = Head {
                    time: SystemTime::now(),
                    origin: origin::current(),
                    thread,
                    request,
                };
                self.write(event, &head, context.event_scope(event));
            });
        };
        match innermost.and_then(|span| request::facts_of(&span, Facts::clone)) {
            Some(facts) => write(Some(&facts)),
            None => request::with_current(|request| write(request.map(|request| request.facts()))),
        }
    }
}

impl Lines {
    fn write<S>(&self, event: &Event<'_>, head: &Head<'_>, spans: Option<Scope<'_, S>>)
    where
        S: for<'span> LookupSpan<'span>,
    {
        Buffers::lend(|buffers| {
            let formatted = match self.format {
                Format::Text(text) => text.write(buffers, event, head, spans),
                Format::Json => Json.write(buffers, event, head, spans),
            };
            // Writing to a string does not fail.
            if formatted.is_ok() {
                buffers.line.0.push(b'\n');
                losses::write(&self.output, &buffers.line.0);
            }
        });
    }
}

/// Gives `see` the spans that an event is in, from the outermost inwards, but that of the request.
pub fn each_span<S>(
    spans: Option<Scope<'_, S>>,
    mut see: impl FnMut(&'static str, &SpanFields) -> fmt::Result,
) -> fmt::Result
where
    S: for<'span> LookupSpan<'span>,
{
    let none = SpanFields::default();
    for span in spans.into_iter().flat_map(Scope::from_root) {
        if !request::is_span(span.metadata()) {
            let extensions = span.extensions();
            see(span.name(), extensions.get().unwrap_or(&none))?;
        }
    }
    Ok(())
}

/// How much of a buffer stays between lines, in bytes: enough for any usual line.
const KEPT_BYTES: usize = 4096;

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use tracing::subscriber;
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    /// What `emit` logs, without the ends of the lines.
    pub(crate) fn lines(format: Format, emit: impl FnOnce()) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = Output::log(file.path()).unwrap();
        let subscriber = registry().with(Lines::new(format, output));
        subscriber::with_default(subscriber, emit);
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }
}
