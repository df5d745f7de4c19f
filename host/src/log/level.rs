//! The level in force while the host runs: who may change it, for how long, and what the log says
//! of it.
//!
//! One task owns the level and is driven by messages, so that changes come one after the other. It
//! changes the [`Filter`], which tells every generation.

use std::time::{Duration, SystemTime};

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
    Set(SetLevel, oneshot::Sender<Directives>),
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
            filter,
        };
        tokio::spawn(keeper.run(messages));
        Self(sender)
    }

    /// What is in force. None when the host is past the end of its runtime.
    pub async fn state(&self) -> Option<State> {
        let (sender, state) = oneshot::channel();
        self.0.send(Message::Show(sender)).await.ok()?;
        state.await.ok()
    }

    /// Changes what is in force, in the host and every generation, before it returns. The result is
    /// what was in force before; none as in [`state`](Self::state).
    pub async fn set(&self, change: SetLevel) -> Option<Directives> {
        let (sender, was) = oneshot::channel();
        self.0.send(Message::Set(change, sender)).await.ok()?;
        was.await.ok()
    }
}

/// Owns the level.
struct Keeper {
    filter: Filter,
    /// What is in force for good.
    lasting: Directives,
    /// When it is in force again, while something else is.
    reverts: Option<(Instant, SystemTime)>,
}

impl Keeper {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            let message = match self.reverts {
                Some((deadline, _)) => time::timeout_at(deadline, messages.recv()).await,
                None => Ok(messages.recv().await),
            };
            match message {
                Ok(Some(Message::Show(sender))) => {
                    // Who asked may be gone.
                    let _ = sender.send(self.state());
                }
                Ok(Some(Message::Set(change, sender))) => {
                    let was = Directives::clone(&self.filter.directives());
                    self.set(change);
                    let _ = sender.send(was);
                }
                Ok(None) => return,
                Err(_) => {
                    self.reverts = None;
                    self.change(self.lasting.clone(), "the end of its time", None);
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

    fn set(&mut self, change: SetLevel) {
        let SetLevel {
            directives,
            lasts,
            by,
        } = change;
        self.reverts = lasts.map(|lasts| (Instant::now() + lasts, SystemTime::now() + lasts));
        if lasts.is_none() {
            self.lasting.clone_from(&directives);
        }
        self.change(directives, by, lasts);
    }

    /// Changes the filter, and says so at a level that passed before: whoever reads the log must
    /// see why it changes. After `off` it is said at a level that passes now.
    fn change(&self, is: Directives, by: &str, lasts: Option<Duration>) {
        let was = self.filter.directives();
        let change = Change {
            was: &was,
            is: &is.clone(),
            by,
            lasts,
        };
        match was.level(None, TARGET) {
            Level::Off => {
                self.filter.set(is);
                change.log(change.is.level(None, TARGET));
            }
            level => {
                change.log(level);
                self.filter.set(is);
            }
        }
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
