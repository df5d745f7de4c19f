//! What the author types: a key, and Enter.

use std::{io, thread};

use tokio::sync::mpsc;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Build again.
    Rebuild,
    /// Log by these directives from now on.
    Level(String),
    /// End the session.
    Quit,
    /// Nothing that is known.
    Unknown,
}

/// The commands that are typed from now on. None come when there is no terminal.
pub(super) fn read() -> mpsc::UnboundedReceiver<Key> {
    let (sender, keys) = mpsc::unbounded_channel();
    // A thread of its own: a read of a terminal cannot be cancelled.
    thread::spawn(move || {
        let lines = io::stdin().lines().map_while(Result::ok);
        lines
            .filter(|line| !line.trim().is_empty())
            .map_while(|line| sender.send(parse(&line)).ok())
            .for_each(drop);
    });
    keys
}

fn parse(line: &str) -> Key {
    let (key, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match (key, rest.trim()) {
        ("r", "") => Key::Rebuild,
        ("q", "") => Key::Quit,
        ("l", level) if !level.is_empty() => Key::Level(level.to_owned()),
        _ => Key::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command() {
        assert_eq!(parse("r"), Key::Rebuild);
        assert_eq!(parse(" q "), Key::Quit);
        assert_eq!(
            parse("l info,shop=trace"),
            Key::Level("info,shop=trace".to_owned())
        );
        for line in ["l", "rr", "q now", "help"] {
            assert_eq!(parse(line), Key::Unknown, "{line}");
        }
    }
}
