//! The server's bank: a loaded plugin as safe values.
//!
//! [`Plugin`] is a library that passed the gate; [`Plugin::init`] makes an [`App`] of it;
//! [`App::enter`] lets a request in; [`InFlight::call`] answers it, and a [`Call`] is polled for a
//! response that has to wait. What the plugin logs comes to a [`Logger`]. The calls into the plugin trust it to keep the contract of [`abi`](crate::abi): it is code in this process.

mod app;
mod body;
mod call;
mod call_error;
mod caught;
mod keys;
mod log;
mod plugin;
mod request;
mod signals;
mod sink;
mod slot;
mod stream;
mod streams;

pub use self::{
    app::{App, HandoverError, InFlight, Paused, Stopped, running::look_after_apps},
    body::Body,
    call::{Call, Called},
    call_error::CallError,
    keys::thread_keys_left,
    log::{Callsite, Causes, Entry, Fields, Interest, Logger, Panic, Parent, Value},
    plugin::{GateError, Init, InitError, Plugin},
    request::{Target, Upgrade},
    signals::{Disposition, DispositionKind, SignalMask, decimal_sign},
    streams::flush_c_streams,
};
pub use crate::crossing::StallWatch;
