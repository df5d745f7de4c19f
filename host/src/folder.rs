//! The plugins folder: reads files, and runs nothing of what is in them.
//!
//! [`watcher`] says when a library has settled and [`scan`] decides what that means; [`manifest`]
//! reads what a library says of itself, and [`embedded`] what it carries; [`candidate`] is a library that was read and may be loaded;
//! [`store`] keeps the private copies that libraries are loaded from.

pub mod candidate;
pub mod embedded;
pub mod manifest;
pub mod scan;
pub mod store;
pub mod watcher;
