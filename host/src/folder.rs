//! Watches the plugins folder, and reads and copies the libraries in it without running their code.
//!
//! - [`watcher`] lists the folder, and [`scan`] decides from the listings when a file has settled.
//! - [`candidate`] reads and checks a library. [`manifest`] reads the manifest in the file, and [`embedded`] finds C
//!   libraries that are linked into the library.
//! - [`store`] writes the private copies that libraries are loaded from.

pub mod candidate;
pub mod embedded;
pub mod manifest;
pub mod scan;
pub mod store;
pub mod watcher;
