//! Reports lines that could not be written to an output. One report says that losses begin. A second report has the
//! number of lost lines. The second report is logged when lines can be written again, or when the server stops.
//!
//! A report about the access log is a line of the log. For losses of the log itself, the first report is written to
//! stderr, unless the log is a stream of the process. The second report is a line of the log, because the log can be
//! written again. If the log still cannot be written when the server stops, the second report is written to stderr,
//! too.

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

/// The state of a monitor, which its lock protects.
#[derive(Debug)]
struct MonitorState {
    /// The filter whose level for this module decides at which level reports are logged.
    filter: Filter,
    log: Output,
    /// The output for reports about the log while the log cannot be written. `None` if the log is a stream.
    stderr: Option<Output>,
    /// Whether the current losses of the log were reported.
    is_reported: bool,
    /// The other watched outputs, such as the access log.
    others: Vec<MonitoredOutput>,
}

/// A watched output other than the log.
#[derive(Debug)]
struct MonitoredOutput {
    /// The name of the output in reports, such as "access log".
    title: &'static str,
    output: Output,
    /// Whether the current losses of the output were reported.
    is_reported: bool,
}

impl LossMonitor {
    /// Returns a monitor that watches the log. The directives of `filter` decide at which level reports are logged.
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

    /// Also watches `output`, whose name in reports is `title`. If `output` is the same pipe as another watched output,
    /// both protect long lines from now on.
    pub fn watch(&self, title: &'static str, output: Output) {
        let mut watched = self.lock();
        let others = watched.others.iter().map(|other| &other.output);
        for other in others.chain([&watched.log]) {
            if output.is_same_file(other) {
                output.mark_shared();
                other.mark_shared();
            }
        }
        watched.others.push(MonitoredOutput {
            title,
            output,
            is_reported: false,
        });
    }

    /// Writes waiting lines as soon as an output has room, and reports losses. Runs until the future is dropped. Sleeps
    /// while all lines can be written.
    pub async fn run(self) {
        loop {
            output::attention_needed().await;
            // The first pause is short, because the reader is usually only slow. The pauses get longer, because a
            // reader that has read nothing for a while may never read again.
            let mut pause = FIRST_PAUSE;
            time::sleep(pause).await;
            while self.lock().check(false) {
                time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }

    /// Reports all losses for the last time. If `may_wait` is true, first waits for each reader, for up to a second
    /// without progress, and writes the waiting lines.
    pub fn finish(&self, may_wait: bool) {
        let mut watched = self.lock();
        if may_wait {
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
    /// Writes waiting lines, and reports losses. The last check (`is_last`) reports the losses of all outputs. Returns
    /// whether another check is needed soon.
    fn check(&mut self, is_last: bool) -> bool {
        let level = self.level();
        let mut needs_check = false;
        for other in &mut self.others {
            needs_check |= other.check(level, is_last);
        }
        // `|` does not skip the second check. The log is checked last, because reports about the other outputs are
        // lines of the log.
        needs_check | self.check_log(is_last)
    }

    /// Checks the log itself. Returns whether another check is needed soon.
    ///
    /// Tries at each check to write the number of lost lines to the log. The attempt succeeds as soon as the log has
    /// room again. The last check may write the number to stderr instead. At the first check after losses have begun,
    /// stderr gets the report that lines are being lost.
    fn check_log(&mut self, is_last: bool) -> bool {
        let state = self.log.try_flush();
        if state.lost == 0 {
            self.is_reported = false;
            return !state.is_flushed;
        }
        let level = self.level();
        let (file, lines) = (self.log.name(), state.lost);
        let ended = LossEnded {
            title: "log",
            file,
            lines,
        };
        let stderr = self.stderr.as_ref();
        let is_written = with_fallback(stderr.filter(|_| is_last), || log_report(level, &ended));
        // At level off no report is logged. The losses then count as reported, so that the checks end.
        if is_written || level == Level::Off {
            self.log.mark_reported(lines);
            self.is_reported = false;
        } else if !std::mem::replace(&mut self.is_reported, true) {
            let error = self.log.failure();
            with_fallback(stderr, || {
                log_report(
                    level,
                    &LossBegan {
                        title: "log",
                        file,
                        error,
                    },
                )
            });
        }
        true
    }

    /// Returns the level in force for reports, which have the target of this module.
    fn level(&self) -> Level {
        self.filter.directives().level(None, module_path!())
    }
}

impl MonitoredOutput {
    /// Writes waiting lines to the output, and reports its losses to the log. Returns whether another check is needed
    /// soon.
    fn check(&mut self, level: Level, is_last: bool) -> bool {
        let (title, file) = (self.title, self.output.name());
        let state = self.output.try_flush();
        if state.lost == 0 {
            self.is_reported = false;
            return !state.is_flushed;
        }
        if !std::mem::replace(&mut self.is_reported, true) && !is_last {
            let error = self.output.failure();
            log_report(level, &LossBegan { title, file, error });
        }
        // Waits for the end of the losses, because the number of lost lines still grows until then.
        if is_last || state.has_recovered {
            let lines = state.lost;
            log_report(level, &LossEnded { title, file, lines });
            self.output.mark_reported(lines);
            self.is_reported = false;
        }
        true
    }
}

/// The report that lines are being lost.
struct LossBegan<'a> {
    title: &'a str,
    /// The name of the file or stream.
    file: &'a str,
    /// Why the lines cannot be written.
    error: Option<String>,
}

/// The report of how many lines were lost.
struct LossEnded<'a> {
    title: &'a str,
    /// The name of the file or stream.
    file: &'a str,
    /// The number of lost lines.
    lines: u64,
}

/// A report that can be logged at several levels. The level of a `tracing` event is a constant, so each level needs a
/// callsite of its own.
trait LossReport {
    fn warn(&self);
    fn error(&self);
    fn critical(&self);
}

/// Implements [`LossReport`] for a type. `$line` contains the arguments of `warn!`, and `$self` is the name of the
/// report in these arguments.
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
    report.title
);
loss_report!(
    LossEnded,
    report,
    file = report.file,
    lines = report.lines,
    "Lines of the {} could not be written, and are lost",
    report.title
);

/// Logs a report as a warning. If `level`, the level in force, disables warnings, logs the report at `level`.
fn log_report(level: Level, report: &impl LossReport) {
    match level {
        Level::Off => {}
        Level::Critical => report.critical(),
        Level::Error => report.error(),
        Level::Warn | Level::Info | Level::Debug | Level::Trace => report.warn(),
    }
}

/// Runs `log`, which logs one report. The line is written to the log if the log has room, and otherwise to `fallback`.
/// Returns whether the line was written.
///
/// `tracing` passes the line to [`write`] on this thread, and `tracing` cannot pass other arguments. Therefore a
/// thread-local passes the fallback to `write`, and returns the result.
fn with_fallback(fallback: Option<&Output>, log: impl FnOnce()) -> bool {
    let route = ReportRoute {
        fallback: fallback.cloned(),
        is_written: false,
    };
    // Uses two thread-locals, because every line of every thread reads the flag, and reading the flag costs less than
    // reading the route.
    REPORT_ROUTE.set(Some(route));
    IS_REPORT.set(true);
    log();
    IS_REPORT.set(false);
    REPORT_ROUTE.take().is_some_and(|route| route.is_written)
}

/// Where a report is written, and the result.
struct ReportRoute {
    /// The output for the report if the log has no room.
    fallback: Option<Output>,
    /// Whether the report was written to the log or to the fallback.
    is_written: bool,
}

thread_local! {
    /// Whether this thread is logging a report. Has no destructor, so that a thread that is ending can still read the
    /// flag.
    static IS_REPORT: Cell<bool> = const { Cell::new(false) };
    /// The route of the report that this thread is logging.
    static REPORT_ROUTE: RefCell<Option<ReportRoute>> = const { RefCell::new(None) };
}

/// Writes a line of the log to `output`. If the line is a report and `output` has no room, writes the line to the
/// fallback of the report. A report that cannot be written does not count as a lost line.
pub(super) fn write(output: &Output, line: &[u8]) {
    if !IS_REPORT.get() {
        return output.write(line);
    }
    REPORT_ROUTE.with_borrow_mut(|route| {
        if let Some(route) = route {
            let write_to_fallback = |fallback: &Output| fallback.try_write(line);
            route.is_written =
                output.try_write(line) || route.fallback.as_ref().is_some_and(write_to_fallback);
        }
    });
}

/// The pause between the first unwritten line and the first check.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two checks.
const LAST_PAUSE: Duration = Duration::from_secs(1);
