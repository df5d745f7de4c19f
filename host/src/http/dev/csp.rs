//! Changes the Content-Security-Policy of a page so that it allows the script of the session (CSP Level 3).

use http::{HeaderMap, HeaderValue, header::CONTENT_SECURITY_POLICY};

/// Changes the policies of a response so that they allow the script and its stream of events. Returns the
/// nonce that the script tag needs. None when the response has no policy.
pub(super) fn allow_script(headers: &mut HeaderMap) -> Option<String> {
    let policies: Vec<String> = headers
        .get_all(CONTENT_SECURITY_POLICY)
        .iter()
        // One field may have several policies, and a browser obeys all of them.
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::to_owned)
        .collect();
    if policies.is_empty() {
        return None;
    }
    // The page's own nonce is used if it has one, so that the directive for scripts need not change.
    let nonce = policies
        .iter()
        .find_map(|policy| nonce(policy))
        .unwrap_or_else(new_nonce);
    headers.remove(CONTENT_SECURITY_POLICY);
    for policy in policies {
        let changed = allow(
            &allow(&policy, &SCRIPT, &format!("'nonce-{nonce}'")),
            &CONNECT,
            "'self'",
        );
        // Never fails: the text was a field value before, and only ASCII was added.
        if let Ok(value) = HeaderValue::from_str(&changed) {
            headers.append(CONTENT_SECURITY_POLICY, value);
        }
    }
    Some(nonce)
}

/// Returns a policy that also allows `source`.
///
/// `directives` are the names of the directives that decide, the most specific one first and fallbacks
/// after it. A policy without any of them allows everything, and is not changed.
fn allow(policy: &str, directives: &[&str], source: &str) -> String {
    let mut parts: Vec<String> = policy
        .split(';')
        .map(|part| part.trim().to_owned())
        .collect();
    parts.retain(|part| !part.is_empty());
    let name = |part: &String| {
        part.split(' ')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    let found = directives
        .iter()
        .find_map(|directive| parts.iter().position(|part| name(part) == *directive));
    let Some(at) = found else {
        return policy.to_owned();
    };
    let sources: Vec<&str> = parts[at]
        .split_whitespace()
        .skip(1)
        // `'none'` is only valid alone.
        .filter(|source| *source != "'none'")
        .collect();
    if sources.contains(&source) {
        return policy.to_owned();
    }
    // A fallback also decides about other sources. So the specific directive is added beside it.
    let own = [&[directives[0]], &*sources, &[source]].concat().join(" ");
    if name(&parts[at]) == directives[0] {
        parts[at] = own;
    } else {
        parts.push(own);
    }
    parts.join("; ")
}

/// Returns the nonce of a policy, if it has one.
fn nonce(policy: &str) -> Option<String> {
    let found = policy
        .split_whitespace()
        .find_map(|part| part.trim_end_matches(';').strip_prefix("'nonce-"));
    found
        .and_then(|nonce| nonce.strip_suffix('\''))
        .map(str::to_owned)
}

/// Returns a random nonce. Every page gets another one, so that a known nonce is of no use.
fn new_nonce() -> String {
    let mut random = [0; 16];
    // Fails only while the system is booting, before its random pool is ready.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The directives that decide about a script element, the most specific one first.
const SCRIPT: [&str; 3] = ["script-src-elem", "script-src", "default-src"];

/// The directives that decide about a stream of events, the most specific one first.
const CONNECT: [&str; 2] = ["connect-src", "default-src"];

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(policy: &'static str) -> (String, Option<String>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        let nonce = allow_script(&mut headers);
        (
            headers[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .to_owned(),
            nonce,
        )
    }

    #[test]
    fn a_nonce_of_the_page_is_used() {
        let (policy, nonce) =
            changed("script-src 'nonce-abc' 'strict-dynamic'; connect-src 'self'");
        assert_eq!(nonce.as_deref(), Some("abc"));
        assert_eq!(
            policy,
            "script-src 'nonce-abc' 'strict-dynamic'; connect-src 'self'"
        );
    }

    #[test]
    fn a_strict_policy_gets_room_for_the_script_alone() {
        let (policy, nonce) = changed("default-src 'none'; img-src *");
        let nonce = nonce.unwrap();
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; img-src *; script-src-elem 'nonce-{nonce}'; connect-src 'self'"
            )
        );
        let (policy, nonce) = changed("script-src 'self' https://cdn.example");
        let nonce = nonce.unwrap();
        assert_eq!(
            policy,
            format!(
                "script-src 'self' https://cdn.example; script-src-elem 'self' https://cdn.example 'nonce-{nonce}'"
            )
        );
        assert_eq!(allow_script(&mut HeaderMap::new()), None);
    }
}
