//! Finds C libraries that are linked into a plugin's library and must not be loaded twice in one process.
//!
//! The list contains only SQLite. POSIX file locks belong to the process: when one copy of SQLite closes a file, the
//! kernel also drops the locks of another copy in the same process. If both copies write after that, they corrupt the
//! file (<https://sqlite.org/howtocorrupt.html>, section 2.2). Copies in separate processes do not have that problem.

use memchr::memmem;

/// Returns the name of the first of the `LIBRARIES` whose texts are all in the bytes `library`. Returns `None` if
/// `library` contains none of these C libraries. A search of 100 MB takes some milliseconds.
#[must_use]
pub fn find(library: &[u8]) -> Option<&'static str> {
    let contains_all = |texts: &[&[u8]]| {
        let contains = |text: &&[u8]| memmem::find(library, text).is_some();
        texts.iter().all(contains)
    };
    let (name, _) = LIBRARIES.iter().find(|(_, texts)| contains_all(texts))?;
    Some(name)
}

/// The names of the C libraries, each with texts from its code. One text alone proves nothing: a program that parses
/// database files without SQLite contains the first text, and a program that only calls a SQLite outside of itself may
/// contain the second.
const LIBRARIES: [(&str, &[&[u8]]); 1] = [(
    "SQLite",
    &[b"SQLite format 3\0", b"database disk image is malformed"],
)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_known_by_all_of_its_marks() {
        let magic = b"..SQLite format 3\0..".to_vec();
        assert_eq!(find(&magic), None);
        assert_eq!(find(b"The database disk image is malformed"), None);
        let both = [&magic[..], b"database disk image is malformed"].concat();
        assert_eq!(find(&both), Some("SQLite"));
        assert_eq!(find(b""), None);
    }
}
