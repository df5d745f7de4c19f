//! The plugins folder: watches, reads and copies libraries, and runs none of their code.
//!
//! - [`watcher`] lists the folder, and [`scan`] decides from the listings when a file has settled.
//! - [`candidate`] is a library that was read and checked; [`manifest`] reads its manifest, and [`embedded`] finds C
//!   libraries inside.
//! - [`store`] keeps the private copies that libraries are loaded from.

pub mod candidate;
pub mod embedded;
pub mod manifest;
pub mod scan;
pub mod store;
pub mod watcher;
