//! Changes the log level while the host runs, permanently or for a limited time.
//!
//! One task owns the level and handles messages, so that changes are made one after the other. The task changes the
//! [`Filter`], and the filter notifies every generation.

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

/// A handle to the task that owns the level. Clones are handles to the same task.
#[derive(Clone, Debug)]
pub struct LevelHandle(mpsc::Sender<LevelRequest>);

/// The level in force.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelState {
    /// The directives in force.
    pub directives: Directives,
    /// When the directives end, and the directives that replace them. `None` if the directives are permanent.
    pub until: Option<(SystemTime, Directives)>,
}

/// The result of a change of the level.
#[derive(Clone, Debug)]
pub struct LevelChange {
    /// The directives before the change.
    pub before: Directives,
    /// The level after the change.
    pub now: LevelState,
    /// The names of the libraries that did not confirm the new level in time.
    pub unconfirmed: Vec<String>,
}

/// A requested change of the level.
#[derive(Clone, Debug)]
pub struct SetLevel {
    /// The new directives.
    pub directives: Directives,
    /// How long the change lasts. Afterwards the last permanent directives are restored. `None` means that the change
    /// is permanent.
    pub duration: Option<Duration>,
    /// The cause of the change for the log line, such as "ctl".
    pub changed_by: &'static str,
}

/// A message to the task that owns the level. The task sends the answer to the sender in the message.
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

    /// Returns the level in force. Returns `None` after the runtime has shut down.
    pub async fn state(&self) -> Option<LevelState> {
        let (sender, state) = oneshot::channel();
        self.0.send(LevelRequest::Show(sender)).await.ok()?;
        state.await.ok()
    }

    /// Changes the level in the host and in every generation. Returns the result after the change. Returns `None` after
    /// the runtime has shut down.
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
    /// When `permanent` is restored: the deadline of the task, and the same moment for operators. `None` while
    /// `permanent` is in force.
    revert_at: Option<(Instant, SystemTime)>,
    /// When the filter decides again for every callsite, some time after a change. See [`Filter::recheck_callsites`].
    recheck_at: Option<Instant>,
}

impl LevelOwner {
    /// Handles messages and deadlines until the last handle is dropped.
    async fn run(mut self, mut messages: mpsc::Receiver<LevelRequest>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(LevelRequest::Show(sender)) => {
                        // Fails if the caller no longer waits for the answer.
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

    /// Returns the level in force.
    fn state(&self) -> LevelState {
        LevelState {
            directives: Directives::clone(&self.filter.directives()),
            until: self
                .revert_at
                .map(|(_, time)| (time, self.permanent.clone())),
        }
    }

    /// Applies a requested change.
    async fn set(&mut self, change: SetLevel) -> LevelChange {
        let SetLevel {
            directives,
            duration,
            changed_by,
        } = change;
        let before = Directives::clone(&self.filter.directives());
        // Also cancels the end of an earlier temporary change.
        self.revert_at = duration.map(|time| (Instant::now() + time, SystemTime::now() + time));
        if duration.is_none() {
            self.permanent.clone_from(&directives);
        }
        let unconfirmed = self.change(directives, changed_by, duration).await;
        LevelChange {
            before,
            now: self.state(),
            unconfirmed,
        }
    }

    /// Changes the filter and logs the change. Returns the names of the libraries that did not confirm in time.
    ///
    /// The line about the change is logged before the change, at a level that the old directives enable. A reader of
    /// the log then sees why other lines begin or stop. If the old level is `off`, the line is logged after the change.
    async fn change(
        &mut self,
        new: Directives,
        changed_by: &str,
        duration: Option<Duration>,
    ) -> Vec<String> {
        let old = self.filter.directives();
        let message = ChangeMessage {
            old: &old,
            new: &new.clone(),
            changed_by,
            duration,
        };
        let old_level = old.level(None, TARGET);
        message.log(old_level);
        let unconfirmed = self.filter.set(new).await;
        if old_level == Level::Off {
            message.log(message.new.level(None, TARGET));
        }
        warn_unconfirmed(&unconfirmed);
        self.recheck_at = Some(Instant::now() + RECHECK_DELAY);
        unconfirmed
    }
}

/// Logs a warning with the names of the libraries that did not confirm a change in time. Logs nothing if `libraries` is
/// empty.
pub fn warn_unconfirmed(libraries: &[String]) {
    if !libraries.is_empty() {
        warn!(
            libraries = libraries.join(","),
            "Did not confirm the log level in time: a thread in the library may hold the lock of its tracing"
        );
    }
}

/// Waits until the deadline. Waits for ever if `deadline` is `None`.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => pending().await,
    }
}

/// The log line about a change.
struct ChangeMessage<'a> {
    old: &'a Directives,
    new: &'a Directives,
    changed_by: &'a str,
    duration: Option<Duration>,
}

impl ChangeMessage<'_> {
    /// Logs the line at `level`, or at info if `level` is more verbose. Does nothing if `level` is off.
    fn log(&self, level: Level) {
        // The names of these variables are the names of the fields in the line.
        let Self {
            old: was,
            new: is,
            changed_by: by,
            duration,
        } = self;
        let lasts = duration.map(|duration| humantime::format_duration(duration).to_string());
        // A macro, because each level needs a callsite of its own.
        macro_rules! log_change {
            ($log:ident) => {
                $log!(target: TARGET, %was, %is, by, lasts, "Log level changed")
            };
        }
        match level {
            Level::Off => {}
            Level::Critical => log_change!(critical),
            Level::Error => log_change!(error),
            Level::Warn => log_change!(warn),
            Level::Info | Level::Debug | Level::Trace => log_change!(info),
        }
    }
}

/// The target of the line about a change. The level in force for this target decides how the line is logged.
const TARGET: &str = module_path!();

/// How long after a change the callsites are checked again. By then every registration that began before the change has
/// ended, even on a thread that waited for a processor. See
/// [`Filter::recheck_callsites`].
const RECHECK_DELAY: Duration = Duration::from_secs(1);
