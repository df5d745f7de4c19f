//! The types of a call: the request that the host passes to the app, and the response that the app returns.

use std::{ffi::c_void, marker::PhantomPinned, mem::MaybeUninit, ptr};

use super::{Body, Headers, Slice, SocketAddress, Stream, Waker};

/// The head and the body of a request.
///
/// Borrowed by [`Plugin::call`](super::Plugin::call) until that function returns or calls
/// [`CallContext::respond`], whichever comes first. All slices are text, except `request_id` and the values of
/// header fields, which may be any bytes.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The method's token.
    pub method: Slice,
    /// The scheme of the target; absent if the target has no scheme.
    pub scheme: Slice,
    /// The authority of the target, from `:authority` in HTTP/2 or from a target in absolute form in HTTP/1; absent
    /// if the target has no authority.
    pub authority: Slice,
    /// The path below the mount, and the query. `*` for a request to the whole server (`OPTIONS *`); empty for
    /// `CONNECT`.
    pub path: Slice,
    /// The path and query that the client sent, with the mount.
    pub original_path: Slice,
    /// The mount of the app, such as `/` or `/shop`.
    pub mount: Slice,
    /// The ID of this request in the log, or absent. The client may have chosen the ID.
    pub request_id: Slice,
    /// The address of the client, or of the proxy before the server.
    pub peer: SocketAddress,
    /// The header fields. Empty if the plugin requests them by `lay_out`.
    pub headers: Headers,
    /// The body. The plugin may move the body out.
    pub body: *mut Body,
    /// The client's connection, if the request asks for an upgrade; otherwise null or an empty stream. The plugin
    /// may move the stream out. The stream stays pending until the host has sent a response that accepts the upgrade:
    /// 101, or 2xx to a `CONNECT`.
    pub upgrade: *mut Stream,
    /// The `:protocol` of an extended `CONNECT` (RFC 8441), such as `websocket`; otherwise absent.
    pub protocol: Slice,
    /// The HTTP version times ten: 9, 10, 11, 20, 30.
    pub version: u32,
    /// Reserved for later versions; 0.
    pub flags: u32,
    /// The argument of `lay_out`. Only the host may dereference this pointer.
    ///
    /// Since 1.2. Present only if `size` covers this field.
    pub source: *mut c_void,
    /// Returns the header fields of the request. `None` if `headers` holds the fields. A function for an app
    /// that [requests its header fields](super::Initialized::asks_for_headers).
    ///
    /// Only the thread that received the request may call this function, any number of times while the request is
    /// borrowed. The function does not unwind.
    ///
    /// Since 1.2. Present only if `size` covers this field.
    pub lay_out: Option<HeadersFn>,
}

/// The type of [`Request::lay_out`]. The host converts its own header map to [`Headers`] only when the plugin calls
/// this function.
pub type HeadersFn = unsafe extern "C" fn(source: *mut c_void) -> Headers;

/// The head and the body of a response. Borrowed by [`CallContext::respond`] until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Response {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The header fields. If they include no `content-length` and the body is [`FULL`](Body::FULL), the host adds a
    /// `content-length`.
    pub headers: Headers,
    /// The body. The host moves the body out.
    pub body: *mut Body,
    /// The status code, 100 to 999.
    pub status: u16,
    /// Reserved for later versions; 0.
    pub flags: u16,
}

/// The waker of a call, and the function that receives the response. Borrowed by [`Plugin::call`](super::Plugin::call)
/// or [`Plugin::poll`](super::Plugin::poll) until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct CallContext {
    /// The size of this struct in bytes.
    pub size: usize,
    /// Wakes the task that polls this call.
    pub waker: *const Waker,
    /// The first argument of `respond`. Only the host may dereference this pointer.
    pub sink: *mut c_void,
    /// Passes the response to the host. The plugin calls this exactly once, before the call or poll returns
    /// [`poll::READY`](super::poll::READY).
    pub respond: unsafe extern "C" fn(sink: *mut c_void, response: *const Response),
}

/// Memory that the host provides for the future of a call, so that most calls need no allocation.
///
/// The slot holds a pending call after [`Plugin::call`](super::Plugin::call) has returned `PENDING`. The slot is empty
/// again after [`Plugin::poll`](super::Plugin::poll) has returned another result, or after
/// [`Plugin::cancel`](super::Plugin::cancel). The host does not move the slot while it holds a pending call.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct CallSlot {
    /// The future, in a form that only the plugin knows.
    pub bytes: [MaybeUninit<u8>; 512],
    /// Makes this type `!Unpin`, because the future may contain pointers into itself. Without this field, a `&mut
    /// CallSlot` would claim that no other pointer leads into the slot.
    pub pinned: PhantomPinned,
}

impl Request {
    /// Returns a reference to a complete request.
    ///
    /// The request of a host with an older minor version is shorter than `Self`. Such a request is copied to `copy`,
    /// and the missing fields are zero: null pointers and `None`.
    ///
    /// # Safety
    ///
    /// `request` points to as many readable bytes as its `size` field claims, for as long as `copy` is borrowed.
    pub(crate) unsafe fn padded(request: *const Self, copy: &mut Option<Self>) -> &Self {
        // SAFETY: every request begins with its size.
        let size = unsafe { (*request).size };
        if size >= size_of::<Self>() {
            // SAFETY: `size` covers all fields of `Self`.
            return unsafe { &*request };
        }
        let mut padded = MaybeUninit::<Self>::zeroed();
        // SAFETY: the source has `size` bytes, and the destination is longer.
        unsafe { ptr::copy_nonoverlapping(request.cast::<u8>(), padded.as_mut_ptr().cast(), size) };
        // SAFETY: zeros are a valid value of each field: a null pointer, no function, or the number 0.
        copy.insert(unsafe { padded.assume_init() })
    }
}

impl CallSlot {
    /// Returns an empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [MaybeUninit::uninit(); 512],
            pinned: PhantomPinned,
        }
    }
}

impl Default for CallSlot {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::abi::{Header, RequestView};

    #[test]
    fn the_request_of_an_older_host_has_nothing_of_what_came_later() {
        let header = Header {
            name: Slice::new(b"host"),
            value: Slice::new(b"here"),
            id: 0,
            flags: 0,
        };
        // 200 bytes, the length of a request of ABI 1.0, and after them bytes that do not belong to the request.
        let mut lent = [0_usize; 27];
        lent[0] = 200;
        lent[25..].fill(usize::MAX);
        let request: *mut Request = lent.as_mut_ptr().cast();
        // SAFETY: a request of ABI 1.0 has the field `headers`.
        let headers = unsafe { &raw mut (*request).headers };
        // SAFETY: `headers` points into `lent`, which is writable.
        unsafe { headers.write(Headers::new(slice::from_ref(&header))) };
        let mut copy = None;
        // SAFETY: `lent` has more than 200 bytes.
        let request = unsafe { Request::padded(request, &mut copy) };
        assert!(request.lay_out.is_none());
        // SAFETY: `header` is still alive.
        let view = unsafe { RequestView::new(request) };
        assert_eq!(view.headers()[0].value(), b"here");
    }
}
