//! Handles the signals that do not stop the server: SIGHUP reads the configuration again, SIGUSR1 reopens the log
//! files, SIGUSR2 executes another build of the host, SIGTTIN adds a worker and SIGTTOU removes a worker.

mod early;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, io,
};

use signal_hook::consts;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task,
};
use tracing::{error, info, warn};

pub use self::early::EarlySignals;
use crate::{
    config::Config,
    log::{
        level::{LevelHandle, SetLevel},
        output::Output,
    },
    settings::{self, SettingsError},
    supervisor::{self, Scale, systemd},
};

/// Starts a task for each signal, which handles the signal until the server stops. `settings` are the settings with
/// which the server was started, by key.
///
/// # Errors
///
/// When a handler for a signal cannot be installed.
pub fn handle_signals(
    levels: LevelHandle,
    handle: supervisor::Handle,
    outputs: Vec<Output>,
    settings: BTreeMap<String, String>,
) -> io::Result<()> {
    let hangups = signal(SignalKind::hangup())?;
    let rotations = signal(SignalKind::user_defined1())?;
    let upgrades = signal(SignalKind::user_defined2())?;
    tokio::spawn(reload_config(hangups, levels, handle.clone(), settings));
    tokio::spawn(upgrade(upgrades, handle.clone()));
    tokio::spawn(reopen(rotations, handle.clone(), outputs));
    for (number, name, change) in SCALE_SIGNALS {
        let signals = signal(SignalKind::from_raw(number))?;
        tokio::spawn(scale(signals, name, change, handle.clone()));
    }
    Ok(())
}

/// At each SIGUSR2, replaces this program by the build of the host that is now at the path of this program.
async fn upgrade(mut upgrades: Signal, handle: supervisor::Handle) {
    while upgrades.recv().await.is_some() {
        // The supervisor logs the result.
        let _ = handle.upgrade(None).await;
    }
}

/// Changes the number of workers at each SIGTTIN or SIGTTOU, which Gunicorn uses for the same purpose. The kernel sends
/// these signals also to a background process that reads from its terminal or changes the settings of the terminal.
/// This server does neither, so the signals come only from operators.
async fn scale(mut signals: Signal, name: &str, change: Scale, handle: supervisor::Handle) {
    while signals.recv().await.is_some() {
        if let Err(error) = handle.scale(change).await {
            warn!(signal = name, %error, "The number of workers stays as it is");
        }
    }
}

/// At each SIGUSR1, reopens the log files in all processes.
async fn reopen(mut rotations: Signal, handle: supervisor::Handle, outputs: Vec<Output>) {
    while rotations.recv().await.is_some() {
        // Each worker has its own descriptors of the same files.
        handle.reopen().await;
        let mut are_open = true;
        for output in &outputs {
            // Runs on a blocking thread, because a file system may hang.
            let output = output.clone();
            let reopened = task::spawn_blocking(move || output.reopen()).await;
            if let Ok(Err(error)) = reopened {
                are_open = false;
                error!(
                    error = &error as &dyn std::error::Error,
                    "Log file not reopened"
                );
            }
        }
        if are_open {
            info!(signal = "SIGUSR1", "Log files reopened");
        }
    }
}

/// At each SIGHUP, reads the configuration again. The log level, the mounts and the settings of apps take effect at
/// once. For changes of other settings a warning says that they take effect at the next start.
async fn reload_config(
    mut hangups: Signal,
    levels: LevelHandle,
    handle: supervisor::Handle,
    mut current_settings: BTreeMap<String, String>,
) {
    while hangups.recv().await.is_some() {
        // Sent before the configuration is read, because systemd waits for this notification and for `ready`.
        systemd::reloading();
        let _reload_done = ReloadDoneGuard;
        match parse_settings() {
            Ok((config, new_settings)) => {
                apply(config, &current_settings, &new_settings, &levels, &handle).await;
                current_settings = new_settings;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(
                    signal = "SIGHUP",
                    error, "Configuration not reloaded, the current one stays in force"
                );
            }
        }
    }
}

/// Applies the changed settings that can take effect while the server runs, and warns of the other changes.
async fn apply(
    config: Config,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    levels: &LevelHandle,
    handle: &supervisor::Handle,
) {
    let (live, at_next_start): (Vec<_>, Vec<_>) = changed_keys(old, new)
        .into_iter()
        .partition(|key| LIVE_KEYS.contains(key));
    if !at_next_start.is_empty() {
        warn!(
            settings = at_next_start.join(","),
            "These settings changed, but take effect at the next start only"
        );
    }
    info!(signal = "SIGHUP", level = %config.log_level, "Configuration reloaded");
    if !live.is_empty() {
        // The call fails only after the supervisor has ended, when the server stops anyway.
        let _ = handle.configure(config.mount, config.apps).await;
    }
    // The level is compared with the level in force and not with the old setting, because an operator may have changed
    // the level by `host ctl`.
    let current = levels.state().await;
    if current.is_none_or(|state| state.until.is_some() || state.directives != config.log_level) {
        levels
            .set(SetLevel {
                directives: config.log_level,
                duration: None,
                changed_by: "SIGHUP",
            })
            .await;
    }
}

/// Notifies systemd that the reload is done when the value is dropped, whether the reload succeeded or failed.
struct ReloadDoneGuard;

impl Drop for ReloadDoneGuard {
    fn drop(&mut self) {
        systemd::ready();
    }
}

/// The signals that change the number of workers.
const SCALE_SIGNALS: [(i32, &str, Scale); 2] = [
    (consts::SIGTTIN, "SIGTTIN", Scale::Up),
    (consts::SIGTTOU, "SIGTTOU", Scale::Down),
];

/// Returns the keys of the settings whose values differ. The key of the log level is omitted, because the caller
/// handles the level separately.
fn changed_keys<'a>(
    old: &'a BTreeMap<String, String>,
    new: &'a BTreeMap<String, String>,
) -> Vec<&'a str> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let is_changed = |key: &&String| old.get(*key) != new.get(*key) && *key != "log-level";
    keys.into_iter()
        .filter(is_changed)
        .map(String::as_str)
        .collect()
}

/// The keys of the settings that take effect while the server runs, besides the log level.
const LIVE_KEYS: [&str; 2] = [settings::APP_KEY, "mount"];

/// Parses the command line, the environment and the configuration file again. Returns the configuration, and
/// the settings by key.
fn parse_settings() -> Result<(Config, BTreeMap<String, String>), SettingsError> {
    let args: Vec<_> = env::args_os().collect();
    let settings = settings::parse(&args)?;
    Ok((*settings.config, settings.by_key))
}
