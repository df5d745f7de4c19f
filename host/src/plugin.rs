//! Which apps there are and which version of each serves: [`reloader`] is the sequence, for each app
//! a state machine, and [`report`] is what an operator is told.

pub mod reloader;
pub mod report;

pub use crate::{
    folder::{candidate, manifest, scan, store, watcher},
    worker::{budget, faults, generation, library, load, probation, process, quarantine, registry},
};
