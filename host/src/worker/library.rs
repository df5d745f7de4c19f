//! Opens libraries. An opened library is never closed.
//!
//! Unloading Rust code is unsound, because threads, thread-locals and statics of the code may still be in use.
//! Therefore a library stays mapped until the process exits. The library must be opened from a private copy to which no
//! process writes, because the kernel may read pages from the file at any time.

#![expect(unsafe_code, reason = "opening a library runs its code")]

use std::{error::Error, mem, path::Path};

use abi_stable::library::lib_header_from_path;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_api::host::{IncompatibleError, Plugin};

use crate::error_chain::one_line;

/// Opens the library at `copy`, and checks that its ABI is compatible with this host. Runs the initializers of the
/// library.
///
/// The file must be a complete shared object, because an access to a missing page of the file ends the process.
///
/// # Errors
///
/// When the dynamic linker refuses the library, or when the library has no root module or a root module with another
/// layout.
pub fn open(copy: &Path) -> Result<Plugin, LibraryError> {
    // RTLD_NOW: a missing symbol is an error here, and not an abort at the first call of the symbol. RTLD_LOCAL: a
    // library does not use the copies of std, tokio and tracing in other libraries. RTLD_NODELETE: the library stays
    // mapped even if some code closes it.
    let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: opening runs the initializers of the library. The operator trusts the library, because the operator has
    // put the file into the plugins folder.
    let library = unsafe { Library::open(Some(copy), flags) };
    // Dropping the handle would close the library.
    mem::forget(library.map_err(|error| LibraryError::link(&error))?);
    let header = lib_header_from_path(copy)
        .map_err(|error| LibraryError::Root(one_line(&error.to_string())))?;
    // SAFETY: the library is never unmapped, because its handle was forgotten above. The operator trusts the library to
    // be a plugin.
    Ok(unsafe { Plugin::from_header(header) }?)
}

/// The reason why a library cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// The ABI of the library is not compatible with this host.
    #[error(transparent)]
    Incompatible(#[from] IncompatibleError),
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
    /// Returns the error for a refusal of the dynamic linker, with advice if the message is known.
    fn link(error: &dyn Error) -> Self {
        let reason = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        let reason = one_line(&reason);
        let advice = advice(&reason).map_or_else(String::new, |advice| format!("; {advice}"));
        Self::Link { reason, advice }
    }
}

/// Returns advice for an error of the dynamic linker. Recognizes the errors by parts of glibc's messages. Returns
/// `None` for other errors.
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
    .find_map(|(message_part, advice)| reason.contains(message_part).then_some(advice))
}

/// The effect of loading a library with the flag `DF_STATIC_TLS`, and advice how to avoid the effect.
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
