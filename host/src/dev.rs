//! `host dev`: builds an app whenever a source file changes, serves the app, and shows errors in the terminal and in
//! the browser.
//!
//! A session consists of two processes. The session process, whose code is in this module, watches
//! the sources (`watch`, `inputs`), decides when to build (`scheduler`), runs Cargo (`cargo`) and
//! copies the libraries into a plugins folder (`round`). The server process (`server`) is the ordinary host. It
//! serves that folder, with a layer for development ([`crate::http::dev`]). The session process sends
//! its state to the server over a Unix socket (`feed`, `state`), and polls the server's control socket
//! until a new library serves or is rejected (`outcome`).

mod addresses;
mod cargo;
mod control;
mod feed;
mod inputs;
mod keys;
mod metadata;
mod outcome;
mod profile;
mod project;
mod report;
mod round;
mod scheduler;
pub mod server;
mod session;
mod settings;
pub mod state;
mod watch;

pub(crate) use self::cargo::strip_colours;

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{self, ExitCode},
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::runtime::Builder;

use self::session::SessionError;
use crate::{config::Config, error_chain::chain, terminal};

/// The command line of `host dev`: the crates to develop, options of the session and of Cargo, and
/// every option of the server.
#[derive(Clone, Debug, clap::Args)]
pub struct DevArgs {
    /// Crates or workspaces with plugins [default: that of the current folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Read settings of the server from this file [default: host.toml beside the crate, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Let pages be as the app made them: without the script that shows errors and refreshes them
    #[arg(long)]
    no_refresh: bool,

    /// Refresh pages when files in this folder change, without a build (repeatable)
    #[arg(long, value_name = "DIR")]
    watch_dir: Vec<PathBuf>,

    /// Listen on addresses that other machines can reach, which then see errors and sources
    #[arg(long)]
    allow_remote: bool,

    /// Answer requests for this host name too, besides localhost and addresses (repeatable)
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Features of the crate to turn on, as for cargo build
    #[arg(long, short = 'F', value_name = "FEATURES")]
    features: Vec<String>,

    /// Turn the crate's default features off, as for cargo build
    #[arg(long)]
    no_default_features: bool,

    #[command(flatten)]
    settings: Config,
}

/// Runs a session until the author or a signal ends it. `server_flags` are the server's options that the command
/// line sets, as `--OPTION=VALUE`.
///
/// Returns the exit code of the process: 0 after a session, 1 when the session cannot start or continue,
/// 2 when the settings are wrong.
#[must_use]
pub fn run(args: &DevArgs, server_flags: &[OsString]) -> ExitCode {
    // The runtime must stay on the main thread: the kernel signals the server when the thread that
    // started the server ends (PR_SET_PDEATHSIG), not when the process ends.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::print_error(format_args!("cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(session::run(args, server_flags));
    // Do not wait for the runtime's blocking threads.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(SessionError::Usage(error)) => error.report(),
        Err(error) => {
            terminal::print_error(chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Makes the server of a session end when the session process ends, even if a SIGKILL ends the session. Does nothing
/// in any other process. Must be called before the server starts to serve.
pub fn end_with_session() {
    let session = std::env::var(server::PARENT_VARIABLE)
        .ok()
        .and_then(|id| id.parse::<i32>().ok());
    let is_child_of_session = || getppid().map(|id| id.as_raw_nonzero().get()) == session;
    if session.is_none() || !is_child_of_session() {
        // This process belongs to no session, or is a worker: a worker inherits the variable from its server.
        return;
    }
    // Ignore a failure: its only effect is that the server outlives a session that is killed.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    // Check once more: if the session ended before the line above, the kernel sends no signal.
    if !is_child_of_session() {
        process::exit(1);
    }
}
