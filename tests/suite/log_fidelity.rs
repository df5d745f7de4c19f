//! Events of a plugin arrive unchanged in the log, as text and as JSON: types of values, spans, request and thread.

use host_tests::{Exit, Setup};
use hyper::{Request, header::HeaderValue};
use serde_json::{Value, json};

/// Returns the fields of an event of the fixture `log_depth`: the name, the value in JSON, and the value in text.
fn fields_of_every_type() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("yes", json!(true), "true"),
        ("less", json!(-7), "-7"),
        ("more", json!(u64::MAX), "18446744073709551615"),
        (
            "huge",
            json!("340282366920938463463374607431768211455"),
            "340282366920938463463374607431768211455",
        ),
        (
            "deep",
            json!("-170141183460469231731687303715884105728"),
            "-170141183460469231731687303715884105728",
        ),
        ("half", json!(0.5), "0.5"),
        ("text", json!("a \"b\""), r#"'a "b"'"#),
        ("shown", json!("1-2"), "1-2"),
        (
            "debugged",
            json!("Item { sku: 12 }"),
            r#""Item { sku: 12 }""#,
        ),
        (
            "failed",
            json!("could not load: disk full"),
            r#""could not load: disk full""#,
        ),
    ]
}

#[tokio::test]
async fn every_type_of_value_arrives_in_json() {
    let lines = json_after("/types", &[]).await;
    for crate_name in ["tracing", "log"] {
        let message = format!("types of {crate_name}");
        let line = lines
            .iter()
            .find(|line| line["message"] == message)
            .unwrap();
        for (name, value, _) in fields_of_every_type() {
            assert_eq!(line["fields"][name], value, "{name} by {crate_name}");
        }
        assert_eq!(line["fields"].get("later"), None);
        assert_eq!(line["target"], "log_depth");
        assert_eq!(line["module"], "log_depth");
        assert_eq!(
            (&line["plugin"], &line["generation"]),
            (&json!("log_depth"), &json!(1))
        );
        assert!(line["file"].as_str().unwrap().ends_with("src/lib.rs") && line["line"].is_u64());
    }
    assert_eq!(
        lines
            .iter()
            .find(|line| line["fields"]["type"] == "raw")
            .unwrap()["message"],
        "types of tracing"
    );
}

#[tokio::test]
async fn of_two_values_of_a_field_the_later_one_arrives() {
    let exit = log_after("/twice", &["--log-format=json"]).await;
    for crate_name in ["tracing", "log"] {
        let message = format!("\"message\":\"{crate_name}\",");
        let line = exit.stderr.iter().find(|line| line.contains(&message));
        let fields = r#""fields":{"message":"field","a":2}"#;
        assert!(line.is_some_and(|line| line.contains(fields)), "{exit}");
    }
}

#[tokio::test]
async fn every_type_of_value_arrives_in_text() {
    let exit = log_after("/types", &[]).await;
    for crate_name in ["tracing", "log"] {
        let lines = exit.log_of("log_depth");
        let message = format!("types of {crate_name} ");
        let line = lines
            .iter()
            .find(|line| line.text.starts_with(&message))
            .unwrap();
        for (name, _, text) in fields_of_every_type() {
            let field = format!(" {name}={text}");
            assert!(
                line.text.contains(&field),
                "{field} by {crate_name}: {line:?}"
            );
        }
        assert_eq!((line.generation, line.request_id.len()), (1, 16));
    }
}

#[tokio::test]
async fn spans_cross_with_what_was_recorded_later() {
    let lines = log_after("/spans", &[]).await.log_of("log_depth");
    let spans: Vec<_> = lines
        .iter()
        .map(|line| (&*line.text, &*line.spans))
        .collect();
    assert_eq!(
        spans,
        [
            ("before the total", "cart{user=7}"),
            ("inside two", "cart{user=7 total=1.5}:pay{by=card}"),
            ("by log inside two", "cart{user=7 total=1.5}:pay{by=card}"),
            ("inside one", "cart{user=7 total=1.5}"),
            ("inside none", ""),
            ("inside a span that is off", "cart{user=7 total=1.5}"),
            ("user is another", "cart{user=8 total=1.5}"),
        ]
    );
    assert!(
        lines
            .iter()
            .all(|line| line.request_id == lines[0].request_id && !line.request_id.is_empty())
    );
    let lines = json_after("/spans", &[]).await;
    let two = lines
        .iter()
        .find(|line| line["message"] == "inside two")
        .unwrap();
    let cart = json!({ "name": "cart", "fields": { "user": 7, "total": 1.5 } });
    let pay = json!({ "name": "pay", "fields": { "by": "card" } });
    assert_eq!(two["spans"], json!([cart, pay]));
}

#[tokio::test]
async fn a_task_that_carries_a_span_stays_in_its_request() {
    let lines = json_after("/task", &[("x-request-id", "7f")]).await;
    let line = |message: &str| {
        lines
            .iter()
            .find(|line| line["message"] == message)
            .unwrap()
    };
    assert_eq!(line("task in its request")["request_id"], "7f");
    assert_eq!(line("task in a span")["request_id"], "7f");
    assert_eq!(
        line("task in a span")["spans"],
        json!([{ "name": "job", "fields": { "number": 3 } }])
    );
    assert_eq!(line("task alone")["request_id"], Value::Null);
    // Spawned tasks run on a thread of the plugin's own runtime.
    assert_eq!(line("task alone")["thread"], "log_depth.g1");
}

#[tokio::test]
async fn what_is_off_is_not_even_evaluated() {
    let host = Setup::new().plugin("log_depth").start().await;
    assert_eq!(host.get("/log_depth/gated").await.text(), "0");
    let host = Setup::new()
        .plugin("log_depth")
        .arg("--log-level=trace")
        .start()
        .await;
    assert_eq!(host.get("/log_depth/gated").await.text(), "300");
}

#[tokio::test]
async fn a_request_has_an_id_and_a_trace_on_every_line() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let host = Setup::new()
        .plugin("log_depth")
        .arg("--log-format=json")
        .start()
        .await;
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    for (sent_id, is_kept) in [("abc/7", true), ("two words", false), ("", false)] {
        let request = Request::get("/log_depth/types")
            .header("x-request-id", sent_id)
            .header("traceparent", &traceparent)
            .body(host_tests::empty())
            .unwrap();
        let reply = host.exchange(request).await;
        assert_eq!(
            reply.header("x-request-id") == sent_id,
            is_kept,
            "{sent_id:?}"
        );
        let id = reply.header("x-request-id");
        assert!(!id.is_empty());
        let line = host
            .log()
            .eventually(&["types of log", &format!("\"request_id\":\"{id}\"")])
            .await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["trace_id"], &line["span_id"]),
            (&json!(TRACE), &json!(SPAN))
        );
    }
    let reply = host.get("/nowhere").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-request-id").len()),
        (404, 16)
    );
}

#[tokio::test]
async fn one_request_is_louder_and_the_others_are_not() {
    let host = Setup::new()
        .plugin("log_depth")
        .args(&["--log-level=warn", "--debug-header=X-Debug=correct-horse"])
        .start()
        .await;
    for secret in ["correct-horse", "correct-house", "correct-horse!"] {
        let request = Request::get("/log_depth/debug")
            .header("x-debug", secret)
            .header("x-request-id", &secret[8..])
            .body(host_tests::empty())
            .unwrap();
        assert_eq!(host.exchange(request).await.status, 200);
    }
    assert_eq!(host.get("/log_depth/task").await.status, 200);
    let request = Request::get("/log_depth/task")
        .header("x-debug", "correct-horse")
        .body(host_tests::empty())
        .unwrap();
    assert_eq!(host.exchange(request).await.status, 200);
    let lines = host.stop().await.log_of("log_depth");
    let mut texts: Vec<_> = lines.iter().map(|line| &*line.text).collect();
    // Sort, because the tasks run on several threads, in any order.
    texts.sort_unstable();
    assert_eq!(texts, ["at debug", "task in a span", "task in its request"]);
    assert_eq!(lines[0].request_id, "horse");
}

#[tokio::test]
async fn what_a_client_sends_gives_no_second_line() {
    let hostile: [&[u8]; 7] = [
        b"a\nINFO b",
        b"\"quoted\"",
        b"back\\slash",
        b"\x1b[31mred",
        b"nul\0",
        b"invalid \xff\xfe utf-8",
        "\u{2028}\u{202e}\u{85}".as_bytes(),
    ];
    for format in ["text", "json"] {
        let access = format!(
            "--access-log-format={}",
            if format == "json" { "json" } else { "combined" }
        );
        let host = Setup::new()
            .plugin("log_depth")
            .args(&[&format!("--log-format={format}"), "--access-log=-", &access])
            .start()
            .await;
        let before = host.log().eventually(&["Loaded"]).await;
        for text in hostile {
            let request = Request::post("/log_depth/say")
                .body(host_tests::full(text.to_vec()))
                .unwrap();
            assert_eq!(host.exchange(request).await.status, 200);
            let mut request = Request::get("/log_depth/echo?a=%0A%1b%00")
                .body(host_tests::empty())
                .unwrap();
            // A header cannot contain all of these bytes: hyper would reject the request before an app could log it.
            if let Ok(value) = HeaderValue::from_bytes(text) {
                request.headers_mut().insert("user-agent", value.clone());
                request.headers_mut().insert("x-request-id", value);
            }
            assert_eq!(host.exchange(request).await.status, 200);
        }
        let exit = host.stop().await;
        let of_plugin = exit
            .stderr
            .iter()
            .filter(|line| line.contains("log_depth") && **line != before);
        let of_plugin: Vec<_> = of_plugin.filter(|line| !line.contains("Stopped")).collect();
        // For each text the app logs two events in the first request, and one event in the second request.
        assert_eq!(of_plugin.len(), 3 * hostile.len(), "{exit}");
        assert_eq!(exit.stdout.len(), 2 * hostile.len(), "{exit}");
        for line in exit.stderr.iter().chain(&exit.stdout) {
            let is_unsafe =
                |letter: char| letter.is_control() || "\u{2028}\u{202e}".contains(letter);
            if format == "json" {
                serde_json::from_str::<Value>(line)
                    .unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(
                    !line.contains(|letter: char| letter.is_ascii_control()),
                    "{line:?}"
                );
            } else {
                assert!(!line.contains(is_unsafe), "{line:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_printed_is_captured_when_asked_for() {
    let host = Setup::new()
        .plugin("log_depth")
        .arg("--capture-output")
        .start()
        .await;
    assert_eq!(host.get("/log_depth/print").await.status, 200);
    let exit = host.stop().await;
    let printed = exit
        .log()
        .into_iter()
        .filter(|line| line.target.starts_with("std"));
    let mut printed: Vec<_> = printed.map(|line| (line.target, line.text)).collect();
    printed.sort();
    let expected = [
        ("stderr", "printed to stderr"),
        ("stdout", "printed"),
        ("stdout", r"to \x1b[31mstdout"),
    ];
    assert_eq!(
        printed,
        expected.map(|(target, text)| (target.to_owned(), text.to_owned()))
    );
    assert_eq!(exit.stdout.len(), 1, "{exit}");
}

/// Sends one request to the fixture, stops the host, and returns its output.
async fn log_after(path: &str, args: &[&str]) -> Exit {
    let host = Setup::new().plugin("log_depth").args(args).start().await;
    assert_eq!(host.get(&format!("/log_depth{path}")).await.status, 200);
    host.stop().await
}

/// Sends one request with these headers to the fixture, stops the host, and returns the lines of its log, which is
/// JSON.
async fn json_after(path: &str, headers: &[(&str, &str)]) -> Vec<Value> {
    let host = Setup::new()
        .plugin("log_depth")
        .arg("--log-format=json")
        .start()
        .await;
    let request = headers.iter().fold(
        Request::get(format!("/log_depth{path}")),
        |request, (name, value)| request.header(*name, *value),
    );
    assert_eq!(
        host.exchange(request.body(host_tests::empty()).unwrap())
            .await
            .status,
        200
    );
    let exit = host.stop().await;
    let parse = |line: &String| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    exit.stderr.iter().map(parse).collect()
}
