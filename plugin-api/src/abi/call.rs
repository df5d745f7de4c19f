//! A request on its way to the app, and the response on its way back.

use std::{
    ffi::c_void,
    marker::PhantomPinned,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    ptr,
};

use super::{Body, Slice, Stream, Waker};

/// The head of a request, and its body. Borrowed by [`Plugin::call`](super::Plugin::call) until
/// that returns or the response is given, whichever comes first. All but the headers' values is
/// text.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The method's token.
    pub method: Slice,
    /// The scheme of the target, or none.
    pub scheme: Slice,
    /// The authority of the target (HTTP/2's `:authority`, or of an absolute form), or none.
    pub authority: Slice,
    /// Path and query as the app sees them: below its mount. `*` for a request to the whole server;
    /// empty for `CONNECT`.
    pub path: Slice,
    /// Path and query as the client sent them.
    pub original_path: Slice,
    /// Where the app is mounted: `/`, or `/shop`.
    pub mount: Slice,
    /// What identifies this request in the log, or none.
    pub request_id: Slice,
    /// The address of the client, or of the proxy before the server.
    pub peer: SocketAddress,
    /// The header fields; none when the plugin asks for them by `lay_out`.
    pub headers: Headers,
    /// The body, which the plugin takes.
    pub body: *mut Body,
    /// The client's connection, which the plugin takes, if the request asks for an upgrade; otherwise
    /// null or an empty stream. The connection opens when a response that agrees has been sent: 101, or 2xx to
    /// a `CONNECT`.
    pub upgrade: *mut Stream,
    /// What an extended `CONNECT` asks for (`:protocol`, RFC 8441), or none.
    pub protocol: Slice,
    /// The HTTP version times ten: 9, 10, 11, 20, 30.
    pub version: u32,
    /// Bits for later versions; 0.
    pub flags: u32,
    /// Since 1.2, where `size` covers it: the host's, for `lay_out`.
    pub source: *mut c_void,
    /// Since 1.2, where `size` covers it: gives the header fields, as `headers` would be, to an app
    /// that [asks for them](super::Initialized::asks_for_headers); null when they are there. Called
    /// by the thread that was lent the request, as often as it likes; it does not unwind.
    pub lay_out: Option<LayOut>,
}

/// Gives header fields, which the host has in another form before.
pub type LayOut = unsafe extern "C" fn(source: *mut c_void) -> Headers;

/// The head of a response, and its body. Borrowed by [`CallContext::respond`] until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct Response {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The header fields. If none is a `content-length` and the body is [`FULL`](Body::FULL), the host adds one.
    pub headers: Headers,
    /// The body, which the host takes.
    pub body: *mut Body,
    /// The status code, 100 to 999.
    pub status: u16,
    /// Bits for later versions; 0.
    pub flags: u16,
}

/// One header or trailer field. Borrowed; what borrows it says for how long.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The name, in lower case.
    pub name: Slice,
    /// The value: visible bytes, space, tab, and bytes of 128 and above, as RFC 9110, section 5.5,
    /// has them.
    pub value: Slice,
    /// The number of a well-known name, as a shortcut for who knows it; 0 for none.
    pub id: u16,
    /// [`Self::SENSITIVE`] or 0.
    pub flags: u16,
}

/// Borrowed header fields, in order, repeated names included.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    pub(super) ptr: *const Header,
    pub(super) len: usize,
}

/// An IP address and port. All 0 where there is none, as for a Unix socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketAddress {
    /// 4, 6, or 0 for none.
    pub family: u16,
    /// The port, in the machine's byte order.
    pub port: u16,
    /// The scope of an IPv6 address.
    pub scope: u32,
    /// The address in network byte order; an IPv4 address in the first four bytes.
    pub address: [u8; 16],
}

/// The waker of a call, and the function that takes the response. Borrowed by a call or poll until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct CallContext {
    /// The size of this struct in bytes.
    pub size: usize,
    /// Wakes the task that polls this call.
    pub waker: *const Waker,
    /// The host's, for `respond`.
    pub sink: *mut c_void,
    /// Gives the response, once, before the call or poll returns
    /// [`poll::READY`](super::poll::READY).
    pub respond: unsafe extern "C" fn(sink: *mut c_void, response: *const Response),
}

/// Room for a call's future, in the host's memory: most calls need no allocation of their own.
///
/// The plugin fills it in [`Plugin::call`](super::Plugin::call) when that returns `PENDING`, and
/// empties it when a poll returns anything else, or in [`Plugin::cancel`](super::Plugin::cancel).
/// The host does not move it meanwhile.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct CallSlot {
    /// The plugin's.
    pub bytes: [MaybeUninit<u8>; 512],
    /// The future may have pointers into itself, which a unique reference to the slot would forbid.
    pub pinned: PhantomPinned,
}

impl Request {
    /// The request that a host lent. One of an older minor is shorter: it is copied to `older`, with
    /// none of what came later.
    ///
    /// # Safety
    ///
    /// `lent` is valid for as long as `older` is lent, and for as many bytes as its size says.
    pub(crate) unsafe fn lent(lent: *const Self, older: &mut Option<Self>) -> &Self {
        // SAFETY: every struct begins with its size.
        let size = unsafe { (*lent).size };
        if size >= size_of::<Self>() {
            // SAFETY: it is long enough.
            return unsafe { &*lent };
        }
        let mut whole = MaybeUninit::<Self>::zeroed();
        // SAFETY: both are at least that long.
        unsafe { ptr::copy_nonoverlapping(lent.cast::<u8>(), whole.as_mut_ptr().cast(), size) };
        // SAFETY: zeros are a value of all fields: null pointers, no function, numbers.
        older.insert(unsafe { whole.assume_init() })
    }
}

impl Header {
    /// A flag: the value is a secret that must not be printed or indexed.
    pub const SENSITIVE: u16 = 1;
}

impl Headers {
    /// No fields.
    pub const NONE: Self = Self {
        ptr: ptr::null(),
        len: 0,
    };

    /// Borrows `fields` without keeping the borrow.
    #[must_use]
    pub const fn new(fields: &[Header]) -> Self {
        Self {
            ptr: fields.as_ptr(),
            len: fields.len(),
        }
    }
}

impl CallSlot {
    /// An empty slot.
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

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; 16];
        let (family, scope) = match address {
            SocketAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.ip().octets());
                (4, 0)
            }
            SocketAddr::V6(v6) => {
                bytes = v6.ip().octets();
                (6, v6.scope_id())
            }
        };
        Self {
            family,
            port: address.port(),
            scope,
            address: bytes,
        }
    }
}

impl SocketAddress {
    /// The address, where there is one.
    #[must_use]
    pub fn to_std(self) -> Option<SocketAddr> {
        match self.family {
            4 => {
                let [a, b, c, d, ..] = self.address;
                Some(SocketAddr::new(
                    IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                    self.port,
                ))
            }
            6 => {
                let ip = Ipv6Addr::from(self.address);
                Some(SocketAddrV6::new(ip, self.port, 0, self.scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::abi::RequestView;

    #[test]
    fn an_address_comes_back_as_it_was() {
        for text in ["127.0.0.1:80", "[::1]:8000", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddress::from(address).to_std(), Some(address));
        }
        assert_eq!(SocketAddress::default().to_std(), None);
    }

    #[test]
    fn the_request_of_an_older_host_has_nothing_of_what_came_later() {
        let header = Header {
            name: Slice::new(b"host"),
            value: Slice::new(b"here"),
            id: 0,
            flags: 0,
        };
        // As long as that of 1.0, and something behind it that is not the request's.
        let mut lent = [0_usize; 27];
        lent[0] = 200;
        lent[25..].fill(usize::MAX);
        let request: *mut Request = lent.as_mut_ptr().cast();
        // SAFETY: the field is one of 1.0.
        let headers = unsafe { &raw mut (*request).headers };
        // SAFETY: as above.
        unsafe { headers.write(Headers::new(slice::from_ref(&header))) };
        let mut older = None;
        // SAFETY: it is as long as it says.
        let request = unsafe { Request::lent(request, &mut older) };
        assert!(request.lay_out.is_none());
        // SAFETY: `header` is still there.
        let view = unsafe { RequestView::new(request) };
        assert_eq!(view.headers()[0].value(), b"here");
    }
}
