//! From an event to a line in an [`Output`], in one of the formats.

use std::time::SystemTime;

use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::{LookupSpan, Scope},
};

use super::{
    event::{Buffers, Head},
    fields::SpanFields,
    json::Json,
    losses, origin,
    output::Output,
    recent,
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
                if let Some(request) = head.request
                    && recent::is_on()
                {
                    recent::add_line(request.id.as_str(), &buffers.line.0);
                }
            }
        });
    }
}

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
