//! The worker: opens libraries, runs apps and serves requests. A plugin's code can crash a worker, but not the
//! supervisor.
//!
//! - [`life`] is the main loop; [`program`] is the entry point of a worker process; [`setup`] builds a worker.
//! - [`load`] turns a private copy into a started app; [`library`] opens the copy; [`trial`] opens it first in
//!   another process.
//! - A [`generation`] is one load of an app; [`registry`] maps paths to generations.
//! - [`faults`] counts errors and panics; [`quarantine`] stops a generation that panics too often; [`probation`]
//!   compares a new generation with the one before.
//! - [`budget`] limits the number of loads; [`process`] measures memory and threads.
//! - [`crash`] records why the worker dies; [`process_guard`] restores process-wide settings that a plugin changed.

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
