//! Plugins: from a file in the folder to the app that serves, and back out.
//!
//! [`watcher`] says when a library has settled, [`scan`] decides what that means; [`manifest`]
//! reads what it says of itself; [`store`] keeps the private copy; [`library`] opens it; a
//! [`generation`] is one load of it, which [`quarantine`] keeps from requests when it panics too
//! often; [`registry`] knows which one serves; [`reloader`] is the
//! sequence of all this.

pub mod generation;
pub mod library;
pub mod load;
pub mod manifest;
pub mod quarantine;
pub mod registry;
pub mod reloader;
pub mod scan;
pub mod store;
pub mod watcher;
