//! Prints the output and the errors of the commands of `host`.
//!
//! `println!` panics when stdout cannot be written. The functions of this module do not panic. A reader that has closed
//! its pipe early, as `head` does, is no error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

/// Prints `text` and a line end to stdout. Returns `code`, which `main` returns. If stdout cannot be written, for
/// example because the disk is full, prints the error and returns exit code 1. A closed pipe is not an error.
pub fn print(text: impl Display, code: ExitCode) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            print_error(format_args!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        // The text is written, or the reader has closed the pipe.
        _ => code,
    }
}

/// Prints `error: TEXT` to stderr. Ignores a failure, because an error about stderr cannot be printed anywhere.
pub fn print_error(text: impl Display) {
    let _ = writeln!(io::stderr(), "error: {text}");
}
