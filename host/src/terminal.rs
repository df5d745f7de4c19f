//! What the commands of `host` print for the person or script that ran them.
//!
//! `println!` panics when stdout cannot be written, as when `head` has read enough. A reader that has
//! gone wants no more, so that is no error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

/// Prints `text` and the end of a line to stdout. The result is for `main`: `code`, or 1 when the
/// text could not be written although somebody wants it, as on a full disk.
pub fn print(text: impl Display, code: ExitCode) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// Prints `error: TEXT` to stderr, as far as that can be written.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "error: {text}");
}
