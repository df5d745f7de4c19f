//! Inserts the script of the session into pages while they are sent.

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
use crate::http::response_body::{FramePoll, ResponseBody, ResponseBodyError};

/// Adds the script to a response that is a page, if its encoding can be read. `version` identifies the
/// version of the apps that made the page.
pub(super) fn add_script(response: &mut Response<ResponseBody>, version: &str) {
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
    let nonce =
        csp::allow_script(headers).map_or_else(String::new, |nonce| format!(" nonce=\"{nonce}\""));
    for header in [
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        ACCEPT_RANGES,
        ETAG,
        LAST_MODIFIED,
    ] {
        headers.remove(header);
    }
    // A cached page would carry the version that made it, which need not be the one that serves.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = Page {
        body: mem::take(response.body_mut()),
        unzip,
        inserter: Some(ScriptInserter::new(format!(
            "<script src=\"/_host/dev/client.js\" data-made=\"{version}\"{nonce}></script>"
        ))),
        trailers: None,
    };
    *response.body_mut() = ResponseBody::wrapper(body);
}

/// Whether a response is HTML in an encoding that has ASCII's bytes for ASCII's characters.
fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    kind.starts_with("text/html") && !kind.contains("utf-16") && !kind.contains("utf-32")
}

/// The body of a page, into which the script is inserted.
struct Page {
    body: ResponseBody,
    /// Decompresses the body. None when the app did not compress it.
    unzip: Option<GzDecoder<Vec<u8>>>,
    /// None once the script is inserted.
    inserter: Option<ScriptInserter>,
    /// The app's trailers, while the last bytes go out before them.
    trailers: Option<Frame<OwnedBytes>>,
}

impl Body for Page {
    type Data = OwnedBytes;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
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
                Ok(mut bytes) => this.convert(&bytes.copy_to_bytes(bytes.remaining())),
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
    /// Returns what to send for bytes of the body. Empty when the place of the script is not clear yet.
    fn convert(&mut self, bytes: &Bytes) -> Bytes {
        let plain = match &mut self.unzip {
            Some(unzip) => {
                // An error means that the body is not valid gzip. The page ends there.
                let _ = unzip.write_all(bytes).and_then(|()| unzip.flush());
                mem::take(unzip.get_mut()).into()
            }
            None => bytes.clone(),
        };
        self.insert(plain, false)
    }

    /// Returns the last bytes when the body has ended.
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

    /// Returns `plain` with the script, if its place is in these bytes.
    fn insert(&mut self, plain: Bytes, is_end: bool) -> Bytes {
        let Some(inserter) = &mut self.inserter else {
            return plain;
        };
        let (bytes, is_done) = inserter.feed(&plain, is_end);
        if is_done {
            self.inserter = None;
        }
        bytes.into()
    }
}

/// Finds the place of the script in a page: behind the start tag `<head>`.
///
/// There the script runs before other scripts, which may fail, and does not wait for the rest of the page. A
/// script before the doctype would put the browser into quirks mode. A page without the tag gets the script
/// behind all that may precede a head, and the parser makes a head for it (HTML Standard, section
/// 13.2.6.4).
struct ScriptInserter {
    script: String,
    /// Bytes whose meaning is not clear without more bytes.
    unread: Vec<u8>,
}

impl ScriptInserter {
    fn new(script: String) -> Self {
        Self {
            script,
            unread: Vec::new(),
        }
    }

    /// Returns the bytes to send now, and whether the script is among them.
    fn feed(&mut self, bytes: &[u8], is_end: bool) -> (Vec<u8>, bool) {
        self.unread.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match token(&self.unread[at..]) {
                Token::Before(len) => at += len,
                Token::Head(len) => {
                    at += len;
                    break;
                }
                Token::Other => break,
                Token::Incomplete if is_end => break,
                Token::Incomplete => {
                    let rest = self.unread.split_off(at);
                    return (mem::replace(&mut self.unread, rest), false);
                }
            }
        }
        let rest = self.unread.split_off(at);
        let mut bytes = mem::take(&mut self.unread);
        bytes.extend_from_slice(self.script.as_bytes());
        bytes.extend_from_slice(&rest);
        (bytes, true)
    }
}

/// The next part in the beginning of a page.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// White space, a comment, the doctype or `<html>`, which may precede the head: this many bytes.
    Before(usize),
    /// The tag `<head>`: this many bytes.
    Head(usize),
    /// Something else, so that the page has no tag for its head.
    Other,
    /// Too few bytes to tell.
    Incomplete,
}

/// Returns the first token of `text`.
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
        // The end may overlap the start: `<!-->` is a whole comment.
        let end = text.windows(3).skip(2).position(|three| three == b"-->");
        return end.map_or(Token::Incomplete, |end| Token::Before(end + 5));
    }
    for (name, is_head) in [
        (&b"<!doctype"[..], false),
        (b"<html", false),
        (b"<head", true),
    ] {
        // The bytes that are there must be those of the name.
        let known = text.len().min(name.len());
        if !text[..known].eq_ignore_ascii_case(&name[..known]) {
            continue;
        }
        let Some(next) = text.get(name.len()) else {
            return Token::Incomplete;
        };
        // A longer name, as in `<header>`.
        if !next.is_ascii_whitespace() && *next != b'>' {
            continue;
        }
        return match tag_end(text) {
            Some(end) if is_head => Token::Head(end),
            Some(end) => Token::Before(end),
            None => Token::Incomplete,
        };
    }
    // A page that comes in small parts may end in the middle of one of these.
    let is_part = text.is_empty()
        || [&b"<!--"[..], BYTE_ORDER_MARK]
            .iter()
            .any(|start| start.starts_with(text));
    if is_part {
        Token::Incomplete
    } else {
        Token::Other
    }
}

/// Returns the length of a tag, which ends at the first `>` outside of quotes. None when the end is
/// missing.
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
        let mut inserter = Some(ScriptInserter::new("|".to_owned()));
        let mut passed = Vec::new();
        let pieces = text.as_bytes().chunks(size).map(|piece| (piece, false));
        for (piece, is_end) in pieces.chain([(&b""[..], true)]) {
            match &mut inserter {
                Some(waiting) => {
                    let (bytes, is_done) = waiting.feed(piece, is_end);
                    passed.extend(bytes);
                    if is_done {
                        inserter = None;
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
        let mut inserter = ScriptInserter::new("|".to_owned());
        assert_eq!(
            inserter.feed(b"<!doctype html><ht", false),
            (b"<!doctype html>".to_vec(), false)
        );
        assert_eq!(
            inserter.feed(b"ml><head>", false),
            (b"<html><head>|".to_vec(), true)
        );
    }
}
