//! The worker: opens libraries, runs apps and serves requests. A plugin's code can crash a worker, but not the
//! supervisor.
//!
//! - [`life`] is the main loop. [`program`] is the entry point of a worker process. [`setup`] and [`settings`] build
//!   the parts of a worker from the configuration.
//! - [`lifeline`] connects a worker process to its supervisor. [`link`] passes orders and notices within the process.
//! - [`load`] turns a private copy into a started app. [`library`] opens the copy, and [`budget`] limits the number of
//!   loads.
//! - [`probation`] compares a new generation with the previous generation.
//! - [`serving`] accepts and ends the connections.
//! - [`crash`] records why the worker dies. [`process_guard`] restores process-wide settings that a plugin changed.

pub mod budget;
pub mod crash;
pub mod library;
pub mod life;
pub mod lifeline;
pub mod link;
pub mod load;
pub mod probation;
pub mod process_guard;
pub mod program;
pub mod serving;
pub mod settings;
pub mod setup;
