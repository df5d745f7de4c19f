//! Inserts the script of the development session (`host dev`) into pages while the pages are sent.

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

/// Adds the script to a response that is an HTML page, if the content encoding of the page is supported. `version`
/// identifies the code that created the page.
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
    let gzip_decoder = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => None,
        Some(b"gzip" | b"x-gzip") => Some(GzDecoder::new(Vec::new())),
        Some(_) => return,
    };
    let nonce =
        csp::allow_script(headers).map_or_else(String::new, |nonce| format!(" nonce=\"{nonce}\""));
    // These fields describe the page without the script.
    for header in [
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        ACCEPT_RANGES,
        ETAG,
        LAST_MODIFIED,
    ] {
        headers.remove(header);
    }
    // A cached page would have an old version in its script tag, and would reload itself.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let body = Page {
        body: mem::take(response.body_mut()),
        gzip_decoder,
        inserter: Some(ScriptInserter::new(format!(
            "<script src=\"/_host/dev/client.js\" data-made=\"{version}\"{nonce}></script>"
        ))),
        trailers: None,
    };
    *response.body_mut() = ResponseBody::of_dev_layer(body);
}

/// Returns whether a response is HTML in a character encoding that contains ASCII, in which the tags can be found.
fn is_html(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    content_type.starts_with("text/html")
        && !content_type.contains("utf-16")
        && !content_type.contains("utf-32")
}

/// The body of a page. The script is inserted while hyper polls the body.
struct Page {
    /// The body of the app's response.
    body: ResponseBody,
    /// Decompresses the body. `None` if the body is not compressed, or has ended.
    gzip_decoder: Option<GzDecoder<Vec<u8>>>,
    /// `None` once the script is inserted.
    inserter: Option<ScriptInserter>,
    /// The trailers of the app. Stored while the last bytes of the page are sent before them.
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
            // Without bytes to send, the next frame of the app is polled.
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
        }
    }
}

impl Page {
    /// Returns the bytes to send after the app's body returned `bytes`. The result is empty if the place of the script
    /// is not clear yet.
    fn convert(&mut self, bytes: &Bytes) -> Bytes {
        let plain = match &mut self.gzip_decoder {
            Some(gzip_decoder) => {
                // An error is ignored: the body is not valid gzip, and the page ends with the bytes before the error.
                let _ = gzip_decoder
                    .write_all(bytes)
                    .and_then(|()| gzip_decoder.flush());
                mem::take(gzip_decoder.get_mut()).into()
            }
            None => bytes.clone(),
        };
        self.insert(plain, false)
    }

    /// Returns the last bytes to send after the app's body has ended.
    fn finish(&mut self) -> Bytes {
        let plain = match self.gzip_decoder.take() {
            Some(mut gzip_decoder) => {
                // An error is ignored here as well.
                let _ = gzip_decoder.try_finish();
                mem::take(gzip_decoder.get_mut()).into()
            }
            None => Bytes::new(),
        };
        self.insert(plain, true)
    }

    /// Returns the bytes of `plain` that can be sent now, with the script if its place is found.
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

/// Inserts the script into a page after the start tag `<head>`.
///
/// At this place the script does not wait for the rest of the page, and runs before the other scripts of the page,
/// which may fail. A script before the doctype would put the browser into quirks mode. In a page without the tag, the
/// script is inserted after everything that may precede a head. The parser of the browser then creates a head (HTML
/// Standard, section 13.2.6.4).
struct ScriptInserter {
    /// The script tag.
    script: String,
    /// The received bytes that were not returned yet, because their meaning depends on the next bytes.
    unread: Vec<u8>,
}

impl ScriptInserter {
    fn new(script: String) -> Self {
        Self {
            script,
            unread: Vec::new(),
        }
    }

    /// Adds `bytes` of the page. Returns the bytes to send now, and whether the script is among them.
    fn feed(&mut self, bytes: &[u8], is_end: bool) -> (Vec<u8>, bool) {
        self.unread.extend_from_slice(bytes);
        // The script is not inserted before this offset.
        let mut offset = 0;
        loop {
            match first_token(&self.unread[offset..]) {
                Token::Preamble(len) => offset += len,
                Token::Head(len) => {
                    offset += len;
                    break;
                }
                Token::Other => break,
                Token::Incomplete if is_end => break,
                Token::Incomplete => {
                    let rest = self.unread.split_off(offset);
                    return (mem::replace(&mut self.unread, rest), false);
                }
            }
        }
        let rest = self.unread.split_off(offset);
        let mut bytes = mem::take(&mut self.unread);
        bytes.extend_from_slice(self.script.as_bytes());
        bytes.extend_from_slice(&rest);
        (bytes, true)
    }
}

/// A part of the beginning of a page.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A part that may precede the head, with its length: white space, a byte order mark, a comment, the doctype or
    /// `<html>`.
    Preamble(usize),
    /// The tag `<head>`, with its length.
    Head(usize),
    /// Any other part: the page has no tag `<head>`.
    Other,
    /// The text is too short to decide.
    Incomplete,
}

/// Returns the first token of `text`.
fn first_token(text: &[u8]) -> Token {
    let is_space = |byte: &&u8| byte.is_ascii_whitespace();
    match text.iter().take_while(is_space).count() {
        0 => {}
        spaces => return Token::Preamble(spaces),
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        return Token::Preamble(BYTE_ORDER_MARK.len());
    }
    if text.starts_with(b"<!--") {
        // The end of a comment may overlap its start: `<!-->` is a complete comment.
        let end = text.windows(3).skip(2).position(|three| three == b"-->");
        return end.map_or(Token::Incomplete, |end| Token::Preamble(end + 5));
    }
    for (name, is_head) in [
        (&b"<!doctype"[..], false),
        (b"<html", false),
        (b"<head", true),
    ] {
        // Compares as many bytes as `text` has.
        let known = text.len().min(name.len());
        if !text[..known].eq_ignore_ascii_case(&name[..known]) {
            continue;
        }
        let Some(next) = text.get(name.len()) else {
            return Token::Incomplete;
        };
        // The tag has a longer name, such as `<header>`.
        if !next.is_ascii_whitespace() && *next != b'>' {
            continue;
        }
        return match tag_end(text) {
            Some(end) if is_head => Token::Head(end),
            Some(end) => Token::Preamble(end),
            None => Token::Incomplete,
        };
    }
    // `text` may be the beginning of a comment or of a byte order mark whose rest was not received yet.
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

/// Returns the length of the tag at the beginning of `text`, or `None` if the end of the tag is missing. A tag ends at
/// the first `>` outside of quotes.
fn tag_end(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (index, &byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(index + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(opening), byte) if opening == byte => quote = None,
            _ => {}
        }
    }
    None
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a page with the script `|`, after the page was received in pieces of `size` bytes.
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
