//! Changes of the level while the host runs, for a time or for good.
//!
//! One task owns the level and is driven by messages, so that changes come one after the other. The task
//! changes the [`Filter`], and the filter tells every generation.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use plugin_api::{Level, critical, level::Directives};
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tracing::{error, info, warn};

use super::filter::Filter;

/// A handle to the task that owns the level. Clones lead to the same task.
#[derive(Clone, Debug)]
pub struct LevelHandle(mpsc::Sender<LevelRequest>);

/// The level in force.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelState {
    /// The directives in force.
    pub directives: Directives,
    /// When they end, and the directives that follow them. None when they are permanent.
    pub until: Option<(SystemTime, Directives)>,
}

/// The result of a change.
#[derive(Clone, Debug)]
pub struct LevelChange {
    /// The directives before the change.
    pub before: Directives,
    /// The level after the change.
    pub now: LevelState,
    /// The names of libraries that did not confirm in time that they log by the new level.
    pub unconfirmed: Vec<String>,
}

/// A wanted change of the level.
#[derive(Clone, Debug)]
pub struct SetLevel {
    /// The new directives.
    pub directives: Directives,
    /// How long the change lasts. Then the last permanent directives are restored. None makes the change
    /// permanent.
    pub duration: Option<Duration>,
    /// The author of the change, for the log.
    pub by: &'static str,
}

enum LevelRequest {
    Set(SetLevel, oneshot::Sender<LevelChange>),
    Show(oneshot::Sender<LevelState>),
}

impl LevelHandle {
    /// Starts the task, which changes `filter`. The task ends when the last handle is dropped.
    #[must_use]
    pub fn start(filter: Filter) -> Self {
        let (sender, messages) = mpsc::channel(16);
        let owner = LevelOwner {
            permanent: Directives::clone(&filter.directives()),
            revert_at: None,
            recheck_at: None,
            filter,
        };
        tokio::spawn(owner.run(messages));
        Self(sender)
    }

    /// Returns the level in force. None after the runtime has shut down.
    pub async fn state(&self) -> Option<LevelState> {
        let (sender, state) = oneshot::channel();
        self.0.send(LevelRequest::Show(sender)).await.ok()?;
        state.await.ok()
    }

    /// Changes the level in the host and in every generation, and returns after that. None after the runtime
    /// has shut down.
    pub async fn set(&self, change: SetLevel) -> Option<LevelChange> {
        let (sender, changed) = oneshot::channel();
        self.0.send(LevelRequest::Set(change, sender)).await.ok()?;
        changed.await.ok()
    }
}

/// The task that owns the level.
struct LevelOwner {
    filter: Filter,
    /// The last permanent directives.
    permanent: Directives,
    /// When `permanent` is restored. None while it is in force.
    revert_at: Option<(Instant, SystemTime)>,
    /// When the filter decides once more about each callsite, after a change.
    recheck_at: Option<Instant>,
}

impl LevelOwner {
    async fn run(mut self, mut messages: mpsc::Receiver<LevelRequest>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(LevelRequest::Show(sender)) => {
                        // Fails when the caller waits no longer.
                        let _ = sender.send(self.state());
                    }
                    Some(LevelRequest::Set(change, sender)) => {
                        let _ = sender.send(self.set(change).await);
                    }
                    None => return,
                },
                () = sleep_until(self.revert_at.map(|(deadline, _)| deadline)) => {
                    self.revert_at = None;
                    self.change(self.permanent.clone(), "the end of its time", None).await;
                }
                () = sleep_until(self.recheck_at) => {
                    self.recheck_at = None;
                    self.filter.recheck_callsites();
                }
            }
        }
    }

    fn state(&self) -> LevelState {
        LevelState {
            directives: Directives::clone(&self.filter.directives()),
            until: self
                .revert_at
                .map(|(_, time)| (time, self.permanent.clone())),
        }
    }

    async fn set(&mut self, change: SetLevel) -> LevelChange {
        let SetLevel {
            directives,
            duration,
            by,
        } = change;
        // A permanent change also ends a temporary one, whose time is then forgotten.
        let before = Directives::clone(&self.filter.directives());
        self.revert_at = duration.map(|time| (Instant::now() + time, SystemTime::now() + time));
        if duration.is_none() {
            self.permanent.clone_from(&directives);
        }
        let unconfirmed = self.change(directives, by, duration).await;
        LevelChange {
            before,
            now: self.state(),
            unconfirmed,
        }
    }

    /// Changes the filter and logs the change. Returns the names of libraries that did not confirm in time.
    ///
    /// The line is logged before the change, at a level that passes until then, so that a reader of the log
    /// sees why the lines change. After `off`, when no level passes, it is logged after the change.
    async fn change(
        &mut self,
        new: Directives,
        by: &str,
        duration: Option<Duration>,
    ) -> Vec<String> {
        let old = self.filter.directives();
        let message = ChangeMessage {
            old: &old,
            new: &new.clone(),
            by,
            duration,
        };
        let old_level = old.level(None, TARGET);
        message.log(old_level);
        let unconfirmed = self.filter.set(new).await;
        if old_level == Level::Off {
            message.log(message.new.level(None, TARGET));
        }
        warn_unconfirmed(&unconfirmed);
        self.recheck_at = Some(Instant::now() + MAX_REGISTRATION);
        unconfirmed
    }
}

/// Logs a warning with the names of libraries that did not confirm a change in time, if there are any.
pub fn warn_unconfirmed(libraries: &[String]) {
    if !libraries.is_empty() {
        warn!(
            libraries = libraries.join(","),
            "Did not confirm the log level in time: a thread in the library may hold the lock of its tracing"
        );
    }
}

/// Waits until the deadline. Without one, waits for ever.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The line of the log about a change.
struct ChangeMessage<'a> {
    old: &'a Directives,
    new: &'a Directives,
    by: &'a str,
    duration: Option<Duration>,
}

impl ChangeMessage<'_> {
    /// Logs the line at `level`. Does nothing when that is off.
    fn log(&self, level: Level) {
        let Self {
            old: was,
            new: is,
            by,
            duration,
        } = self;
        let lasts = duration.map(|lasts| humantime::format_duration(lasts).to_string());
        macro_rules! changed {
            ($log:ident) => {
                $log!(target: TARGET, %was, %is, by, lasts, "Log level changed")
            };
        }
        match level {
            Level::Off => {}
            Level::Critical => changed!(critical),
            Level::Error => changed!(error),
            Level::Warn => changed!(warn),
            Level::Info | Level::Debug | Level::Trace => changed!(info),
        }
    }
}

const TARGET: &str = module_path!();

/// How long the registration of a callsite takes at most, on a thread that has to wait for a processor. See
/// [`Filter::recheck_callsites`].
const MAX_REGISTRATION: Duration = Duration::from_secs(1);
