//! The test suite: the behaviour of the host, as clients, operators and authors of apps see it. Each module has one
//! theme, and each test's name states one behaviour.
//!
//! Every test starts a separate host with a free port and a new plugins folder, so that tests can
//! run at the same time.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod access_log;
mod arrivals;
mod author_errors;
mod bad_libraries;
mod chat;
mod check;
mod closing;
mod command_line;
mod configuring;
mod deaf_clients;
mod deaths;
mod deploying;
mod dev;
mod dev_pages;
mod differential;
mod docs;
mod evolution;
mod framing;
mod generations;
mod greeter;
mod handover;
mod http;
mod lifecycle;
mod limits;
mod log_fidelity;
mod log_files;
mod log_live;
mod log_of_plugins;
mod log_readers;
mod logging;
mod moody;
mod mounts;
mod native;
mod new_crate;
mod notes;
mod operating;
mod own_logging;
mod panics;
mod process_wide;
mod quarantine;
mod recycling;
mod reload;
mod rollback;
mod runtime;
mod serving;
mod signals;
mod slow_clients;
mod starts;
mod streams;
mod targets;
mod upgrades;
mod upgrading;
mod watching;
