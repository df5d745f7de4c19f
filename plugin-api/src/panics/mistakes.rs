//! Known mistakes of authors that prevent an app from starting, and the advice how to fix them.

/// A mistake that can be recognized from the text of a panic or an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The app installs a `tracing` subscriber or a logger of the crate `log`.
    Logger,
    /// The app starts a tokio runtime within the plugin's runtime.
    Runtime,
}

impl Mistake {
    /// Returns the mistake that has caused `message`, the error with which the app failed to start. Returns `None` for
    /// any other error.
    pub(crate) fn of(message: &str) -> Option<Self> {
        // The errors of `log` and `tracing` have two texts each: the name in `Debug`, and the sentence in `Display`.
        let second_logger = [
            "SetLoggerError",
            "SetGlobalDefaultError",
            "logging system was already initialized",
            "global default trace dispatcher has already been set",
        ];
        if second_logger.iter().any(|text| message.contains(text)) {
            Some(Self::Logger)
        } else if message.contains("Cannot start a runtime from within a runtime") {
            Some(Self::Runtime)
        } else {
            None
        }
    }

    /// Returns the error text for the author. `location` is the function that contains the mistake, if known.
    pub(crate) fn advice(self, location: Option<&str>) -> String {
        let location = location.map_or_else(String::new, |location| format!(" in {location}"));
        match self {
            Self::Logger => format!(
                "the app sets up logging of its own{location}, but the server's is there before it: {REMOVE_LOGGER}"
            ),
            Self::Runtime => format!(
                "the app starts a tokio runtime{location}, but runs in one already: remove `#[tokio::main]` from the \
                 function that `export_app!` takes, and `.await` what it passes to `block_on`"
            ),
        }
    }
}

/// The advice how to fix [`Mistake::Logger`].
pub(crate) const REMOVE_LOGGER: &str = "remove the line that installs a subscriber or logger, such as \
     `tracing_subscriber::fmt::init()` or `env_logger::init()`";

/// Returns the innermost function of `backtrace` that belongs to the author, with file and line if known. A function of
/// the author is one that is neither in a package from a registry or Git, nor in Rust's libraries, nor in this crate.
///
/// `backtrace` has the format of std: a line `NUMBER: FUNCTION`, then a line `at FILE:LINE:COLUMN` if the library has
/// debug information.
pub(super) fn author_location(backtrace: &str) -> Option<String> {
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, name)) = line.split_once(": ") else {
            continue;
        };
        if number.parse::<u32>().is_err() {
            continue;
        }
        let file = lines.next_if(|line| line.starts_with("at "));
        let file = file.and_then(|line| line.strip_prefix("at "));
        let is_in_this_crate =
            name.starts_with("plugin_api::") || name.starts_with("<plugin_api::");
        let is_authors = match file {
            Some(file) => {
                let this_crate = file!().trim_end_matches("panics/mistakes.rs");
                let other_code = [
                    "/registry/src/",
                    "/git/checkouts/",
                    "/rustc/",
                    "/rustlib/",
                    this_crate,
                ];
                !other_code.iter().any(|part| file.contains(part))
            }
            // Without debug information, only the name of the function is known.
            None => {
                let other_code = [
                    "std::",
                    "core::",
                    "alloc::",
                    "tracing",
                    "env_logger::",
                    "log::",
                    "fern::",
                    "rust_begin_unwind",
                    "__rust",
                    // A mangled name.
                    "_R",
                    // `<T as Trait>::function` may be in any crate. Also `<unknown>`.
                    "<",
                ];
                !is_in_this_crate && !other_code.iter().any(|part| name.starts_with(part))
            }
        };
        if is_authors {
            return Some(match file {
                Some(file) => format!("{name} ({file})"),
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
        let place = author_location(backtrace);
        assert_eq!(place.as_deref(), Some("shop::app (./src/lib.rs:12:9)"));
        let stripped = "   0: std::backtrace::Backtrace::create
   1: <T as tracing_subscriber::util::SubscriberInitExt>::init
   2: shop::app";
        assert_eq!(author_location(stripped).as_deref(), Some("shop::app"));
        assert_eq!(author_location("   0: <unknown>"), None);
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
