//! The manifest: facts about a library that can be read from its file without running any of its
//! code.
//!
//! [`export_app!`](crate::export_app) writes it as an ELF note (section [`SECTION`], owner `host`,
//! type 1) whose descriptor is text: one `key=value` line per fact. Readers skip keys that they do
//! not know, so new facts need no new format. The format of a note is that of the System V ABI,
//! chapter 5, "Note Section".

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

/// What a library says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The ABI that the plugin was built for.
    pub abi: AbiVersion,
    /// The plugin's name: ASCII letters, digits, `-` and `_`, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// The plugin's version, as Cargo has it.
    pub version: String,
    /// Where the plugin is mounted unless the operator says otherwise: `/`, or `/shop` without a
    /// slash at the end.
    pub mount: String,
    /// The compiler, as `rustc --version` prints it.
    pub rustc: String,
    /// The target triple.
    pub target: String,
    /// What a panic does: `unwind`, or `abort`, which a host must refuse.
    pub panic: String,
    /// The most verbose level compiled into the plugin for `tracing`; below `trace` when one of
    /// that crate's `max_level_*` features is on.
    pub tracing_max_level: String,
    /// The same for `log`.
    pub log_max_level: String,
    /// How the author wants a new version of the app to take over, unless the operator says otherwise.
    pub reload: ReloadBy,
}

/// How a new version of an app takes over from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReloadBy {
    /// Within the process, unless the library carries a C library that must not be loaded twice in one.
    #[default]
    Auto,
    /// In a fresh process, so that old and new are never in one.
    Process,
    /// Within the process.
    Swap,
}

impl ReloadBy {
    /// The value with this name: `auto`, `process` or `swap`.
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
    /// Reads a manifest from the note's descriptor.
    ///
    /// # Errors
    ///
    /// When the text is not UTF-8, a line has no `=`, a key is missing, or a value is not of its
    /// form.
    pub fn parse(descriptor: &[u8]) -> Result<Self, ManifestError> {
        let text = str::from_utf8(descriptor).map_err(|_| ManifestError::NotText)?;
        let mut facts = BTreeMap::new();
        for line in text.lines() {
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| ManifestError::Line(line.to_owned()))?;
            facts.insert(key, value);
        }
        let take = |key: &'static str| {
            facts
                .get(key)
                .map(|&value| value.to_owned())
                .ok_or(ManifestError::Missing(key))
        };
        let manifest = Self {
            abi: take("abi")?.parse()?,
            name: take("name")?,
            version: take("version")?,
            mount: take("mount")?,
            rustc: take("rustc")?,
            target: take("target")?,
            panic: take("panic")?,
            tracing_max_level: take("tracing_max_level")?,
            log_max_level: take("log_max_level")?,
            // Plugins of before do not have this key, and later ones may have values that are new.
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

/// A manifest that is not of the form that this version reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The descriptor is not UTF-8.
    #[error("the manifest is not text, expected UTF-8")]
    NotText,
    /// A line has no `=`.
    #[error("the manifest has the line {0:?}, expected key=value")]
    Line(String),
    /// A fact is missing.
    #[error("the manifest has no `{0}`")]
    Missing(&'static str),
    /// The ABI version is malformed.
    #[error("the manifest has the ABI version {0:?}, expected MAJOR.MINOR")]
    Abi(String),
    /// The plugin's name has bytes that it may not have.
    #[error("the plugin's name is {0:?}, expected up to 64 ASCII letters, digits, `-` and `_`")]
    Name(String),
    /// The mount is no path prefix.
    #[error("the plugin's mount is {0:?}, expected `/`, or a path such as `/shop`")]
    Mount(String),
}

/// A version of the boundary. Plugin and host work together when the majors are equal, whichever
/// minor is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbiVersion {
    /// Changes when something existing changes.
    pub major: u32,
    /// Changes when something is appended.
    pub minor: u32,
}

impl AbiVersion {
    /// The version that this crate speaks.
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

/// The longest plugin name, in bytes.
pub const MAX_NAME: usize = 64;

/// Whether `name` can name a plugin: it goes into file names, log lines and log directives.
#[must_use]
pub const fn is_name(name: &[u8]) -> bool {
    let mut index = 0;
    while index < name.len() {
        if !matches!(name[index], b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_') {
            return false;
        }
        index += 1;
    }
    !name.is_empty() && name.len() <= MAX_NAME
}

/// Whether `mount` is `/`, or a path of non-empty segments that starts with `/` and does not end
/// with one.
///
/// The bytes of a segment are those of RFC 3986's `pchar`, percent-encoding included, so that a
/// mount compares byte by byte with a request's path.
#[must_use]
pub const fn is_mount(mount: &[u8]) -> bool {
    if mount.is_empty() || mount[0] != b'/' {
        return false;
    }
    let mut index = 1;
    while index < mount.len() {
        let in_segment = matches!(mount[index],
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\''
            | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@');
        let between_segments = mount[index] == b'/' && mount[index - 1] != b'/';
        if !in_segment && !between_segments {
            return false;
        }
        index += 1;
    }
    mount.len() == 1 || mount[mount.len() - 1] != b'/'
}

#[cfg(test)]
mod tests;
