//! The rules for header fields that HTTP/2 has and HTTP/1 does not have (RFC 9113, section 8.2).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::COOKIE};

/// Returns whether a value begins or ends with a space or a tab. HTTP/2 forbids that. Over HTTP/1, a recipient removes
/// such whitespace.
pub(super) fn is_padded(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.first()) || is_blank(value.last())
}

/// The result of [`check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldCheck {
    /// The fields can be passed to an app.
    Valid,
    /// The cookie is split into several fields. [`join_cookies`] has to join the fields.
    SplitCookie,
    /// A value begins or ends with whitespace. The request has to be refused.
    PaddedValue,
}

/// Checks the fields of an HTTP/2 request.
pub(super) fn check(headers: &HeaderMap) -> FieldCheck {
    let mut cookie_count = 0_usize;
    for (name, value) in headers {
        if is_padded(value.as_bytes()) {
            return FieldCheck::PaddedValue;
        }
        cookie_count += usize::from(*name == COOKIE);
    }
    if cookie_count > 1 {
        FieldCheck::SplitCookie
    } else {
        FieldCheck::Valid
    }
}

/// Removes whitespace at both ends of the values of an HTTP/2 response, because a client of HTTP/2 has to reject a
/// response with such whitespace.
pub(super) fn trim(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        if is_padded(value.as_bytes()) {
            *value = trimmed(value);
        }
    }
}

/// Returns a copy of `value` without whitespace at both ends.
#[cold]
fn trimmed(value: &HeaderValue) -> HeaderValue {
    let bytes = Bytes::copy_from_slice(value.as_bytes().trim_ascii());
    let trimmed = HeaderValue::from_maybe_shared(bytes);
    let mut trimmed = trimmed.unwrap_or(HeaderValue::from_static(""));
    trimmed.set_sensitive(value.is_sensitive());
    trimmed
}

/// Joins the `cookie` fields into which an HTTP/2 client may split its cookie ("cookie crumbs", section 8.2.3). An app
/// that was written for HTTP/1 reads only one field. The joined field has the position of the first crumb.
#[cold]
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = || headers.get_all(COOKIE).iter();
    let crumb_bytes: Vec<_> = crumbs().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_maybe_shared(Bytes::from(crumb_bytes.join(&b"; "[..])));
    // Never fails, because each crumb and the separator are valid in a value.
    if let Ok(mut joined) = joined {
        joined.set_sensitive(crumbs().any(HeaderValue::is_sensitive));
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_values_are_taken_off() {
        let mut headers = HeaderMap::new();
        for value in [" y\t", "y z", "", "\t", " x"] {
            headers.append("x", HeaderValue::from_static(value));
        }
        let mut secret = HeaderValue::from_static("hush ");
        secret.set_sensitive(true);
        headers.insert("secret", secret);
        trim(&mut headers);
        let values: Vec<_> = headers.get_all("x").iter().collect();
        assert_eq!(values, ["y", "y z", "", "", "x"]);
        assert_eq!(headers["secret"], "hush");
        assert!(headers["secret"].is_sensitive());
    }

    #[test]
    fn crumbs_of_a_cookie_are_one_field_where_the_first_was() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "x"),
            ("cookie", "a=1"),
            ("x", "y"),
            ("cookie", "b=2; c=3"),
            ("cookie", "d=4"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        join_cookies(&mut headers);
        let seen = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        assert_eq!(
            Vec::from_iter(seen),
            [
                ("accept", "x"),
                ("cookie", "a=1; b=2; c=3; d=4"),
                ("x", "y")
            ]
        );
        assert!(!headers[COOKIE].is_sensitive());
    }

    #[test]
    fn a_joined_cookie_is_a_secret_when_a_crumb_was() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        let mut secret = HeaderValue::from_static("b=2");
        secret.set_sensitive(true);
        headers.append(COOKIE, secret);
        join_cookies(&mut headers);
        assert!(headers[COOKIE].is_sensitive());
    }
}
