//! What the formats write: an event, what a line says beside it, and the buffers that it is put together
//! in.

use std::{cell::Cell, fmt, time::SystemTime};

use tracing_subscriber::registry::{LookupSpan, Scope};

use super::{
    fields::SpanFields,
    origin::Origin,
    request::{self, Facts},
};

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
    pub(super) fn lend<T>(work: impl FnOnce(&mut Self) -> T) -> T {
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
