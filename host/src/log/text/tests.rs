use std::{error::Error, io};

use plugin_api::level::CRITICAL;
use tracing::{debug, error, info, info_span, trace, warn};

use super::*;
use crate::log::{
    lines::{Format, tests},
    origin::{self, Origin},
};

/// Without the time.
fn lines(emit: impl FnOnce()) -> Vec<String> {
    let without_time = |line: String| {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            (time.len(), humantime::parse_rfc3339(time).is_ok()),
            (27, true),
            "{time}"
        );
        rest.to_owned()
    };
    let lines = tests::lines(
        Format::Text(TextFormat {
            ansi: false,
            is_terminal: false,
        }),
        emit,
    );
    lines.into_iter().map(without_time).collect()
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
        let request = info_span!("request", id = "7f", method = tracing::field::Empty).entered();
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
            "INFO     my-shop#3: shop::cart: item 1 sku=12 price=1.5 gone=true name=\"a b\" \
                 in request{id=7f method=GET}:cart",
            "INFO     host: t: big=340282366920938463463374607431768211455 type='Some(\"x\")' path=\"a b\" \
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
        r"INFO     my\nshop#1: t\nt: \n2026 ERROR\r\x00\x1b[2J\u{9b}1m\u{2028}\u{202e}"
    ));
    assert!(
        lines[1].contains(r#" "k\n y"=1 in request\n{path='\n2026 ERROR\r"#),
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
    let lines = tests::lines(
        Format::Text(TextFormat {
            ansi: true,
            is_terminal: true,
        }),
        || warn!(target: "t", "x"),
    );
    let line = &lines[0];
    assert!(line.starts_with("\x1b[2m20"));
    assert!(
        line.ends_with("Z\x1b[0m \x1b[33mWARN    \x1b[0m host: t: x"),
        "{line:?}"
    );
}

#[test]
fn a_backtrace_has_lines_of_its_own_on_a_terminal_only() {
    let emit =
        || error!(target: "t", backtrace = "0: main\n  at src/lib.rs:1\x1b[2J", n = 1, "panicked");
    let format = |is_terminal| {
        Format::Text(TextFormat {
            ansi: false,
            is_terminal,
        })
    };
    let lines = tests::lines(format(true), emit);
    assert!(lines[0].ends_with("t: panicked n=1"), "{lines:?}");
    assert_eq!(lines[1..], ["    0: main", r"      at src/lib.rs:1\x1b[2J"]);
    let lines = tests::lines(format(false), emit);
    assert_eq!(lines.len(), 1, "{lines:?}");
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
            uses_colours(is_terminal, no_color.map(OsStr::new)),
            coloured,
            "{is_terminal} {no_color:?}"
        );
    }
}
