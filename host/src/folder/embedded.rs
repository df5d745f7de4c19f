//! C libraries inside a library that must not be loaded twice in one process.
//!
//! The list is short on purpose. SQLite is on it because POSIX locks belong to a process: when one copy
//! of SQLite closes a file, the locks of another copy on the same file are gone, and two copies that
//! write corrupt the file (<https://sqlite.org/howtocorrupt.html>, section 2.2). Two processes do not
//! have that problem.

use memchr::memmem;

/// Returns the C library inside `library` that must not be loaded twice in one process, if there is one. Takes
/// some milliseconds for a library of 100 MB.
#[must_use]
pub fn find(library: &[u8]) -> Option<&'static str> {
    let carries = |marks: &[&[u8]]| {
        let has = |mark: &&[u8]| memmem::find(library, mark).is_some();
        marks.iter().all(has)
    };
    let (name, _) = LIBRARIES.iter().find(|(_, marks)| carries(marks))?;
    Some(name)
}

/// The C libraries, each with texts that are in its code. All texts must be present: a program that only reads the
/// format of a database contains the first text of SQLite, and a program that only calls SQLite the second.
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
