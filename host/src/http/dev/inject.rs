//! Puts the script of the session into pages, as they pass.

use std::{
    io::Write,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
        LAST_MODIFIED,
    },
};
use http_body::{Body, Frame};
use plugin_api::abi::OwnedBytes;

use super::csp;
use crate::http::response_body::{Broken, ResponseBody};

/// Adds the script to a response, if that is a page that can be read. `made` identifies the version of the
/// apps that made it.
pub(super) fn script(response: &mut Response<ResponseBody>, made: &str) {
    let is_bodiless = matches!(
        response.status(),
        StatusCode::SWITCHING_PROTOCOLS
            | StatusCode::NO_CONTENT
            | StatusCode::NOT_MODIFIED
            | StatusCode::PARTIAL_CONTENT
    );
    let headers = response.headers_mut();
    if is_bodiless || !is_html(headers) {
        return;
    }
    let unzip = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => None,
        Some(b"gzip" | b"x-gzip") => Some(GzDecoder::new(Vec::new())),
        Some(_) => return,
    };
    let nonce = csp::admit(headers).map_or_else(String::new, |nonce| format!(" nonce=\"{nonce}\""));
    for header in [
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        ACCEPT_RANGES,
        ETAG,
        LAST_MODIFIED,
    ] {
        headers.remove(header);
    }
    // From a cache it would come as another version made it.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = Page {
        body: mem::take(response.body_mut()),
        unzip,
        head: Some(Head::new(format!(
            "<script src=\"/_host/dev/client.js\" data-made=\"{made}\"{nonce}></script>"
        ))),
        trailers: None,
    };
    *response.body_mut() = ResponseBody::changed(body);
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    // Encodings that are not those of ASCII for what the script is made of.
    kind.starts_with("text/html") && !kind.contains("utf-16") && !kind.contains("utf-32")
}

/// A page on its way.
struct Page {
    body: ResponseBody,
    unzip: Option<GzDecoder<Vec<u8>>>,
    /// None once the script is in.
    head: Option<Head>,
    trailers: Option<Frame<OwnedBytes>>,
}

impl Body for Page {
    type Data = OwnedBytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, Broken>>> {
        let this = &mut *self;
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(trailers)));
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = this.finish();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest.into()))));
                }
            };
            let bytes = match frame.into_data() {
                Ok(mut bytes) => this.take(&bytes.copy_to_bytes(bytes.remaining())),
                Err(trailers) => {
                    this.trailers = Some(trailers);
                    this.finish()
                }
            };
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
        }
    }
}

impl Page {
    /// What becomes of bytes of the body; nothing when they have to wait for more.
    fn take(&mut self, bytes: &Bytes) -> Bytes {
        let plain = match &mut self.unzip {
            Some(unzip) => {
                // A body that is no gzip is cut short where it stops to be.
                let _ = unzip.write_all(bytes).and_then(|()| unzip.flush());
                mem::take(unzip.get_mut()).into()
            }
            None => bytes.clone(),
        };
        self.insert(plain, false)
    }

    /// What is left when the body has ended.
    fn finish(&mut self) -> Bytes {
        let plain = match self.unzip.take() {
            Some(mut unzip) => {
                let _ = unzip.try_finish();
                mem::take(unzip.get_mut()).into()
            }
            None => Bytes::new(),
        };
        self.insert(plain, true)
    }

    fn insert(&mut self, plain: Bytes, is_end: bool) -> Bytes {
        let Some(head) = &mut self.head else {
            return plain;
        };
        let (bytes, is_done) = head.take(&plain, is_end);
        if is_done {
            self.head = None;
        }
        bytes.into()
    }
}

/// The beginning of a page, up to where the script goes: behind the start of `<head>`, so that it comes
/// before what may fail and does not wait for the end. Before the doctype it would change how the page is
/// laid out. Where there is no head it goes behind what may stand before one: the parser makes a head for it
/// (HTML Standard, section 13.2.6.4).
struct Head {
    script: String,
    /// What has not been passed on.
    kept: Vec<u8>,
}

impl Head {
    fn new(script: String) -> Self {
        Self {
            script,
            kept: Vec::new(),
        }
    }

    /// What to pass on now, and whether the script is in it.
    fn take(&mut self, bytes: &[u8], is_end: bool) -> (Vec<u8>, bool) {
        self.kept.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match token(&self.kept[at..]) {
                Token::Before(len) => at += len,
                Token::Head(len) => {
                    at += len;
                    break;
                }
                Token::Other => break,
                Token::Part if is_end => break,
                Token::Part => {
                    let rest = self.kept.split_off(at);
                    return (mem::replace(&mut self.kept, rest), false);
                }
            }
        }
        let rest = self.kept.split_off(at);
        let mut bytes = mem::take(&mut self.kept);
        bytes.extend_from_slice(self.script.as_bytes());
        bytes.extend_from_slice(&rest);
        (bytes, true)
    }
}

/// What a page begins with.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// So many bytes that may stand before the head: space, a comment, the doctype, `<html>`.
    Before(usize),
    /// `<head>`.
    Head(usize),
    /// Something else.
    Other,
    /// Not enough to tell.
    Part,
}

fn token(text: &[u8]) -> Token {
    let is_space = |byte: &&u8| byte.is_ascii_whitespace();
    match text.iter().take_while(is_space).count() {
        0 => {}
        spaces => return Token::Before(spaces),
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return Token::Before(BYTE_ORDER_MARK.len());
    }
    if text.starts_with(b"<!--") {
        let end = text.windows(3).skip(2).position(|three| three == b"-->");
        return end.map_or(Token::Part, |end| Token::Before(end + 5));
    }
    for (name, is_head) in [
        (&b"<!doctype"[..], false),
        (b"<html", false),
        (b"<head", true),
    ] {
        let known = text.len().min(name.len());
        if !text[..known].eq_ignore_ascii_case(&name[..known]) {
            continue;
        }
        let Some(next) = text.get(name.len()) else {
            return Token::Part;
        };
        if !next.is_ascii_whitespace() && *next != b'>' {
            continue;
        }
        return match tag_end(text) {
            Some(end) if is_head => Token::Head(end),
            Some(end) => Token::Before(end),
            None => Token::Part,
        };
    }
    let is_part = text.is_empty()
        || [&b"<!--"[..], BYTE_ORDER_MARK]
            .iter()
            .any(|start| start.starts_with(text));
    if is_part { Token::Part } else { Token::Other }
}

/// Where a tag ends: at a `>` that is not in the quotes of a value.
fn tag_end(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, &byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    /// The page with the script in it, when it comes in pieces of this size.
    fn page(text: &str, size: usize) -> String {
        let mut head = Some(Head::new("|".to_owned()));
        let mut passed = Vec::new();
        let pieces = text.as_bytes().chunks(size).map(|piece| (piece, false));
        for (piece, is_end) in pieces.chain([(&b""[..], true)]) {
            match &mut head {
                Some(at) => {
                    let (bytes, is_done) = at.take(piece, is_end);
                    passed.extend(bytes);
                    if is_done {
                        head = None;
                    }
                }
                None => passed.extend(piece),
            }
        }
        String::from_utf8(passed).unwrap()
    }

    #[test]
    fn the_script_goes_to_the_start_of_the_head() {
        for (text, changed) in [
            (
                "<!doctype html><html><head><title>a",
                "<!doctype html><html><head>|<title>a",
            ),
            (
                "\u{feff}<!-- <head> -->\n<!DOCTYPE html>\n<HTML lang=\"a>b\"> <HEAD id='x'>\n<body>",
                "\u{feff}<!-- <head> -->\n<!DOCTYPE html>\n<HTML lang=\"a>b\"> <HEAD id='x'>|\n<body>",
            ),
            ("<!doctype html><title>a", "<!doctype html>|<title>a"),
            ("<!doctype html><header>a", "<!doctype html>|<header>a"),
            ("<h1>a</h1>", "|<h1>a</h1>"),
            ("text", "|text"),
            ("<", "|<"),
            ("", "|"),
            ("<!doctype html>", "<!doctype html>|"),
            ("<!-- never ends", "|<!-- never ends"),
        ] {
            for size in [1, 2, 7, 1000] {
                assert_eq!(page(text, size), changed, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_complete_is_passed_on_at_once() {
        let mut head = Head::new("|".to_owned());
        assert_eq!(
            head.take(b"<!doctype html><ht", false),
            (b"<!doctype html>".to_vec(), false)
        );
        assert_eq!(
            head.take(b"ml><head>", false),
            (b"<html><head>|".to_vec(), true)
        );
    }
}
