//! Reads the commands that the author types into the terminal: a key and Enter.

use std::{io, thread};

use tokio::sync::mpsc;

/// A command that the author has typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyCommand {
    /// Build again.
    Rebuild,
    /// Change the server's log level to these directives.
    SetLogLevel(String),
    /// End the session.
    Quit,
    /// Any other line.
    Unknown,
}

/// Starts a thread that reads commands from stdin. Returns the receiver of the commands. At the end of stdin the
/// channel closes.
pub(super) fn start_reading() -> mpsc::UnboundedReceiver<KeyCommand> {
    let (sender, keys) = mpsc::unbounded_channel();
    // Read on a separate thread, because a blocking read of a terminal cannot be cancelled.
    thread::spawn(move || {
        let lines = io::stdin().lines().map_while(Result::ok);
        lines
            .filter(|line| !line.trim().is_empty())
            // `send` fails when the session has ended and the receiver is dropped.
            .map_while(|line| sender.send(parse(&line)).ok())
            .for_each(drop);
    });
    keys
}

fn parse(line: &str) -> KeyCommand {
    let (key, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match (key, rest.trim()) {
        ("r", "") => KeyCommand::Rebuild,
        ("q", "") => KeyCommand::Quit,
        ("l", level) if !level.is_empty() => KeyCommand::SetLogLevel(level.to_owned()),
        _ => KeyCommand::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command() {
        assert_eq!(parse("r"), KeyCommand::Rebuild);
        assert_eq!(parse(" q "), KeyCommand::Quit);
        assert_eq!(
            parse("l info,shop=trace"),
            KeyCommand::SetLogLevel("info,shop=trace".to_owned())
        );
        for line in ["l", "rr", "q now", "help"] {
            assert_eq!(parse(line), KeyCommand::Unknown, "{line}");
        }
    }
}
