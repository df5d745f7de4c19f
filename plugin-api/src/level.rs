//! Log levels, and the directives of `--log-level`, which set a level for a target or an app.

use std::{fmt, iter, str::FromStr};

use tracing_core::Metadata;

/// The name that marks a `tracing` event of the level `ERROR` as critical (see [`Level::of`]).
pub const CRITICAL: &str = "critical";

/// The severity of an event. As a limit: the least severe event that passes.
///
/// Levels are ordered by verbosity: [`Off`](Self::Off) is the smallest, [`Trace`](Self::Trace) is the greatest. The
/// numbers are part of the ABI and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Level {
    /// Nothing passes. No event has this level.
    Off = 0,
    /// The process or the app cannot continue in its present state. `tracing` has no such level (see [`CRITICAL`]).
    Critical = 1,
    /// An operation failed.
    Error = 2,
    /// A problem that is not a failure yet.
    Warn = 3,
    /// Events for operators, in daily use.
    Info = 4,
    /// Events for developers.
    Debug = 5,
    /// All other events.
    Trace = 6,
}

impl Level {
    const ALL: [Self; 7] = [
        Self::Off,
        Self::Critical,
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// Returns the level with this number, or `None` if no level has it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&level| level as u32 == number)
    }

    /// Returns the level of an event or span. Only an event can be critical.
    #[must_use]
    pub fn of(metadata: &Metadata<'_>) -> Self {
        let is_critical = metadata.is_event() && metadata.name() == CRITICAL;
        Self::from_tracing(metadata.level(), is_critical)
    }

    fn from_tracing(level: &tracing_core::Level, is_critical: bool) -> Self {
        match *level {
            tracing_core::Level::ERROR if is_critical => Self::Critical,
            tracing_core::Level::ERROR => Self::Error,
            tracing_core::Level::WARN => Self::Warn,
            tracing_core::Level::INFO => Self::Info,
            tracing_core::Level::DEBUG => Self::Debug,
            tracing_core::Level::TRACE => Self::Trace,
        }
    }
}

/// Writes the canonical spelling, such as `warn` and not `warning`.
impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Off => "off",
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// Parses every spelling, in upper or lower case.
impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "critical" => Ok(Self::Critical),
            "error" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(LevelError::Level(text.to_owned())),
        }
    }
}

/// Returns the filter that `tracing` needs for this limit. The filter for `Critical` also passes all other errors,
/// because `tracing` has no critical level.
impl From<Level> for tracing_core::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Critical | Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// Returns the filter that `log` needs for this limit. The filter for `Critical` also passes all other errors, because
/// `log` has no critical level.
impl From<Level> for log::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::Off,
            Level::Critical | Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

/// Returns the level of a record of `log`. Never `Critical`, because `log` has no critical level.
impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warn,
            log::Level::Info => Self::Info,
            log::Level::Debug => Self::Debug,
            log::Level::Trace => Self::Trace,
        }
    }
}

/// Directives: a default level, and levels for single targets and apps. In text: `info`, or
/// `info,shop=debug,cart#=debug`.
///
/// - `LEVEL` sets the default level. Without this part, the default level is `info`.
/// - `NAME=LEVEL` sets the level of the target NAME and of all targets below it, as in `RUST_LOG`. `shop` includes
///   `shop::db`, but not `shopping`.
/// - `NAME#=LEVEL` sets the level of everything that the app NAME logs, in its own crate and in its dependencies. The
///   `#` is from the log, which shows the name and generation of an app as `NAME#GENERATION`.
///
/// If several parts match, the longest matching target decides, then the app, then the default level. If a name occurs
/// twice, the last level counts. `-` and `_` are equal in names, because the crate `my-shop` logs with the target
/// `my_shop`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    default: Level,
    /// The levels of targets and apps. Each scope occurs once.
    scoped: Vec<(Scope, Level)>,
}

/// The events to which a level applies.
#[derive(Clone, Debug)]
enum Scope {
    /// All events of the app with this name.
    App(String),
    /// The events with this target or with a target below it.
    Target(String),
}

impl Directives {
    /// Returns the level in force for `target` in the app `app`, or in the host itself if `app` is `None`.
    #[must_use]
    pub fn level(&self, app: Option<&str>, target: &str) -> Level {
        // `a::b::c`, then `a::b`, then `a`: the first match is the longest.
        let targets = iter::successors(Some(target), |inner| Some(inner.rsplit_once("::")?.0));
        let of_target = targets.into_iter().find_map(|target| {
            self.find(|scope| matches!(scope, Scope::Target(name) if is_same_name(name, target)))
        });
        let of_app = || {
            let app = app?;
            self.find(|scope| matches!(scope, Scope::App(name) if is_same_name(name, app)))
        };
        of_target.or_else(of_app).unwrap_or(self.default)
    }

    /// Returns the most verbose of all levels, the default level included.
    #[must_use]
    pub fn max_level(&self) -> Level {
        self.scoped
            .iter()
            .map(|&(_, level)| level)
            .fold(self.default, Level::max)
    }

    /// Returns the level of the scope for which `is_match` returns true.
    fn find(&self, is_match: impl Fn(&Scope) -> bool) -> Option<Level> {
        let (_, level) = self.scoped.iter().find(|(scope, _)| is_match(scope))?;
        Some(*level)
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::App(name), Self::App(other)) | (Self::Target(name), Self::Target(other)) => {
                is_same_name(name, other)
            }
            _ => false,
        }
    }
}

impl Eq for Scope {}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(name) => write!(formatter, "{name}#"),
            Self::Target(name) => formatter.write_str(name),
        }
    }
}

impl FromStr for Scope {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('#') {
            Some(app) if is_segment(app) => Ok(Self::App(app.to_owned())),
            None if text.split("::").all(is_segment) => Ok(Self::Target(text.to_owned())),
            _ => Err(LevelError::Name(text.to_owned())),
        }
    }
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            default: Level::Info,
            scoped: Vec::new(),
        }
    }
}

/// Writes the canonical text, which parses to the same directives.
impl fmt::Display for Directives {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.default)?;
        self.scoped
            .iter()
            .try_for_each(|(scope, level)| write!(formatter, ",{scope}={level}"))
    }
}

impl FromStr for Directives {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut directives = Self::default();
        for part in text.split(',') {
            let Some((scope, level)) = part.split_once('=') else {
                directives.default = part.trim().parse()?;
                continue;
            };
            let scope: Scope = scope.trim().parse()?;
            let level = level.trim().parse()?;
            // The last level for a scope counts.
            directives.scoped.retain(|(other, _)| *other != scope);
            directives.scoped.push((scope, level));
        }
        Ok(directives)
    }
}

/// The error for a text that is not a valid level or not valid directives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// The text is not the name of a level.
    #[error("{0:?} is not a log level, expected {EXPECTED}")]
    Level(String),
    /// The text before `=` is not a valid name of a target or an app.
    #[error("{0:?} does not name a target or an app, expected {EXPECTED}")]
    Name(String),
}

const EXPECTED: &str = "trace, debug, info, warn (or warning), error, critical or off, \
                        and TARGET=LEVEL for a target or APP#=LEVEL for all that an app logs, \
                        as in info,shop=debug,cart#=debug";

/// Returns whether `text` can be a segment of a target, or the name of an app. A target in `tracing` may be any text.
/// This check is stricter, to report likely mistakes, such as the span filters of `RUST_LOG` (`shop[cart]=debug`).
fn is_segment(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_alphanumeric() || "_-./".contains(letter);
    !text.is_empty() && text.chars().all(is_allowed)
}

/// Returns whether two names are equal if `-` counts as `_`.
fn is_same_name(one: &str, other: &str) -> bool {
    let canonical = |byte| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(canonical).eq(other.bytes().map(canonical))
}

#[cfg(test)]
mod tests;
