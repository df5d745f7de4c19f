//! The example plugin `notes`: state, a timer, a background task, and a connection from the app to its own server.

use std::fs;

use host_tests::{Connection, Host, Reply, Setup, eventually, full};
use hyper::{Method, Request};
use rustix::process::Signal;
use serde_json::{Value, json};

#[tokio::test]
async fn notes_are_added_read_replaced_and_removed() {
    let host = notes().await;
    let mut connection = host.http1().await;
    assert_eq!(connection.get("/notes/").await.json(), json!([]));

    let reply = send(&mut connection, "POST", "/notes/", json!({"text": "milk"})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (201, "/notes/1")
    );
    assert_eq!(reply.json(), json!({"id": 1, "text": "milk"}));
    assert_eq!(
        connection.get("/notes/1").await.json(),
        json!({"id": 1, "text": "milk"})
    );

    let reply = send(&mut connection, "PUT", "/notes/1", json!({"text": "bread"})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()),
        (200, json!({"id": 1, "text": "bread"}))
    );
    assert_eq!(
        connection.get("/notes/").await.json(),
        json!([{"id": 1, "text": "bread"}])
    );

    assert_eq!(
        send(&mut connection, "DELETE", "/notes/1", json!(null))
            .await
            .status,
        204
    );
    assert_eq!(connection.get("/notes/").await.json(), json!([]));
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_no_note_is_refused() {
    let host = notes().await;
    let mut connection = host.http1().await;
    for (method, path, body, status) in [
        ("GET", "/notes/7", json!(null), 404),
        ("PUT", "/notes/7", json!({"text": "x"}), 404),
        ("DELETE", "/notes/7", json!(null), 404),
        ("GET", "/notes/seven", json!(null), 400),
        ("PATCH", "/notes/7", json!(null), 405),
        ("POST", "/notes/", json!({"txt": "x"}), 422),
        ("POST", "/notes/", json!(null), 422),
    ] {
        assert_eq!(
            send(&mut connection, method, path, body).await.status,
            status,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_timer_of_the_app_runs() {
    let host = notes().await;
    assert_eq!(host.get("/notes/after?ms=20").await.json(), json!([]));
}

#[tokio::test]
async fn the_background_task_removes_expired_notes() {
    let host = notes().await;
    let mut connection = host.http1().await;
    send(
        &mut connection,
        "POST",
        "/notes/",
        json!({"text": "soon gone", "expires_in_ms": 1}),
    )
    .await;
    send(
        &mut connection,
        "POST",
        "/notes/",
        json!({"text": "stays", "expires_in_ms": 3_600_000}),
    )
    .await;
    eventually("one note is left", async || {
        let left = host.get("/notes/").await.json();
        (left == json!([{"id": 2, "text": "stays"}])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_app_connects_to_its_own_server() {
    let setup = Setup::new().plugin("notes");
    let file = setup.folder().join("host.toml");
    fs::write(&file, "[app.notes]").unwrap();
    let host = setup.arg("--config").arg(&file).start().await;
    host.answers("/notes/", 200).await;
    let config = format!("[app.notes]\nconfig = {{ server = '{}' }}", host.address());
    fs::write(&file, config).unwrap();
    host.signal(Signal::HUP);
    host.log().eventually(&["Loaded", "generation=2"]).await;

    send(
        &mut host.http1().await,
        "POST",
        "/notes/",
        json!({"text": "milk"}),
    )
    .await;
    for mut connection in [host.http1().await, host.http2().await] {
        let text = connection.get("/notes/self").await.text();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n")
                && text.ends_with(r#"[{"id":1,"text":"milk"}]"#),
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_background_task_ends_with_the_plugin() {
    let host = notes().await;
    // Wait until the app has started, because a stop during the start would come before the app has spawned its
    // background task.
    host.answers("/notes/", 200).await;
    let exit = host.stop().await;
    assert!(
        exit.log_of("notes")
            .iter()
            .any(|line| line.text == "The sweeper has ended"),
        "{exit}"
    );
}

/// Starts a host with the plugin `notes`.
async fn notes() -> Host {
    Setup::new().plugin("notes").start().await
}

/// Sends a request with a JSON body, and returns the response.
async fn send(connection: &mut Connection, method: &str, path: &str, body: Value) -> Reply {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    connection
        .exchange(request.body(full(body.to_string())).unwrap())
        .await
        .unwrap()
}
