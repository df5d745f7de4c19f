//! Mistakes of authors that keep an app from starting, and what mends them.

/// A mistake that is known by what a panic or an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The app installs a subscriber or a logger.
    Logger,
    /// The app starts a tokio runtime within the one that the app runs in.
    Runtime,
}

impl Mistake {
    /// Finds the mistake from the message with which the app failed to start.
    pub(crate) fn of(message: &str) -> Option<Self> {
        // `log` and `tracing` have two texts each: one for people, and one for `Debug`.
        let second_logger = [
            "SetLoggerError",
            "SetGlobalDefaultError",
            "logging system was already initialized",
            "global default trace dispatcher has already been set",
        ];
        if second_logger.iter().any(|said| message.contains(said)) {
            Some(Self::Logger)
        } else if message.contains("Cannot start a runtime from within a runtime") {
            Some(Self::Runtime)
        } else {
            None
        }
    }

    /// What the author is told; `place` is where the mistake is.
    pub(crate) fn advice(self, place: Option<&str>) -> String {
        let place = place.map_or_else(String::new, |place| format!(" in {place}"));
        match self {
            Self::Logger => format!(
                "the app sets up logging of its own{place}, but the server's is there before it: {REMOVE_LOGGER}"
            ),
            Self::Runtime => format!(
                "the app starts a tokio runtime{place}, but runs in one already: remove `#[tokio::main]` from the \
                 function that `export_app!` takes, and `.await` what it passes to `block_on`"
            ),
        }
    }
}

/// How to mend [`Mistake::Logger`].
pub(crate) const REMOVE_LOGGER: &str = "remove the line that installs a subscriber or logger, such as \
     `tracing_subscriber::fmt::init()` or `env_logger::init()`";

/// The innermost function of a backtrace that belongs to the author: to no package from a registry, not to Rust and
/// not to this crate. With file and line where they are known.
pub(super) fn authors_place(backtrace: &str) -> Option<String> {
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, name)) = line.split_once(": ") else {
            continue;
        };
        if number.parse::<u32>().is_err() {
            continue;
        }
        let at = lines.next_if(|line| line.starts_with("at "));
        let at = at.and_then(|line| line.strip_prefix("at "));
        let is_ours = name.starts_with("plugin_api::") || name.starts_with("<plugin_api::");
        let is_theirs = match at {
            Some(at) => {
                let ours = file!().trim_end_matches("panics/mistakes.rs");
                let foreign = [
                    "/registry/src/",
                    "/git/checkouts/",
                    "/rustc/",
                    "/rustlib/",
                    ours,
                ];
                !foreign.iter().any(|part| at.contains(part))
            }
            // Without debug information the names alone have to tell.
            None => {
                let foreign = [
                    "std::",
                    "core::",
                    "alloc::",
                    "tracing",
                    "env_logger::",
                    "log::",
                    "fern::",
                    "rust_begin_unwind",
                    "__rust",
                    "_R",
                    "<",
                ];
                !is_ours && !foreign.iter().any(|part| name.starts_with(part))
            }
        };
        if is_theirs {
            return Some(match at {
                Some(at) => format!("{name} ({at})"),
                None => name.to_owned(),
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_place_is_the_innermost_that_is_nobody_elses() {
        let backtrace = "   0: std::backtrace::Backtrace::create
             at /rustc/5980/library/std/src/backtrace.rs:331:13
   1: plugin_api::guest::panics::told
             at ./plugin-api/src/guest/panics.rs:60:9
   2: tracing_subscriber::util::SubscriberInitExt::init
             at /home/a/.cargo/registry/src/index-1949/tracing-subscriber-0.3.23/src/util.rs:94:14
   3: shop::app
             at ./src/lib.rs:12:9
   4: shop::other
             at ./src/lib.rs:20:9";
        let place = authors_place(backtrace);
        assert_eq!(place.as_deref(), Some("shop::app (./src/lib.rs:12:9)"));
        let stripped = "   0: std::backtrace::Backtrace::create
   1: <T as tracing_subscriber::util::SubscriberInitExt>::init
   2: shop::app";
        assert_eq!(authors_place(stripped).as_deref(), Some("shop::app"));
        assert_eq!(authors_place("   0: <unknown>"), None);
    }

    #[test]
    fn a_mistake_is_known_by_its_message_and_the_mend_is_named() {
        let runtime = "Cannot start a runtime from within a runtime. This happens because";
        for (message, mistake, mend) in [
            ("SetLoggerError(())", Mistake::Logger, "remove the line"),
            (runtime, Mistake::Runtime, "remove `#[tokio::main]`"),
        ] {
            let known = Mistake::of(&format!("panicked: {message} at x.rs:1")).unwrap();
            assert_eq!(known, mistake);
            let advice = known.advice(Some("shop::app (src/lib.rs:1:1)"));
            assert!(advice.contains(mend), "{advice}");
            assert!(advice.contains("in shop::app (src/lib.rs:1:1)"), "{advice}");
        }
        assert_eq!(Mistake::of("there is no database"), None);
    }
}
