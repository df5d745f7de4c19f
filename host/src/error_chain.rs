//! Formats an error and its sources as one line.
//!
//! Every command, log line and notice that reports an error uses [`chain`], so that all errors have the same format.

use std::{error::Error, iter};

/// Returns the messages of `error` and of all its sources in one line, separated by colons.
///
/// The message of an error may end with advice after a semicolon, such as "; see --state-dir". The advice of all errors
/// is moved behind the last source, because a reader looks for the cause first.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let (mut problems, mut all_advice) = (String::new(), String::new());
    for error in iter::successors(Some(error), |&error| error.source()) {
        let message = error.to_string();
        let (problem, advice) = match message.split_once("; ") {
            // Only an error that has a source can give advice. The last error of a chain often comes from the system or
            // from the author of an app, and a semicolon in its message is part of the message.
            Some(parts) if error.source().is_some() => parts,
            _ => (&*message, ""),
        };
        for (joined, part, separator) in [
            (&mut problems, problem, ": "),
            (&mut all_advice, advice, "; "),
        ] {
            if !joined.is_empty() && !part.is_empty() {
                joined.push_str(separator);
            }
            joined.push_str(part);
        }
    }
    if !all_advice.is_empty() {
        problems.push_str("; ");
    }
    one_line(&(problems + &all_advice))
}

/// Returns `text` with every run of white space replaced by one space. The message of an author's error may have
/// several lines.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::folder::{candidate::CandidateError, store::StoreError};

    #[test]
    fn the_message_of_an_author_becomes_one_line() {
        let author_error = io::Error::other("no database:\n\tat db.example\n");
        assert_eq!(
            chain(&CandidateError::Thread(author_error)),
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
