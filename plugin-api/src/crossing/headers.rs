//! Header fields, both ways.

use std::{cell::Cell, mem};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{memo, names};
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
    #[cfg(feature = "host")]
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Borrows the fields of `map`; the caller keeps it unchanged for as long as the result is
    /// used. The map may be moved: names and values lie behind pointers.
    pub(crate) fn new(map: &HeaderMap) -> Self {
        let mut fields = Self::default();
        fields.add(map);
        fields
    }

    /// Borrows the fields of `map` too, as [`new`](Self::new) does.
    pub(crate) fn add(&mut self, map: &HeaderMap) {
        self.0.reserve(map.len());
        for (name, value) in map {
            self.push(name, value);
        }
    }

    /// Borrows one more field, as [`new`](Self::new) does.
    pub(crate) fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.0.push(Header {
            name: Slice::new(name.as_str().as_bytes()),
            value: Slice::new(value.as_bytes()),
            id: names::id(name),
            flags: if value.is_sensitive() {
                Header::SENSITIVE
            } else {
                0
            },
        });
    }

    /// The first value of a field with this name, which is none of the well-known.
    ///
    /// # Safety
    ///
    /// The map that the fields borrow from is still there, and unchanged.
    #[cfg(feature = "host")]
    pub(crate) unsafe fn find_unnumbered(&self, name: &str) -> Option<&[u8]> {
        let is_it = |field: &&Header| {
            // SAFETY: the caller says so.
            field.id == 0 && unsafe { field.name.bytes() } == name.as_bytes()
        };
        let field = self.0.iter().find(is_it)?;
        // SAFETY: the caller says so.
        Some(unsafe { field.value.bytes() })
    }

    /// Where the fields are; valid as long as `self` stays where it is.
    pub(crate) fn as_abi(&self) -> Headers {
        Headers::new(&self.0)
    }
}

/// Adds the fields that the other side lent to `map`.
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
    for field in unsafe { headers.fields() } {
        // SAFETY: the caller says so.
        let value = unsafe { parse(field) };
        // SAFETY: the caller says so.
        unsafe { add_field(map, field, value) }?;
    }
    Ok(())
}

/// Adds a field whose value was looked at; none is an error.
///
/// # Safety
///
/// What `field` borrows is valid until this returns.
pub(super) unsafe fn add_field(
    map: &mut HeaderMap,
    field: &Header,
    value: Option<HeaderValue>,
) -> Result<(), InvalidHeader> {
    // SAFETY: the caller says so.
    let name = unsafe { field.name.bytes() };
    // SAFETY: as above.
    let invalid = || unsafe { InvalidHeader::new(field) };
    let mut value = value.ok_or_else(invalid)?;
    value.set_sensitive(field.flags & Header::SENSITIVE != 0);
    match names::name(field.id) {
        Some(name) => map.append(name, value),
        None => map.append(names::parse(name).ok_or_else(invalid)?, value),
    };
    Ok(())
}

/// The value of a field, when HTTP allows it. An app says most of its values again and again.
///
/// # Safety
///
/// What `field` borrows is valid until this returns.
unsafe fn parse(field: &Header) -> Option<HeaderValue> {
    // SAFETY: the caller says so.
    let bytes = unsafe { field.value.bytes() };
    if bytes.len() > memo::LONGEST || field.flags & Header::SENSITIVE != 0 {
        return HeaderValue::from_bytes(bytes).ok();
    }
    let hash = memo::hash(bytes);
    let known = memo::lend(|met| {
        let value = met.values.get(hash)?;
        (value.as_bytes() == bytes).then(|| value.clone())
    });
    if let Some(Some(value)) = known {
        return Some(value);
    }
    let value = HeaderValue::from_bytes(bytes).ok()?;
    memo::lend(|met| met.values.meet(hash, || value.clone()));
    Some(value)
}

/// A field that HTTP does not allow.
#[derive(Debug, thiserror::Error)]
#[error("the header field {0:?} has a name or value that HTTP does not allow")]
pub(crate) struct InvalidHeader(String);

impl InvalidHeader {
    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    pub(super) unsafe fn new(field: &Header) -> Self {
        // SAFETY: the caller says so.
        let name = unsafe { field.name.bytes() };
        Self(String::from_utf8_lossy(name).into_owned())
    }
}

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
