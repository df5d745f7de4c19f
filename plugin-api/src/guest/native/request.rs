//! A request as a native handler sees it.

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

/// A request, borrowed from the server for as long as the handler runs.
#[derive(Debug)]
pub struct Request<'a>(RequestView<'a>);

impl<'a> Request<'a> {
    pub(crate) fn new(request: RequestView<'a>) -> Self {
        Self(request)
    }

    /// The method, as `GET`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.0.method()
    }

    /// The path below the app's mount, without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let path = self.path_and_query();
        let end = path.bytes().position(|byte| byte == b'?');
        &path[..end.unwrap_or(path.len())]
    }

    /// The query, without the `?`. None without a `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        Some(self.path_and_query().split_once('?')?.1)
    }

    /// Path and query below the app's mount.
    #[must_use]
    pub fn path_and_query(&self) -> &'a str {
        self.0.path()
    }

    /// Path and query as the client sent them.
    #[must_use]
    pub fn original_path(&self) -> &'a str {
        self.0.original_path()
    }

    /// Where the app is mounted: `/`, or `/shop`.
    #[must_use]
    pub fn mount(&self) -> &'a str {
        self.0.mount()
    }

    /// What identifies the request in the log.
    #[must_use]
    pub fn request_id(&self) -> &'a str {
        // The client may have chosen the bytes.
        str::from_utf8(self.0.request_id()).unwrap_or_default()
    }

    /// The address of the client, or of the proxy before the server.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer()
    }

    /// The scheme of the target, as `http`: in HTTP/2 that of a request with an
    /// [`authority`](Self::authority), in HTTP/1 that of a target that is a whole URL.
    #[must_use]
    pub fn scheme(&self) -> Option<&'a str> {
        self.0.scheme()
    }

    /// Host and port in the target, as `example.org:8080`: HTTP/2's `:authority`, and in HTTP/1 those
    /// of a target that is a whole URL, or the target of a `CONNECT`. [`host`](Self::host) also knows
    /// the header field.
    #[must_use]
    pub fn authority(&self) -> Option<&'a str> {
        self.0.authority()
    }

    /// Which host the request is for, and on which port where the client says so, as
    /// `example.org:8080`, whatever the version of HTTP: the target's [`authority`](Self::authority),
    /// or else the header field `host`. The server takes no request in which the two differ.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        let field = || {
            self.header(&HOST)
                .and_then(|host| str::from_utf8(host).ok())
        };
        self.authority().or_else(field)
    }

    /// What an extended `CONNECT` of HTTP/2 asks for (RFC 8441), as `websocket`. None for any other
    /// request.
    #[must_use]
    pub fn protocol(&self) -> Option<&'a str> {
        self.0.protocol()
    }

    /// The version of HTTP.
    #[must_use]
    pub fn version(&self) -> Version {
        version(self.0.version())
    }

    /// The first value of the header `name`.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        find(self.0.headers(), name).map(HeaderView::value)
    }

    /// The headers in their order, their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let fields = self.0.headers().iter();
        fields.map(|field| (field.name_text(), field.value()))
    }

    /// The body, once; then it is empty.
    #[must_use]
    pub fn take_body(&mut self) -> Body {
        Body::take(self.0.body())
    }

    /// The request as an [`http::Request`], as a tower service takes it; a body that was not taken
    /// goes along. Such a request cannot take the connection over.
    ///
    /// # Errors
    ///
    /// When a part is not what HTTP allows, which the server checks before.
    pub fn into_http(mut self) -> Result<http::Request<Body>, BoxError> {
        let mut request = http::Request::new(self.take_body());
        self.fill(&mut request)?;
        Ok(request)
    }

    /// Makes `head` this request.
    pub(crate) fn fill<B>(self, head: &mut http::Request<B>) -> Result<(), BoxError> {
        request::fill(head, &self.0)
    }

    /// The connection of a request that asks for an upgrade, once, and what an extended `CONNECT`
    /// asks for.
    #[cfg(feature = "upgrade")]
    pub(crate) fn take_upgrade(&mut self) -> Option<(abi::Stream, Option<&'a str>)> {
        let stream = self.0.upgrade()?.take();
        (!stream.is_none()).then(|| (stream, self.0.protocol()))
    }
}

/// The first field with this name.
fn find<'f, 'a>(fields: &'f [HeaderView<'a>], name: &HeaderName) -> Option<&'f HeaderView<'a>> {
    let id = ids().of(name);
    fields.iter().find(|field| {
        if id == field.id() && id != 0 {
            return true;
        }
        // A number that only one side knows does not tell the name.
        let is_open = id == 0 || !ids().knows(field.id());
        is_open && field.name() == name.as_str().as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_whoever_knows_its_number() {
        // Numbers of a later minor, of this one, and none for a name that has one.
        for host in [0, ids().of(&HOST)] {
            let fields = [
                HeaderView::new("x-new", "new", 1000),
                HeaderView::new("accept", "all", 1),
                HeaderView::new("host", "here", host),
            ];
            let find = |name| find(&fields, &HeaderName::from_static(name));
            assert_eq!(find("x-new").unwrap().value(), b"new");
            assert_eq!(find("host").unwrap().value(), b"here");
            assert!(find("x-other").is_none());
        }
    }
}
