//! Guards settings of the whole process against plugins: compares them before and after the start of an app,
//! restores what an app changed, and logs which plugin it was.
//!
//! Signal handlers decide how the server stops. The working directory, the umask and the limits belong to the
//! operator. The first three descriptors are where the log goes. A library that changes them changes them for
//! all apps. The usual cause is code that was right in a program of its own, such as a crate that catches Ctrl-C
//! or a logger that redirects stderr.
//!
//! The environment is not guarded, because reading it while another library sets a variable is a data race. The
//! host reads its own variables once at its start. Changes after the start of an app are not noticed.

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

/// Guards the start of an app until dropped. Must live on the thread that runs the start.
#[derive(Debug)]
#[must_use]
pub struct StartWatch {
    app: String,
    /// The signal mask of the thread, which takes other work after the start.
    mask: Option<SignalMask>,
}

/// Begins to guard the start of the app `app`.
pub fn watch(app: &str) -> StartWatch {
    let mut starts = starts();
    if starts.apps.is_empty() {
        // With several starts at the same time, the settings before the first one count.
        starts.before = Some(ProcessState::now());
    }
    *starts.apps.entry(app.to_owned()).or_default() += 1;
    StartWatch {
        app: app.to_owned(),
        mask: SignalMask::of_this_thread(),
    }
}

impl Drop for StartWatch {
    fn drop(&mut self) {
        if let Some(mask) = &self.mask {
            mask.restore();
        }
        let mut starts = starts();
        let apps: Vec<_> = starts.apps.keys().cloned().collect();
        let mut changes = Vec::new();
        if let Some(before) = &mut starts.before {
            before.restore(&mut changes);
        }
        if let Some(count) = starts.apps.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                starts.apps.remove(&self.app);
            }
        }
        if starts.apps.is_empty() {
            starts.before = None;
        }
        drop(starts);
        for ProcessChange { what, done } in changes {
            warn!(
                // With several starts at the same time, any of them may be the cause.
                plugin = apps.join(" or "),
                what, done, "A plugin changed what belongs to the whole process"
            );
        }
    }
}

/// The starts under way, and the settings of the process before the first of them.
struct Starts {
    apps: BTreeMap<String, usize>,
    before: Option<ProcessState>,
}

static STARTS: Mutex<Starts> = Mutex::new(Starts {
    apps: BTreeMap::new(),
    before: None,
});

fn starts() -> MutexGuard<'static, Starts> {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A setting that a plugin changed.
struct ProcessChange {
    what: String,
    /// The host's reaction.
    done: String,
}

impl ProcessChange {
    fn restore(what: impl Into<String>, result: Result<(), impl Display>) -> Self {
        Self {
            what: what.into(),
            done: match result {
                Ok(()) => "put back".to_owned(),
                Err(error) => format!("cannot be put back: {error}"),
            },
        }
    }
}

/// The settings of the whole process at one moment.
struct ProcessState {
    directory: Option<PathBuf>,
    umask: Option<Mode>,
    limits: Vec<(Resource, Rlimit)>,
    decimal_sign: Option<char>,
    descriptors: Descriptors,
    dispositions: Dispositions,
}

impl ProcessState {
    fn now() -> Self {
        Self {
            directory: env::current_dir().ok(),
            umask: current_umask(),
            limits: LIMITS.map(|limit| (limit, getrlimit(limit))).into(),
            decimal_sign: decimal_sign(),
            descriptors: Descriptors::now(),
            dispositions: Dispositions::now(),
        }
    }

    /// Restores the settings that have changed.
    fn restore(&mut self, changes: &mut Vec<ProcessChange>) {
        self.dispositions.restore(changes);
        self.descriptors.restore(changes);
        if let Some(directory) = &self.directory
            && env::current_dir().ok().as_ref() != Some(directory)
        {
            let result = env::set_current_dir(directory);
            changes.push(ProcessChange::restore("the working directory", result));
        }
        if let Some(before) = self.umask
            && current_umask().is_some_and(|now| now != before)
        {
            umask(before);
            changes.push(ProcessChange::restore("the umask", Ok::<_, io::Error>(())));
        }
        for (limit, before) in &self.limits {
            let is_less = |now: Option<u64>, before: Option<u64>| {
                now.is_some_and(|now| before.is_none_or(|before| now < before))
            };
            // A higher limit does no harm.
            if is_less(getrlimit(*limit).current, before.current) {
                let what = format!("the limit {limit:?}");
                changes.push(ProcessChange::restore(what, setrlimit(*limit, *before)));
            }
        }
        let now = decimal_sign();
        if now != self.decimal_sign {
            // The plugin may depend on the locale, and the host does not.
            changes.push(ProcessChange {
                what: "the locale of numbers in C code".to_owned(),
                done: "left as it is".to_owned(),
            });
            self.decimal_sign = now;
        }
    }
}

/// Returns the umask. Read from `/proc`, because umask(2) can only be asked by setting another one.
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
