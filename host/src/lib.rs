//! An app server for Rust. It loads apps as plugins, replaces them while it runs, and controls their logs.
//!
//! `main` reads the command line ([`cli`], [`settings`]) and calls [`server`]. The server binds the sockets and
//! starts the [`supervisor`]. The supervisor decides which apps there are and starts [`worker`]s, which load
//! the apps and hand each connection to [`http`]. The two talk by [`orders`] over a [`channel`], and a worker
//! shows its work on the [`scoreboard`]. [`folder`] reads the plugins folder. [`log`] writes the lines of host
//! and plugins.
//!
//! An operator reaches a running host through [`control`], by the client [`ctl`]. [`new`] writes the crate
//! that an author begins with, [`dev`] serves that crate while the author works on it, and [`check`] tells
//! whether this host would load a library. [`completions`] and [`man`] print what a shell and `man` know of the
//! command line.

pub mod channel;
pub mod check;
pub mod cli;
pub mod completions;
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
pub mod man;
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
