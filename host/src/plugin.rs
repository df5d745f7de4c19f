//! Plugins: from a file in the folder to the app that serves, and back out.
//!
//! [`watcher`] says when a library has settled, [`scan`] decides what that means; [`manifest`]
//! reads what it says of itself; [`store`] keeps the private copy; [`library`] opens it; a
//! [`generation`] is one load of it, and [`load`] the way there; its [`faults`] are counted, and
//! [`quarantine`] keeps it from requests when it panics too often; [`registry`] knows which one
//! serves; [`reloader`] is the sequence of all this, for each app a state machine; [`probation`]
//! tells whether a new one is worse than the one before. [`budget`] and [`process`] count what all
//! that costs, and [`report`] is what an operator is told.

pub mod budget;
pub mod faults;
pub mod generation;
pub mod library;
pub mod load;
pub mod manifest;
pub mod probation;
pub mod process;
pub mod quarantine;
pub mod registry;
pub mod reloader;
pub mod report;
pub mod scan;
pub mod store;
pub mod watcher;
