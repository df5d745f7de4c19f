//! Types of settings that are more than a word or a number, with their parsers.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
    vec,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use plugin_api::manifest::{is_mount, is_name};
use subtle::ConstantTimeEq;

use super::path::absolute;

// === impl BindAddress ===

/// An address to listen on: an IP address or a host name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindAddress(String);

impl FromStr for BindAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_host = |host: &str| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        let is_named = |(host, port): (&str, &str)| is_host(host) && port.parse::<u16>().is_ok();
        if text.parse::<SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(is_named) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::Address(text.to_owned()))
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Resolves a host name. The lookup may block, and may return several addresses.
impl ToSocketAddrs for BindAddress {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        self.0.to_socket_addrs()
    }
}

// === impl ControlSocket ===

/// The path of the host's control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket(PathBuf);

impl ControlSocket {
    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for ControlSocket {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A text with a slash is taken for a path even without `unix:`. Other texts may be meant as an
        // address.
        let path = text.strip_prefix("unix:");
        match path.or_else(|| text.contains('/').then_some(text)) {
            Some(path) if !path.is_empty() => Ok(Self(absolute(Path::new(path))?)),
            _ => Err(ValueError::ControlSocket(text.to_owned())),
        }
    }
}

impl fmt::Display for ControlSocket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unix:{}", self.0.display())
    }
}

// === impl LogFormat ===

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

// === impl LineSink ===

/// The destination of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineSink {
    /// The process's stdout.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

impl LineSink {
    /// Returns the path of the file; None for stdout.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path),
        }
    }
}

impl FromStr for LineSink {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err(ValueError::LineSink),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(absolute(Path::new(path))?)),
        }
    }
}

// === impl DebugHeader ===

/// The header with which a request asks to be logged at debug, and the secret value that it must have.
#[derive(Clone)]
pub struct DebugHeader {
    name: HeaderName,
    secret: Box<[u8]>,
}

impl DebugHeader {
    /// Returns whether a request with these headers has the header with the secret value.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        // In constant time, so that the time does not tell a client how many bytes are right.
        let is_secret = |value: &HeaderValue| value.as_bytes().ct_eq(&self.secret).into();
        headers.get(&self.name).is_some_and(is_secret)
    }
}

impl FromStr for DebugHeader {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The first `=` ends the name. The secret may contain more of them.
        let header = text.split_once('=').and_then(|(name, secret)| {
            HeaderValue::from_str(secret).ok()?;
            Some(Self {
                name: name.parse().ok()?,
                secret: secret.as_bytes().into(),
            })
        });
        match header {
            Some(header) if header.secret.len() >= 8 => Ok(header),
            _ => Err(ValueError::DebugHeader),
        }
    }
}

impl fmt::Debug for DebugHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DebugHeader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

// === impl Mount ===

/// A path prefix, and the plugin that serves the paths below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `/`, or `/shop` without a slash at the end.
    pub path: String,
    /// The name of the plugin.
    pub plugin: String,
}

impl FromStr for Mount {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Split at the last `=`: a path may contain one, a name may not.
        match text.rsplit_once('=') {
            Some((path, plugin)) if is_mount(path.as_bytes()) && is_name(plugin.as_bytes()) => {
                Ok(Self {
                    path: path.to_owned(),
                    plugin: plugin.to_owned(),
                })
            }
            _ => Err(ValueError::Mount(text.to_owned())),
        }
    }
}

/// A text that is not a valid value of a setting.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not an address with a port.
    #[error(
        "{0:?} is not an address, expected ADDRESS:PORT, as in 127.0.0.1:8000, [::1]:8000 or localhost:8000"
    )]
    Address(String),
    /// Neither yes nor no.
    #[error("{0:?} is neither true nor false, expected true, yes, on, 1, false, no, off or 0")]
    Boolean(String),
    /// Not a Unix socket.
    #[error("{0:?} is not a control socket, expected unix:PATH, as in unix:/run/host.sock")]
    ControlSocket(String),
    /// Not a header and a secret. The text of the error shows neither, because they are secret.
    #[error(
        "it is not a header and a secret, expected NAME=SECRET with 8 or more visible characters in SECRET, as in X-Debug-Log=correct-horse"
    )]
    DebugHeader,
    /// An empty file name.
    #[error("there is no file without a name, expected a path, or - for stdout")]
    LineSink,
    /// Not a path and a plugin.
    #[error(
        "{0:?} is not a mount, expected /PATH=PLUGIN, as in /=hello or /shop=shop, without a slash at the path's end"
    )]
    Mount(String),
    /// Not a number, or not one that the setting takes.
    #[error("{text:?} is not a number from {least} to {most}")]
    Number {
        /// The text as given.
        text: String,
        /// The smallest valid number.
        least: u64,
        /// The largest valid number.
        most: u64,
    },
    /// Not the path of a request.
    #[error("{0:?} is not a path, expected one with a slash in front, as in /healthz")]
    Path(String),
    /// Not a size.
    #[error(
        "{0:?} is not a size, expected a whole number of bytes, or one with a unit, as in 16384, 16KiB, 16K (the same) or 16KB (16000 bytes)"
    )]
    Size(String),
    /// A size that is out of the setting's range.
    #[error("{size:?} is out of range, expected {expected}")]
    SizeRange {
        /// The size as given.
        size: String,
        /// The valid sizes.
        expected: &'static str,
    },
    /// Not a time.
    #[error(
        "{text:?} is not a time, expected a number of seconds, or numbers with units, as in 30, 500ms or 1m 30s: {reason}"
    )]
    Time {
        /// The time as given.
        text: String,
        /// The complaint of the parser.
        reason: humantime::DurationError,
    },
    /// A time that is out of the setting's range.
    #[error("{time:?} is out of range, expected {expected}")]
    TimeRange {
        /// The time as given.
        time: String,
        /// The valid times.
        expected: &'static str,
    },
    /// A relative path, while the working directory does not exist.
    #[error(
        "{path:?} is relative, and there is no working directory ({reason}); expected a path from / on"
    )]
    WorkingDirectory {
        /// The path as given.
        path: String,
        /// The error of the system.
        reason: String,
    },
}

// === paths of requests ===

/// Parses the path of a request.
pub(super) fn request_path(text: &str) -> Result<String, ValueError> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(ValueError::Path(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
