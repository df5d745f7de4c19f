//! Header fields, both ways.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::names;
use crate::abi::{Header, Headers, Slice};

/// The fields of a [`HeaderMap`] as they cross: borrowed from the map.
#[derive(Debug, Default)]
pub(crate) struct HeaderFields(SmallVec<[Header; 16]>);

// SAFETY: the pointers are only followed by the other side, while the map that they borrow from is
// kept.
unsafe impl Send for HeaderFields {}

impl HeaderFields {
    /// Borrows the fields of `map`; the caller keeps it unchanged for as long as the result is
    /// used. The map may be moved: names and values lie behind pointers.
    pub(crate) fn new(map: &HeaderMap) -> Self {
        let fields = map.iter().map(|(name, value)| Header {
            name: Slice::new(name.as_str().as_bytes()),
            value: Slice::new(value.as_bytes()),
            id: names::id(name),
            flags: if value.is_sensitive() {
                Header::SENSITIVE
            } else {
                0
            },
        });
        Self(fields.collect())
    }

    /// Where the fields are; valid as long as `self` stays where it is.
    pub(crate) fn as_abi(&self) -> Headers {
        Headers::new(&self.0)
    }
}

/// Adds the fields that the other side lent to `map`. Their values share one allocation.
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
    // SAFETY: the caller says so.
    let value_of = |field: &Header| unsafe { field.value.bytes() };
    let mut arena = BytesMut::with_capacity(fields.iter().map(|field| value_of(field).len()).sum());
    for field in fields {
        arena.extend_from_slice(value_of(field));
    }
    let mut arena = arena.freeze();
    map.reserve(fields.len());
    for field in fields {
        // SAFETY: the caller says so.
        let name = unsafe { field.name.bytes() };
        let value: Bytes = arena.split_to(value_of(field).len());
        let invalid = || InvalidHeader(String::from_utf8_lossy(name).into_owned());
        let mut value = HeaderValue::from_maybe_shared(value).map_err(|_| invalid())?;
        value.set_sensitive(field.flags & Header::SENSITIVE != 0);
        match names::name(field.id) {
            Some(name) => map.append(name, value),
            None => map.append(HeaderName::from_bytes(name).map_err(|_| invalid())?, value),
        };
    }
    Ok(())
}

/// A field that HTTP does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the header field {0:?} has a name or value that HTTP does not allow")]
pub(crate) struct InvalidHeader(String);

#[cfg(test)]
mod tests {
    use super::*;

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
