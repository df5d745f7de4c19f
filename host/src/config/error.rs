//! The errors of the parsers of settings.

/// The reason why a text is not a valid value of a setting.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The text is not an address with a port.
    #[error(
        "{0:?} is not an address, expected ADDRESS:PORT, as in 127.0.0.1:8000, [::1]:8000 or localhost:8000"
    )]
    Address(String),
    /// The text is no boolean.
    #[error("{0:?} is neither true nor false, expected true, yes, on, 1, false, no, off or 0")]
    Boolean(String),
    /// The text is not the path of a Unix socket.
    #[error("{0:?} is not a control socket, expected unix:PATH, as in unix:/run/host.sock")]
    ControlSocket(String),
    /// The text is not a header's name and a secret. The error does not contain the text, because the text may
    /// contain the secret.
    #[error(
        "it is not a header and a secret, expected NAME=SECRET with 8 or more visible characters in SECRET, as in X-Debug-Log=correct-horse"
    )]
    DebugHeader,
    /// The file name is empty.
    #[error("there is no file without a name, expected a path, or - for stdout")]
    LineSink,
    /// The text is not a path and a plugin's name.
    #[error(
        "{0:?} is not a mount, expected /PATH=PLUGIN, as in /=hello or /shop=shop, without a slash at the path's end"
    )]
    Mount(String),
    /// The text is not a number, or the number is out of the setting's range.
    #[error("{text:?} is not a number from {least} to {most}")]
    Number {
        /// The rejected text.
        text: String,
        /// The smallest valid number.
        least: u64,
        /// The largest valid number.
        most: u64,
    },
    /// The text is not the path of a request.
    #[error("{0:?} is not a path, expected one with a slash in front, as in /healthz")]
    Path(String),
    /// The text is not a size.
    #[error(
        "{0:?} is not a size, expected a whole number of bytes, or one with a unit, as in 16384, 16KiB, 16K (the same) or 16KB (16000 bytes)"
    )]
    Size(String),
    /// The size is out of the setting's range.
    #[error("{size:?} is out of range, expected {expected}")]
    SizeRange {
        /// The rejected text.
        size: String,
        /// The valid sizes.
        expected: &'static str,
    },
    /// The text is not a time.
    #[error(
        "{text:?} is not a time, expected a number of seconds, or numbers with units, as in 30, 500ms or 1m 30s: {reason}"
    )]
    Time {
        /// The rejected text.
        text: String,
        /// The error of the parser.
        reason: humantime::DurationError,
    },
    /// The time is out of the setting's range.
    #[error("{time:?} is out of range, expected {expected}")]
    TimeRange {
        /// The rejected text.
        time: String,
        /// The valid times.
        expected: &'static str,
    },
    /// The path is relative, and the working directory cannot be read.
    #[error(
        "{path:?} is relative, and there is no working directory ({reason}); expected a path from / on"
    )]
    WorkingDirectory {
        /// The rejected path.
        path: String,
        /// The error of the system.
        reason: String,
    },
}
