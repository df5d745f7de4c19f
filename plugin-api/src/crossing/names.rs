//! Well-known header names, which cross as numbers beside their text: making a name of a text costs
//! more than all else that a header needs.

use std::sync::LazyLock;

use http::header::{self, HeaderName};

/// The names, by number from 1. Part of the ABI: names are appended, and never moved.
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

/// The name with this number. None for 0, and for a number of a later version.
pub(super) fn name(id: u16) -> Option<&'static HeaderName> {
    NAMES.get(usize::from(id).wrapping_sub(1))
}

/// The numbers of names, by the address of the text, because an address is compared faster than a text. If a compiler
/// puts the text of a name into several places, the name has no number in all but one, which costs time only.
pub(crate) struct Ids([(&'static str, u16); SIZE]);

/// At most a third of the table is used, so that a name that is not there is soon known not to be.
const SIZE: usize = 256;

/// The numbers of all names.
pub(crate) fn ids() -> &'static Ids {
    static IDS: LazyLock<Ids> = LazyLock::new(Ids::new);
    &IDS
}

impl Ids {
    fn new() -> Self {
        let mut table = [("", 0); SIZE];
        for (name, id) in NAMES.iter().zip(1..) {
            let mut at = Self::place(name.as_str());
            while table[at].1 != 0 {
                at = (at + 1) % SIZE;
            }
            table[at] = (name.as_str(), id);
        }
        Self(table)
    }

    /// The number of a name; 0 for one that has none.
    pub(crate) fn of(&self, name: &HeaderName) -> u16 {
        let text = name.as_str();
        let mut at = Self::place(text);
        loop {
            match self.0[at] {
                (known, id) if std::ptr::eq(known, text) => return id,
                (_, 0) => return 0,
                _ => at = (at + 1) % SIZE,
            }
        }
    }

    /// Whether there is a name with this number.
    pub(crate) fn knows(&self, id: u16) -> bool {
        name(id).is_some()
    }

    /// The first index of the table to compare (Fibonacci hashing).
    fn place(text: &str) -> usize {
        let hash = (text.as_ptr().addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 56) as usize % SIZE
    }
}

/// Whether the values of the name with this number are secrets, as a rule, and must not be kept: those of
/// `authorization`, `cookie`, `proxy-authorization` and `set-cookie` (RFC 7541, section 7.1.3).
pub(super) fn is_secret(id: u16) -> bool {
    matches!(id, 17 | 31 | 52 | 66)
}

/// [`is_secret`] for a name that is known by its text.
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

    /// Numbers are part of the ABI.
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
