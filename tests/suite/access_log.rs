//! The access log has a line for every request, however the request ends.

use host_tests::{Host, Setup, empty, full};
use hyper::Request;
use serde_json::Value;

/// Starts a host that writes its access log to stdout, as JSON.
fn setup() -> Setup {
    Setup::new()
        .plugin("versioned")
        .plugin("panics")
        .plugin("echo")
        .args(&["--access-log=-", "--access-log-format=json"])
}

/// Waits for the first line with this path, and returns the line. An empty `path` stands for a line without a path.
async fn line(host: &Host, path: &str) -> Value {
    let path = if path.is_empty() {
        "\"path\":null".to_owned()
    } else {
        format!("\"path\":\"{path}\"")
    };
    let line = host.stdout().eventually(&[&path]).await;
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn an_answer_has_a_line_even_with_the_log_off() {
    let host = setup()
        .arg("--log-level=off,host::server=info")
        .start()
        .await;
    for mut connection in [host.http1().await, host.http2().await] {
        let reply = connection
            .exchange(Request::post("/echo/body?a=1").body(full("hello")).unwrap())
            .await
            .unwrap();
        assert_eq!(reply.text(), "hello");
        let id = reply.header("x-request-id").to_owned();
        let line = host.stdout().eventually(&[&id]).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["method"], &line["path"], &line["query"]),
            (&"POST".into(), &"/echo/body".into(), &"a=1".into())
        );
        assert_eq!(
            (&line["status"], &line["bytes"], &line["outcome"]),
            (&200.into(), &5.into(), &"answered".into())
        );
        assert_eq!(
            (&line["plugin"], &line["generation"]),
            (&"echo".into(), &1.into())
        );
        assert!(line["duration_us"].is_u64());
    }
    let head = Request::head("/versioned").body(empty()).unwrap();
    assert_eq!(host.exchange(head).await.status, 200);
    let line = line(&host, "/versioned").await;
    assert_eq!(
        (&line["bytes"], &line["outcome"]),
        (&0.into(), &"answered".into())
    );
}

#[tokio::test]
async fn what_the_server_refuses_has_a_line() {
    let host = setup()
        .args(&["--max-body-size=10", "--header-timeout=200ms"])
        .start()
        .await;
    let too_large = Request::post("/echo/len")
        .body(full("x".repeat(11)))
        .unwrap();
    assert_eq!(host.exchange(too_large).await.status, 413);
    assert_eq!(host.get("/nowhere").await.status, 404);
    for (path, status) in [("/echo/len", 413), ("/nowhere", 404)] {
        let line = line(&host, path).await;
        assert_eq!(
            (&line["status"], &line["outcome"]),
            (&status.into(), &"refused".into())
        );
    }
    let heads = [
        ("nonsense\r\n\r\n".to_owned(), 400, "malformed"),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(20_000)),
            431,
            "refused",
        ),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(20_000)),
            431,
            "refused",
        ),
        ("GET / HTTP/1.1\r\n".to_owned(), 408, "timed_out"),
    ];
    for (index, (head, status, outcome)) in heads.into_iter().enumerate() {
        let mut wire = host.wire().await;
        wire.send(head).await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        let line = host.stdout().nth_with(index, &["\"path\":null"]).await;
        for part in [
            format!("\"status\":{status},"),
            format!("\"outcome\":\"{outcome}\""),
        ] {
            assert!(line.contains(&part), "{part} in {line}");
        }
    }
}

#[tokio::test]
async fn a_panic_has_a_line() {
    let host = setup().start().await;
    assert_eq!(host.get("/panics/handler").await.status, 500);
    let line = line(&host, "/panics/handler").await;
    assert_eq!(
        (&line["status"], &line["outcome"]),
        (&500.into(), &"panicked".into())
    );
}

#[tokio::test]
async fn a_client_that_leaves_has_a_line() {
    let host = setup().start().await;
    let never = host.folder().join("never").display().to_string();
    let mut wire = host.wire().await;
    wire.send(format!(
        "GET /versioned/wait?{never} HTTP/1.1\r\nHost: x\r\n\r\n"
    ))
    .await;
    host.log().eventually(&["waits"]).await;
    drop(wire);
    let before = line(&host, "/versioned/wait").await;
    assert_eq!(
        (&before["status"], &before["outcome"]),
        (&499.into(), &"client_gone".into())
    );
    let mut wire = host.wire().await;
    wire.send(format!(
        "GET /versioned/stream?{never} HTTP/1.1\r\nHost: x\r\n\r\n"
    ))
    .await;
    wire.until("+").await;
    drop(wire);
    let midway = line(&host, "/versioned/stream").await;
    assert_eq!(
        (&midway["status"], &midway["bytes"]),
        (&200.into(), &9.into())
    );
    assert_eq!(midway["outcome"], "client_gone");
}

#[tokio::test]
async fn what_is_cut_off_has_a_line() {
    let host = setup().arg("--graceful-timeout=200ms").start().await;
    let never = host.folder().join("never").display().to_string();
    let mut waiting = host.wire().await;
    waiting
        .send(format!(
            "GET /versioned/wait?{never} HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
    host.log().eventually(&["waits"]).await;
    let mut stream = host.wire().await;
    stream
        .send(format!(
            "GET /versioned/stream?{never} HTTP/1.1\r\nHost: x\r\n\r\n"
        ))
        .await;
    stream.until("+").await;
    // `versioned` drains because its file is removed, while the server continues. `echo` drains because the server
    // stops.
    host.folder().remove("libversioned.so");
    let waited = line(&host, "/versioned/wait").await;
    assert_eq!(
        (&waited["status"], &waited["outcome"]),
        (&503.into(), &"cut_off".into())
    );
    let streamed = line(&host, "/versioned/stream").await;
    assert_eq!(
        (&streamed["status"], &streamed["outcome"]),
        (&200.into(), &"cut_off".into())
    );
    let mut pending = host.wire().await;
    pending
        .send("GET /echo/pending HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    host.log().eventually(&["pending"]).await;
    let stdout = host.stop().await.stdout;
    let pending = stdout
        .iter()
        .find(|line| line.contains("/echo/pending"))
        .unwrap();
    assert!(pending.contains("\"outcome\":\"cut_off\""), "{pending}");
}

#[tokio::test]
async fn successes_of_skipped_paths_have_none() {
    let host = setup()
        .arg("--access-log-skip=/versioned,/nowhere")
        .start()
        .await;
    assert_eq!(host.get("/versioned").await.status, 200);
    assert_eq!(host.get("/nowhere").await.status, 404);
    assert_eq!(host.get("/versioned/").await.status, 200);
    line(&host, "/versioned/").await;
    let lines = host.stop().await.stdout;
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("\"path\":\"/versioned\""))
            .count(),
        0,
        "{lines:?}"
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("\"path\":\"/nowhere\""))
            .count(),
        1,
        "{lines:?}"
    );
}
