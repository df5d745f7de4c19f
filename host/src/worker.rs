//! What opens libraries, runs apps and serves: everything that a plugin's code may bring down.
//!
//! [`load`] is the way from a private copy to a started app, [`library`] opens the copy, and a
//! [`generation`] is one load. [`registry`] knows which generation serves; the [`faults`] of each
//! are counted, [`quarantine`] keeps requests from one that panics too often, and [`probation`]
//! tells whether a new generation is worse than the one before. [`budget`] and [`process`] count
//! what loads cost. [`crash`] is the worker's last word. [`process_guard`] puts back what a
//! start changed of the process.

pub mod budget;
pub mod crash;
pub mod faults;
pub mod generation;
pub mod library;
pub mod life;
pub mod link;
pub mod load;
pub mod probation;
pub mod process;
pub mod process_guard;
pub mod program;
pub mod quarantine;
pub mod registry;
pub mod serving;
pub mod settings;
pub mod setup;
pub mod trial;
