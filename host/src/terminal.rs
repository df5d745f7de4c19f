//! Prints for the person or script that has run a command of `host`.
//!
//! `println!` panics when stdout cannot be written. Here a reader that has gone away, such as `head` when it
//! has read enough, is not an error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

/// Prints `text` and a line end to stdout. Returns `code` for `main`, or 1 when the text could not be written
/// for another reason than a reader that has gone away, such as a full disk.
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

/// Prints `error: TEXT` to stderr. Does nothing when stderr cannot be written.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "error: {text}");
}
