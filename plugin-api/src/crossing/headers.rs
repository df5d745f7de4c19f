//! Header fields, both ways.

use std::{cell::Cell, mem};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    memo, names,
    shape::{self, Room},
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

/// # Safety
///
/// What `field` borrows is valid until this returns.
unsafe fn add_field(
    map: &mut HeaderMap,
    field: &Header,
    value: Option<HeaderValue>,
) -> Result<(), InvalidHeader> {
    // SAFETY: the caller says so.
    let name = unsafe { field.name.bytes() };
    let invalid = || InvalidHeader(String::from_utf8_lossy(name).into_owned());
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

/// The values of some fields and other texts of the other side, copied, one behind the other.
pub(crate) struct Texts {
    bytes: Bytes,
    /// Whether all bytes are visible ASCII, spaces or tabs: then no value needs a look of its own.
    are_plain: bool,
}

impl Texts {
    /// Copies the values of the fields, and then `others`.
    ///
    /// # Safety
    ///
    /// `headers` and what it borrows are valid until this returns.
    pub(crate) unsafe fn new(headers: Headers, others: &[&[u8]]) -> Self {
        // SAFETY: the caller says so.
        let fields = unsafe { headers.fields() };
        // SAFETY: the caller says so.
        let values = fields.iter().map(|field| unsafe { field.value.bytes() });
        let texts = values.chain(others.iter().copied());
        let len = texts.clone().map(<[u8]>::len).sum();
        if len > SHORT {
            let mut bytes = Vec::with_capacity(len);
            texts.for_each(|text| bytes.extend_from_slice(text));
            return Self {
                are_plain: are_plain(&bytes),
                // Counted from the start: there will be several pieces.
                bytes: Bytes::from_owner(bytes),
            };
        }
        let mut short = Short {
            bytes: [0; SHORT],
            len,
        };
        let mut rest = &mut short.bytes[..];
        for text in texts {
            let (place, behind) = rest.split_at_mut(text.len());
            place.copy_from_slice(text);
            rest = behind;
        }
        Self {
            are_plain: are_plain(short.as_ref()),
            bytes: Bytes::from_owner(short),
        }
    }

    /// The next text, which is `len` bytes long.
    pub(crate) fn next(&mut self, len: usize) -> Bytes {
        self.bytes.split_to(len)
    }

    /// The map of the fields, whose values are the next texts.
    ///
    /// Making a map costs more than all else that a field needs, and clients send the same fields
    /// again and again: so a thread keeps some maps, by their names, to copy.
    ///
    /// # Errors
    ///
    /// A name or value that HTTP does not allow is an error, by its name.
    ///
    /// # Safety
    ///
    /// `headers` and what it borrows are valid until this returns.
    pub(crate) unsafe fn fields(&mut self, headers: Headers) -> Result<HeaderMap, InvalidHeader> {
        // SAFETY: the caller says so.
        let fields = unsafe { headers.fields() };
        // SAFETY: the caller says so.
        let mut map = match unsafe { shape::room(fields) } {
            Room::Empty(map) => map,
            Room::Known(mut map) => {
                for (value, field) in map.values_mut().zip(fields) {
                    // SAFETY: the caller says so.
                    *value = unsafe { self.value(field) }?;
                }
                return Ok(map);
            }
        };
        for field in fields {
            // SAFETY: the caller says so.
            let value = unsafe { self.value(field) }?;
            // SAFETY: the caller says so.
            unsafe { add_field(&mut map, field, Some(value)) }?;
        }
        shape::meet(fields, &map);
        Ok(map)
    }

    /// # Safety
    ///
    /// What `field` borrows is valid until this returns.
    unsafe fn value(&mut self, field: &Header) -> Result<HeaderValue, InvalidHeader> {
        let value = self.next(field.value.len);
        let mut value = if self.are_plain {
            // SAFETY: what was looked at is UTF-8, and what HTTP allows (RFC 9110, section 5.5).
            unsafe { HeaderValue::from_maybe_shared_unchecked(value) }
        } else {
            HeaderValue::from_maybe_shared(value).map_err(|_| {
                // SAFETY: the caller says so.
                InvalidHeader(String::from_utf8_lossy(unsafe { field.name.bytes() }).into_owned())
            })?
        };
        value.set_sensitive(field.flags & Header::SENSITIVE != 0);
        Ok(value)
    }
}

fn are_plain(bytes: &[u8]) -> bool {
    // Without a way out of the loop the compiler looks at many bytes at once.
    bytes.iter().fold(true, |plain, &byte| {
        plain & (matches!(byte, b' '..=b'~') | (byte == b'\t'))
    })
}

/// A few bytes, in one piece with what counts who has them.
struct Short {
    bytes: [u8; SHORT],
    len: usize,
}

impl AsRef<[u8]> for Short {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Up to how many bytes are a few.
const SHORT: usize = 224;

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
