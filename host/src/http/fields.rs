//! What HTTP/2 asks of the values of header fields, beyond HTTP/1 (RFC 9113, section 8.2).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::COOKIE};

/// Whether a value begins or ends with a blank. HTTP/2 forbids that; HTTP/1 takes such blanks off.
pub(super) fn is_padded(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.first()) || is_blank(value.last())
}

/// What has to be done with the fields of an HTTP/2 request before an app sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    /// Nothing.
    Sound,
    /// [`join_cookies`] has to make one field of several.
    CookieInCrumbs,
    /// No app may see them: a value has blanks around it.
    Padded,
}

/// Looks through the fields of an HTTP/2 request.
pub(super) fn judge(headers: &HeaderMap) -> Fields {
    let mut cookies = 0_usize;
    for (name, value) in headers {
        if is_padded(value.as_bytes()) {
            return Fields::Padded;
        }
        cookies += usize::from(*name == COOKIE);
    }
    if cookies > 1 {
        Fields::CookieInCrumbs
    } else {
        Fields::Sound
    }
}

/// Takes the blanks off the values of a response, as a client of HTTP/1 would: one of HTTP/2 has to
/// reject the response.
pub(super) fn trim(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        if is_padded(value.as_bytes()) {
            *value = trimmed(value);
        }
    }
}

#[cold]
fn trimmed(value: &HeaderValue) -> HeaderValue {
    let bytes = Bytes::copy_from_slice(value.as_bytes().trim_ascii());
    let trimmed = HeaderValue::from_maybe_shared(bytes);
    let mut trimmed = trimmed.unwrap_or(HeaderValue::from_static(""));
    trimmed.set_sensitive(value.is_sensitive());
    trimmed
}

/// Makes one field of the crumbs that HTTP/2 may make of a cookie, because an app that knows nothing of
/// HTTP/2 looks at one field (section 8.2.3). The field is where the first crumb was.
#[cold]
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = || headers.get_all(COOKIE).iter();
    let crumb_bytes: Vec<_> = crumbs().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_maybe_shared(Bytes::from(crumb_bytes.join(&b"; "[..])));
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
