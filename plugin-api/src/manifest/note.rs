//! Creates the manifest of a plugin at compile time. [`export_app!`](crate::export_app) uses this module.

use super::{NOTE_TYPE, ReloadBy, is_mount, is_name};
use crate::abi;

/// The arguments of [`export_app!`](crate::export_app).
///
/// The methods panic if a key is invalid or occurs twice. They run at compile time, so the panic is a compiler error.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    package: &'a str,
    version: &'a str,
    name: Option<&'a str>,
    mount: Option<&'a str>,
    reload: Option<&'a str>,
}

impl<'a> Export<'a> {
    /// Returns arguments with all optional keys (`name`, `mount`, `reload`) unset. `package` and `version` are those in
    /// the plugin's `Cargo.toml`.
    #[must_use]
    pub const fn new(package: &'a str, version: &'a str) -> Self {
        Self {
            package,
            version,
            name: None,
            mount: None,
            reload: None,
        }
    }

    /// Sets the key `name`.
    #[must_use]
    pub const fn name(mut self, name: &'a str) -> Self {
        assert!(self.name.is_none(), "the key `name` is there twice");
        self.name = Some(name);
        self
    }

    /// Sets the key `mount`.
    #[must_use]
    pub const fn mount(mut self, mount: &'a str) -> Self {
        assert!(self.mount.is_none(), "the key `mount` is there twice");
        assert!(
            is_mount(mount.as_bytes()),
            "a mount is `/`, or a path such as `/shop`"
        );
        self.mount = Some(mount);
        self
    }

    /// Sets the key `reload`.
    #[must_use]
    pub const fn reload(mut self, reload: &'a str) -> Self {
        assert!(self.reload.is_none(), "the key `reload` is there twice");
        assert!(
            ReloadBy::parse(reload).is_some(),
            "`reload` is `auto`, `process` or `swap`"
        );
        self.reload = Some(reload);
        self
    }

    /// Returns all facts of the plugin that is being compiled.
    #[must_use]
    pub const fn facts(self) -> Facts<'a> {
        let name = or_default(self.name, self.package);
        assert!(
            is_name(name.as_bytes()),
            "a plugin's name is up to 64 ASCII letters, digits, `-` and `_`"
        );
        let mount = match self.mount {
            Some(mount) => [mount, ""],
            None => ["/", name],
        };
        let panic = if cfg!(panic = "unwind") {
            "unwind"
        } else {
            "abort"
        };
        let tracing_max_level = tracing_level(tracing::level_filters::STATIC_MAX_LEVEL);
        [
            ("abi", [abi::VERSION, ""]),
            ("name", [name, ""]),
            ("version", [self.version, ""]),
            ("mount", mount),
            ("rustc", [env!("PLUGIN_API_RUSTC"), ""]),
            ("target", [env!("PLUGIN_API_TARGET"), ""]),
            ("panic", [panic, ""]),
            ("tracing_max_level", [tracing_max_level, ""]),
            ("log_max_level", [log_level(log::STATIC_MAX_LEVEL), ""]),
            ("reload", [or_default(self.reload, "auto"), ""]),
        ]
    }
}

/// All facts of a library.
#[doc(hidden)]
pub type Facts<'a> = [Fact<'a>; 10];

/// A key, and its value in two parts. The two parts are written one after the other, because a `const fn` cannot
/// concatenate texts.
#[doc(hidden)]
pub type Fact<'a> = (&'a str, [&'a str; 2]);

/// `Option::unwrap_or` as a `const fn`.
const fn or_default<'a>(text: Option<&'a str>, default: &'a str) -> &'a str {
    match text {
        Some(text) => text,
        None => default,
    }
}

/// The manifest in the library: an ELF note, whose layout the System V ABI defines. Only
/// [`export_app!`](crate::export_app) creates a note.
#[doc(hidden)]
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note<const LEN: usize> {
    owner_size: u32,
    descriptor_size: u32,
    kind: u32,
    owner: [u8; 8],
    pub(super) descriptor: [u8; LEN],
}

impl<const LEN: usize> Note<LEN> {
    /// Creates a note with `facts`. `LEN` must be the result of [`note_len`] for `facts`.
    #[must_use]
    pub const fn new(facts: &[Fact<'_>]) -> Self {
        let mut descriptor = [0; LEN];
        let mut offset = 0;
        let mut index = 0;
        while index < facts.len() {
            let (key, [start, end]) = facts[index];
            offset = write(&mut descriptor, offset, key.as_bytes());
            offset = write(&mut descriptor, offset, b"=");
            offset = write(&mut descriptor, offset, start.as_bytes());
            offset = write(&mut descriptor, offset, end.as_bytes());
            descriptor[offset] = b'\n';
            offset += 1;
            index += 1;
        }
        assert!(offset == LEN);
        // The cast cannot truncate: `LEN` is the length of a few lines of text.
        let descriptor_size = LEN as u32;
        Self {
            // `host` with its NUL. The field itself is padded to a multiple of 4 bytes.
            owner_size: 5,
            descriptor_size,
            kind: NOTE_TYPE,
            owner: *b"host\0\0\0\0",
            descriptor,
        }
    }
}

/// Returns the length in bytes of the descriptor of a note with `facts`.
#[doc(hidden)]
#[must_use]
pub const fn note_len(facts: &[Fact<'_>]) -> usize {
    let mut len = 0;
    let mut index = 0;
    while index < facts.len() {
        let (key, [start, end]) = facts[index];
        // Two more bytes for `=` and the line break.
        len += key.len() + start.len() + end.len() + 2;
        index += 1;
    }
    len
}

/// Writes `bytes` to `out` at `offset`. Returns the offset behind them.
const fn write<const LEN: usize>(out: &mut [u8; LEN], mut offset: usize, bytes: &[u8]) -> usize {
    let mut index = 0;
    while index < bytes.len() {
        assert!(bytes[index] != b'\n', "a manifest value has a line break");
        out[offset] = bytes[index];
        offset += 1;
        index += 1;
    }
    offset
}

const fn tracing_level(level: tracing_core::LevelFilter) -> &'static str {
    use tracing_core::LevelFilter;
    match level {
        LevelFilter::OFF => "off",
        LevelFilter::ERROR => "error",
        LevelFilter::WARN => "warn",
        LevelFilter::INFO => "info",
        LevelFilter::DEBUG => "debug",
        _ => "trace",
    }
}

const fn log_level(level: log::LevelFilter) -> &'static str {
    match level {
        log::LevelFilter::Off => "off",
        log::LevelFilter::Error => "error",
        log::LevelFilter::Warn => "warn",
        log::LevelFilter::Info => "info",
        log::LevelFilter::Debug => "debug",
        log::LevelFilter::Trace => "trace",
    }
}
