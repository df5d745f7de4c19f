//! `host dev`: builds an app whenever a file is saved, serves it, and shows what went wrong.
//!
//! Two processes work together. This one watches the sources (`watch`, `inputs`), decides when
//! to build (`builder`), runs Cargo (`cargo`) and puts libraries into a folder of plugins (`job`).
//! The other is the ordinary host, which serves that folder (`server`) with a layer for development
//! ([`crate::http::dev`]). A Unix socket tells it how the session is going (`feed`, `state`); its
//! control socket tells when a library serves (`live`).

mod builder;
mod cargo;
mod feed;
mod inputs;
mod job;
mod keys;
mod live;
mod project;
mod report;
pub mod server;
mod session;
mod settings;
mod speed;
pub mod state;
mod watch;

pub(crate) use self::cargo::plain;

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{self, ExitCode},
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::runtime::Builder;

use crate::{config::Config, error_chain::chain, terminal};

/// What to develop, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
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

/// Runs a session until it is told to end. `given` are the options of the server among the
/// arguments. The result is for `main`: 0, 1 when it cannot start, or 2 when it was asked for what is
/// wrong.
#[must_use]
pub fn run(args: &Args, given: Vec<OsString>) -> ExitCode {
    // One thread, and the main one: the server ends with the thread that started it.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::complain(format_args!("cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(session::run(args, given));
    // A thread still waits for the keyboard.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(session::Error::Usage(error)) => error.report(),
        Err(error) => {
            terminal::complain(chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Has this process, if it is the server of a session, end with the session, also when that is
/// killed. Called before it starts to serve.
pub fn follow_parent() {
    let parent = std::env::var(server::PARENT)
        .ok()
        .and_then(|id| id.parse::<i32>().ok());
    let is_parent = || getppid().map(|id| id.as_raw_nonzero().get()) == parent;
    if parent.is_none() || !is_parent() {
        // Not a server of a session, or a process that such a server started.
        return;
    }
    // Without it the server merely outlives a session that is killed.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    if !is_parent() {
        process::exit(1);
    }
}
