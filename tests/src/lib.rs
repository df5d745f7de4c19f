//! The test harness: starts the real `host` with real plugins, and talks to it over real sockets.
//!
//! ```no_run
//! use host_tests::{Library, Setup};
//!
//! # async fn test() {
//! let host = Setup::new().plugin("versioned").arg("--log-level=debug").start().await;
//! host.folder().put("libversioned.so", &Library::version("v2"));
//! host.serves("/versioned", "v2").await;
//! host.log().eventually(&["generation=2"]).await;
//! # }
//! ```
//!
//! - [`Library`]: the content of a library file. Cargo builds plugins that are missing or out of date. Also files that
//!   the host must refuse.
//! - [`Folder`]: a plugins folder, and the ways in which an operator puts files into it.
//! - [`Setup`]: the settings of a host. Each test starts its own host.
//! - [`Host`]: a running host. It is killed when the test ends; if the test fails, its log is printed.
//! - [`Ctl`]: the control socket of a host, with `host ctl` as the client.
//! - [`Connection`]: an HTTP client for HTTP/1.1 or HTTP/2.
//! - [`Wire`]: a TCP connection for raw bytes that no HTTP client would send.
//! - [`Frames`]: an HTTP/2 connection for single frames that no HTTP client would send.
//! - [`WebSocket`], [`upgrade`], [`upgrade_http2`]: connections after an upgrade.
//! - [`Lines`], [`Line`]: the output of a host, line by line, and the parts of a log line.
//! - [`Workbench`]: a workspace in which a test creates crates, like an author, with [`host_command`].
//! - [`Dev`]: a session of `host dev`.
//! - [`eventually`], [`within`]: wait for a condition or a future. A test never sleeps for a fixed time.

mod artifacts;
mod connection;
mod ctl;
mod dev;
mod folder;
mod frames;
mod host;
mod library;
mod lines;
mod setup;
mod upgrade;
mod waiting;
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
    setup::{Exit, Setup},
    upgrade::{WebSocket, upgrade, upgrade_http2},
    waiting::{eventually, eventually_for, time_limit, within},
    wire::Wire,
    workbench::{Workbench, host_command},
};
