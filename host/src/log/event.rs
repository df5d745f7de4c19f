//! The data that the formats need besides the event: the context and the spans of the event, and buffers for the line.

use std::{cell::Cell, fmt, time::SystemTime};

use tracing_subscriber::registry::{LookupSpan, Scope};

use super::{
    fields::SpanFields,
    origin::Origin,
    request::{self, RequestMeta},
};

/// The parts of a line that come neither from the event nor from its spans.
#[derive(Clone, Copy, Debug)]
pub struct LineContext<'a> {
    /// When the event happened.
    pub time: SystemTime,
    /// The generation that logged the event. `None` for an event of the host.
    pub origin: Option<Origin>,
    /// The name of the thread. `None` if the thread has no name.
    pub thread: Option<&'a str>,
    /// The request that the event belongs to. `None` outside of requests.
    pub request: Option<&'a RequestMeta>,
}

/// The buffers of a thread. Every line of the thread reuses these buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    /// The bytes of the line that are written so far.
    pub line: LineBuffer,
    /// A scratch buffer in which a value is formatted.
    pub scratch: String,
}

/// The bytes of a line, as a [`fmt::Write`].
#[derive(Debug, Default)]
pub struct LineBuffer(pub Vec<u8>);

impl fmt::Write for LineBuffer {
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
    /// Runs `work` with the buffers of this thread. If the buffers are in use, `work` gets new buffers. That happens
    /// when the `Debug` or `Display` code of a value logs while the value is formatted.
    pub(super) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static BUFFERS: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
        }
        // `try_with`, because plugins log in drop code that runs while a thread ends, after the thread-local is
        // dropped.
        let mut buffers = BUFFERS
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        let result = work(&mut buffers);
        // Shrinks the buffers, so that one long line does not occupy memory for ever.
        buffers.line.0.clear();
        buffers.line.0.shrink_to(MAX_IDLE_BYTES);
        buffers.scratch.clear();
        buffers.scratch.shrink_to(MAX_IDLE_BYTES);
        let _ = BUFFERS.try_with(|cell| cell.set(Some(buffers)));
        result
    }
}

/// Calls `visit` with the name and the fields of each span of an event, from the outermost span to the innermost. Skips
/// the span of the request, because formats write the request from its [`RequestMeta`].
///
/// # Errors
///
/// Stops at the first error of `visit`, and returns that error.
pub fn for_each_span<S>(
    spans: Option<Scope<'_, S>>,
    mut visit: impl FnMut(&'static str, &SpanFields) -> fmt::Result,
) -> fmt::Result
where
    S: for<'span> LookupSpan<'span>,
{
    let no_fields = SpanFields::default();
    for span in spans.into_iter().flat_map(Scope::from_root) {
        if !request::is_request_span(span.metadata()) {
            let extensions = span.extensions();
            visit(span.name(), extensions.get().unwrap_or(&no_fields))?;
        }
    }
    Ok(())
}

/// The largest capacity of a buffer between two lines. Enough for a usual line.
const MAX_IDLE_BYTES: usize = 4096;
