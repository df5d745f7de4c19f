//! Converts header fields between the `http` crate and the ABI.

use std::{cell::Cell, mem};

use http::{HeaderName, HeaderValue};

use super::names;
use crate::abi::{Header, HeaderView, Headers, Slice};

/// The fields of a [`HeaderMap`](http::HeaderMap) as ABI structs, which borrow from the map.
#[derive(Debug)]
pub(crate) struct HeaderFields(Vec<Header>);

// SAFETY: the pointers lead into a map that the creator of this value keeps alive, and a `HeaderMap` may be read on
// any thread.
unsafe impl Send for HeaderFields {}

impl Default for HeaderFields {
    /// Returns no fields, in a vector that reuses memory of this thread if possible.
    fn default() -> Self {
        // `unwrap_or_default` covers a thread that ends and has dropped its thread-locals.
        Self(SPARE.try_with(Cell::take).unwrap_or_default())
    }
}

impl Drop for HeaderFields {
    fn drop(&mut self) {
        self.0.clear();
        let vector = mem::take(&mut self.0);
        // A vector without memory must not replace a spare vector that has memory.
        if (1..=MAX_SPARE_FIELDS).contains(&vector.capacity()) {
            // Fails while the thread ends. The vector is then freed.
            let _ = SPARE.try_with(|spare| spare.set(vector));
        }
    }
}

thread_local! {
    /// An empty vector whose memory the next `HeaderFields` of this thread reuses.
    static SPARE: Cell<Vec<Header>> = const { Cell::new(Vec::new()) };
}

/// The maximum capacity of a vector that a thread keeps, in fields.
const MAX_SPARE_FIELDS: usize = 128;

impl HeaderFields {
    /// No fields, in a vector without memory.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Borrows `fields`, for example all fields of a map. The caller must keep the map alive and unchanged while the
    /// result is in use. The caller may move the map, because names and values are on the heap or static.
    pub(crate) fn new<'a>(
        fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    ) -> Self {
        let ids = names::ids();
        let mut borrowed = Self::default();
        borrowed
            .0
            .extend(fields.into_iter().map(|(name, value)| Header {
                name: Slice::new(name.as_str().as_bytes()),
                value: Slice::new(value.as_bytes()),
                id: ids.of(name),
                flags: if value.is_sensitive() {
                    Header::SENSITIVE
                } else {
                    0
                },
            }));
        borrowed
    }

    /// Returns whether there are no fields.
    #[cfg(feature = "host")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the fields, valid until `self` is changed or dropped.
    pub(crate) fn as_abi(&self) -> Headers {
        Headers::new(&self.0)
    }
}

/// Returns the value of a field.
///
/// # Errors
///
/// Returns an error if HTTP does not allow the value.
pub(super) fn value_of(field: &HeaderView<'_>) -> Result<HeaderValue, InvalidHeader> {
    let invalid = |_| InvalidHeader::new(field);
    let mut value = HeaderValue::from_bytes(field.value()).map_err(invalid)?;
    value.set_sensitive(field.is_sensitive());
    Ok(value)
}

/// The error for a field whose name or value is not valid HTTP. Contains the name.
#[derive(Debug, thiserror::Error)]
#[error("the header field {0:?} has a name or value that HTTP does not allow")]
pub(crate) struct InvalidHeader(String);

impl InvalidHeader {
    pub(super) fn new(field: &HeaderView<'_>) -> Self {
        Self(String::from_utf8_lossy(field.name()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        task::{Context, Waker},
    };

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;
    use crate::{
        crossing::{PanicBoundary, export_eager},
        panics::catch,
    };

    #[test]
    fn an_open_stream_takes_no_room_for_fields() {
        #[derive(Clone)]
        struct Here;
        impl PanicBoundary for Here {
            fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
                catch(work)
            }
        }
        type Frame = http_body::Frame<bytes::Bytes>;
        // This thread now has a spare vector.
        drop(HeaderFields(Vec::with_capacity(8)));
        let stream = stream::pending::<Result<Frame, Infallible>>();
        let mut context = Context::from_waker(Waker::noop());
        let open = export_eager(StreamBody::new(stream), &Here, &mut context);
        assert!(SPARE.take().capacity() >= 8);
        drop(open);
    }
}
