//! The manifest as [`export_app!`](crate::export_app) writes it, while the plugin is compiled.

use super::{NOTE_TYPE, ReloadBy, is_mount, is_name};
use crate::abi;

/// The arguments of [`export_app!`](crate::export_app).
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
    /// Without any key: `package` and `version` are those of Cargo.
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

    /// With the key `name`.
    #[must_use]
    pub const fn name(mut self, name: &'a str) -> Self {
        assert!(self.name.is_none(), "the key `name` is there twice");
        self.name = Some(name);
        self
    }

    /// With the key `mount`.
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

    /// With the key `reload`.
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

    /// The facts of the current build.
    #[must_use]
    pub const fn facts(self) -> Facts<'a> {
        let name = or(self.name, self.package);
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
            ("reload", [or(self.reload, "auto"), ""]),
        ]
    }
}

/// All facts of a library.
#[doc(hidden)]
pub type Facts<'a> = [Fact<'a>; 10];

/// A key, and its value in two parts, because texts cannot be joined at compile time.
#[doc(hidden)]
pub type Fact<'a> = (&'a str, [&'a str; 2]);

const fn or<'a>(text: Option<&'a str>, default: &'a str) -> &'a str {
    match text {
        Some(text) => text,
        None => default,
    }
}

/// The manifest as it lies in the library: an ELF note. Built by [`export_app!`](crate::export_app)
/// alone.
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
    /// A note of `facts`; `LEN` is [`note_len`] of them.
    #[must_use]
    pub const fn new(facts: &[Fact<'_>]) -> Self {
        let mut descriptor = [0; LEN];
        let mut at = 0;
        let mut index = 0;
        while index < facts.len() {
            let (key, [start, end]) = facts[index];
            at = put(&mut descriptor, at, key.as_bytes());
            at = put(&mut descriptor, at, b"=");
            at = put(&mut descriptor, at, start.as_bytes());
            at = put(&mut descriptor, at, end.as_bytes());
            descriptor[at] = b'\n';
            at += 1;
            index += 1;
        }
        assert!(at == LEN);
        // `LEN` is the length of a few lines of text.
        let descriptor_size = LEN as u32;
        Self {
            owner_size: 5,
            descriptor_size,
            kind: NOTE_TYPE,
            owner: *b"host\0\0\0\0",
            descriptor,
        }
    }
}

/// How long the descriptor of a note of `facts` is, in bytes.
#[doc(hidden)]
#[must_use]
pub const fn note_len(facts: &[Fact<'_>]) -> usize {
    let mut len = 0;
    let mut index = 0;
    while index < facts.len() {
        let (key, [start, end]) = facts[index];
        len += key.len() + start.len() + end.len() + 2;
        index += 1;
    }
    len
}

const fn put<const LEN: usize>(to: &mut [u8; LEN], mut at: usize, from: &[u8]) -> usize {
    let mut index = 0;
    while index < from.len() {
        assert!(from[index] != b'\n', "a manifest value has a line break");
        to[at] = from[index];
        at += 1;
        index += 1;
    }
    at
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
