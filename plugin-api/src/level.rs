//! Log levels, and the directives that say which level is in force where: the value of
//! `--log-level`.

use std::{fmt, iter, str::FromStr};

use tracing_core::Metadata;

/// The name of an event that makes it critical when its level is error: see [`Level::of`].
pub const CRITICAL: &str = "critical";

/// How serious an event is; as a limit, the least serious event that passes. Ordered by verbosity:
/// `Off` is least.
///
/// The numbers cross the boundary between host and plugins and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Level {
    /// Nothing passes. No event has this level.
    Off = 0,
    /// The process or the app cannot go on as it is. `tracing` has no such level: see [`CRITICAL`].
    Critical = 1,
    /// Something failed.
    Error = 2,
    /// Something is wrong, or soon will be.
    Warn = 3,
    /// What an operator wants to know in daily use.
    Info = 4,
    /// What a developer wants to know.
    Debug = 5,
    /// Everything.
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

    /// The level with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&level| level as u32 == number)
    }

    /// The level of an event or span. Only an event can be critical.
    #[must_use]
    pub fn of(metadata: &Metadata<'_>) -> Self {
        let critical = metadata.is_event() && metadata.name() == CRITICAL;
        Self::from_tracing(metadata.level(), critical)
    }

    fn from_tracing(level: &tracing_core::Level, critical: bool) -> Self {
        match *level {
            tracing_core::Level::ERROR if critical => Self::Critical,
            tracing_core::Level::ERROR => Self::Error,
            tracing_core::Level::WARN => Self::Warn,
            tracing_core::Level::INFO => Self::Info,
            tracing_core::Level::DEBUG => Self::Debug,
            tracing_core::Level::TRACE => Self::Trace,
        }
    }
}

/// The canonical spelling: `warn`, not `warning`.
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

/// Takes every spelling, in upper or lower case.
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

/// What `tracing` must let through; it cannot tell critical from error.
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

/// What `log` must let through; it cannot tell critical from error.
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

/// `log` has no critical level.
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

/// Which level is in force where: `info`, or `info,shop=debug,cart#=debug`.
///
/// `NAME=LEVEL` is for a target with everything below it, as in other programs' `RUST_LOG`: `shop` is
/// also `shop::db`, but not `shopping`. `NAME#=LEVEL`, as lines of the log show the name, is for all
/// that the app NAME logs, by its own crate and by every other one. The level is that of the longest
/// target that matches, else that of the app, else the default, which is `info` unless given. `-` and
/// `_` are the same in a name, as the crate `my-shop` logs with the target `my_shop`. Of two levels for
/// the same name the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    default: Level,
    named: Vec<(Name, Level)>,
}

/// What a level is for.
#[derive(Clone, Debug)]
enum Name {
    /// All that an app logs.
    App(String),
    /// A target, and those below it.
    Target(String),
}

impl Directives {
    /// The level in force for `target`, in the app `app` or, without one, in the host itself.
    #[must_use]
    pub fn level(&self, app: Option<&str>, target: &str) -> Level {
        let outwards = iter::successors(Some(target), |inner| Some(inner.rsplit_once("::")?.0));
        let of_target = outwards.into_iter().find_map(|target| {
            self.find(|name| matches!(name, Name::Target(name) if same_name(name, target)))
        });
        let of_app = || {
            let app = app?;
            self.find(|name| matches!(name, Name::App(name) if same_name(name, app)))
        };
        of_target.or_else(of_app).unwrap_or(self.default)
    }

    /// The most verbose level in force anywhere.
    #[must_use]
    pub fn max_level(&self) -> Level {
        self.named
            .iter()
            .map(|&(_, level)| level)
            .fold(self.default, Level::max)
    }

    fn find(&self, is_it: impl Fn(&Name) -> bool) -> Option<Level> {
        let found = self.named.iter().find(|(name, _)| is_it(name))?;
        Some(found.1)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::App(name), Self::App(other)) | (Self::Target(name), Self::Target(other)) => {
                same_name(name, other)
            }
            _ => false,
        }
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(name) => write!(formatter, "{name}#"),
            Self::Target(name) => formatter.write_str(name),
        }
    }
}

impl FromStr for Name {
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
            named: Vec::new(),
        }
    }
}

/// The canonical text, which parses to the same directives.
impl fmt::Display for Directives {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.default)?;
        self.named
            .iter()
            .try_for_each(|(name, level)| write!(formatter, ",{name}={level}"))
    }
}

impl FromStr for Directives {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut directives = Self::default();
        for part in text.split(',') {
            let Some((name, level)) = part.split_once('=') else {
                directives.default = part.trim().parse()?;
                continue;
            };
            let name: Name = name.trim().parse()?;
            let level = level.trim().parse()?;
            directives.named.retain(|(other, _)| *other != name);
            directives.named.push((name, level));
        }
        Ok(directives)
    }
}

/// Text that is no level, or no directives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// There is no such level.
    #[error("{0:?} is not a log level, expected {EXPECTED}")]
    Level(String),
    /// What stands before `=` can be neither a target nor an app.
    #[error("{0:?} does not name a target or an app, expected {EXPECTED}")]
    Name(String),
}

const EXPECTED: &str = "trace, debug, info, warn (or warning), error, critical or off, \
                        and TARGET=LEVEL for a target or APP#=LEVEL for all that an app logs, \
                        as in info,shop=debug,cart#=debug";

/// Targets are free text; this refuses what would be a mistake here, such as the span filters of
/// other programs.
fn is_segment(text: &str) -> bool {
    let in_segment = |letter: char| letter.is_alphanumeric() || "_-./".contains(letter);
    !text.is_empty() && text.chars().all(in_segment)
}

fn same_name(one: &str, other: &str) -> bool {
    let canonical = |byte| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(canonical).eq(other.bytes().map(canonical))
}

#[cfg(test)]
mod tests;
