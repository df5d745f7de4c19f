//! Reports lines that could not be written: one report when the losses begin, and the number of lost lines when
//! they are over, or when the server stops.
//!
//! A report about the access log is a line of the log. A report about the log itself is a line of the log as
//! soon as that can be written again. When the losses begin, and at the stop, it goes to stderr, unless the
//! log is a stream itself.

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

/// Watches the outputs of the process and reports their losses. Clones share one list of outputs.
#[derive(Clone, Debug)]
pub struct LossMonitor(Arc<Mutex<MonitorState>>);

#[derive(Debug)]
struct MonitorState {
    filter: Filter,
    log: Output,
    /// The output of reports about the log while the log cannot be written. None when the log is a stream.
    stderr: Option<Output>,
    /// Whether the current losses of the log were reported.
    is_reported: bool,
    others: Vec<MonitoredOutput>,
}

/// An output other than the log.
#[derive(Debug)]
struct MonitoredOutput {
    /// The name of its lines in reports, such as "access log".
    which: &'static str,
    output: Output,
    /// Whether the current losses of the output were reported.
    is_reported: bool,
}

impl LossMonitor {
    /// Returns a monitor that watches the log. `filter` tells at which level a report passes.
    #[must_use]
    pub fn new(log: Output, filter: Filter) -> Self {
        let stderr = if log.is_stream() {
            None
        } else {
            Output::stderr().ok()
        };
        Self(Arc::new(Mutex::new(MonitorState {
            filter,
            log,
            stderr,
            is_reported: false,
            others: Vec::new(),
        })))
    }

    /// Also watches the access log.
    pub fn watch_access(&self, access: Output) {
        self.watch("access log", access);
    }

    /// Also watches another output, whose lines are called `which` in reports. If it is the same pipe as another
    /// watched output, both protect long lines from then on.
    pub fn watch(&self, which: &'static str, output: Output) {
        let mut watched = self.lock();
        let others = watched.others.iter().map(|other| &other.output);
        for known in others.chain([&watched.log]) {
            if output.is_same_file(known) {
                output.share();
                known.share();
            }
        }
        watched.others.push(MonitoredOutput {
            which,
            output,
            is_reported: false,
        });
    }

    /// Writes lines that wait as soon as there is room, and reports losses. Runs until it is dropped, and costs
    /// nothing while all lines can be written.
    pub async fn run(self) {
        loop {
            output::attention_needed().await;
            // The first check comes after a short pause, because the reader is usually only slow. The pauses
            // get longer, because a reader that has taken nothing for a while may never do so.
            let mut pause = FIRST_PAUSE;
            time::sleep(pause).await;
            while self.lock().check(false) {
                time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Reports all losses for the last time. If `waits` is true, each reader first has one second to take lines
    /// that wait.
    pub fn finish(&self, waits: bool) {
        let mut watched = self.lock();
        if waits {
            watched.log.finish();
            watched
                .others
                .iter()
                .for_each(|other| other.output.finish());
        }
        watched.check(true);
    }

    fn lock(&self) -> MutexGuard<'_, MonitorState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MonitorState {
    /// Writes lines that wait, and reports losses. `last` says that this is the last check, which reports all
    /// losses. Returns whether another check is needed soon.
    fn check(&mut self, last: bool) -> bool {
        let level = self.level();
        let mut again = false;
        for other in &mut self.others {
            again |= other.check(level, last);
        }
        // The log comes last, because reports about the other outputs are lines of the log.
        again | self.check_log(last)
    }

    /// Checks the log itself. The report of its losses is a line of the log, so that it is written only when the
    /// log has room again: then, and at the last check, the number of lost lines is reported. Until then the
    /// other output gets one report that lines are being lost.
    fn check_log(&mut self, last: bool) -> bool {
        let state = self.log.settle();
        if state.lost == 0 {
            self.is_reported = false;
            return !state.is_flushed;
        }
        let level = self.level();
        let (file, lines) = (self.log.name(), state.lost);
        let ended = LossEnded {
            which: "log",
            file,
            lines,
        };
        let other = self.stderr.as_ref();
        let is_written = with_fallback(other.filter(|_| last), || log_report(level, &ended));
        // At the level off nothing is reported, and the losses count as reported.
        if is_written || level == Level::Off {
            self.log.mark_reported(lines);
            self.is_reported = false;
        } else if !std::mem::replace(&mut self.is_reported, true) {
            let error = self.log.failure();
            with_fallback(other, || {
                log_report(
                    level,
                    &LossBegan {
                        which: "log",
                        file,
                        error,
                    },
                )
            });
        }
        true
    }

    /// Returns the level in force for reports.
    fn level(&self) -> Level {
        self.filter.directives().level(None, module_path!())
    }
}

impl MonitoredOutput {
    /// Checks the output. Returns whether another check is needed soon.
    fn check(&mut self, level: Level, last: bool) -> bool {
        let (which, file) = (self.which, self.output.name());
        let state = self.output.settle();
        if state.lost == 0 {
            self.is_reported = false;
            return !state.is_flushed;
        }
        if !std::mem::replace(&mut self.is_reported, true) && !last {
            let error = self.output.failure();
            log_report(level, &LossBegan { which, file, error });
        }
        // Not before the losses are over, because the number still grows.
        if last || state.has_recovered {
            let lines = state.lost;
            log_report(level, &LossEnded { which, file, lines });
            self.output.mark_reported(lines);
            self.is_reported = false;
        }
        true
    }
}

/// The report that lines are being lost.
struct LossBegan<'a> {
    which: &'a str,
    file: &'a str,
    error: Option<String>,
}

/// The report of how many lines were lost.
struct LossEnded<'a> {
    which: &'a str,
    file: &'a str,
    lines: u64,
}

/// A report that can be logged at several levels. The level of a `tracing` event is a constant, so that each
/// level needs a callsite of its own.
trait LossReport {
    fn warn(&self);
    fn error(&self);
    fn critical(&self);
}

macro_rules! loss_report {
    ($type:ident, $self:ident, $($line:tt)*) => {
        impl LossReport for $type<'_> {
            fn warn(&self) {
                let $self = self;
                warn!($($line)*);
            }

            fn error(&self) {
                let $self = self;
                error!($($line)*);
            }

            fn critical(&self) {
                let $self = self;
                critical!($($line)*);
            }
        }
    };
}

loss_report!(
    LossBegan,
    report,
    file = report.file,
    error = report.error,
    "Lines of the {} cannot be written, and are lost until they can be",
    report.which
);
loss_report!(
    LossEnded,
    report,
    file = report.file,
    lines = report.lines,
    "Lines of the {} could not be written, and are lost",
    report.which
);

/// Logs a report as a warning, or at the level in force if that does not let warnings pass.
fn log_report(level: Level, report: &impl LossReport) {
    match level {
        Level::Off => {}
        Level::Critical => report.critical(),
        Level::Error => report.error(),
        Level::Warn | Level::Info | Level::Debug | Level::Trace => report.warn(),
    }
}

/// Runs `log`, which logs one line. The line is written to the log if that has room, and otherwise to `fallback`.
/// Returns whether the line was written.
///
/// The line goes through `tracing` to [`write`] on this thread. A thread-local tells `write` where the line
/// may go, and takes the result back.
fn with_fallback(fallback: Option<&Output>, log: impl FnOnce()) -> bool {
    let report = ReportRoute {
        fallback: fallback.cloned(),
        is_written: false,
    };
    // Two thread-locals: every line of every thread reads the flag, which costs less than the route.
    REPORT.set(Some(report));
    IS_REPORT.set(true);
    log();
    IS_REPORT.set(false);
    REPORT.take().is_some_and(|report| report.is_written)
}

/// The outputs that a report may go to, and the result.
struct ReportRoute {
    fallback: Option<Output>,
    is_written: bool,
}

thread_local! {
    /// Whether this thread logs a report. Has no destructor, so that it can be read while a thread ends.
    static IS_REPORT: Cell<bool> = const { Cell::new(false) };
    /// The route of that report.
    static REPORT: RefCell<Option<ReportRoute>> = const { RefCell::new(None) };
}

/// Writes a line of the log to `output`. If the line is a report, it goes to the fallback of the report when
/// `output` has no room, and does not count as lost.
pub(super) fn write(output: &Output, line: &[u8]) {
    if !IS_REPORT.get() {
        return output.write(line);
    }
    REPORT.with_borrow_mut(|report| {
        if let Some(report) = report {
            let fallback = |fallback: &Output| fallback.try_write(line);
            report.is_written =
                output.try_write(line) || report.fallback.as_ref().is_some_and(fallback);
        }
    });
}

/// The pause between the first sign of trouble and the first check.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two checks.
const LAST_PAUSE: Duration = Duration::from_secs(1);
