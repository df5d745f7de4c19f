//! Changes the Content-Security-Policy of a page so that it allows the script of the session (CSP Level 3).

use http::{HeaderMap, HeaderValue, header::CONTENT_SECURITY_POLICY};

/// Changes the policies of a response: they then allow the script and its stream of events. Returns the nonce for the
/// script tag, or `None` if the response has no policy.
pub(super) fn allow_script(headers: &mut HeaderMap) -> Option<String> {
    let policies: Vec<String> = headers
        .get_all(CONTENT_SECURITY_POLICY)
        .iter()
        .filter_map(|value| value.to_str().ok())
        // A field may have several policies, and a browser enforces all of them.
        .flat_map(|value| value.split(','))
        .map(str::to_owned)
        .collect();
    if policies.is_empty() {
        return None;
    }
    // If a policy of the page has a nonce, the script uses that nonce, and the directive need not change.
    let nonce = policies
        .iter()
        .find_map(|policy| nonce(policy))
        .unwrap_or_else(new_nonce);
    headers.remove(CONTENT_SECURITY_POLICY);
    for policy in policies {
        let changed = allow(
            &allow(&policy, &SCRIPT_DIRECTIVES, &format!("'nonce-{nonce}'")),
            &CONNECT_DIRECTIVES,
            "'self'",
        );
        // Never fails, because the text is a field value to which only visible ASCII was added.
        if let Ok(value) = HeaderValue::from_str(&changed) {
            headers.append(CONTENT_SECURITY_POLICY, value);
        }
    }
    Some(nonce)
}

/// Returns a policy that also allows `source`.
///
/// `directives` are the names of the directives that apply to `source`: the most specific directive, and then its
/// fallbacks. A policy without any of them allows all sources and is not changed.
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
    let Some(index) = found else {
        return policy.to_owned();
    };
    let sources: Vec<&str> = parts[index]
        .split_whitespace()
        .skip(1)
        // `'none'` is valid only as the single source of a directive.
        .filter(|source| *source != "'none'")
        .collect();
    if sources.contains(&source) {
        return policy.to_owned();
    }
    // A fallback also applies to other kinds of content and must not change. The specific directive is added with the
    // sources of the fallback.
    let specific = [&[directives[0]], &*sources, &[source]].concat().join(" ");
    if name(&parts[index]) == directives[0] {
        parts[index] = specific;
    } else {
        parts.push(specific);
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

/// Returns a random nonce. Each page gets a new nonce, because an injected script that knows the nonce would be
/// allowed to run.
fn new_nonce() -> String {
    let mut random = [0; 16];
    // An error is ignored. getrandom(2) fails only while the system boots, before its random pool is ready.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The directives that apply to a script element, the most specific directive first.
const SCRIPT_DIRECTIVES: [&str; 3] = ["script-src-elem", "script-src", "default-src"];

/// The directives that apply to a stream of events, the most specific directive first.
const CONNECT_DIRECTIVES: [&str; 2] = ["connect-src", "default-src"];

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
