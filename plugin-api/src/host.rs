//! The host side of the ABI: safe types around a loaded plugin.
//!
//! 1. [`Plugin::from_header`] checks a library and returns its functions.
//! 2. [`Plugin::init`] starts the [`App`]. A [`Logger`] receives the log entries of the plugin.
//! 3. [`App::enter`] admits a request, and [`InFlight::call`] calls the app. The response is ready at once, or a
//!    [`Call`] is polled for the response.
//!
//! The calls into the plugin rely on the contract of [`abi`](crate::abi). The plugin cannot be checked for it, because
//! the plugin is code in this process.

mod app;
mod body;
mod boundary;
mod c_streams;
mod call;
mod call_error;
mod keys;
mod log;
mod plugin;
mod request;
mod signals;
mod sink;
mod slot;
mod stream;

pub use self::{
    app::{App, HandoverError, InFlight, Paused, Stopped, running::wake_stalled_apps},
    body::Body,
    c_streams::flush_c_streams,
    call::{Call, CallResult},
    call_error::CallError,
    keys::remaining_thread_keys,
    log::{Callsite, Causes, Entry, Fields, Interest, Logger, Panic, Parent, Value},
    plugin::{IncompatibleError, Init, InitError, Plugin},
    request::{CallInfo, Upgrade},
    signals::{Disposition, DispositionKind, SignalMask, decimal_sign},
};
pub use crate::crossing::StallWatch;
