//! The test harness: starts the real `host` with real plugins, and talks to it over real sockets.
//!
//! ```no_run
//! use host_tests::{Library, Setup};
//!
//! # async fn test() {
//! let host = Setup::new().plugin("versioned").arg("--log-level=debug").start().await;
//! host.folder().put("libversioned.so", &Library::version("v2"));
//! host.serves("/versioned", "v2").await;
//! host.log().eventually("generation=2").await;
//! # }
//! ```
//!
//! - [`Library`]: a plugin's `.so`, built by Cargo when it is missing or old, and the bad ones.
//! - [`Folder`]: a plugins folder, and how files get into it.
//! - [`Setup`]: how to start a host. Each test starts its own.
//! - [`Host`]: a running one. It is killed when the test ends; after a panic its log is shown.
//! - [`Connection`]: an HTTP client, of either version; [`Wire`]: bytes, for what no client would send.
//! - [`Frames`]: HTTP/2 frame by frame, for what no client would send.
//! - [`WebSocket`], [`upgrade`], [`upgrade_http2`]: what becomes of a connection after an upgrade.
//! - [`Workbench`]: crates that a test makes, as an author does with [`host_command`].
//! - [`Dev`]: a session of `host dev`.
//! - [`eventually`], [`within`]: a test waits for a condition, never for a time.

mod artifacts;
mod connection;
mod ctl;
mod dev;
mod folder;
mod frames;
mod host;
mod library;
mod lines;
mod patience;
mod setup;
mod upgrade;
mod wire;
mod workbench;

pub use self::{
    artifacts::{crate_of_plugins, host as host_program},
    connection::{Connection, Reply, RequestBody, empty, full},
    ctl::Ctl,
    dev::Dev,
    folder::Folder,
    frames::{Frame, Frames},
    host::Host,
    library::Library,
    lines::{Line, Lines},
    patience::{eventually, eventually_for, patience, within},
    setup::{Exit, Setup},
    upgrade::{WebSocket, upgrade, upgrade_http2},
    wire::Wire,
    workbench::{Workbench, host_command},
};
