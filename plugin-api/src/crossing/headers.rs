//! Header fields, both ways.

use std::{cell::Cell, mem};

use http::{HeaderName, HeaderValue};

use super::names;
use crate::abi::{Header, HeaderView, Headers, Slice};

/// The fields of a [`HeaderMap`](http::HeaderMap) as they cross: borrowed from the map.
#[derive(Debug)]
pub(crate) struct HeaderFields(Vec<Header>);

// SAFETY: the pointers are only followed while the map that they borrow from is kept, which whoever
// made this sees to.
unsafe impl Send for HeaderFields {}

impl Default for HeaderFields {
    /// No fields, in a vector that this thread may have used before.
    fn default() -> Self {
        Self(SPARE.try_with(Cell::take).unwrap_or_default())
    }
}

impl Drop for HeaderFields {
    fn drop(&mut self) {
        self.0.clear();
        let room = mem::take(&mut self.0);
        if (1..=MOST_SPARE).contains(&room.capacity()) {
            // Fails while the thread ends; the vector is freed then.
            let _ = SPARE.try_with(|spare| spare.set(room));
        }
    }
}

thread_local! {
    static SPARE: Cell<Vec<Header>> = const { Cell::new(Vec::new()) };
}

/// The largest vector that a thread keeps, in fields.
const MOST_SPARE: usize = 128;

impl HeaderFields {
    /// No fields, and no memory for any.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Borrows `fields`, those of a map for instance. The caller keeps the map unchanged for as long as the result is
    /// used. The map may be moved, because names and values are behind pointers.
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

    /// Whether there are no fields.
    #[cfg(feature = "host")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields, valid as long as `self` is not changed.
    pub(crate) fn as_abi(&self) -> Headers {
        Headers::new(&self.0)
    }
}

/// The value of a field.
///
/// # Errors
///
/// When HTTP does not allow the value.
pub(super) fn value_of(field: &HeaderView<'_>) -> Result<HeaderValue, InvalidHeader> {
    let invalid = |_| InvalidHeader::new(field);
    let mut value = HeaderValue::from_bytes(field.value()).map_err(invalid)?;
    value.set_sensitive(field.is_sensitive());
    Ok(value)
}

/// A field that HTTP does not allow.
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
        crossing::{Guard, export_eager},
        panics::catch,
    };

    #[test]
    fn an_open_stream_takes_no_room_for_fields() {
        #[derive(Clone)]
        struct Here;
        impl Guard for Here {
            fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
                catch(work)
            }
        }
        type Frame = http_body::Frame<bytes::Bytes>;
        // A vector that this thread keeps.
        drop(HeaderFields(Vec::with_capacity(8)));
        let stream = stream::pending::<Result<Frame, Infallible>>();
        let mut context = Context::from_waker(Waker::noop());
        let open = export_eager(StreamBody::new(stream), &Here, &mut context);
        assert!(SPARE.take().capacity() >= 8);
        drop(open);
    }
}
