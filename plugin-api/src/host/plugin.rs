//! The functions of a loaded library: checks the library's ABI, and starts its app.

use std::{fmt, time::Duration};

use abi_stable::library::{LibHeader, LibraryError};

use super::{App, Logger, app::running, log};
use crate::{
    Level,
    abi::{self, Slice, v1},
};

/// The functions of a library whose ABI is compatible with this host.
#[derive(Clone, Copy, Debug)]
pub struct Plugin(&'static abi::Plugin);

// SAFETY: the table is never freed, and the contract of `abi::Plugin` lets any thread call its functions.
unsafe impl Send for Plugin {}
// SAFETY: the table is never freed, and the contract of `abi::Plugin` lets any thread call its functions.
unsafe impl Sync for Plugin {}

impl Plugin {
    /// Checks the root module of a library, and returns the plugin's functions. Runs code of the library.
    ///
    /// # Errors
    ///
    /// Returns an error if the root module cannot be loaded or has an incompatible layout, or if the table of functions
    /// is too short.
    ///
    /// # Safety
    ///
    /// The library is never unloaded, and satisfies the contract of [`abi::Plugin`]. abi_stable's
    /// `lib_header_from_path` never unloads the library.
    pub unsafe fn from_header(header: &'static LibHeader) -> Result<Self, IncompatibleError> {
        let root: v1::RootRef = header
            .init_root_module()
            .map_err(|error| IncompatibleError::new(&error))?;
        let plugin: *const abi::Plugin = (root.plugin())().cast();
        // SAFETY: the layout of the root module was checked. Its function therefore returns the library's static table,
        // which begins with its size.
        let plugin = unsafe { abi::Plugin::copy_padded(plugin) };
        let plugin = plugin.map_err(|found| IncompatibleError::Table {
            found,
            expected: abi::Plugin::SIZE_1_0,
        })?;
        Ok(Self(Box::leak(Box::new(plugin))))
    }

    /// Sets the most verbose level in force. Before this function returns, the library registers each of its callsites
    /// with its logger again.
    ///
    /// Call this before [`init`](Self::init), and after each change of the level until the process ends.
    pub fn set_level(self, level: Level) {
        // SAFETY: the contract of `abi::Plugin` lets the host call `set_level` at any time.
        unsafe { (self.0.set_level)(level as u32) };
    }

    /// Starts the app. Blocks until the app has started or its start has failed. If the author's function blocks its
    /// thread, `init.timeout` has no effect, and this function may block for ever.
    ///
    /// The `logger` is never freed, because threads of the plugin may log until the process ends. Call this once for a
    /// library, because the library keeps its first logger and panic hook.
    ///
    /// # Errors
    ///
    /// Returns an error if the author's function fails or panics, or if its future exceeds `init.timeout`.
    pub fn init<L: Logger>(self, logger: L, init: &Init<'_>) -> Result<&'static App, InitError> {
        let parameters = abi::Init {
            size: size_of::<abi::Init>(),
            host: Box::leak(Box::new(log::host_table(logger))),
            name: Slice::new(init.name.as_bytes()),
            mount: Slice::new(init.mount.as_bytes()),
            config: Slice::from_option(init.config),
            previous_state: init.previous_state.map_or(Slice::NONE, Slice::new),
            thread_name: Slice::new(init.thread_name.as_bytes()),
            generation: init.generation,
            timeout_ms: init.timeout.as_millis().try_into().unwrap_or(u64::MAX),
            worker_threads: init.worker_threads,
            is_second: running::has_earlier(init.name, init.generation).into(),
        };
        let mut result = abi::Initialized::new();
        // SAFETY: `parameters`, its slices and `result` are valid until the call returns. The table of the host is
        // leaked, so it is valid until the process ends.
        let failed = unsafe { (self.0.init)(&raw const parameters, &raw mut result) };
        if failed == 0 && !result.app.is_null() {
            // SAFETY: `result` is the result of this successful call of the plugin's `init`.
            let app = unsafe { App::new(self.0, &result) };
            let app: &'static App = Box::leak(Box::new(app));
            let is_second = parameters.is_second != 0;
            running::add(app, init.name, init.generation, is_second);
            return Ok(app);
        }
        Err(InitError(
            String::from_utf8_lossy(result.message.as_ref()).into_owned(),
        ))
    }
}

/// The parameters of [`Plugin::init`].
#[derive(Clone, Copy, Debug)]
pub struct Init<'a> {
    /// The app's name.
    pub name: &'a str,
    /// The app's mount, such as `/` or `/shop`.
    pub mount: &'a str,
    /// The operator's configuration for the app, as a JSON object.
    pub config: Option<&'a str>,
    /// The state that the previous generation has handed over.
    pub previous_state: Option<&'a [u8]>,
    /// The name for the threads of the app's runtime: at most 15 bytes.
    pub thread_name: &'a str,
    /// The number of the generation: 1 for the first load of the app.
    pub generation: u64,
    /// The time limit for the start. Zero means no limit.
    pub timeout: Duration,
    /// The number of threads of the app's runtime.
    pub worker_threads: u32,
}

/// The reason why a library is not compatible with this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncompatibleError {
    /// The root module has a layout that is not compatible with the layout in this host.
    #[error(
        "the root module has another layout: {0}; build the plugin with a plugin-api of this ABI"
    )]
    Layout(String),
    /// abi_stable cannot load the root module for another reason.
    #[error(
        "the root module cannot be loaded: {0}; build the plugin with a plugin-api of this ABI"
    )]
    Root(String),
    /// The table of functions is shorter than the table of ABI 1.0.
    #[error(
        "the plugin's table has {found} bytes, expected {expected} or more; build it with a plugin-api of this ABI"
    )]
    Table {
        /// The size in bytes that the table of the library claims.
        found: usize,
        /// The size in bytes of the table of ABI 1.0.
        expected: usize,
    },
}

impl IncompatibleError {
    fn new(error: &LibraryError) -> Self {
        match error {
            // The message prints both layouts and has several pages. The difference is at its end.
            LibraryError::AbiInstability(report) => Self::Layout(last_lines(report)),
            error => Self::Root(last_lines(error)),
        }
    }
}

/// Returns the last three lines that are not empty, joined to one line.
fn last_lines(report: &impl fmt::Display) -> String {
    let report = report.to_string();
    let lines: Vec<_> = report
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" ")
}

/// The reason why an app did not start: the error text of the author's function or of the plugin's runtime.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InitError(String);
