//! The signals that do not stop the server: SIGHUP reads the configuration again, SIGUSR1 opens
//! the files of the log anew, SIGUSR2 executes another build of the host, SIGTTIN and SIGTTOU add and
//! take away a worker.

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
        level::{Levels, SetLevel},
        output::Output,
    },
    settings::{self, SettingsError},
    supervisor::{self, Scale, systemd},
};

/// Follows the signals from now on. `settings` are those that the server started with, by key.
///
/// # Errors
///
/// When they cannot be received.
pub fn follow(
    levels: Levels,
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

/// SIGUSR2 executes the build of the host that is at the path of this program by now. The log says
/// what came of it.
async fn upgrade(mut upgrades: Signal, handle: supervisor::Handle) {
    while upgrades.recv().await.is_some() {
        let _ = handle.upgrade(None).await;
    }
}

/// Gunicorn has these signals too. A terminal sends SIGTTIN to a program in the background that reads
/// from it, and SIGTTOU to one that sets it, which this server does not do.
async fn scale(mut signals: Signal, name: &str, by: Scale, handle: supervisor::Handle) {
    while signals.recv().await.is_some() {
        if let Err(error) = handle.scale(by).await {
            warn!(signal = name, %error, "The number of workers stays as it is");
        }
    }
}

async fn reopen(mut rotations: Signal, handle: supervisor::Handle, outputs: Vec<Output>) {
    while rotations.recv().await.is_some() {
        handle.reopen().await;
        let mut are_open = true;
        for output in &outputs {
            // A file system may not answer.
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

/// Of all settings these change while the server runs: the level, mounts, and what is said of apps.
async fn reread(
    mut hangups: Signal,
    levels: Levels,
    handle: supervisor::Handle,
    mut before: BTreeMap<String, String>,
) {
    while hangups.recv().await.is_some() {
        systemd::reloading();
        // Dropped at the end of this turn.
        let _reloaded = Reloaded;
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
        let (live, late): (Vec<_>, Vec<_>) = changed(&before, &settings)
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
            // It is there for as long as this is.
            let _ = handle.configure(config.mount, config.apps).await;
        }
        before = settings;
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

/// Tells systemd that the configuration is read, whatever came of it.
struct Reloaded;

impl Drop for Reloaded {
    fn drop(&mut self) {
        systemd::ready();
    }
}

/// The signals that change the number of workers.
const SCALES: [(i32, &str, Scale); 2] = [
    (consts::SIGTTIN, "SIGTTIN", Scale::Up),
    (consts::SIGTTOU, "SIGTTOU", Scale::Down),
];

/// The keys of the settings that are others now, without the level's.
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

/// The keys of what is said of apps.
const LIVE: [&str; 2] = [settings::APP, "mount"];

/// The configuration as it is now, and its settings by key.
fn read() -> Result<(Config, BTreeMap<String, String>), SettingsError> {
    let args: Vec<_> = env::args_os().collect();
    let settings = settings::parse(&args)?;
    Ok((*settings.config, settings.by_key))
}
