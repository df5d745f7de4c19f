//! Header fields, both ways.

use std::{cell::Cell, mem};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    memo::{self, Met},
    names,
};
use crate::abi::{Header, Headers, Slice};

/// The fields of a [`HeaderMap`] as they cross: borrowed from the map.
#[derive(Debug)]
pub(crate) struct HeaderFields(Vec<Header>);

// SAFETY: the pointers are only followed while the map that they borrow from is kept, which whoever
// made this sees to.
unsafe impl Send for HeaderFields {}

impl Default for HeaderFields {
    /// No fields, in room that this thread may have left over.
    fn default() -> Self {
        Self(SPARE.try_with(Cell::take).unwrap_or_default())
    }
}

impl Drop for HeaderFields {
    fn drop(&mut self) {
        self.0.clear();
        let room = mem::take(&mut self.0);
        if (1..=MOST_SPARE).contains(&room.capacity()) {
            // While the thread ends there is nobody to leave it to.
            let _ = SPARE.try_with(|spare| spare.set(room));
        }
    }
}

thread_local! {
    static SPARE: Cell<Vec<Header>> = const { Cell::new(Vec::new()) };
}

/// For how many fields a thread keeps room.
const MOST_SPARE: usize = 128;

impl HeaderFields {
    /// No fields, and no room.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Borrows `fields`, as those of a map; the caller keeps it unchanged for as long as the result is
    /// used. The map may be moved: names and values lie behind pointers.
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

    /// Where the fields are; valid as long as `self` stays where it is.
    pub(crate) fn as_abi(&self) -> Headers {
        Headers::new(&self.0)
    }
}

/// Adds the fields that the other side lent to `map`. An app says most of its values again and
/// again: they are remembered.
///
/// # Errors
///
/// A name or value that HTTP does not allow is an error, by its name.
///
/// # Safety
///
/// `headers` and what it borrows are valid until this returns.
pub(crate) unsafe fn add_fields(
    map: &mut HeaderMap,
    headers: Headers,
) -> Result<(), InvalidHeader> {
    // SAFETY: the caller says so.
    let fields = unsafe { headers.fields() };
    // SAFETY: as above.
    memo::with(|met| unsafe { add_known(map, fields, met) })
}

/// [`add_fields`] with what this thread met.
///
/// # Errors
///
/// As for [`add_fields`].
///
/// # Safety
///
/// What `fields` borrow is valid until this returns.
pub(super) unsafe fn add_known(
    map: &mut HeaderMap,
    fields: &[Header],
    mut met: Option<&mut Met>,
) -> Result<(), InvalidHeader> {
    for field in fields {
        // SAFETY: the caller says so.
        let value = unsafe { known_value(field, met.as_deref_mut()) }?;
        // SAFETY: the caller says so.
        unsafe { add_field(map, field, value, met.as_deref_mut()) }?;
    }
    Ok(())
}

/// Adds one field.
///
/// # Errors
///
/// As for [`add_fields`].
///
/// # Safety
///
/// What `field` borrows is valid until this returns.
unsafe fn add_field(
    map: &mut HeaderMap,
    field: &Header,
    value: HeaderValue,
    met: Option<&mut Met>,
) -> Result<(), InvalidHeader> {
    if let Some(name) = names::name(field.id) {
        map.append(name, value);
        return Ok(());
    }
    // SAFETY: the caller says so.
    let name = names::parse(unsafe { field.name.bytes() }, met);
    // SAFETY: the caller says so.
    let name = name.ok_or_else(|| unsafe { InvalidHeader::new(field) })?;
    map.append(name, value);
    Ok(())
}

/// The value of a field, which may have been met before.
///
/// # Safety
///
/// What `field` borrows is valid until this returns.
unsafe fn known_value(field: &Header, met: Option<&mut Met>) -> Result<HeaderValue, InvalidHeader> {
    // SAFETY: the caller says so.
    let bytes = unsafe { field.value.bytes() };
    // SAFETY: the caller says so.
    let Some(met) = met.filter(|_| unsafe { may_be_kept(field) }) else {
        // SAFETY: the caller says so.
        return unsafe { value_of(field) };
    };
    let hash = memo::hash(bytes);
    match met.values.get(hash) {
        Some(value) if value == bytes => Ok(value.clone()),
        _ => {
            // SAFETY: the caller says so.
            let value = unsafe { value_of(field) }?;
            met.values.meet(hash, || value.clone());
            Ok(value)
        }
    }
}

/// The value of a field.
///
/// # Errors
///
/// As for [`add_fields`].
///
/// # Safety
///
/// What `field` borrows is valid until this returns.
pub(super) unsafe fn value_of(field: &Header) -> Result<HeaderValue, InvalidHeader> {
    // SAFETY: the caller says so.
    let bytes = unsafe { field.value.bytes() };
    // SAFETY: as above.
    let invalid = |_| unsafe { InvalidHeader::new(field) };
    let mut value = HeaderValue::from_bytes(bytes).map_err(invalid)?;
    value.set_sensitive(is_sensitive(field));
    Ok(value)
}

pub(super) fn is_sensitive(field: &Header) -> bool {
    field.flags & Header::SENSITIVE != 0
}

/// Whether the value of a field may stay with what was met: it is short, and no secret.
///
/// # Safety
///
/// What `field` borrows is valid until this returns.
pub(super) unsafe fn may_be_kept(field: &Header) -> bool {
    if field.value.len > memo::LONGEST || is_sensitive(field) {
        return false;
    }
    if field.id != 0 {
        return !names::is_secret(field.id);
    }
    // The other side may know a name by its text only.
    // SAFETY: the caller says so.
    !names::is_secret_name(unsafe { field.name.bytes() })
}

/// A field that HTTP does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the header field {0:?} has a name or value that HTTP does not allow")]
pub(crate) struct InvalidHeader(String);

impl InvalidHeader {
    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    unsafe fn new(field: &Header) -> Self {
        // SAFETY: the caller says so.
        let name = unsafe { field.name.bytes() };
        Self(String::from_utf8_lossy(name).into_owned())
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
    use crate::crossing::{Guard, catch, export_polled};

    #[test]
    fn fields_cross_as_they_are() {
        let mut map = HeaderMap::new();
        map.append("x-many", HeaderValue::from_static("one"));
        map.append("x-many", HeaderValue::from_static(""));
        map.append("x-bytes", HeaderValue::from_bytes(b"caf\xe9\x80").unwrap());
        map.append("content-type", HeaderValue::from_static("text/plain"));
        let mut secret = HeaderValue::from_static("hush");
        secret.set_sensitive(true);
        map.append("authorization", secret);

        let fields = HeaderFields::new(&map);
        let mut crossed = HeaderMap::new();
        // SAFETY: `map` is still there.
        unsafe { add_fields(&mut crossed, fields.as_abi()) }.unwrap();
        assert_eq!(crossed, map);
        assert!(crossed["authorization"].is_sensitive());
    }

    #[test]
    fn secrets_are_not_kept_whoever_knows_their_numbers() {
        let field = |name: &'static str, id| Header {
            name: Slice::new(name.as_bytes()),
            value: Slice::new(b"hush"),
            id,
            flags: 0,
        };
        for (name, id, may_stay) in [
            ("cookie", 31, false),
            ("cookie", 0, false),
            ("authorization", 0, false),
            ("proxy-authorization", 0, false),
            ("set-cookie", 0, false),
            ("accept", 1, true),
            ("accept", 0, true),
        ] {
            // SAFETY: the field borrows static bytes.
            let may = unsafe { may_be_kept(&field(name, id)) };
            assert_eq!(may, may_stay, "{name} {id}");
        }
    }

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
        // What this thread has left over.
        drop(HeaderFields(Vec::with_capacity(8)));
        let stream = stream::pending::<Result<Frame, Infallible>>();
        let mut context = Context::from_waker(Waker::noop());
        let open = export_polled(StreamBody::new(stream), &Here, &mut context);
        assert!(SPARE.take().capacity() >= 8);
        drop(open);
    }

    #[test]
    fn a_field_that_would_split_a_message_is_refused() {
        let field = Header {
            name: Slice::new(b"x"),
            value: Slice::new(b"a\r\nb: c"),
            id: 0,
            flags: 0,
        };
        // SAFETY: the field borrows static bytes.
        let added = unsafe { add_fields(&mut HeaderMap::new(), Headers::new(&[field])) };
        assert!(added.is_err());
    }
}
