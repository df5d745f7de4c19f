//! Which of a request's header fields has a name.

use http::HeaderName;

use crate::{abi, crossing::ids};

/// The first field with this name.
///
/// # Safety
///
/// What the fields borrow is there.
pub(super) unsafe fn find<'a>(
    fields: &'a [abi::Header],
    name: &HeaderName,
) -> Option<&'a abi::Header> {
    let id = ids().of(name);
    fields.iter().find(|field| {
        if id == field.id && id != 0 {
            return true;
        }
        // A number that only one side knows says nothing.
        let is_open = id == 0 || !ids().knows(field.id);
        // SAFETY: the caller says so.
        is_open && unsafe { field.name.bytes() } == name.as_str().as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;
    use crate::abi::Slice;

    #[test]
    fn a_header_is_found_whoever_knows_its_number() {
        let field = |name: &'static str, value: &'static str, id| abi::Header {
            name: Slice::new(name.as_bytes()),
            value: Slice::new(value.as_bytes()),
            id,
            flags: 0,
        };
        // Numbers of a later minor, of this one, and none for a name that has one.
        for host in [0, ids().of(&HOST)] {
            let fields = [
                field("x-new", "new", 1000),
                field("accept", "all", 1),
                field("host", "here", host),
            ];
            // SAFETY: names and values are static.
            let find = |name| unsafe { find(&fields, &HeaderName::from_static(name)) };
            assert_eq!(find("x-new").unwrap().value.len, 3);
            assert_eq!(find("host").unwrap().value.len, 4);
            assert!(find("x-other").is_none());
        }
    }
}
