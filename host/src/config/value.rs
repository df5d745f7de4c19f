//! Types of settings whose values have an inner structure, with their parsers.

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

use super::{ValueError, path::absolute};

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

/// Resolves the host name. The lookup may block the thread, and may return several addresses.
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
        // A text with a slash counts as a path even without `unix:`. Reject any other text without the prefix,
        // because the operator may have meant a network address.
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
    /// Lines for people.
    Text,
    /// Lines for programs: one JSON object per line.
    Json,
}

// === impl LineSink ===

/// The destination of the access log's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineSink {
    /// The process's stdout.
    Stdout,
    /// The file at this path. Lines are appended.
    File(PathBuf),
}

impl LineSink {
    /// Returns the path of the file, or `None` for stdout.
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

/// The header that makes the host log a request at debug, and the secret value that the header must have.
#[derive(Clone)]
pub struct DebugHeader {
    name: HeaderName,
    secret: Box<[u8]>,
}

impl DebugHeader {
    /// Returns whether `headers` contain the header with the secret value.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        // Compare in constant time: otherwise a client could measure how many bytes of its value are right.
        let is_secret = |value: &HeaderValue| value.as_bytes().ct_eq(&self.secret).into();
        headers.get(&self.name).is_some_and(is_secret)
    }
}

impl FromStr for DebugHeader {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The first `=` ends the name. The secret may contain further `=`.
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

// A derived `Debug` would print the secret.
impl fmt::Debug for DebugHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DebugHeader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

// === impl Mount ===

/// A path prefix, and the plugin that serves the paths below the prefix.
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
        // Split at the last `=`: a path may contain `=`, but the name of a plugin may not.
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

// === paths of requests ===

/// Parses the path of a request: a text that begins with `/`.
pub(super) fn request_path(text: &str) -> Result<String, ValueError> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(ValueError::Path(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
