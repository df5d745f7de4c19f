//! The signals that do not stop the server: SIGHUP reads the configuration again, SIGUSR1 reopens the files of
//! the log, SIGUSR2 executes another build of the host, SIGTTIN adds a worker and SIGTTOU removes one.

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

/// Acts on the signals from now on, each in a task of its own. `settings` are the settings with which the server
/// was started, by key.
///
/// # Errors
///
/// When a signal cannot be received.
pub fn handle_signals(
    levels: LevelHandle,
    handle: supervisor::Handle,
    outputs: Vec<Output>,
    settings: BTreeMap<String, String>,
) -> io::Result<()> {
    let hangups = signal(SignalKind::hangup())?;
    let rotations = signal(SignalKind::user_defined1())?;
    let upgrades = signal(SignalKind::user_defined2())?;
    tokio::spawn(reread(hangups, levels, handle.clone(), settings));
    tokio::spawn(upgrade(upgrades, handle.clone()));
    tokio::spawn(reopen(rotations, handle.clone(), outputs));
    for (number, name, by) in SCALES {
        let scales = signal(SignalKind::from_raw(number))?;
        tokio::spawn(scale(scales, name, by, handle.clone()));
    }
    Ok(())
}

/// Executes the build of the host that is now at the path of this program, at each SIGUSR2. The supervisor logs
/// the result.
async fn upgrade(mut upgrades: Signal, handle: supervisor::Handle) {
    while upgrades.recv().await.is_some() {
        let _ = handle.upgrade(None).await;
    }
}

/// Changes the number of workers at each signal. Gunicorn uses the same signals. A terminal sends them to programs in
/// the background that read from it or change its settings; this server does neither.
async fn scale(mut signals: Signal, name: &str, by: Scale, handle: supervisor::Handle) {
    while signals.recv().await.is_some() {
        if let Err(error) = handle.scale(by).await {
            warn!(signal = name, %error, "The number of workers stays as it is");
        }
    }
}

/// Reopens the files of the log in all processes, at each SIGUSR1.
async fn reopen(mut rotations: Signal, handle: supervisor::Handle, outputs: Vec<Output>) {
    while rotations.recv().await.is_some() {
        // Workers have opened the same files themselves.
        handle.reopen().await;
        let mut are_open = true;
        for output in &outputs {
            // On another thread, because the file system may not answer.
            let output = output.clone();
            let reopened = task::spawn_blocking(move || output.reopen()).await;
            if let Ok(Err(error)) = reopened {
                are_open = false;
                error!(
                    error = &error as &dyn std::error::Error,
                    "Log file not opened anew"
                );
            }
        }
        if are_open {
            info!(signal = "SIGUSR1", "Log files opened anew");
        }
    }
}

/// Reads the configuration again at each SIGHUP. Three kinds of settings take effect at once: the level, mounts,
/// and the settings of apps. For all others the log says that they take effect at the next start.
async fn reread(
    mut hangups: Signal,
    levels: LevelHandle,
    handle: supervisor::Handle,
    mut before: BTreeMap<String, String>,
) {
    while hangups.recv().await.is_some() {
        systemd::reloading();
        let _reloaded = ReloadNotice;
        match read() {
            Ok((config, settings)) => {
                apply(config, &before, &settings, &levels, &handle).await;
                before = settings;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(
                    signal = "SIGHUP",
                    error, "Configuration not read again, the one before stays in force"
                );
            }
        }
    }
}

/// Applies the settings that have changed and can take effect now.
async fn apply(
    config: Config,
    before: &BTreeMap<String, String>,
    settings: &BTreeMap<String, String>,
    levels: &LevelHandle,
    handle: &supervisor::Handle,
) {
    let (live, late): (Vec<_>, Vec<_>) = changed(before, settings)
        .into_iter()
        .partition(|key| LIVE.contains(key));
    if !late.is_empty() {
        warn!(
            settings = late.join(","),
            "These settings changed, but take effect at the next start only"
        );
    }
    info!(signal = "SIGHUP", level = %config.log_level, "Configuration read again");
    if !live.is_empty() {
        // Fails only when the supervisor has ended, and then the server stops.
        let _ = handle.configure(config.mount, config.apps).await;
    }
    // The level is set again even if its setting is the same, because an operator may have changed it
    // meanwhile by `host ctl`.
    let in_force = levels.state().await;
    if in_force.is_none_or(|state| state.until.is_some() || state.directives != config.log_level) {
        levels
            .set(SetLevel {
                directives: config.log_level,
                duration: None,
                by: "SIGHUP",
            })
            .await;
    }
}

/// Tells systemd that the reload is over, when it is dropped at the end of each turn, whatever the result is.
struct ReloadNotice;

impl Drop for ReloadNotice {
    fn drop(&mut self) {
        systemd::ready();
    }
}

/// The signals that change the number of workers.
const SCALES: [(i32, &str, Scale); 2] = [
    (consts::SIGTTIN, "SIGTTIN", Scale::Up),
    (consts::SIGTTOU, "SIGTTOU", Scale::Down),
];

/// Returns the keys of settings whose values differ, except that of the level.
fn changed<'a>(
    before: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> Vec<&'a str> {
    let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let changed = |key: &&String| before.get(*key) != now.get(*key) && *key != "log-level";
    keys.into_iter()
        .filter(changed)
        .map(String::as_str)
        .collect()
}

/// The keys of settings that take effect while the server runs, besides the level.
const LIVE: [&str; 2] = [settings::APP, "mount"];

/// Parses the command line, the environment and the configuration file again. Returns the configuration, and its
/// settings by key.
fn read() -> Result<(Config, BTreeMap<String, String>), SettingsError> {
    let args: Vec<_> = env::args_os().collect();
    let settings = settings::parse(&args)?;
    Ok((*settings.config, settings.by_key))
}
