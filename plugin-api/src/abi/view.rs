//! Safe views of borrowed data from the other side. Creating a view is `unsafe`; reading the view is safe.

use std::{marker::PhantomData, net::SocketAddr, slice, str};

#[cfg(feature = "upgrade")]
use super::Stream;
use super::{Body, Header, Headers, Request, Slice};

/// A header or trailer field whose name and value are valid for `'a`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderView<'a>(Header, PhantomData<&'a [u8]>);

impl Headers {
    /// Returns the fields.
    ///
    /// # Safety
    ///
    /// The fields, their names and their values are valid for `'a`.
    pub(crate) const unsafe fn view<'a>(self) -> &'a [HeaderView<'a>] {
        if self.ptr.is_null() {
            return &[];
        }
        // `HeaderView` is `repr(transparent)`, so it has the layout of `Header`.
        let fields = self.ptr.cast::<HeaderView<'a>>();
        // SAFETY: pointer and length come from a Rust slice, and the caller guarantees that it is valid for `'a`.
        unsafe { slice::from_raw_parts(fields, self.len) }
    }
}

impl<'a> HeaderView<'a> {
    /// Returns a view of a field for a test.
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

    /// Returns the name, in lower case.
    #[inline]
    pub(crate) fn name(&self) -> &'a [u8] {
        // SAFETY: the creator of the view guaranteed that the name is valid for `'a`.
        unsafe { self.0.name.bytes() }
    }

    /// Returns the name as text.
    #[inline]
    pub(crate) fn name_text(&self) -> &'a str {
        // SAFETY: the creator of the view guaranteed that the name is valid for `'a`. Header names are ASCII.
        unsafe { self.0.name.text_unchecked() }
    }

    /// Returns the value.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        // SAFETY: the creator of the view guaranteed that the value is valid for `'a`.
        unsafe { self.0.value.bytes() }
    }

    /// Returns the number of a well-known name, or 0 for any other name.
    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.0.id
    }

    /// Returns whether the value is a secret ([`Header::SENSITIVE`]).
    #[inline]
    pub(crate) fn is_sensitive(&self) -> bool {
        self.0.flags & Header::SENSITIVE != 0
    }
}

/// A request that this thread borrows from the host for `'a`. The type is neither `Send` nor `Sync`, because
/// [`Request`] contains raw pointers and only this thread may call [`Request::lay_out`].
#[derive(Debug)]
pub(crate) struct RequestView<'a>(&'a Request);

impl<'a> RequestView<'a> {
    /// Returns a view of `request`.
    ///
    /// # Safety
    ///
    /// `request` follows the contract of [`Request`], and all data that it borrows is valid for `'a`. The plugin may
    /// move the body and the connection out, and no other code uses these two during `'a`.
    pub(crate) unsafe fn new(request: &'a Request) -> Self {
        Self(request)
    }

    /// Returns the method, such as `GET`.
    pub(crate) fn method(&self) -> &'a str {
        Self::text(self.0.method)
    }

    /// Returns the scheme of the target, if the target has a scheme.
    pub(crate) fn scheme(&self) -> Option<&'a str> {
        Self::optional_text(self.0.scheme)
    }

    /// Returns the authority of the target, if the target has an authority.
    pub(crate) fn authority(&self) -> Option<&'a str> {
        Self::optional_text(self.0.authority)
    }

    /// Returns scheme, authority, and path with query, as bytes. A part that the target does not have is empty.
    pub(crate) fn target(&self) -> [&'a [u8]; 3] {
        // SAFETY: the creator of the view guaranteed that the bytes are valid for `'a`.
        let bytes = |slice: Slice| unsafe { slice.bytes() };
        [self.0.scheme, self.0.authority, self.0.path].map(bytes)
    }

    /// Returns the path below the mount, and the query.
    pub(crate) fn path(&self) -> &'a str {
        Self::text(self.0.path)
    }

    /// Returns the path and query that the client sent, with the mount.
    pub(crate) fn original_path(&self) -> &'a str {
        Self::text(self.0.original_path)
    }

    /// Returns the mount of the app.
    pub(crate) fn mount(&self) -> &'a str {
        Self::text(self.0.mount)
    }

    /// Returns the ID of the request in the log, or empty bytes if the request has no ID. The client may have chosen
    /// the bytes.
    pub(crate) fn request_id(&self) -> &'a [u8] {
        // SAFETY: the creator of the view guaranteed that the bytes are valid for `'a`.
        unsafe { self.0.request_id.bytes() }
    }

    /// Returns the address of the client, or of the proxy before the server. Returns `None` on a Unix socket.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.0.peer.to_std()
    }

    /// Returns the `:protocol` of an extended `CONNECT`, such as `websocket`.
    pub(crate) fn protocol(&self) -> Option<&'a str> {
        Self::optional_text(self.0.protocol)
    }

    /// Returns the HTTP version times ten.
    pub(crate) fn version(&self) -> u32 {
        self.0.version
    }

    /// Returns the header fields. Calls the host if the host has not passed the fields with the request.
    pub(crate) fn headers(&self) -> &'a [HeaderView<'a>] {
        let headers = match self.0.lay_out {
            // SAFETY: this thread has received the request, and `RequestView` cannot move to another thread.
            Some(lay_out) => unsafe { lay_out(self.0.source) },
            None => self.0.headers,
        };
        // SAFETY: the fields are borrowed for as long as the request, so they are valid for `'a`.
        unsafe { headers.view() }
    }

    /// Returns the body, which the plugin may move out. Returns `None` if the host has passed no body.
    pub(crate) fn body(&mut self) -> Option<&mut Body> {
        // SAFETY: the pointer is null, or only this view uses the body, as the caller of `new` guaranteed.
        unsafe { self.0.body.as_mut() }
    }

    /// Returns the client's connection, which the plugin may move out. Returns `None` if the host has passed no
    /// connection.
    #[cfg(feature = "upgrade")]
    pub(crate) fn upgrade(&mut self) -> Option<&mut Stream> {
        // SAFETY: the pointer is null, or only this view uses the connection, as the caller of `new` guaranteed.
        unsafe { self.0.upgrade.as_mut() }
    }

    /// Returns the text of a field that is always UTF-8.
    fn text(slice: Slice) -> &'a str {
        // SAFETY: the creator of the view guaranteed that the bytes are valid for `'a`, and that the fields which the
        // contract of `Request` calls text are UTF-8.
        unsafe { slice.text_unchecked() }
    }

    /// Returns a text, or `None` if the field is absent.
    fn optional_text(slice: Slice) -> Option<&'a str> {
        // SAFETY: the creator of the view guaranteed that the bytes are valid for `'a`.
        let bytes = unsafe { slice.optional_bytes() }?;
        str::from_utf8(bytes).ok()
    }
}
