//! The request that a native handler gets.

use std::{net::SocketAddr, str};

use http::{HeaderName, Version, header::HOST};

#[cfg(feature = "upgrade")]
use crate::abi;
use crate::{
    BoxError,
    abi::{HeaderView, RequestView},
    crossing::{ids, version},
    guest::{Body, request},
};

/// A request that the handler borrows from the server until the handler function returns.
#[derive(Debug)]
pub struct Request<'a>(RequestView<'a>);

impl<'a> Request<'a> {
    pub(crate) fn new(request: RequestView<'a>) -> Self {
        Self(request)
    }

    /// Returns the method, such as `GET`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.0.method()
    }

    /// Returns the path below the app's mount, without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let path = self.path_and_query();
        let end = path.bytes().position(|byte| byte == b'?');
        &path[..end.unwrap_or(path.len())]
    }

    /// Returns the query, without the `?`. Returns `None` if the target has no `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        Some(self.path_and_query().split_once('?')?.1)
    }

    /// Returns the path below the app's mount, and the query.
    #[must_use]
    pub fn path_and_query(&self) -> &'a str {
        self.0.path()
    }

    /// Returns the path and query that the client sent, with the mount.
    #[must_use]
    pub fn original_path(&self) -> &'a str {
        self.0.original_path()
    }

    /// Returns the mount of the app, such as `/` or `/shop`.
    #[must_use]
    pub fn mount(&self) -> &'a str {
        self.0.mount()
    }

    /// Returns the ID of the request in the log. Empty if the request has no ID, or an ID that is not UTF-8.
    #[must_use]
    pub fn request_id(&self) -> &'a str {
        // The client may have chosen the ID, so the bytes need not be UTF-8.
        str::from_utf8(self.0.request_id()).unwrap_or_default()
    }

    /// Returns the address of the client, or of the proxy before the server. Returns `None` on a Unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer()
    }

    /// Returns the scheme of the target, such as `http`. In HTTP/2, a target has a scheme if it has an
    /// [`authority`](Self::authority); in HTTP/1, only if it is a whole URL. Returns `None` otherwise.
    #[must_use]
    pub fn scheme(&self) -> Option<&'a str> {
        self.0.scheme()
    }

    /// Returns the host and port of the target, such as `example.org:8080`. In HTTP/2 this is the `:authority`; in
    /// HTTP/1, only a target that is a whole URL and the target of a `CONNECT` have an authority. Returns `None`
    /// otherwise. [`host`](Self::host) also reads the header field `host`.
    #[must_use]
    pub fn authority(&self) -> Option<&'a str> {
        self.0.authority()
    }

    /// Returns the host that the request is for, such as `example.org:8080`, in every version of HTTP. The port is
    /// missing if the client did not send it. Reads the target's [`authority`](Self::authority), or the header field
    /// `host` if the target has no authority. The two never differ: if the client has sent different hosts, the server
    /// has replaced the field or rejected the request. Returns `None` if the request has neither.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        let field = || {
            self.header(&HOST)
                .and_then(|host| str::from_utf8(host).ok())
        };
        self.authority().or_else(field)
    }

    /// Returns the `:protocol` of an extended `CONNECT` in HTTP/2 (RFC 8441), such as `websocket`. Returns `None` for
    /// any other request.
    #[must_use]
    pub fn protocol(&self) -> Option<&'a str> {
        self.0.protocol()
    }

    /// Returns the version of HTTP.
    #[must_use]
    pub fn version(&self) -> Version {
        version(self.0.version())
    }

    /// Returns the first value of the header `name`. Returns `None` if the request has no such header.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        find_field(self.0.headers(), name).map(HeaderView::value)
    }

    /// Returns the names and values of all headers, in the order in which the server passes them. The names are in
    /// lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let fields = self.0.headers().iter();
        fields.map(|field| (field.name_text(), field.value()))
    }

    /// Returns the body. Later calls return an empty body.
    #[must_use]
    pub fn take_body(&mut self) -> Body {
        Body::take(self.0.body())
    }

    /// Converts the request to an [`http::Request`], for example for a tower service. The body is included unless
    /// [`take_body`](Self::take_body) has moved it out. The connection of the result cannot be upgraded.
    ///
    /// # Errors
    ///
    /// Returns an error if HTTP does not allow a part of the request. This should not happen, because the server has
    /// checked the request.
    pub fn into_http(mut self) -> Result<http::Request<Body>, BoxError> {
        let mut request = http::Request::new(self.take_body());
        self.fill(&mut request)?;
        Ok(request)
    }

    /// Copies method, version, URI and header fields into `head`. Keeps the body of `head`.
    pub(crate) fn fill<B>(self, head: &mut http::Request<B>) -> Result<(), BoxError> {
        request::fill(head, &self.0)
    }

    /// Moves out the connection of a request that asks for an upgrade, and returns it with the `:protocol` of an
    /// extended `CONNECT`. Returns `None` for a request without an upgrade, and after the first call.
    #[cfg(feature = "upgrade")]
    pub(crate) fn take_upgrade(&mut self) -> Option<(abi::Stream, Option<&'a str>)> {
        let stream = self.0.upgrade()?.take();
        (!stream.is_none()).then(|| (stream, self.0.protocol()))
    }
}

/// Returns the first field with this name.
fn find_field<'f, 'a>(
    fields: &'f [HeaderView<'a>],
    name: &HeaderName,
) -> Option<&'f HeaderView<'a>> {
    let id = ids().of(name);
    fields.iter().find(|field| {
        if id == field.id() && id != 0 {
            return true;
        }
        // Each well-known name has one number, so two different numbers that this side knows are two different names.
        // Otherwise the texts decide: a name without a number here may have a number on the other side, and a field may
        // come without a number or with the number of a newer version.
        let may_match = id == 0 || !ids().knows(field.id());
        may_match && field.name() == name.as_str().as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_whoever_knows_its_number() {
        // `x-new` has a number of a newer minor version. `host` has a number here, but the other side may not send it.
        for host in [0, ids().of(&HOST)] {
            let fields = [
                HeaderView::new("x-new", "new", 1000),
                HeaderView::new("accept", "all", 1),
                HeaderView::new("host", "here", host),
            ];
            let find = |name| find_field(&fields, &HeaderName::from_static(name));
            assert_eq!(find("x-new").unwrap().value(), b"new");
            assert_eq!(find("host").unwrap().value(), b"here");
            assert!(find("x-other").is_none());
        }
    }
}
