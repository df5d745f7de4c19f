//! Write an app as a plugin for `host`, the app server: one line makes a crate a plugin.
//!
//! ```
//! use axum::{Router, routing::get};
//!
//! async fn app() -> Router {
//!     Router::new().route("/", get(|| async { "hello world" }))
//! }
//!
//! plugin_api::export_app!(app);
//! # fn main() {}
//! ```
//!
//! The crate is a `cdylib` (`[lib] crate-type = ["cdylib"]`), and the `.so` that Cargo makes of it
//! is dropped into the server's plugins folder. Nothing sets up logging: whatever the app and its
//! dependencies log through `tracing` or `log` goes to the server's log, at the server's level.
//! [`critical!`] is for what needs somebody's attention at once.
//!
//! - [`export_app!`]: what may be exported, and under which name and mount.
//! - [`Context`]: what the app is told when it starts.
//! - [`Body`] and, with the feature `info`, `RequestInfo`: what a request carries.
//! - [`native`]: an app that is quicker than axum and tower can make it.
//!
//! An app may do with a request what it may do under `axum::serve`: stream both ways, send and
//! receive trailers, and take the connection over with `hyper::upgrade::on` or what builds on it,
//! such as axum's `WebSocketUpgrade`, also over HTTP/2.
//!
//! Handlers run on the server's threads, in the app's own tokio runtime. One that blocks its thread takes
//! it from all apps for as long: what takes long and does not `.await` belongs in
//! `tokio::task::spawn_blocking`. What the app spawns runs on threads of its own (`host --app-threads`), and
//! is cancelled when the app ends.
//!
//! # Features
//!
//! - `upgrade` (default): taking connections over. It needs the crate hyper, as axum does.
//! - `axum` (default): an axum `Router` makes its routes when the app starts, and not for each
//!   request, as under `axum::serve`.
//! - `info`: `RequestInfo` among a request's extensions.
//! - `axum-info`: that, and the request extensions that axum's extractors `ConnectInfo<SocketAddr>` and
//!   `OriginalUri` take.
//! - `testing`: the app in a test, without a server and with its log at hand.
//! - `standalone`: the app as a program of its own, by `plugin_api::main!`.
//!
//! # Trust
//!
//! A plugin is code in the server's process. A panic ends one request; a crash (a null pointer, a
//! stack overflow, an `abort`) ends the server. A library is never unloaded, so each load of one
//! costs memory until the server ends.
//!
//! # Both banks
//!
//! The crate holds the plugin's side of the boundary, and, with the feature `host`, the server's:
//! [`abi`] says what crosses.

#![deny(missing_docs)]

#[allow(
    unsafe_code,
    reason = "the types of the boundary are pointers and functions"
)]
pub mod abi;
mod critical;
#[allow(unsafe_code, reason = "each side calls the other's functions here")]
mod crossing;
#[allow(unsafe_code, reason = "the plugin's side of the boundary")]
mod guest;
#[cfg(feature = "host")]
#[allow(unsafe_code, reason = "the server's side of the boundary")]
pub mod host;
pub mod level;
pub mod manifest;
mod panics;
#[cfg(feature = "standalone")]
mod standalone;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "info")]
pub use self::guest::RequestInfo;
pub use self::{
    guest::{AppFunction, AppResult, Body, ConfigError, Context, IntoApp, IntoHandover, native},
    level::Level,
};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of the other side that broke off: the client went away or sent what HTTP does not allow,
/// a limit was passed, or the app failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(String);

impl BodyError {
    /// Whether the body ended because the app panicked. The panic is in the log.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.0 == PANICKED
    }
}

/// The text of the frame for a panic; a part of the ABI ([`abi::Frame::ERROR`]).
const PANICKED: &str = "the app panicked";

/// What the macros need. Not for authors.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "standalone")]
    pub use crate::standalone::run as standalone;
    pub use abi_stable::library::LibHeader;
    pub use tracing;

    pub use crate::{
        guest::{AppFuture, Entry, build, lib_header},
        manifest::{Export, Fact, Facts, Note, note_len},
    };
}
