//! Opens libraries. Once: none is ever closed again.
//!
//! Unloading Rust code is unsound (threads, thread-locals and statics of it may still be in use),
//! so a library stays mapped until the process ends. It must be opened from a private copy that
//! nobody writes to: the pages come from the file.

#![expect(unsafe_code, reason = "opening a library runs its code")]

use std::{mem, path::Path};

use abi_stable::library::lib_header_from_path;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plugin_api::host::{GateError, Plugin};

use super::load::one_line;

/// Opens the library at `copy`, and checks that its boundary is this host's.
///
/// The file must be a whole shared object: reading a page that it does not have ends the process.
///
/// # Errors
///
/// When the dynamic linker does not take it, when it has no root module, or one of another layout.
pub fn open(copy: &Path) -> Result<Plugin, OpenError> {
    // Now, so that a missing symbol is an error here and not an abort at its first call; local, so
    // that the copies of std, tokio and tracing in the libraries stay apart; and never unmapped,
    // whoever closes it.
    let flags = RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: its initializers run, as the operator asked for by putting the library into the
    // folder.
    let library = unsafe { Library::open(Some(copy), flags) };
    mem::forget(library.map_err(OpenError::Link)?);
    let header = lib_header_from_path(copy)
        .map_err(|error| OpenError::Root(one_line(&error.to_string())))?;
    // SAFETY: it is never unmapped, and the operator trusts it to be a plugin.
    Ok(unsafe { Plugin::from_header(header) }?)
}

/// A library that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its boundary is another.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The dynamic linker does not take it.
    #[error(
        "the dynamic linker refuses it (\"failed to map segment\" means a file system mounted noexec: see --state-dir)"
    )]
    Link(#[source] libloading::Error),
    /// It has no root module.
    #[error("it has no root module; build it with the plugin-api of this host: {0}")]
    Root(String),
}
