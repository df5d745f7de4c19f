//! The plugin side of the ABI: all code between the host's calls and the author's code.

mod app;
mod app_function;
mod body;
mod call;
mod context;
mod entry;
mod export;
#[cfg(feature = "axum")]
mod extractors;
mod handover;
#[cfg(feature = "info")]
mod info;
mod kinds;
mod life;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "local")]
mod local_response;
mod logger;
pub mod native;
mod native_request;
mod panic_report;
mod request;
mod response;
mod runtime;
mod slot;
mod stack;
#[cfg(feature = "upgrade")]
mod stream;
#[cfg(feature = "upgrade")]
mod upgrade;

#[cfg(feature = "info")]
pub use self::info::RequestInfo;
pub use self::{
    app::{AppFuture, IntoApp},
    app_function::{AppFunction, AppResult, build},
    body::Body,
    context::{ConfigError, Context},
    entry::{ExportedApp, lib_header},
    handover::IntoHandover,
};
#[cfg(feature = "local")]
pub(crate) use self::{context::ContextData, local::InProcessApp};
