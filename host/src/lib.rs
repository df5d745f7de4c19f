//! An app server for Rust. The server loads apps as plugins, replaces apps while it runs, and controls their logs.
//!
//! `main` parses the command line ([`cli`], [`settings`]) and calls [`server`]. The server binds the sockets and
//! starts the [`supervisor`]. The supervisor reads the plugins folder ([`folder`]), decides which apps exist, and
//! starts [`worker`]s. A worker loads the apps and serves connections ([`http`]). Supervisor and workers exchange
//! [`orders`] over a [`channel`]. The threads of a worker record their current work on the [`scoreboard`]. [`log`]
//! writes the log lines of host and plugins.
//!
//! An operator controls a running host with `host ctl` ([`ctl`]), the client of the control socket ([`control`]).
//! [`new`] writes a crate for a new app, [`dev`] builds and serves that crate while the author edits it, and
//! [`check`] reports whether this host would load a library.

pub mod apps;
pub mod channel;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod control_socket;
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
pub mod resources;
pub mod runtime;
pub mod scoreboard;
pub mod server;
pub mod settings;
pub mod shortage;
pub mod signal;
pub mod supervisor;
pub mod terminal;
pub mod worker;
