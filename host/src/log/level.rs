//! The level in force while the host runs: who may change it, for how long, and what the log says
//! of it.
//!
//! One task owns the level and is driven by messages, so that changes come one after the other. It
//! changes the [`Filter`], which tells every generation.

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

/// Where changes of the level are sent. A clone leads to the same level.
#[derive(Clone, Debug)]
pub struct Levels(mpsc::Sender<Message>);

/// What is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The directives.
    pub directives: Directives,
    /// Until when, and what is in force then; none when they stay.
    pub until: Option<(SystemTime, Directives)>,
}

/// What came of a change.
#[derive(Clone, Debug)]
pub struct Changed {
    /// What was in force before.
    pub was: Directives,
    /// What is in force by this change, until another one.
    pub is: State,
    /// Whose libraries did not confirm in time that they log by it.
    pub unconfirmed: Vec<String>,
}

/// A change that is wanted.
#[derive(Clone, Debug)]
pub struct SetLevel {
    /// What is to be in force.
    pub directives: Directives,
    /// After how long what was in force for good is to be in force again; none to stay.
    pub lasts: Option<Duration>,
    /// Who wants it, for the log.
    pub by: &'static str,
}

enum Message {
    Set(SetLevel, oneshot::Sender<Changed>),
    Show(oneshot::Sender<State>),
}

impl Levels {
    /// Starts the task that changes `filter`. It ends when the last handle is dropped.
    #[must_use]
    pub fn start(filter: Filter) -> Self {
        let (sender, messages) = mpsc::channel(16);
        let keeper = Keeper {
            lasting: Directives::clone(&filter.directives()),
            reverts: None,
            asks_again: None,
            filter,
        };
        tokio::spawn(keeper.run(messages));
        Self(sender)
    }

    /// What is in force. None after the runtime has shut down.
    pub async fn state(&self) -> Option<State> {
        let (sender, state) = oneshot::channel();
        self.0.send(Message::Show(sender)).await.ok()?;
        state.await.ok()
    }

    /// Changes what is in force, in the host and every generation, before it returns. None as in
    /// [`state`](Self::state).
    pub async fn set(&self, change: SetLevel) -> Option<Changed> {
        let (sender, changed) = oneshot::channel();
        self.0.send(Message::Set(change, sender)).await.ok()?;
        changed.await.ok()
    }
}

/// Owns the level.
struct Keeper {
    filter: Filter,
    /// What is in force for good.
    lasting: Directives,
    /// When it is in force again, while something else is.
    reverts: Option<(Instant, SystemTime)>,
    /// When callsites are asked about once more after a change.
    asks_again: Option<Instant>,
}

impl Keeper {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(Message::Show(sender)) => {
                        // Whoever asked may be gone.
                        let _ = sender.send(self.state());
                    }
                    Some(Message::Set(change, sender)) => {
                        let _ = sender.send(self.set(change).await);
                    }
                    None => return,
                },
                () = at(self.reverts.map(|(deadline, _)| deadline)) => {
                    self.reverts = None;
                    self.change(self.lasting.clone(), "the end of its time", None).await;
                }
                () = at(self.asks_again) => {
                    self.asks_again = None;
                    self.filter.ask_again();
                }
            }
        }
    }

    fn state(&self) -> State {
        State {
            directives: Directives::clone(&self.filter.directives()),
            until: self.reverts.map(|(_, time)| (time, self.lasting.clone())),
        }
    }

    async fn set(&mut self, change: SetLevel) -> Changed {
        let SetLevel {
            directives,
            lasts,
            by,
        } = change;
        let was = Directives::clone(&self.filter.directives());
        self.reverts = lasts.map(|lasts| (Instant::now() + lasts, SystemTime::now() + lasts));
        if lasts.is_none() {
            self.lasting.clone_from(&directives);
        }
        let unconfirmed = self.change(directives, by, lasts).await;
        Changed {
            was,
            is: self.state(),
            unconfirmed,
        }
    }

    /// Changes the filter, and says so at a level that passed before: whoever reads the log must
    /// see why it changes. After `off` it is said at a level that passes now. Whose libraries did not
    /// confirm it in time.
    async fn change(&mut self, is: Directives, by: &str, lasts: Option<Duration>) -> Vec<String> {
        let was = self.filter.directives();
        let change = Change {
            was: &was,
            is: &is.clone(),
            by,
            lasts,
        };
        let before = was.level(None, TARGET);
        change.log(before);
        let unconfirmed = self.filter.set(is).await;
        if before == Level::Off {
            change.log(change.is.level(None, TARGET));
        }
        warn_unconfirmed(&unconfirmed);
        self.asks_again = Some(Instant::now() + REGISTRATION);
        unconfirmed
    }
}

/// Logs which libraries did not confirm a change in time, if there are any.
pub fn warn_unconfirmed(libraries: &[String]) {
    if !libraries.is_empty() {
        warn!(
            libraries = libraries.join(","),
            "Did not confirm the log level in time: a thread in the library may hold the lock of its tracing"
        );
    }
}

/// Returns at the deadline, or never.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => pending().await,
    }
}

/// What the log says of a change.
struct Change<'a> {
    was: &'a Directives,
    is: &'a Directives,
    by: &'a str,
    lasts: Option<Duration>,
}

impl Change<'_> {
    fn log(&self, level: Level) {
        let Self { was, is, by, lasts } = self;
        let lasts = lasts.map(|lasts| humantime::format_duration(lasts).to_string());
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

/// How long the registration of a callsite takes at most, on a thread that has to wait for a
/// processor.
const REGISTRATION: Duration = Duration::from_secs(1);
