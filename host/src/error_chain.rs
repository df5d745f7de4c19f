//! Prints an error together with its sources.
//!
//! Every command, log line and notice that reports an error uses [`chain`], so that all of them look
//! alike.

use std::{error::Error, iter};

/// Returns `error` and all its sources in one line, separated by colons.
///
/// An error may end with advice behind a semicolon, such as "; see --state-dir". The advice of all
/// errors comes after the last source, because a reader looks for the cause first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let (mut text, mut all_advice) = (String::new(), String::new());
    for error in iter::successors(Some(error), |&error| error.source()) {
        let message = error.to_string();
        let (problem, advice) = match message.split_once("; ") {
            // The last error of a chain is often the system's or an author's: a semicolon in its text
            // does not begin advice.
            Some(parts) if error.source().is_some() => parts,
            _ => (&*message, ""),
        };
        for (whole, part, separator) in
            [(&mut text, problem, ": "), (&mut all_advice, advice, "; ")]
        {
            if !whole.is_empty() && !part.is_empty() {
                whole.push_str(separator);
            }
            whole.push_str(part);
        }
    }
    if !all_advice.is_empty() {
        text.push_str("; ");
    }
    one_line(&(text + &all_advice))
}

/// Returns `text` with every run of white space replaced by one blank. The message of an author's error
/// may have several lines.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{folder::store::StoreError, worker::load::LoadError};

    #[test]
    fn whatever_an_author_says_is_one_line() {
        let said = io::Error::other("no database:\n\tat db.example\n");
        assert_eq!(
            chain(&LoadError::Thread(said)),
            "the thread that loads it failed: no database: at db.example"
        );
    }

    #[test]
    fn the_cause_comes_before_the_advice() {
        let error = StoreError::Write {
            path: "/state/shop".into(),
            source: io::Error::other("disk full; really"),
        };
        assert_eq!(
            chain(&error),
            "cannot write the copy /state/shop: disk full; really; see --state-dir"
        );
    }
}
