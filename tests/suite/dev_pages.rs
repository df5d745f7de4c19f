//! `host dev`: the pages, scripts and events that its server adds to the responses of apps.

use std::fs;

use host_tests::{Connection, Dev, Reply, Workbench, empty, eventually};
use hyper::Request;

#[tokio::test]
async fn pages_hear_of_new_versions_and_failures_are_explained() {
    let bench = Workbench::new("pages");
    let folder = bench.new_crate("dev-pages", "native");
    let source = folder.join("src/lib.rs");
    let good = fs::read_to_string(&source).unwrap();
    fs::write(
        &source,
        good.replace(
            "(_, \"/\") =>",
            "(_, \"/panic\") => panic!(\"out of bread\"),\n        (_, \"/\") =>",
        ),
    )
    .unwrap();
    let session = Dev::start(&folder, &["--allow-host=shop.example"]).await;

    // If the first build is still running, the response is a page that says this.
    let reply = get_with(&session, "/dev-pages", &[]).await;
    if reply.status == 503 {
        assert!(
            reply.text().contains("The first build is under way"),
            "{}",
            reply.text()
        );
    }
    session.serves("/dev-pages", "hello world").await;
    session.stdout().eventually(&["dev-pages is at"]).await;

    // A page for a browser has the script. Other clients get the app's response unchanged.
    let html = ("accept", "text/html,*/*");
    let session_id = eventually("a page of this version", async || {
        let page = get_with(
            &session,
            "/dev-pages",
            &[html, ("accept-encoding", "gzip, br")],
        )
        .await
        .text();
        let script = "<!doctype html>\n<script src=\"/_host/dev/client.js\" data-made=\"";
        let (_, rest) = page.split_once(script)?;
        // The attribute is "SESSION.SWAPS".
        rest.split_once(".1\"></script><title>")
            .map(|(session, _)| session.to_owned())
    })
    .await;
    for headers in [
        &[][..],
        &[html, ("sec-fetch-dest", "empty")],
        &[html, ("hx-request", "true")],
    ] {
        assert!(
            !get_with(&session, "/dev-pages", headers)
                .await
                .text()
                .contains("<script"),
            "{headers:?}"
        );
    }
    let script = get_with(&session, "/_host/dev/client.js", &[]).await;
    assert_eq!(
        script.header("content-type"),
        "text/javascript; charset=utf-8"
    );

    // The first event contains the session of the page.
    let mut stream = host_tests::Wire::connect(session.address()).await;
    stream
        .send(&format!(
            "GET /_host/dev/events HTTP/1.1\r\nHost: {}\r\n\r\n",
            session.address()
        ))
        .await;
    assert!(stream.head().await.contains("text/event-stream"));
    let now = stream.until("\n\n").await;
    assert!(
        now.contains("\"phase\":\"serving\"") && now.contains(&session_id),
        "{now}"
    );

    // Pages of other sites can neither read pages nor follow the events.
    for (path, headers) in [
        ("/dev-pages", [("host", "evil.example")]),
        ("/_host/dev/events", [("origin", "http://evil.example")]),
        ("/_host/dev/client.js", [("sec-fetch-site", "cross-site")]),
    ] {
        assert_eq!(
            get_with(&session, path, &headers).await.status,
            403,
            "{path}"
        );
    }
    assert_eq!(
        get_with(&session, "/dev-pages", &[("host", "shop.example")])
            .await
            .status,
        200
    );

    // The page about a panic shows the place of the panic, but not to requests of other sites.
    let secret = ("authorization", "Bearer 4711");
    let page = get_with(&session, "/dev-pages/panic", &[html, secret]).await;
    assert_eq!(page.status, 500);
    for part in [
        "<h1>panicked: out of bread</h1>",
        "src/lib.rs:",
        "<mark>",
        "dev_pages::app",
        "authorization: •••",
        "Log of the request",
    ] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(!page.text().contains("4711"));
    let json = get_with(
        &session,
        "/dev-pages/panic",
        &[("accept", "application/json")],
    )
    .await;
    let json: serde_json::Value = serde_json::from_str(&json.text()).unwrap();
    assert_eq!(json["error"], "panicked: out of bread");
    assert!(
        json["frames"]
            .as_array()
            .is_some_and(|frames| !frames.is_empty()),
        "{json}"
    );
    let text = get_with(&session, "/dev-pages/panic", &[]).await.text();
    assert!(
        text.contains("> ") && text.contains("panic!(\"out of bread\")"),
        "{text}"
    );
    let foreign = get_with(
        &session,
        "/dev-pages/panic",
        &[html, ("origin", "http://evil.example")],
    )
    .await;
    assert_eq!(foreign.text(), "500 Internal Server Error\n");
    let missing = get_with(&session, "/nowhere", &[html]).await;
    assert_eq!(missing.status, 404);
    assert!(
        missing.text().contains("/dev-pages  dev-pages"),
        "{}",
        missing.text()
    );

    // The events contain the compiler's errors, and the number of swaps after the next version.
    fs::write(
        &source,
        good.replace("fn hello() -> Response {", "fn hello() -> Response { oops;"),
    )
    .unwrap();
    let failed = stream.until("\"phase\":\"build-failed\"").await;
    assert!(failed.contains("\"phase\":\"building\""), "{failed}");
    let report = stream.until("\n\n").await;
    assert!(report.contains("cannot find value `oops`"), "{report}");
    fs::write(&source, good.replace("hello world", "hello again")).unwrap();
    stream.until("\"swaps\":2}\n\n").await;
    session.serves("/dev-pages", "hello again").await;
}

/// Sends a request with these headers on a new connection, and returns the response.
async fn get_with(session: &Dev, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut connection = Connection::http1(session.address()).await;
    let reply = connection.exchange(request.body(empty()).unwrap()).await;
    reply.unwrap()
}
