//! The layer of `tracing` that writes each event as a line to an [`Output`].

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
    event::{Buffers, LineContext},
    fields::SpanFields,
    json::JsonFormat,
    losses, origin,
    output::Output,
    recent,
    request::{self, RequestMeta},
    text::TextFormat,
};

/// The format of lines.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// Text for people.
    Text(TextFormat),
    /// JSON objects for programs.
    Json,
}

/// The layer that writes each event as a line. Writes on the thread of the event, before the code that emitted the
/// event continues.
#[derive(Debug)]
pub struct LineLayer {
    format: Format,
    output: Output,
}

impl LineLayer {
    /// Returns a layer that writes to `output`.
    #[must_use]
    pub fn new(format: Format, output: Output) -> Self {
        Self { format, output }
    }
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // Stores no fields for the span of a request, because formats write the request from its `RequestMeta`.
        if attributes.is_empty() || request::is_request_span(attributes.metadata()) {
            return;
        }
        let mut fields = SpanFields::default();
        Buffers::with(|buffers| {
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
        // Formats the values before `extensions_mut` locks the span, because the `Debug` code of a value may log in the
        // same span.
        let mut later = SpanFields::default();
        Buffers::with(|buffers| {
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
        let write = |request: Option<&RequestMeta>| {
            origin::with_thread_name(|thread| {
                let line_context = LineContext {
                    time: SystemTime::now(),
                    origin: origin::current(),
                    thread,
                    request,
                };
                self.write(event, &line_context, context.event_scope(event));
            });
        };
        // An event in a span belongs to the request of that span, because the event may come from a task that the app
        // has spawned on another thread. An event outside of such spans belongs to the request that this thread works
        // on.
        match innermost.and_then(|span| request::with_meta_of(&span, RequestMeta::clone)) {
            Some(meta) => write(Some(&meta)),
            None => request::with_current(|request| write(request.map(|request| request.meta()))),
        }
    }
}

impl LineLayer {
    /// Formats one event and writes the line.
    fn write<S>(&self, event: &Event<'_>, context: &LineContext<'_>, spans: Option<Scope<'_, S>>)
    where
        S: for<'span> LookupSpan<'span>,
    {
        Buffers::with(|buffers| {
            let formatted = match self.format {
                Format::Text(text) => text.write(buffers, event, context, spans),
                Format::Json => JsonFormat.write(buffers, event, context, spans),
            };
            // Always true, because formatting into memory does not fail.
            if formatted.is_ok() {
                buffers.line.0.push(b'\n');
                // The line and its line end are in one buffer, because one write must contain both.
                losses::write(&self.output, &buffers.line.0);
                if let Some(request) = context.request
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

    /// Returns the lines that `emit` logs, without their line ends.
    pub(crate) fn lines(format: Format, emit: impl FnOnce()) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = Output::log(file.path()).unwrap();
        let subscriber = registry().with(LineLayer::new(format, output));
        subscriber::with_default(subscriber, emit);
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }
}
