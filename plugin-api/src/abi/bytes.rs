//! Bytes that cross the ABI: [`Slice`] borrows bytes, and [`OwnedBytes`] moves bytes to the other side.

use std::{
    mem::{self, MaybeUninit},
    ptr, slice,
};

use bytes::{Buf, Bytes};

use crate::panics::catch;

/// Borrowed bytes.
///
/// A null pointer means that the optional value is absent; the length is then 0. A non-null pointer with length 0 is
/// an empty value that is present.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub(super) ptr: *const u8,
    pub(crate) len: usize,
}

impl Slice {
    /// An absent value: a null pointer and length 0.
    pub const NONE: Self = Self {
        ptr: ptr::null(),
        len: 0,
    };

    /// Returns a slice of `bytes`. The slice has no lifetime: the side that passes the slice to the other side must
    /// keep the bytes alive.
    #[must_use]
    pub const fn new(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// Returns a slice of `text`, like [`new`](Self::new), or [`NONE`](Self::NONE) if `text` is `None`.
    #[must_use]
    pub fn from_option(text: Option<&str>) -> Self {
        text.map_or(Self::NONE, |text| Self::new(text.as_bytes()))
    }

    /// Returns the bytes, or an empty slice if the value is absent.
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`.
    #[must_use]
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        // `from_raw_parts` does not allow a null pointer, not even with length 0.
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: pointer and length come from a Rust slice, and the caller guarantees that its bytes are still alive.
        unsafe { slice::from_raw_parts(self.ptr, self.len) }
    }

    /// Returns the bytes, or `None` if the value is absent.
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`.
    #[must_use]
    pub unsafe fn optional_bytes<'a>(self) -> Option<&'a [u8]> {
        // SAFETY: the caller guarantees that the bytes outlive `'a`.
        (!self.ptr.is_null()).then(|| unsafe { self.bytes() })
    }

    /// Returns the bytes as text without checking that they are UTF-8. Returns an empty text if the value is absent.
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`, and they are UTF-8.
    #[must_use]
    pub unsafe fn text_unchecked<'a>(self) -> &'a str {
        // SAFETY: the caller guarantees that the bytes outlive `'a`.
        let bytes = unsafe { self.bytes() };
        // SAFETY: the caller guarantees that the bytes are UTF-8.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }

    /// Returns the bytes as text, or `None` if the value is absent or not UTF-8.
    ///
    /// # Safety
    ///
    /// The bytes outlive `'a`.
    #[must_use]
    pub unsafe fn text<'a>(self) -> Option<&'a str> {
        if self.ptr.is_null() {
            return None;
        }
        // SAFETY: the caller guarantees that the bytes outlive `'a`.
        std::str::from_utf8(unsafe { self.bytes() }).ok()
    }
}

/// Bytes that one side creates and the other side owns.
///
/// The receiver reads the bytes and drops the value once. The drop calls `free`, a function of the creating side,
/// because the bytes belong to that side's allocator. Any thread may read and drop the value.
///
/// `owner` has four words for the state that `free` needs. A [`Bytes`] fits into four words, so a `Bytes` crosses
/// without an allocation.
#[repr(C)]
#[derive(Debug)]
pub struct OwnedBytes {
    pub(super) ptr: *const u8,
    pub(super) len: usize,
    /// The state of the creating side, which `free` needs. The receiver does not read it.
    pub(super) owner: Owner,
    /// Frees the bytes; `None` if `owner` holds nothing.
    pub(super) free: Option<unsafe extern "C" fn(owner: *mut Owner)>,
}

type Owner = [MaybeUninit<usize>; 4];

// SAFETY: `owner` holds a `Bytes`, which is `Send`, and any thread may call `free`.
unsafe impl Send for OwnedBytes {}
// SAFETY: a `&OwnedBytes` only reads the bytes, and no code writes to them.
unsafe impl Sync for OwnedBytes {}

impl OwnedBytes {
    /// Empty bytes. Dropping them frees nothing.
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
            // SAFETY: `owner` holds the `Bytes` that is written below, and the receiver calls `free` only once.
            let bytes = unsafe { owner.cast::<Bytes>().read() };
            // The drop may run the author's code (`Bytes::from_owner`). Its panic must not unwind into the other
            // side. `catch` has reported the panic, and the receiver needs no result.
            let _ = catch(|| drop(bytes));
        }

        let mut owner: Owner = [MaybeUninit::uninit(); 4];
        let (ptr, len) = (bytes.as_ptr(), bytes.len());
        // SAFETY: a `Bytes` fits into `owner`, by the assertions above.
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
    /// Wraps the bytes without copying them.
    fn from(bytes: OwnedBytes) -> Self {
        // `from_owner` allocates, which is of no use for empty bytes.
        if bytes.len == 0 {
            Self::new()
        } else {
            Self::from_owner(bytes)
        }
    }
}

impl AsRef<[u8]> for OwnedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes live until `self` is dropped, because only the drop calls `free`.
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
        // `free` uses `owner`, not `ptr` and `len`, so a partly read value still frees all of its bytes.
        self.ptr = self.ptr.wrapping_add(count);
        self.len -= count;
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        // The remaining bytes are moved as a whole. A part must be copied, because `free` can run only once.
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
            // SAFETY: the creating side stored `free` together with this `owner`, and only this destructor calls it.
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
