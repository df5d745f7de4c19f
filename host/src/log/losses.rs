//! What the log says of lines that could not be written: once when that begins, and how many they
//! were when it is over, or at the stop.
//!
//! A line about the access log goes to the log. A line about the log goes to the log when that can be
//! written again; while it cannot be, and at the stop, it goes to stderr, unless the log is a stream
//! itself.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use plugin_api::{Level, critical};
use tokio::time;
use tracing::{error, warn};

use super::{
    filter::Filter,
    output::{self, Output},
};

/// Watches the outputs of the process. A clone watches the same ones.
#[derive(Clone, Debug)]
pub struct Losses(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    filter: Filter,
    log: Output,
    /// Where lines about the log go when it cannot be written.
    stderr: Option<Output>,
    /// Whether somebody was told that lines of the log are being lost.
    is_told: bool,
    others: Vec<Other>,
}

/// An output that is not the log.
#[derive(Debug)]
struct Other {
    /// What its lines are of.
    which: &'static str,
    output: Output,
    /// Whether the log was told that lines are being lost.
    is_told: bool,
}

impl Losses {
    /// Watches `log`, whose level `filter` has.
    #[must_use]
    pub fn new(log: Output, filter: Filter) -> Self {
        let stderr = if log.is_stream() {
            None
        } else {
            Output::stderr().ok()
        };
        Self(Arc::new(Mutex::new(Watched {
            filter,
            log,
            stderr,
            is_told: false,
            others: Vec::new(),
        })))
    }

    /// Watches the access log as well.
    pub fn watch_access(&self, access: Output) {
        self.watch("access log", access);
    }

    /// Watches another output, whose lines are of `which`.
    pub fn watch(&self, which: &'static str, output: Output) {
        let mut watched = self.lock();
        let others = watched.others.iter().map(|other| &other.output);
        for known in others.chain([&watched.log]) {
            if output.is_same_file(known) {
                output.share();
                known.share();
            }
        }
        watched.others.push(Other {
            which,
            output,
            is_told: false,
        });
    }

    /// Writes what waits to be written when there is room again, and tells of losses, until it is
    /// dropped. Costs nothing while all lines can be written.
    pub async fn run(self) {
        loop {
            output::trouble().await;
            let mut pause = FIRST_PAUSE;
            // Not at once: the reader may be about to take something.
            time::sleep(pause).await;
            while self.lock().look(false) {
                time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Tells of all that is lost, after each reader had a last second to take what waits to be
    /// written, if it `waits` for that.
    pub fn finish(&self, waits: bool) {
        let mut watched = self.lock();
        if waits {
            watched.log.finish();
            watched
                .others
                .iter()
                .for_each(|other| other.output.finish());
        }
        watched.look(true);
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// Looks after all outputs, and tells what is to be told; all of it, where this is the `last`
    /// time. Whether another look is needed soon.
    fn look(&mut self, last: bool) -> bool {
        let level = self.level();
        let mut again = false;
        for other in &mut self.others {
            again |= other.look(level, last);
        }
        // Behind the others: what is told of them is in it.
        again | self.look_at_log(last)
    }

    fn look_at_log(&mut self, last: bool) -> bool {
        let state = self.log.settle();
        if state.lost == 0 {
            self.is_told = false;
            return !state.is_clear;
        }
        let level = self.level();
        let (file, lines) = (self.log.name(), state.lost);
        let ended = Ended {
            which: "log",
            file,
            lines,
        };
        let other = self.stderr.as_ref();
        let is_written = report(other.filter(|_| last), || tell(level, &ended));
        // At the level off nobody is told anything.
        if is_written || level == Level::Off {
            self.log.told(lines);
            self.is_told = false;
        } else if !std::mem::replace(&mut self.is_told, true) {
            let error = self.log.failure();
            report(other, || {
                tell(
                    level,
                    &Began {
                        which: "log",
                        file,
                        error,
                    },
                )
            });
        }
        true
    }

    /// The level in force for what is told.
    fn level(&self) -> Level {
        self.filter.directives().level(None, module_path!())
    }
}

impl Other {
    fn look(&mut self, level: Level, last: bool) -> bool {
        let (which, file) = (self.which, self.output.name());
        let state = self.output.settle();
        if state.lost == 0 {
            self.is_told = false;
            return !state.is_clear;
        }
        if !std::mem::replace(&mut self.is_told, true) && !last {
            let error = self.output.failure();
            tell(level, &Began { which, file, error });
        }
        if last || state.is_over {
            let lines = state.lost;
            tell(level, &Ended { which, file, lines });
            self.output.told(lines);
            self.is_told = false;
        }
        true
    }
}

/// Lines are being lost.
struct Began<'a> {
    which: &'a str,
    file: &'a str,
    error: Option<String>,
}

/// So many lines were lost.
struct Ended<'a> {
    which: &'a str,
    file: &'a str,
    lines: u64,
}

trait Told {
    fn warn(&self);
    fn error(&self);
    fn critical(&self);
}

macro_rules! told {
    ($type:ident, $self:ident, $($said:tt)*) => {
        impl Told for $type<'_> {
            fn warn(&self) {
                let $self = self;
                warn!($($said)*);
            }

            fn error(&self) {
                let $self = self;
                error!($($said)*);
            }

            fn critical(&self) {
                let $self = self;
                critical!($($said)*);
            }
        }
    };
}

told!(
    Began,
    it,
    file = it.file,
    error = it.error,
    "Lines of the {} cannot be written, and are lost until they can be",
    it.which
);
told!(
    Ended,
    it,
    file = it.file,
    lines = it.lines,
    "Lines of the {} could not be written, and are lost",
    it.which
);

/// Logs it as a warning or, where warnings do not pass, at the level that does.
fn tell(level: Level, told: &impl Told) {
    match level {
        Level::Off => {}
        Level::Critical => told.critical(),
        Level::Error => told.error(),
        Level::Warn | Level::Info | Level::Debug | Level::Trace => told.warn(),
    }
}

/// Runs `tell`, whose line is written to the log if there is room, else to `other`. Whether it was
/// written.
fn report(other: Option<&Output>, tell: impl FnOnce()) -> bool {
    let report = Report {
        other: other.cloned(),
        is_written: false,
    };
    REPORT.set(Some(report));
    IS_REPORT.set(true);
    tell();
    IS_REPORT.set(false);
    REPORT.take().is_some_and(|report| report.is_written)
}

struct Report {
    other: Option<Output>,
    is_written: bool,
}

thread_local! {
    /// Has no destructor, so that it can be read while a thread ends.
    static IS_REPORT: Cell<bool> = const { Cell::new(false) };
    static REPORT: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Writes a line of the log to `output`; a line of a report also elsewhere, if need be, and without
/// counting it when it is lost.
pub(super) fn write(output: &Output, line: &[u8]) {
    if !IS_REPORT.get() {
        return output.write(line);
    }
    REPORT.with_borrow_mut(|report| {
        if let Some(report) = report {
            let other = |other: &Output| other.try_write(line);
            report.is_written = output.try_write(line) || report.other.as_ref().is_some_and(other);
        }
    });
}

/// How long a reader has before it is looked after for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How long the pause between two looks becomes.
const LAST_PAUSE: Duration = Duration::from_secs(1);
