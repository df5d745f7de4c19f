//! Lets the script of the session into a page whose Content-Security-Policy would keep it out (CSP
//! Level 3).

use http::{HeaderMap, HeaderValue, header::CONTENT_SECURITY_POLICY};

/// Changes the policies of a response so that they allow the script and its stream. The result is the
/// nonce that the script needs, if it needs one.
pub(super) fn admit(headers: &mut HeaderMap) -> Option<String> {
    let policies: Vec<String> = headers
        .get_all(CONTENT_SECURITY_POLICY)
        .iter()
        // A header may have several, and each counts.
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::to_owned)
        .collect();
    if policies.is_empty() {
        return None;
    }
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
        // It was a header before, and what was added is ASCII.
        if let Ok(value) = HeaderValue::from_str(&changed) {
            headers.append(CONTENT_SECURITY_POLICY, value);
        }
    }
    Some(nonce)
}

/// A policy that also allows `source`, by the first of these directives that it has.
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
        .filter(|source| *source != "'none'")
        .collect();
    if sources.contains(&source) {
        return policy.to_owned();
    }
    // One of its own: the fallback is for others too.
    let own = [&[directives[0]], &*sources, &[source]].concat().join(" ");
    if name(&parts[at]) == directives[0] {
        parts[at] = own;
    } else {
        parts.push(own);
    }
    parts.join("; ")
}

/// The nonce that a policy has for scripts.
fn nonce(policy: &str) -> Option<String> {
    let found = policy
        .split_whitespace()
        .find_map(|part| part.trim_end_matches(';').strip_prefix("'nonce-"));
    found
        .and_then(|nonce| nonce.strip_suffix('\''))
        .map(str::to_owned)
}

/// A nonce of the session's own. Every page gets another: guessing one is not to help anybody.
fn new_nonce() -> String {
    let mut random = [0; 16];
    // It is the process's first need of randomness at the earliest; the pool is there.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The directives that decide of a script element, the nearest first.
const SCRIPT: [&str; 3] = ["script-src-elem", "script-src", "default-src"];

/// Those that decide of a stream of events.
const CONNECT: [&str; 2] = ["connect-src", "default-src"];

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(policy: &'static str) -> (String, Option<String>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        let nonce = admit(&mut headers);
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
        assert_eq!(admit(&mut HeaderMap::new()), None);
    }
}
