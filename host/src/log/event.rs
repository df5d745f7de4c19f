//! The data from which the formats write a line: context and spans of an event, and the buffers of the line.

use std::{cell::Cell, fmt, time::SystemTime};

use tracing_subscriber::registry::{LookupSpan, Scope};

use super::{
    fields::SpanFields,
    origin::Origin,
    request::{self, RequestMeta},
};

/// The parts of a line besides the event and its spans.
#[derive(Clone, Copy, Debug)]
pub struct LineContext<'a> {
    /// When the event happened.
    pub time: SystemTime,
    /// The plugin that logged the event. None for the host.
    pub origin: Option<Origin>,
    /// The name of the thread.
    pub thread: Option<&'a str>,
    /// The request that the event belongs to.
    pub request: Option<&'a RequestMeta>,
}

/// The buffers of a thread, which are reused for every line.
#[derive(Debug, Default)]
pub struct Buffers {
    /// The line so far.
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
    /// Runs `work` with the thread's buffers. If these are in use, because the code of a value logs while the
    /// value is formatted, `work` gets new buffers.
    pub(super) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static BUFFERS: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
        }
        // A thread that ends has no thread-locals any more, but drop code of plugins still logs on it.
        let mut buffers = BUFFERS
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        // A long line must not keep its memory for ever.
        let done = work(&mut buffers);
        buffers.line.0.clear();
        buffers.line.0.shrink_to(KEPT_BYTES);
        buffers.scratch.clear();
        buffers.scratch.shrink_to(KEPT_BYTES);
        let _ = BUFFERS.try_with(|kept| kept.set(Some(buffers)));
        done
    }
}

/// Calls `see` with each span of an event, from the outermost inwards, except the span of the request.
///
/// # Errors
///
/// The first error of `see`.
pub fn for_each_span<S>(
    spans: Option<Scope<'_, S>>,
    mut see: impl FnMut(&'static str, &SpanFields) -> fmt::Result,
) -> fmt::Result
where
    S: for<'span> LookupSpan<'span>,
{
    let none = SpanFields::default();
    for span in spans.into_iter().flat_map(Scope::from_root) {
        if !request::is_request_span(span.metadata()) {
            let extensions = span.extensions();
            see(span.name(), extensions.get().unwrap_or(&none))?;
        }
    }
    Ok(())
}

/// How many bytes of a buffer are kept between lines, which is enough for any usual line.
const KEPT_BYTES: usize = 4096;
