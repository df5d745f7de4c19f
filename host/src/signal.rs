//! The signals that do not stop the server: SIGHUP reads the configuration again, SIGUSR1 opens
//! the files of the log anew.

use std::{collections::BTreeMap, env, ffi::OsString, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    cli::{self, Command},
    config::Config,
    log::{
        level::{Levels, SetLevel},
        output::Output,
    },
};

/// Follows the signals from now on.
///
/// # Errors
///
/// When they cannot be received.
pub fn follow(levels: Levels, outputs: Vec<Output>) -> io::Result<()> {
    let hangups = signal(SignalKind::hangup())?;
    let rotations = signal(SignalKind::user_defined1())?;
    tokio::spawn(reread(hangups, levels));
    tokio::spawn(reopen(rotations, outputs));
    Ok(())
}

async fn reopen(mut rotations: Signal, outputs: Vec<Output>) {
    while rotations.recv().await.is_some() {
        for output in &outputs {
            if let Err(error) = output.reopen() {
                error!(
                    error = &error as &dyn std::error::Error,
                    "Log file not opened anew"
                );
            }
        }
        info!(signal = "SIGUSR1", "Log files opened anew");
    }
}

/// Of all settings only the level changes while the server runs.
async fn reread(mut hangups: Signal, levels: Levels) {
    let mut before = read().map(|(_, settings)| settings).unwrap_or_default();
    while hangups.recv().await.is_some() {
        let (config, settings) = match read() {
            Ok(read) => read,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(
                    signal = "SIGHUP",
                    error, "Configuration not read again, the one before stays in force"
                );
                continue;
            }
        };
        let is_new = |key: &&String| before.get(*key) != settings.get(*key) && *key != "log-level";
        let changed: Vec<_> = settings.keys().filter(is_new).map(String::as_str).collect();
        if !changed.is_empty() {
            warn!(
                settings = changed.join(","),
                "These settings changed, but take effect at the next start only"
            );
        }
        before = settings;
        info!(signal = "SIGHUP", level = %config.log_level, "Configuration read again");
        let in_force = levels.state().await;
        if in_force
            .is_none_or(|state| state.until.is_some() || state.directives != config.log_level)
        {
            levels
                .set(SetLevel {
                    directives: config.log_level,
                    lasts: None,
                    by: "SIGHUP",
                })
                .await;
        }
    }
}

/// The configuration as it is now, and its settings by key.
fn read() -> Result<(Config, BTreeMap<String, String>), cli::Error> {
    let args = || env::args_os();
    let mut settings = BTreeMap::new();
    let print = OsString::from("--print-config");
    if let Command::PrintConfig(text) = cli::parse(args().chain([print]))? {
        // The value without where it comes from.
        let line = |line: &str| {
            let (key, value) = line.split_once(" = ")?;
            Some((key.to_owned(), value.rsplit_once("  # ")?.0.to_owned()))
        };
        settings.extend(text.lines().filter_map(line));
    }
    match cli::parse(args())? {
        Command::Serve(config) => Ok((*config, settings)),
        // A server was started by these arguments.
        _ => Err(cli::Error::NotServing),
    }
}
