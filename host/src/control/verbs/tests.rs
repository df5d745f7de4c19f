use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::{
    fuzz::{Random, one_line},
    log::filter::Filter,
};

/// Requests with a meaning: the method, the path and the body.
const SAMPLES: [(&str, &str, &str); 12] = [
    ("GET", "/log-level", ""),
    ("PUT", "/log-level", r#"{ "level": "info,shop=debug" }"#),
    ("PUT", "/log-level", r#"{ "level": "warn", "for": "5m" }"#),
    ("GET", "/plugins", ""),
    ("POST", "/plugins/shop/reload", ""),
    ("POST", "/plugins/shop/rollback", ""),
    ("POST", "/recycle", ""),
    ("POST", "/workers/7/recycle", ""),
    ("POST", "/upgrade", r#"{ "path": "/usr/bin/host" }"#),
    ("GET", "/workers", ""),
    ("PUT", "/workers", r#"{ "workers": 3 }"#),
    ("PUT", "/libraries/libshop.so", "\x7fELF"),
];

#[tokio::test]
async fn random_requests_get_a_status_and_json_with_an_error_of_one_line() {
    let plugins = tempfile::tempdir().unwrap();
    // Nobody receives the supervisor's commands, so verbs that need it answer that the host is stopping.
    let (handle, _) = Handle::new();
    let filter = Filter::new("info".parse().unwrap(), |_| None);
    let context = ControlContext {
        levels: LevelHandle::start(filter),
        handle,
        plugins: plugins.path().to_owned(),
    };
    let mut random = Random::new(11);
    let (mut done, mut failed) = (0, 0);
    for _ in 0..2_000 {
        let (method, path, body) = random.pick(&SAMPLES);
        let mut request = match random.below(10) {
            0 => random.text(&[method]),
            _ => method.to_owned(),
        };
        let path = random.text(&[path]);
        let body = random.input(&[body.as_bytes()]);
        request += &format!(
            " {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [request.into_bytes(), body].concat();
        let response = exchange(&context, &request).await;
        let Some((head, answer)) = response.split_once("\r\n\r\n") else {
            panic!("{request:?}: {response:?}");
        };
        if !head.contains("application/json") {
            // hyper rejects a head that is no HTTP.
            assert!(
                head.starts_with("HTTP/1.1 4") && answer.is_empty(),
                "{head}"
            );
            continue;
        }
        let answer: Value = serde_json::from_str(answer).unwrap();
        if head.starts_with("HTTP/1.1 200 ") {
            done += 1;
            assert!(answer["error"].is_null(), "{answer}");
        } else {
            failed += 1;
            one_line(answer["error"].as_str().unwrap(), &answer);
        }
    }
    assert!(done > 20 && failed > 500, "{done} {failed}");
    // Uploads that were rejected leave no file.
    assert_eq!(plugins.path().read_dir().unwrap().count(), 0);
}

/// Sends the bytes over a connection of their own, and returns the response.
async fn exchange(context: &ControlContext, request: &[u8]) -> String {
    let (mut client, server) = duplex(64 << 10);
    let service = service_fn(|request| answer(context, request));
    let served = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    let mut response = Vec::new();
    let asked = async {
        client.write_all(request).await.unwrap();
        client.read_to_end(&mut response).await.unwrap();
    };
    let both = async { tokio::join!(served, asked) };
    let (served, ()) = time::timeout(BODY_TIMEOUT, both).await.unwrap();
    // The result is an error when the head is no HTTP.
    drop(served);
    String::from_utf8(response).unwrap()
}
