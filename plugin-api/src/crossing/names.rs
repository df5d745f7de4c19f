//! Numbers of well-known header names. A header field crosses the ABI with the number of its name and the text, because
//! parsing a name from text costs more than everything else that a field needs.

use std::sync::LazyLock;

use http::header::{self, HeaderName};

/// The well-known names. The number of a name is its index plus 1. The numbers are part of the ABI: new names are
/// appended, and no name ever moves.
static NAMES: [HeaderName; 81] = {
    use header::*;
    [
        ACCEPT,
        ACCEPT_CHARSET,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        ACCEPT_RANGES,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD,
        AGE,
        ALLOW,
        ALT_SVC,
        AUTHORIZATION,
        CACHE_CONTROL,
        CACHE_STATUS,
        CDN_CACHE_CONTROL,
        CONNECTION,
        CONTENT_DISPOSITION,
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_LOCATION,
        CONTENT_RANGE,
        CONTENT_SECURITY_POLICY,
        CONTENT_SECURITY_POLICY_REPORT_ONLY,
        CONTENT_TYPE,
        COOKIE,
        DNT,
        DATE,
        ETAG,
        EXPECT,
        EXPIRES,
        FORWARDED,
        FROM,
        HOST,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        LAST_MODIFIED,
        LINK,
        LOCATION,
        MAX_FORWARDS,
        ORIGIN,
        PRAGMA,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PUBLIC_KEY_PINS,
        PUBLIC_KEY_PINS_REPORT_ONLY,
        RANGE,
        REFERER,
        REFERRER_POLICY,
        REFRESH,
        RETRY_AFTER,
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
        SERVER,
        SET_COOKIE,
        STRICT_TRANSPORT_SECURITY,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        USER_AGENT,
        UPGRADE,
        UPGRADE_INSECURE_REQUESTS,
        VARY,
        VIA,
        WARNING,
        WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
        X_DNS_PREFETCH_CONTROL,
        X_FRAME_OPTIONS,
        X_XSS_PROTECTION,
    ]
};

/// Returns the name with this number. Returns `None` for 0, and for a number that only a later version has.
pub(super) fn name(id: u16) -> Option<&'static HeaderName> {
    NAMES.get(usize::from(id).wrapping_sub(1))
}

/// A hash table (open addressing, linear probing) from the text of a well-known name to its number.
///
/// The key is the address of the text, because comparing addresses is faster than comparing texts. If the compiler
/// emits the text of a name several times, only one copy has a number. The other copies cross without a number, which
/// costs time but stays correct.
pub(crate) struct NameIds([(&'static str, u16); TABLE_SIZE]);

/// Three times the number of names, or more, so that a lookup soon reaches a free entry if the name has no number.
const TABLE_SIZE: usize = 256;

/// Returns the table with the numbers of all well-known names.
pub(crate) fn ids() -> &'static NameIds {
    static IDS: LazyLock<NameIds> = LazyLock::new(NameIds::new);
    &IDS
}

impl NameIds {
    fn new() -> Self {
        // The number 0 marks a free entry.
        let mut table = [("", 0); TABLE_SIZE];
        for (name, id) in NAMES.iter().zip(1..) {
            let mut index = Self::first_index(name.as_str());
            while table[index].1 != 0 {
                index = (index + 1) % TABLE_SIZE;
            }
            table[index] = (name.as_str(), id);
        }
        Self(table)
    }

    /// Returns the number of a name, or 0 for a name without a number.
    pub(crate) fn of(&self, name: &HeaderName) -> u16 {
        let text = name.as_str();
        let mut index = Self::first_index(text);
        loop {
            match self.0[index] {
                (known, id) if std::ptr::eq(known, text) => return id,
                (_, 0) => return 0,
                _ => index = (index + 1) % TABLE_SIZE,
            }
        }
    }

    /// Returns whether this version has a name with this number.
    pub(crate) fn knows(&self, id: u16) -> bool {
        name(id).is_some()
    }

    /// Returns the table index at which the search for a name begins: a Fibonacci hash of the address.
    fn first_index(text: &str) -> usize {
        let hash = (text.as_ptr().addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 56) as usize % TABLE_SIZE
    }
}

/// Returns whether the number is that of `authorization`, `cookie`, `proxy-authorization` or `set-cookie`. The values
/// of these fields are usually secrets (RFC 7541, section 7.1.3), so no cache may store them.
pub(super) fn is_secret(id: u16) -> bool {
    // A test compares these numbers with the names.
    matches!(id, 17 | 31 | 52 | 66)
}

/// Like [`is_secret`], for the text of a name.
pub(super) fn is_secret_name(name: &[u8]) -> bool {
    matches!(
        name,
        b"authorization" | b"cookie" | b"proxy-authorization" | b"set-cookie"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_names_have_numbers_and_others_have_none() {
        for name in &NAMES {
            let parsed: HeaderName = name.as_str().parse().unwrap();
            assert_eq!(super::name(ids().of(&parsed)), Some(name), "{name}");
        }
        assert_eq!(ids().of(&HeaderName::from_static("x-request-id")), 0);
        assert_eq!(name(0), None);
        assert_eq!(name(82), None);
    }

    #[test]
    fn secrets_are_known_by_their_numbers() {
        let secrets = (0..=82).filter(|&id| is_secret(id));
        let secrets: Vec<_> = secrets.filter_map(name).collect();
        let expected = [
            &header::AUTHORIZATION,
            &header::COOKIE,
            &header::PROXY_AUTHORIZATION,
            &header::SET_COOKIE,
        ];
        assert_eq!(secrets, expected);
        let named = NAMES
            .iter()
            .filter(|name| is_secret_name(name.as_str().as_bytes()));
        assert_eq!(Vec::from_iter(named), expected);
    }

    /// The numbers are part of the ABI and must not change.
    #[test]
    fn numbers_stay() {
        for (id, expected) in [
            (1, "accept"),
            (30, "content-type"),
            (39, "host"),
            (81, "x-xss-protection"),
        ] {
            assert_eq!(name(id).unwrap().as_str(), expected);
        }
    }
}
