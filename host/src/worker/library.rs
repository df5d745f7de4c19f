//! Opens libraries. A library is never closed again.
//!
//! Unloading Rust code is unsound, because its threads, thread-locals and statics may still be in use. So a
//! library stays mapped until the process exits. It must be opened from a private copy that nobody writes
//! to, because the kernel reads pages from the file at any time.

#![expect(unsafe_code, reason = "opening a library runs its code")]

use std::{error::Error, mem, path::Path};

use abi_stable::library::lib_header_from_path;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_api::host::{GateError, Plugin};

use crate::error_chain::one_line;

/// Opens the library at `copy`, and checks that its boundary is this host's.
///
/// The file must be a whole shared object: reading a page that it does not have ends the process.
///
/// # Errors
///
/// When the dynamic linker does not take it, when it has no root module, or one of another layout.
pub fn open(copy: &Path) -> Result<Plugin, LibraryError> {
    // RTLD_NOW makes a missing symbol an error here, and not an abort at its first call. RTLD_LOCAL keeps
    // the copies of std, tokio and tracing in the libraries apart. RTLD_NODELETE keeps the library mapped,
    // whoever closes it.
    let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: its initializers run, as the operator asked for by putting the library into the
    // folder.
    let library = unsafe { Library::open(Some(copy), flags) };
    mem::forget(library.map_err(|error| LibraryError::link(&error))?);
    let header = lib_header_from_path(copy)
        .map_err(|error| LibraryError::Root(one_line(&error.to_string())))?;
    // SAFETY: it is never unmapped, and the operator trusts it to be a plugin.
    Ok(unsafe { Plugin::from_header(header) }?)
}

/// Why a library cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The ABI of the library is another one.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The dynamic linker refuses the library.
    #[error("the dynamic linker refuses it: {reason}{advice}")]
    Link {
        /// The message of the dynamic linker.
        reason: String,
        /// Advice for the operator, after a semicolon, or an empty text.
        advice: String,
    },
    /// The library has no root module.
    #[error("it has no root module; build it with the plugin-api of this host: {0}")]
    Root(String),
}

impl LibraryError {
    fn link(error: &dyn Error) -> Self {
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        let reason = one_line(&reason);
        let advice = advice(&reason).map_or_else(String::new, |advice| format!("; {advice}"));
        Self::Link { reason, advice }
    }
}

/// Returns advice for an error of the dynamic linker, found by parts of glibc's message.
fn advice(reason: &str) -> Option<&'static str> {
    [
        (
            "failed to map segment",
            "the copy is on a file system that is mounted noexec: see --state-dir",
        ),
        (
            "cannot open shared object file",
            "a plugin is loaded from a copy in --state-dir, so $ORIGIN in a run path is not the plugins folder: put the \
             other library where the dynamic linker looks for it, name its folder in LD_LIBRARY_PATH before the host \
             starts, or link the plugin with an absolute run path",
        ),
        ("static TLS", STATIC_TLS),
        (
            "undefined symbol",
            "no library that it names has the symbol: is it linked with all libraries that it needs?",
        ),
        (
            "version `GLIBC_",
            "it was built where the C library is newer: build it on a system as old as the host's",
        ),
    ]
    .into_iter()
    .find_map(|(words, advice)| reason.contains(words).then_some(advice))
}

/// The effect of a library with `DF_STATIC_TLS`, and advice against it.
pub const STATIC_TLS: &str = "takes room of the static TLS block, of which there is little for all libraries and loads \
    together, so that it can be loaded a few times at most; with jemalloc as allocator, turn on the feature \
    disable_initial_exec_tls, with mimalloc local_dynamic_tls, or start the host with \
    GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_about_what_is_wrong() {
        for (reason, part) in [
            (
                "libhelper.so: cannot open shared object file: No such file or directory",
                "LD_LIBRARY_PATH",
            ),
            (
                "/s/shop.g1.so: failed to map segment from shared object",
                "noexec",
            ),
            (
                "/s/shop.g1.so: cannot allocate memory in static TLS block",
                "disable_initial_exec_tls",
            ),
            ("/s/shop.g1.so: undefined symbol: answer", "the symbol"),
            (
                "/lib/libc.so.6: version `GLIBC_2.99' not found (required by /s/shop.g1.so)",
                "newer",
            ),
        ] {
            let error = LibraryError::link(&std::io::Error::other(reason)).to_string();
            assert!(error.contains(reason) && error.contains(part), "{error}");
        }
        assert_eq!(advice("invalid ELF header"), None);
    }
}
