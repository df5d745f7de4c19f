//! Bytes that cross: borrowed ones, and ones that are owned by the side that made them.

use std::{
    mem::{self, MaybeUninit},
    ptr, slice,
};

use bytes::{Buf, Bytes};

use crate::panics::catch;

/// Borrowed bytes. A null pointer goes with length 0 and means "none" where an item allows that.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub(super) ptr: *const u8,
    pub(crate) len: usize,
}

impl Slice {
    /// No bytes, by a null pointer.
    pub const NONE: Self = Self {
        ptr: ptr::null(),
        len: 0,
    };

    /// Borrows `bytes` without keeping the borrow: whoever passes the slice on keeps the bytes
    /// alive.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// Borrows a text as [`new`](Self::new) does; "none" for `None`.
    #[must_use]
    pub fn from_option(bytes: Option<&str>) -> Self {
        bytes.map_or(Self::NONE, |text| Self::new(text.as_bytes()))
    }

    /// The bytes; empty for "none".
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`.
    #[must_use]
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the other side made this from a slice, which the caller says is still there.
        unsafe { slice::from_raw_parts(self.ptr, self.len) }
    }

    /// The bytes; `None` for "none".
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`.
    #[must_use]
    pub unsafe fn some_bytes<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: the same demand.
        (!self.ptr.is_null()).then(|| unsafe { self.bytes() })
    }

    /// The bytes as text, without a check; empty for "none".
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`, and are UTF-8.
    #[must_use]
    pub unsafe fn text_unchecked<'a>(self) -> &'a str {
        // SAFETY: the caller says that they are there.
        let bytes = unsafe { self.bytes() };
        // SAFETY: the caller says that they are UTF-8.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }

    /// The bytes as text; `None` for "none" and for what is not UTF-8.
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`.
    #[must_use]
    pub unsafe fn text<'a>(self) -> Option<&'a str> {
        if self.ptr.is_null() {
            return None;
        }
        // SAFETY: the same demand.
        std::str::from_utf8(unsafe { self.bytes() }).ok()
    }
}

/// Bytes that move to the other side and are freed by the side that made them.
///
/// The receiver owns the value, reads the bytes, and drops it once; any thread may do either. The
/// owner's four words hold whatever the maker needs to free the bytes, so that a [`Bytes`] crosses
/// without an allocation.
#[repr(C)]
#[derive(Debug)]
pub struct OwnedBytes {
    pub(super) ptr: *const u8,
    pub(super) len: usize,
    pub(super) owner: Owner,
    pub(super) free: Option<unsafe extern "C" fn(owner: *mut Owner)>,
}

type Owner = [MaybeUninit<usize>; 4];

// SAFETY: it is made from a `Bytes`, which may move to other threads; `free` may be called on any.
unsafe impl Send for OwnedBytes {}
// SAFETY: shared access only reads the bytes, which nobody writes.
unsafe impl Sync for OwnedBytes {}

impl OwnedBytes {
    /// No bytes.
    pub const EMPTY: Self = Self {
        ptr: ptr::null(),
        len: 0,
        owner: [MaybeUninit::uninit(); 4],
        free: None,
    };

    const fn slice(&self) -> Slice {
        Slice {
            ptr: self.ptr,
            len: self.len,
        }
    }
}

impl From<Bytes> for OwnedBytes {
    fn from(bytes: Bytes) -> Self {
        const { assert!(size_of::<Bytes>() <= size_of::<Owner>()) };
        const { assert!(align_of::<Bytes>() <= align_of::<Owner>()) };

        unsafe extern "C" fn free(owner: *mut Owner) {
            // SAFETY: `owner` holds the `Bytes` written below, and the receiver drops it once.
            let bytes = unsafe { owner.cast::<Bytes>().read() };
            // The drop may run the author's code (`Bytes::from_owner`), which may panic.
            let _ = catch(|| drop(bytes));
        }

        let mut owner: Owner = [MaybeUninit::uninit(); 4];
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        // SAFETY: a `Bytes` fits, by the assertions above.
        unsafe { owner.as_mut_ptr().cast::<Bytes>().write(bytes) };
        Self {
            ptr,
            len,
            owner,
            free: Some(free),
        }
    }
}

impl From<String> for OwnedBytes {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<OwnedBytes> for Bytes {
    /// Moves the bytes, without copying them.
    fn from(bytes: OwnedBytes) -> Self {
        if bytes.len == 0 {
            Self::new()
        } else {
            Self::from_owner(bytes)
        }
    }
}

impl AsRef<[u8]> for OwnedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes live as long as the owner, which is freed when `self` is dropped.
        unsafe { self.slice().bytes() }
    }
}

impl Buf for OwnedBytes {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.as_ref()
    }

    fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len,
            "advanced by {count} of {} bytes",
            self.len
        );
        self.ptr = self.ptr.wrapping_add(count);
        self.len -= count;
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        if len == self.len {
            return mem::replace(self, Self::EMPTY).into();
        }
        let bytes = Bytes::copy_from_slice(&self.as_ref()[..len]);
        self.advance(len);
        bytes
    }
}

impl Default for OwnedBytes {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Drop for OwnedBytes {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the maker gave `free` for this `owner`, and this is the one drop.
            unsafe { free(&mut self.owner) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cross_without_being_copied_and_are_freed_once() {
        let bytes = Bytes::from(vec![7; 100]);
        let owned = OwnedBytes::from(bytes.clone());
        assert_eq!(owned.as_ref().as_ptr(), bytes.as_ptr());
        assert!(!bytes.is_unique());
        let back = Bytes::from(owned);
        assert_eq!(back, bytes);
        drop(back);
        assert!(bytes.is_unique());
    }

    #[test]
    fn a_partly_read_value_still_frees_the_whole() {
        let bytes = Bytes::from(vec![1, 2, 3, 4]);
        let mut owned = OwnedBytes::from(bytes.clone());
        owned.advance(1);
        assert_eq!(owned.copy_to_bytes(2), [2, 3].as_slice());
        assert_eq!(owned.copy_to_bytes(1), [4].as_slice());
        drop(owned);
        assert!(bytes.is_unique());
    }
}
