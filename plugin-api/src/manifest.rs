//! The manifest: facts about a library, which the host reads from the file without running code of the library.
//!
//! [`export_app!`](crate::export_app) writes the manifest as an ELF note (section [`SECTION`], owner `host`, type 1).
//! The descriptor of the note is text with one `key=value` line for each fact. Readers skip unknown keys, so new facts
//! need no new format. The System V ABI, chapter 5, "Note Section", defines the format of a note.

mod note;

use std::{collections::BTreeMap, fmt, str};

#[doc(hidden)]
pub use self::note::{Export, Fact, Facts, Note, note_len};
use crate::abi;

/// The ELF section that holds the manifest.
pub const SECTION: &str = ".note.host.plugin";

/// The owner name in the note's header, without its terminating NUL.
pub const NOTE_OWNER: &str = "host";

/// The type in the note's header.
pub const NOTE_TYPE: u32 = 1;

/// The facts in the manifest of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The ABI that the plugin was built for.
    pub abi: AbiVersion,
    /// The plugin's name: ASCII letters, digits, `-` and `_`, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// The plugin's version in its `Cargo.toml`.
    pub version: String,
    /// The default mount, such as `/`, or `/shop` without a slash at the end. The operator may set another mount.
    pub mount: String,
    /// The version of the compiler, in the format of `rustc --version`.
    pub rustc: String,
    /// The target triple for which the plugin was compiled.
    pub target: String,
    /// The panic strategy: `unwind` or `abort`. A host must refuse `abort`, because a panic would end the process.
    pub panic: String,
    /// The most verbose level of `tracing` that is compiled into the plugin. Less verbose than `trace` if one of the
    /// `max_level_*` features of `tracing` is enabled.
    pub tracing_max_level: String,
    /// Like `tracing_max_level`, for the crate `log`.
    pub log_max_level: String,
    /// The author's choice how a new version of the app replaces the old one. The operator may choose otherwise.
    pub reload: ReloadBy,
}

/// The way in which a new version of an app replaces the old version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReloadBy {
    /// Like `Process` if the library contains a C library that must not be loaded twice into one process; otherwise
    /// like `Swap`.
    #[default]
    Auto,
    /// In fresh processes, so that no process contains both versions.
    Process,
    /// Within the running processes.
    Swap,
}

impl ReloadBy {
    /// Returns the value with this name (`auto`, `process` or `swap`), or `None` for another name.
    #[must_use]
    pub const fn parse(name: &str) -> Option<Self> {
        match name.as_bytes() {
            b"auto" => Some(Self::Auto),
            b"process" => Some(Self::Process),
            b"swap" => Some(Self::Swap),
            _ => None,
        }
    }
}

impl Manifest {
    /// Parses the descriptor of the ELF note.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not UTF-8, a line has no `=`, a required key is missing, or a value is invalid.
    pub fn parse(descriptor: &[u8]) -> Result<Self, ManifestError> {
        let text = str::from_utf8(descriptor).map_err(|_| ManifestError::NotText)?;
        let mut facts = BTreeMap::new();
        for line in text.lines() {
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| ManifestError::Line(line.to_owned()))?;
            facts.insert(key, value);
        }
        let required = |key: &'static str| {
            facts
                .get(key)
                .map(|&value| value.to_owned())
                .ok_or(ManifestError::Missing(key))
        };
        let manifest = Self {
            abi: required("abi")?.parse()?,
            name: required("name")?,
            version: required("version")?,
            mount: required("mount")?,
            rustc: required("rustc")?,
            target: required("target")?,
            panic: required("panic")?,
            tracing_max_level: required("tracing_max_level")?,
            log_max_level: required("log_max_level")?,
            // Older plugins do not have this key, and newer plugins may have a value that this host does not know. Both
            // count as `auto`.
            reload: facts
                .get("reload")
                .and_then(|&name| ReloadBy::parse(name))
                .unwrap_or_default(),
        };
        if !is_name(manifest.name.as_bytes()) {
            return Err(ManifestError::Name(manifest.name));
        }
        if !is_mount(manifest.mount.as_bytes()) {
            return Err(ManifestError::Mount(manifest.mount));
        }
        Ok(manifest)
    }
}

/// The error for a manifest that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The descriptor is not UTF-8.
    #[error("the manifest is not text, expected UTF-8")]
    NotText,
    /// A line has no `=`.
    #[error("the manifest has the line {0:?}, expected key=value")]
    Line(String),
    /// A required key is missing.
    #[error("the manifest has no `{0}`")]
    Missing(&'static str),
    /// The ABI version is malformed.
    #[error("the manifest has the ABI version {0:?}, expected MAJOR.MINOR")]
    Abi(String),
    /// The plugin's name is empty, too long, or has bytes that are not allowed.
    #[error("the plugin's name is {0:?}, expected up to 64 ASCII letters, digits, `-` and `_`")]
    Name(String),
    /// The mount is not a valid path prefix.
    #[error("the plugin's mount is {0:?}, expected `/`, or a path such as `/shop`")]
    Mount(String),
}

/// A version of the ABI. A plugin and a host work together if their major versions are equal. The minor versions may
/// differ in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbiVersion {
    /// Increased when an existing item of the ABI changes.
    pub major: u32,
    /// Increased when an item is appended to the ABI.
    pub minor: u32,
}

impl AbiVersion {
    /// The version that this crate implements.
    pub const CURRENT: Self = Self {
        major: abi::MAJOR,
        minor: abi::MINOR,
    };
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl str::FromStr for AbiVersion {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ManifestError::Abi(text.to_owned());
        let (major, minor) = text.split_once('.').ok_or_else(malformed)?;
        Ok(Self {
            major: major.parse().map_err(|_| malformed())?,
            minor: minor.parse().map_err(|_| malformed())?,
        })
    }
}

/// The maximum length of a plugin's name in bytes.
pub const MAX_NAME: usize = 64;

/// Returns whether `name` is a valid name of a plugin. The rule is strict, because the name occurs in file names, log
/// lines and log directives.
#[must_use]
pub const fn is_name(name: &[u8]) -> bool {
    // A `while` loop, because a `const fn` cannot use iterators. The macro checks names at compile time.
    let mut index = 0;
    while index < name.len() {
        if !matches!(name[index], b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_') {
            return false;
        }
        index += 1;
    }
    !name.is_empty() && name.len() <= MAX_NAME
}

/// Returns whether `mount` is `/`, or a path of non-empty segments that starts with `/` and does not end with `/`.
///
/// A segment consists of the bytes of `pchar` in RFC 3986, percent-encoding included. The mount has the same encoding
/// as the path of a request, so the two are compared byte by byte.
#[must_use]
pub const fn is_mount(mount: &[u8]) -> bool {
    if mount.is_empty() || mount[0] != b'/' {
        return false;
    }
    let mut index = 1;
    while index < mount.len() {
        let is_in_segment = matches!(mount[index],
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\''
            | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@');
        let is_separator = mount[index] == b'/' && mount[index - 1] != b'/';
        if !is_in_segment && !is_separator {
            return false;
        }
        index += 1;
    }
    mount.len() == 1 || mount[mount.len() - 1] != b'/'
}

#[cfg(test)]
mod tests;
