//! The W3C trace context of a request (<https://www.w3.org/TR/trace-context/>).

/// The W3C trace that a request is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The `traceparent` without parts of later versions: version, trace id, span id and flags, with dashes between
    /// them.
    text: [u8; 55],
}

impl Trace {
    /// Parses a `traceparent` header (W3C Trace Context, section 3.2). Returns `None` if the header is not valid.
    #[must_use]
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        // `VERSION-TRACE-SPAN-FLAGS`, in 2, 32, 16 and 2 lower-case hexadecimal digits.
        let text: [u8; 55] = traceparent.get(..55)?.try_into().ok()?;
        let is_hex = |part: &[u8]| {
            part.iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_not_zero = |part: &[u8]| part.iter().any(|&byte| byte != b'0');
        let [version, trace, span, flags] = [0..2, 3..35, 36..52, 53..55].map(|at| &text[at]);
        let has_dashes = [2, 35, 52].iter().all(|&at| text[at] == b'-');
        // A later version than 00 may have more parts after another dash.
        let ends_well = match traceparent.get(55) {
            None => true,
            Some(&next) => version != b"00" && next == b'-',
        };
        // Version ff is invalid, and so is an id that consists only of zeros.
        let is_valid = has_dashes
            && ends_well
            && version != b"ff"
            && [version, trace, span, flags].into_iter().all(is_hex)
            && is_not_zero(trace)
            && is_not_zero(span);
        is_valid.then_some(Self { text })
    }

    /// Returns the id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.text[3..35]).unwrap_or_default()
    }

    /// Returns the id of the caller's span: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        std::str::from_utf8(&self.text[36..52]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Random;

    #[test]
    fn an_accepted_traceparent_has_ids_that_are_parts_of_it() {
        let mut random = Random::new(4);
        let valid: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let later: &[u8] = b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        let mut accepted = 0;
        for _ in 0..50_000 {
            let text = random.input(&[valid, later]);
            let Some(trace) = Trace::parse(&text) else {
                continue;
            };
            accepted += 1;
            assert!(text.len() == 55 || text[..2] != *b"00", "{text:?}");
            assert!(text[..2] != *b"ff", "{text:?}");
            for (id, at) in [(trace.trace_id(), 3..35), (trace.span_id(), 36..52)] {
                assert_eq!(id.as_bytes(), &text[at]);
                let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                assert!(id.bytes().all(is_lower_hex), "{id}");
                assert!(id.bytes().any(|byte| byte != b'0'), "{id}");
            }
        }
        assert!(accepted > 1_000, "{accepted}");
    }
}
