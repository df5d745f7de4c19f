//! The SDK for plugins of `host`, the app server. One line makes a crate a plugin:
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
//! The crate must be a `cdylib` (`[lib] crate-type = ["cdylib"]`). Cargo builds a `.so` file from it, which the author
//! copies into the server's plugins folder. The app does not set up logging: all events that the app and its
//! dependencies log through `tracing` or `log` go to the server's log, at the server's level. [`critical!`] logs events
//! on which a person must act at once.
//!
//! - [`export_app!`]: the functions that a crate can export, and the keys for name and mount.
//! - [`Context`]: the app's name, mount and configuration, its state, and the hooks for its end.
//! - [`Body`], and `RequestInfo` with the feature `info`: the body of a request, and facts about the request.
//! - [`native`]: handlers without axum and tower, which cost less time for each request.
//!
//! An app can use a request in the same ways as under `axum::serve`: stream in both directions, send and receive
//! trailers, and upgrade the connection with `hyper::upgrade::on` or with code that builds on it, such as axum's
//! `WebSocketUpgrade`, also over HTTP/2.
//!
//! Handlers run on the server's threads, within the app's own tokio runtime. A handler that blocks its thread takes the
//! thread from all apps during this time. Long work without an `.await` therefore belongs in
//! `tokio::task::spawn_blocking`. Tasks that the app spawns run on threads of the app (`host --app-threads`), and are
//! cancelled when the app ends.
//!
//! # Features
//!
//! - `upgrade` (default): upgrades of connections. Needs the crate hyper, as axum does.
//! - `axum` (default): an axum `Router` builds its routes once when the app starts, as under `axum::serve`, instead of
//!   for each request.
//! - `info`: adds a `RequestInfo` to the extensions of each request.
//! - `axum-info`: like `info`, and adds the extensions for axum's extractors `ConnectInfo<SocketAddr>` and
//!   `OriginalUri`.
//! - `testing`: runs the app in a test, without a server, and gives the test access to the app's log.
//! - `standalone`: runs the app as a program of its own, with `plugin_api::main!`.
//!
//! # Trust
//!
//! A plugin runs in a worker process of the server, with all rights of that process. A panic ends one request. A crash
//! (a null pointer, a stack overflow, an `abort`) ends the worker and the requests in it; the server starts another
//! worker at once. With `host --workers=0` the server itself is that process. A library is never unloaded, so each load
//! of a library uses memory until its process ends.
//!
//! # The two sides
//!
//! The crate contains the plugin side of the ABI and, with the feature `host`, the host side. [`abi`] defines the types
//! that cross between the two.

#![deny(missing_docs)]

#[allow(
    unsafe_code,
    reason = "the types of the ABI contain raw pointers and functions"
)]
pub mod abi;
mod critical;
#[allow(unsafe_code, reason = "each side calls the other's functions here")]
mod crossing;
#[allow(unsafe_code, reason = "the plugin side of the ABI")]
mod guest;
#[cfg(feature = "host")]
#[allow(unsafe_code, reason = "the host side of the ABI")]
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

/// The error of a body that ended early. Possible causes: the client disconnected or sent invalid HTTP, a limit was
/// exceeded, or the app failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(String);

impl BodyError {
    /// Returns whether the body ended because the app panicked. The panic is in the log.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.0 == PANICKED
    }
}

/// The text of the error frame after a panic. The text is part of the ABI ([`abi::Frame::ERROR`]).
const PANICKED: &str = "the app panicked";

/// Items that the macros of this crate use. Not for authors.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "standalone")]
    pub use crate::standalone::run as standalone;
    pub use abi_stable::library::LibHeader;
    pub use tracing;

    pub use crate::{
        guest::{AppFuture, ExportedApp, build, lib_header},
        manifest::{Export, Fact, Facts, Note, note_len},
    };
}
