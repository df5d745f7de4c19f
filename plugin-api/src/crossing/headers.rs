//! Header fields, both ways.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::names;
use crate::abi::{Header, Headers, Slice};

/// The fields of a [`HeaderMap`] as they cross: borrowed from the map.
#[derive(Debug, Default)]
pub(crate) struct HeaderFields(SmallVec<[Header; 16]>);

// SAFETY: the pointers are only followed while the map that they borrow from is kept, which whoever
// made this sees to.
unsafe impl Send for HeaderFields {}

impl HeaderFields {
    /// Borrows the fields of `map`; the caller keeps it unchanged for as long as the result is
    /// used. The map may be moved: names and values lie behind pointers.
    pub(crate) fn new(map: &HeaderMap) -> Self {
        let mut fields = Self::default();
        fields.add(map);
        fields
    }

    /// Borrows the fields of `map` too, as [`new`](Self::new) does.
    pub(crate) fn add(&mut self, map: &HeaderMap) {
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
    let mut values = unsafe { Texts::new(headers, &[]) };
    // SAFETY: the caller says so.
    unsafe { values.add_fields(map, headers) }
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
        let mut bytes = Vec::with_capacity(texts.clone().map(<[u8]>::len).sum());
        texts.for_each(|text| bytes.extend_from_slice(text));
        // Without a way out of the loop the compiler looks at many bytes at once.
        let are_plain = bytes.iter().fold(true, |plain, &byte| {
            plain & (matches!(byte, b' '..=b'~') | (byte == b'\t'))
        });
        Self {
            bytes: bytes.into(),
            are_plain,
        }
    }

    /// The next text, which is `len` bytes long.
    pub(crate) fn next(&mut self, len: usize) -> Bytes {
        self.bytes.split_to(len)
    }

    /// Adds the fields, whose values are the next texts, to `map`.
    ///
    /// # Errors
    ///
    /// A name or value that HTTP does not allow is an error, by its name.
    ///
    /// # Safety
    ///
    /// `headers` and what it borrows are valid until this returns.
    pub(crate) unsafe fn add_fields(
        &mut self,
        map: &mut HeaderMap,
        headers: Headers,
    ) -> Result<(), InvalidHeader> {
        // SAFETY: the caller says so.
        let fields = unsafe { headers.fields() };
        map.reserve(fields.len());
        for field in fields {
            // SAFETY: the caller says so.
            let name = unsafe { field.name.bytes() };
            // SAFETY: the caller says so.
            let len = unsafe { field.value.bytes() }.len();
            let invalid = || InvalidHeader(String::from_utf8_lossy(name).into_owned());
            let mut value = self.next_value(len).ok_or_else(invalid)?;
            value.set_sensitive(field.flags & Header::SENSITIVE != 0);
            match names::name(field.id) {
                Some(name) => map.append(name, value),
                None => map.append(names::parse(name).ok_or_else(invalid)?, value),
            };
        }
        Ok(())
    }

    fn next_value(&mut self, len: usize) -> Option<HeaderValue> {
        let value = self.next(len);
        if self.are_plain {
            // SAFETY: what was looked at is UTF-8, and what HTTP allows (RFC 9110, section 5.5).
            Some(unsafe { HeaderValue::from_maybe_shared_unchecked(value) })
        } else {
            HeaderValue::from_maybe_shared(value).ok()
        }
    }
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
