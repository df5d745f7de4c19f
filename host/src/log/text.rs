//! The text format: one line for people.
//!
//! ```text
//! 2026-11-23T08:17:21.123456Z WARN     shop: shop::cart: item is gone sku=12 name="a b" in request{id=7f}:cart{user=1}
//! ```
//!
//! Time (UTC), level, plugin or `host`, target, message, fields, then the spans from the outermost
//! inwards.

use std::{
    ffi::OsStr,
    fmt::{self, Write},
    time::SystemTime,
};

use plugin_api::level::Level;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormattedFields, Layer, MakeWriter, format::Writer},
    registry::LookupSpan,
};

use crate::log::{
    escape::Escape,
    fields::{self, Fields},
    origin,
};

/// Formats events as text.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Whether to colour the level and dim the time.
    pub ansi: bool,
}

impl Text {
    /// A layer that writes each event to `writer` in this format, in one write.
    pub fn layer<S, W>(self, writer: W) -> Layer<S, Fields, Self, W>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        W: for<'line> MakeWriter<'line> + 'static,
    {
        Layer::default()
            .fmt_fields(Fields)
            .event_format(self)
            .with_writer(writer)
            // They would go to stderr, and panic when it is closed: losing a line is better than
            // losing the server.
            .log_internal_errors(false)
    }
}

/// Whether to colour what goes to a stream: to a terminal, unless `NO_COLOR` is set and not empty
/// (no-color.org).
#[must_use]
pub fn colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

impl<S> FormatEvent<S, Fields> for Text
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Fields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let time = humantime::format_rfc3339_micros(SystemTime::now());
        let (label, colour) = label(Level::of(event.metadata()));
        if self.ansi {
            write!(writer, "{DIM}{time}{RESET} {colour}{label:<8}{RESET}")?;
        } else {
            write!(writer, "{time} {label:<8}")?;
        }

        let plugin = origin::current().map_or("host", |origin| origin.plugin);
        write!(
            Escape(&mut writer),
            " {plugin}: {}:",
            event.metadata().target()
        )?;
        fields::write_message(&mut writer, event)?;
        fields::write_fields(&mut writer, event)?;

        for (depth, span) in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .enumerate()
        {
            writer.write_str(if depth == 0 { " in " } else { ":" })?;
            Escape(&mut writer).write_str(span.name())?;
            if let Some(fields) = span
                .extensions()
                .get::<FormattedFields<Fields>>()
                .filter(|fields| !fields.is_empty())
            {
                write!(writer, "{{{fields}}}")?;
            }
        }
        writeln!(writer)
    }
}

/// The word for a level, and its colour. No event is at the level off.
fn label(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::Off | Level::Critical => ("CRITICAL", "\x1b[1;31m"),
        Level::Error => ("ERROR", "\x1b[31m"),
        Level::Warn => ("WARN", "\x1b[33m"),
        Level::Info => ("INFO", "\x1b[32m"),
        Level::Debug => ("DEBUG", "\x1b[34m"),
        Level::Trace => ("TRACE", "\x1b[35m"),
    }
}

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use std::{
        error::Error,
        io,
        sync::{Arc, Mutex},
    };

    use plugin_api::level::CRITICAL;
    use tracing::{debug, error, info, info_span, subscriber, trace, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::log::origin::Origin;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<String>>>);

    impl io::Write for Sink {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap()
                .push(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What each write wrote, without the time and the line break.
    fn lines(emit: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = Text { ansi: false }.layer(move || writer.clone());
        subscriber::with_default(tracing_subscriber::registry().with(layer), emit);
        let lines = sink.0.lock().unwrap();
        let without_time = |line: &String| {
            let (time, rest) = line.split_once(' ').unwrap();
            assert_eq!(
                (time.len(), humantime::parse_rfc3339(time).is_ok()),
                (27, true),
                "{time}"
            );
            rest.strip_suffix('\n').unwrap().to_owned()
        };
        lines.iter().map(without_time).collect()
    }

    #[test]
    fn every_level_has_its_word() {
        let lines = lines(|| {
            error!(name: CRITICAL, target: "shop", "x");
            error!(target: "shop", "x");
            warn!(target: "shop", "x");
            info!(target: "shop", "x");
            debug!(target: "shop", "x");
            trace!(target: "shop", "x");
        });
        let words = [
            "CRITICAL", "ERROR   ", "WARN    ", "INFO    ", "DEBUG   ", "TRACE   ",
        ];
        assert_eq!(lines, words.map(|word| format!("{word} host: shop: x")));
    }

    #[test]
    fn plugin_fields_and_spans_are_shown() {
        let lines = lines(|| {
            let request =
                info_span!("request", id = "7f", method = tracing::field::Empty).entered();
            request.record("method", "GET");
            let _cart = info_span!("cart").entered();
            origin::scope(
                Origin {
                    plugin: "my-shop",
                    generation: 3,
                },
                || {
                    info!(target: "shop::cart", sku = 12, price = 1.5, gone = true, name = "a b", "item {}", 1);
                },
            );
            info!(target: "t", big = u128::MAX, r#type = ?Some("x"), path = %"a b", name = ?"a b");
        });
        assert_eq!(
            lines,
            [
                "INFO     my-shop: shop::cart: item 1 sku=12 price=1.5 gone=true name=\"a b\" \
                 in request{id=7f method=GET}:cart",
                "INFO     host: t: big=340282366920938463463374607431768211455 type=\"Some(\\\"x\\\")\" path=\"a b\" \
                 name=\"a b\" in request{id=7f method=GET}:cart",
            ]
        );
    }

    #[test]
    fn an_error_is_shown_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not load")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("disk\nfull"));
        let lines = lines(|| error!(target: "t", error = &error as &dyn Error, "Reload failed"));
        assert_eq!(
            lines,
            [r#"ERROR    host: t: Reload failed error="could not load: disk\nfull""#]
        );
    }

    #[test]
    fn hostile_text_of_any_origin_stays_in_its_line() {
        struct Broken;
        impl fmt::Debug for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let evil = "\n2026 ERROR\r\0\x1b[2J\u{9b}1m\u{2028}\u{202e}\"\\";
        let lines = lines(|| {
            let span = info_span!("request\n", path = evil, shown = %evil).entered();
            origin::scope(
                Origin {
                    plugin: "my\nshop",
                    generation: 1,
                },
                || {
                    info!(target: "t\nt", "{evil}");
                    info!(target: "t", { path = evil, debug = ?evil, shown = %evil, "k\n y" = 1 }, "{:#?}", [evil]);
                },
            );
            drop(span);
            info!(target: "t", value = ?Broken, "{Broken:?}");
            info!(target: "t", message = evil);
        });
        assert_eq!(lines.len(), 4);
        for line in &lines {
            assert!(
                !line.contains(
                    |letter: char| letter.is_control() || "\u{2028}\u{202e}".contains(letter)
                ),
                "{line}"
            );
        }
        assert!(lines[0].starts_with(
            r"INFO     my\nshop: t\nt: \n2026 ERROR\r\x00\x1b[2J\u{9b}1m\u{2028}\u{202e}"
        ));
        assert!(
            lines[1].contains(r#" "k\n y"=1 in request\n{path="\n2026 ERROR\r"#),
            "{}",
            lines[1]
        );
        assert_eq!(
            lines[2],
            r#"INFO     host: t: <formatting failed> value="<formatting failed>""#
        );
    }

    #[test]
    fn colour_marks_time_and_level_only() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = Text { ansi: true }.layer(move || writer.clone());
        subscriber::with_default(
            tracing_subscriber::registry().with(layer),
            || warn!(target: "t", "x"),
        );
        let line = sink.0.lock().unwrap().concat();
        assert!(line.starts_with("\x1b[2m20"));
        assert!(
            line.ends_with("Z\x1b[0m \x1b[33mWARN    \x1b[0m host: t: x\n"),
            "{line:?}"
        );
    }

    #[test]
    fn colour_is_for_terminals_unless_refused() {
        let table = [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (false, None, false),
        ];
        for (is_terminal, no_color, coloured) in table {
            assert_eq!(
                colour(is_terminal, no_color.map(OsStr::new)),
                coloured,
                "{is_terminal} {no_color:?}"
            );
        }
    }
}
