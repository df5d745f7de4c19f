//! What a request leaves in the log: its id on every line, and its line in the access log.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use plugin_api::host::CallError;

use crate::{
    config::DebugHeader,
    log::{
        access::{AccessLog, Exchange, Outcome},
        request::{self, Facts, RequestLog, Trace},
    },
};

/// Begins the trails of requests.
#[derive(Debug, Default)]
pub struct Trails {
    /// By which header a request asks to be logged in full.
    pub debug_header: Option<DebugHeader>,
    /// Where each request has a line.
    pub access: Option<Arc<AccessLog>>,
}

impl Trails {
    /// The trail of a request from `peer`.
    pub fn begin<B>(&self, request: &Request<B>, peer: SocketAddr) -> Trail {
        let headers = request.headers();
        let log = RequestLog::new(Facts {
            id: id(headers),
            trace: headers
                .get(TRACEPARENT)
                .and_then(|value| Trace::parse(value.as_bytes())),
            loud: self
                .debug_header
                .as_ref()
                .is_some_and(|header| header.is_in(headers)),
        });
        let exchange = self
            .access
            .as_ref()
            .map(|access| access.begin(request, peer, &log));
        Trail {
            is_head: request.method() == Method::HEAD,
            log: Some(log),
            exchange,
        }
    }

    /// A head that did not become a request.
    pub fn no_request(&self, peer: SocketAddr, status: StatusCode, outcome: Outcome) {
        if let Some(access) = &self.access {
            access.no_request(peer, status, outcome);
        }
    }
}

/// The trail of one request. It ends when it is dropped.
#[derive(Debug)]
pub struct Trail {
    is_head: bool,
    /// Some, but while it is lent to a thread.
    log: Option<Arc<RequestLog>>,
    exchange: Option<Box<Exchange>>,
}

impl Trail {
    /// The request, as the log knows it.
    #[must_use]
    pub fn log(&self) -> Option<Arc<RequestLog>> {
        self.log.clone()
    }

    /// What identifies the request.
    #[must_use]
    pub fn id(&self) -> Option<HeaderValue> {
        Some(self.log.as_ref()?.facts().id.clone())
    }

    /// Runs `work` as the request's: what it logs says so.
    pub fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        request::scope(&mut self.log, work)
    }

    /// It is in a generation of an app.
    pub fn enter(&mut self, plugin: &'static str, generation: u64) {
        if let Some(exchange) = &mut self.exchange {
            exchange.enter(plugin, generation);
        }
    }

    /// Its response begins. The id goes with it.
    pub fn respond<B: Body>(&mut self, response: &mut Response<B>) {
        if let Some(id) = self.id() {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.respond(response);
            let bodiless = matches!(
                response.status(),
                StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
            if self.is_head || bodiless || response.body().is_end_stream() {
                exchange.end(Outcome::Answered);
            }
        }
    }

    /// A part of its response's body was handed to the connection.
    pub fn send(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.send(bytes as u64);
        }
    }

    /// What came of it; the first word counts.
    pub fn end(&mut self, outcome: Outcome) {
        if let Some(exchange) = &mut self.exchange {
            exchange.end(outcome);
        }
    }
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Panicked => Self::Panicked,
            _ => Self::Failed,
        }
    }
}

/// What identifies a request: what the client says, when that is sane, or a number of ours.
fn id(headers: &HeaderMap) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(id) if is_sane(id.as_bytes()) => id.clone(),
        _ => new_id(),
    }
}

/// It goes into lines and file names of others.
fn is_sane(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=128).contains(&id.len()) && id.iter().all(is_plain)
}

/// 16 hexadecimal digits, which do not come again in this process, and hardly in another.
fn new_id() -> HeaderValue {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request ids"));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // The step and the rounds of SplitMix64, which give each number one of its own.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bits = SEED.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let digits: [u8; 16] = std::array::from_fn(|at| DIGITS[(bits >> (60 - 4 * at)) as usize & 15]);
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_another_is_replaced() {
        let long = "x".repeat(129);
        for (given, kept) in [
            ("7f", true),
            ("0af7651916cd43dd/8448:eb", true),
            ("", false),
            ("two words", false),
            ("quo\"te", false),
            ("a{b}", false),
            (&long, false),
            (&long[1..], true),
        ] {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, given.parse().unwrap())]);
            assert_eq!(id(&headers) == given, kept, "{given:?}");
        }
        let headers =
            HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_bytes(b"\xff").unwrap())]);
        assert_eq!(id(&headers).len(), 16);
    }

    #[test]
    fn ids_do_not_repeat() {
        let ids: HashSet<_> = (0..10_000).map(|_| id(&HeaderMap::new())).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
