//! Header and trailer fields.

use std::ptr;

use super::Slice;

/// One header or trailer field. Borrowed; the lifetime is that of the [`Headers`] that contain the field.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The name, in lower case.
    pub name: Slice,
    /// The value, with the bytes that RFC 9110, section 5.5, allows: visible ASCII, space, tab, and bytes from 128.
    pub value: Slice,
    /// The number of a well-known name, which a receiver can look up faster than the text; 0 for a name without a
    /// number. A receiver that does not know the number uses `name`.
    pub id: u16,
    /// [`Self::SENSITIVE`] or 0.
    pub flags: u16,
}

/// Borrowed header fields, in order. A name may occur several times.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    pub(super) ptr: *const Header,
    pub(super) len: usize,
}

impl Header {
    /// The flag of a secret value, which must not be printed, and must not be stored in a compression table.
    pub const SENSITIVE: u16 = 1;
}

impl Headers {
    /// No fields.
    pub const NONE: Self = Self {
        ptr: ptr::null(),
        len: 0,
    };

    /// Returns a view of `fields`. The view has no lifetime: the side that passes the view to the other side must keep
    /// the fields alive.
    #[must_use]
    pub const fn new(fields: &[Header]) -> Self {
        Self {
            ptr: fields.as_ptr(),
            len: fields.len(),
        }
    }
}
