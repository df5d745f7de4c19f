//! An app server for Rust: it loads apps as plugins, replaces them while it runs, and rules their
//! logs.
//!
//! `main` reads the command line ([`cli`], [`settings`]) and calls [`server`], which binds the sockets, starts
//! the [`supervisor`] and a [`worker`], which hands each connection to [`http`]. What host and plugins log goes
//! through [`log`]. An operator reaches a running host through [`control`], by [`ctl`].
//! [`new`] writes the crate that an author begins with, and [`dev`] serves it while it is worked on.

pub mod channel;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod dev;
pub mod error_chain;
pub mod exit;
pub mod folder;
#[cfg(test)]
mod fuzz;
pub mod http;
pub mod log;
pub mod new;
pub mod orders;
pub mod scoreboard;
pub mod server;
pub mod settings;
pub mod shortage;
pub mod signal;
pub mod supervisor;
pub mod terminal;
pub mod worker;
