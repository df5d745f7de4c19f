//! Safe views of what the other side lends: the pointers are trusted once, where a view is made.

use std::{marker::PhantomData, net::SocketAddr, slice, str};

#[cfg(feature = "upgrade")]
use super::Stream;
use super::{Body, Header, Headers, Request, Slice};

/// A header or trailer field whose name and value are there for `'a`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderView<'a>(Header, PhantomData<&'a [u8]>);

impl Headers {
    /// The fields.
    ///
    /// # Safety
    ///
    /// The fields, and what they borrow, are there for `'a`.
    pub(crate) const unsafe fn view<'a>(self) -> &'a [HeaderView<'a>] {
        if self.ptr.is_null() {
            return &[];
        }
        // A view has the layout of the field.
        let fields = self.ptr.cast::<HeaderView<'a>>();
        // SAFETY: the other side made this from a slice, which the caller says is still there.
        unsafe { slice::from_raw_parts(fields, self.len) }
    }
}

impl<'a> HeaderView<'a> {
    /// A view of a field of this side.
    #[cfg(test)]
    pub(crate) const fn new(name: &'a str, value: &'a str, id: u16) -> Self {
        let header = Header {
            name: Slice::new(name.as_bytes()),
            value: Slice::new(value.as_bytes()),
            id,
            flags: 0,
        };
        Self(header, PhantomData)
    }

    /// The name, in lower case.
    #[inline]
    pub(crate) fn name(&self) -> &'a [u8] {
        // SAFETY: whoever made the view said that the name is there for `'a`.
        unsafe { self.0.name.bytes() }
    }

    /// The name as text.
    #[inline]
    pub(crate) fn name_text(&self) -> &'a str {
        // SAFETY: as above, and names are ASCII.
        unsafe { self.0.name.text_unchecked() }
    }

    /// The value.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        // SAFETY: whoever made the view said that the value is there for `'a`.
        unsafe { self.0.value.bytes() }
    }

    /// The number of the name; 0 for none.
    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.0.id
    }

    /// Whether the value is a secret that must not be printed or indexed.
    #[inline]
    pub(crate) fn is_sensitive(&self) -> bool {
        self.0.flags & Header::SENSITIVE != 0
    }
}

/// A request that the host lent to this thread for `'a`. Neither sent to other threads nor shared with them, as the
/// pointers in it are not.
#[derive(Debug)]
pub(crate) struct RequestView<'a>(&'a Request);

impl<'a> RequestView<'a> {
    /// # Safety
    ///
    /// What `request` borrows is there for `'a`, and as the contract of [`Request`] says. The body and the connection are
    /// the plugin's to take.
    pub(crate) unsafe fn new(request: &'a Request) -> Self {
        Self(request)
    }

    /// The method's token.
    pub(crate) fn method(&self) -> &'a str {
        Self::text(self.0.method)
    }

    /// The scheme of the target.
    pub(crate) fn scheme(&self) -> Option<&'a str> {
        Self::some_text(self.0.scheme)
    }

    /// The authority of the target.
    pub(crate) fn authority(&self) -> Option<&'a str> {
        Self::some_text(self.0.authority)
    }

    /// Scheme, authority and path as bytes; empty for those that the target does not have.
    pub(crate) fn target(&self) -> [&'a [u8]; 3] {
        // SAFETY: whoever made the view said that the bytes are there for `'a`.
        let bytes = |slice: Slice| unsafe { slice.bytes() };
        [self.0.scheme, self.0.authority, self.0.path].map(bytes)
    }

    /// Path and query below the mount.
    pub(crate) fn path(&self) -> &'a str {
        Self::text(self.0.path)
    }

    /// Path and query as the client sent them.
    pub(crate) fn original_path(&self) -> &'a str {
        Self::text(self.0.original_path)
    }

    /// The mount.
    pub(crate) fn mount(&self) -> &'a str {
        Self::text(self.0.mount)
    }

    /// What identifies the request in the log, in bytes that the client may have chosen; empty for none.
    pub(crate) fn request_id(&self) -> &'a [u8] {
        // SAFETY: whoever made the view said that the bytes are there for `'a`.
        unsafe { self.0.request_id.bytes() }
    }

    /// Who sent the request.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.0.peer.to_std()
    }

    /// What an extended `CONNECT` asks for.
    pub(crate) fn protocol(&self) -> Option<&'a str> {
        Self::some_text(self.0.protocol)
    }

    /// The HTTP version times ten.
    pub(crate) fn version(&self) -> u32 {
        self.0.version
    }

    /// The header fields, which the host is asked for where it wants that.
    pub(crate) fn headers(&self) -> &'a [HeaderView<'a>] {
        let headers = match self.0.lay_out {
            // SAFETY: the request is lent to this thread, by `new`, and stays with it.
            Some(lay_out) => unsafe { lay_out(self.0.source) },
            None => self.0.headers,
        };
        // SAFETY: the host lends the fields as long as the request.
        unsafe { headers.view() }
    }

    /// The body, for the plugin to take. None when the host gave none.
    pub(crate) fn body(&mut self) -> Option<&mut Body> {
        // SAFETY: the pointer is null, or the body is the plugin's to take, by `new`.
        unsafe { self.0.body.as_mut() }
    }

    /// The client's connection, for the plugin to take. None when the host gave none.
    #[cfg(feature = "upgrade")]
    pub(crate) fn upgrade(&mut self) -> Option<&mut Stream> {
        // SAFETY: the pointer is null, or the connection is the plugin's to take, by `new`.
        unsafe { self.0.upgrade.as_mut() }
    }

    fn text(slice: Slice) -> &'a str {
        // SAFETY: whoever made the view said that the bytes are there for `'a`; all of these are text.
        unsafe { slice.text_unchecked() }
    }

    /// A text that may be missing.
    fn some_text(slice: Slice) -> Option<&'a str> {
        // SAFETY: whoever made the view said that the bytes are there for `'a`.
        let bytes = unsafe { slice.some_bytes() }?;
        str::from_utf8(bytes).ok()
    }
}
