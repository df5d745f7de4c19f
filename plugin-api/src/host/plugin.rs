//! A library that passed the gate, and the start of its app.

use std::{fmt, time::Duration};

use abi_stable::library::{LibHeader, LibraryError};

use super::{App, Logger, app::running, log};
use crate::{
    Level,
    abi::{self, Slice, v1},
};

/// The functions of a library.
#[derive(Clone, Copy, Debug)]
pub struct Plugin(&'static abi::Plugin);

// SAFETY: the table stays for ever, and any thread may call its functions.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl Plugin {
    /// Checks the root module of a library, and finds the plugin's functions.
    ///
    /// Runs code of the library.
    ///
    /// # Errors
    ///
    /// When the library's root module has another layout than this crate's.
    ///
    /// # Safety
    ///
    /// The library stays loaded for ever, as abi_stable's `lib_header_from_path` sees to, and keeps the
    /// contract of [`abi::Plugin`].
    pub unsafe fn from_header(header: &'static LibHeader) -> Result<Self, GateError> {
        let root: v1::RootRef = header
            .init_root_module()
            .map_err(|error| GateError::new(&error))?;
        let plugin: *const abi::Plugin = (root.plugin())().cast();
        // SAFETY: the root module's layout is right, and its function gives the library's static
        // table.
        let plugin = unsafe { abi::Plugin::copy_padded(plugin) };
        let plugin = plugin.map_err(|found| GateError::Table {
            found,
            expected: abi::Plugin::SIZE_1_0,
        })?;
        Ok(Self(Box::leak(Box::new(plugin))))
    }

    /// Tells the library the most verbose level in force, before [`init`](Self::init) and whenever
    /// it changes, for the rest of the process. It asks its logger anew about each callsite before
    /// this returns.
    pub fn set_level(self, level: Level) {
        // SAFETY: the function may be called at any time.
        unsafe { (self.0.set_level)(level as u32) };
    }

    /// Starts the app. Blocks until the app has started, or failed to: for ever when the author's function
    /// never returns.
    ///
    /// `logger` stays for the rest of the process, because threads of the plugin may log for as long. A library
    /// starts its app once, because logger and panic hook stay in it.
    ///
    /// # Errors
    ///
    /// When the author's function fails, panics, or takes longer than `init.timeout` at something
    /// that can be stopped.
    pub fn init<L: Logger>(self, logger: L, init: &Init<'_>) -> Result<&'static App, InitError> {
        let request = abi::Init {
            size: size_of::<abi::Init>(),
            host: Box::leak(Box::new(log::table(logger))),
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
        let mut answer = abi::Initialized::new();
        // SAFETY: everything is borrowed for the call, but the host's table, which is leaked.
        let failed = unsafe { (self.0.init)(&raw const request, &raw mut answer) };
        if failed == 0 && !answer.app.is_null() {
            // SAFETY: the plugin says that this is its app.
            let app = unsafe { App::new(self.0, &answer) };
            let app: &'static App = Box::leak(Box::new(app));
            let is_second = request.is_second != 0;
            running::add(app, init.name, init.generation, is_second);
            return Ok(app);
        }
        Err(InitError(
            String::from_utf8_lossy(answer.message.as_ref()).into_owned(),
        ))
    }
}

/// What an app starts with.
#[derive(Clone, Copy, Debug)]
pub struct Init<'a> {
    /// The app's name.
    pub name: &'a str,
    /// Where it is mounted.
    pub mount: &'a str,
    /// The operator's configuration for it, as a JSON object.
    pub config: Option<&'a str>,
    /// The state that the generation before handed over.
    pub previous_state: Option<&'a [u8]>,
    /// The name of its runtime's threads, of at most 15 bytes.
    pub thread_name: &'a str,
    /// Which load of the app this is, from 1.
    pub generation: u64,
    /// How long its start may take; zero for no limit.
    pub timeout: Duration,
    /// How many threads its runtime has.
    pub worker_threads: u32,
}

/// A library that is not for this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The root module has another layout.
    #[error(
        "the root module has another layout: {0}; build the plugin with a plugin-api of this ABI"
    )]
    Layout(String),
    /// The library's own checks failed.
    #[error("the root module cannot be had: {0}; build the plugin with a plugin-api of this ABI")]
    Root(String),
    /// The table of functions is shorter than that of the first version.
    #[error(
        "the plugin's table has {found} bytes, expected {expected} or more; build it with a plugin-api of this ABI"
    )]
    Table {
        /// What the library says.
        found: usize,
        /// What the first version has.
        expected: usize,
    },
}

impl GateError {
    fn new(error: &LibraryError) -> Self {
        match error {
            // The message is a dump of both layouts, several pages long; what differs comes last.
            LibraryError::AbiInstability(report) => Self::Layout(last_lines(report)),
            error => Self::Root(last_lines(error)),
        }
    }
}

fn last_lines(report: &impl fmt::Display) -> String {
    let report = report.to_string();
    let lines: Vec<_> = report
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" ")
}

/// An app that did not start: what the author's function, or the plugin's runtime, said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InitError(String);
