//! Guards process-wide settings against plugins: compares the settings before and after the start of an app, restores
//! the settings that the app changed, and logs the name of the plugin.
//!
//! Signal handlers decide how the server stops. The working directory, the umask and the limits belong to the operator.
//! The log is written to the first three descriptors. A library that changes one of these settings changes the setting
//! for all apps. The usual cause is code that is correct in a separate program, such as a crate that catches Ctrl-C, or
//! a logger that redirects stderr.
//!
//! The environment is not guarded, because reading the environment while another library sets a variable is a data
//! race. The host reads its own variables only once, at its start. Changes after the start of an app are not noticed.

mod descriptors;
mod signals;

use std::{
    collections::BTreeMap,
    env,
    fmt::Display,
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use plugin_api::host::{SignalMask, decimal_sign};
use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, getrlimit, setrlimit, umask},
};
use tracing::warn;

use self::{descriptors::Descriptors, signals::Dispositions};

/// Guards the start of an app until the value is dropped. Must be created and dropped on the thread that runs the
/// start, because the signal mask belongs to the thread.
#[derive(Debug)]
#[must_use]
pub struct StartGuard {
    app: String,
    /// The signal mask of the thread before the start. The mask is restored, because the thread is used for other work
    /// after the start.
    mask: Option<SignalMask>,
}

/// Begins to guard the start of the app `app`.
pub fn guard_start(app: &str) -> StartGuard {
    let mut starts = starts();
    if starts.apps.is_empty() {
        // With several starts at the same time, the state before the first start is restored, because a later start may
        // already see changes of an earlier one.
        starts.state_before = Some(ProcessState::read());
    }
    *starts.apps.entry(app.to_owned()).or_default() += 1;
    StartGuard {
        app: app.to_owned(),
        mask: SignalMask::of_this_thread(),
    }
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        if let Some(mask) = &self.mask {
            mask.restore();
        }
        let mut starts = starts();
        // Copied before this app is removed, because the log names all apps that may have made a change.
        let apps: Vec<_> = starts.apps.keys().cloned().collect();
        let mut changes = Vec::new();
        if let Some(state_before) = &mut starts.state_before {
            state_before.restore(&mut changes);
        }
        if let Some(count) = starts.apps.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                starts.apps.remove(&self.app);
            }
        }
        if starts.apps.is_empty() {
            starts.state_before = None;
        }
        // Released before the changes are logged, so that other starts need not wait for the log.
        drop(starts);
        for ProcessChange { setting, reaction } in changes {
            warn!(
                // With several starts at the same time, each of the apps may be the cause.
                plugin = apps.join(" or "),
                what = setting,
                done = reaction,
                "A plugin changed a setting of the whole process"
            );
        }
    }
}

/// The starts that are running now, and the settings of the process before the first of them.
struct RunningStarts {
    /// The number of running starts of each app.
    apps: BTreeMap<String, usize>,
    /// The settings before the first running start. `None` if no start is running.
    state_before: Option<ProcessState>,
}

static STARTS: Mutex<RunningStarts> = Mutex::new(RunningStarts {
    apps: BTreeMap::new(),
    state_before: None,
});

fn starts() -> MutexGuard<'static, RunningStarts> {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A setting that a plugin changed.
struct ProcessChange {
    /// The name of the setting, for the log.
    setting: String,
    /// What the host did about the change, for the log.
    reaction: String,
}

impl ProcessChange {
    /// Describes a setting that the host tried to restore, with the result of the attempt.
    fn restored(setting: impl Into<String>, result: Result<(), impl Display>) -> Self {
        Self {
            setting: setting.into(),
            reaction: match result {
                Ok(()) => "put back".to_owned(),
                Err(error) => format!("cannot be put back: {error}"),
            },
        }
    }
}

/// The process-wide settings at one moment. A setting that cannot be read is `None` and not restored.
struct ProcessState {
    directory: Option<PathBuf>,
    umask: Option<Mode>,
    limits: Vec<(Resource, Rlimit)>,
    decimal_sign: Option<char>,
    descriptors: Descriptors,
    dispositions: Dispositions,
}

impl ProcessState {
    /// Reads the current settings.
    fn read() -> Self {
        Self {
            directory: env::current_dir().ok(),
            umask: current_umask(),
            limits: LIMITS.map(|limit| (limit, getrlimit(limit))).into(),
            decimal_sign: decimal_sign(),
            descriptors: Descriptors::read(),
            dispositions: Dispositions::read(),
        }
    }

    /// Compares the current settings with these, restores those that have changed, and adds a description of each
    /// change to `changes`.
    fn restore(&mut self, changes: &mut Vec<ProcessChange>) {
        self.dispositions.restore(changes);
        self.descriptors.restore(changes);
        if let Some(directory) = &self.directory
            && env::current_dir().ok().as_ref() != Some(directory)
        {
            let result = env::set_current_dir(directory);
            changes.push(ProcessChange::restored("the working directory", result));
        }
        if let Some(before) = self.umask
            && current_umask().is_some_and(|now| now != before)
        {
            umask(before);
            changes.push(ProcessChange::restored("the umask", Ok::<_, io::Error>(())));
        }
        for (limit, before) in &self.limits {
            // `None` means unlimited.
            let is_less = |now: Option<u64>, before: Option<u64>| {
                now.is_some_and(|now| before.is_none_or(|before| now < before))
            };
            // Only a lower limit is restored, because a higher limit does no harm.
            if is_less(getrlimit(*limit).current, before.current) {
                let setting = format!("the limit {limit:?}");
                changes.push(ProcessChange::restored(setting, setrlimit(*limit, *before)));
            }
        }
        let now = decimal_sign();
        if now != self.decimal_sign {
            // The locale is not restored, because the plugin may depend on the locale and the host does not. The new
            // value is stored, so that each change is reported once.
            changes.push(ProcessChange {
                setting: "the locale of numbers in C code".to_owned(),
                reaction: "left as it is".to_owned(),
            });
            self.decimal_sign = now;
        }
    }
}

/// Returns the umask, or `None` if the umask cannot be read. Reads `/proc`, because umask(2) returns the umask only
/// while it sets another.
fn current_umask() -> Option<Mode> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    Some(Mode::from_raw_mode(
        u32::from_str_radix(mask.trim(), 8).ok()?,
    ))
}

/// The limits whose reduction would harm other apps or the host.
const LIMITS: [Resource; 8] = [
    Resource::As,
    Resource::Core,
    Resource::Cpu,
    Resource::Data,
    Resource::Fsize,
    Resource::Nofile,
    Resource::Nproc,
    Resource::Stack,
];
