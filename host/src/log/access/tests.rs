//! Lines of the access log, by format.

use std::fs;

use super::*;
use crate::log::{
    request::{RequestMeta, Trace},
    request_id::RequestId,
};

/// Returns the line of the record that `record` makes, in this format.
fn line(format: &str, record: impl FnOnce(&Arc<AccessLog>)) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = Output::access(file.path()).unwrap();
    let skip = vec!["/healthz".to_owned()];
    let access = AccessLog::new(
        format.parse().unwrap(),
        output,
        skip,
        CancellationToken::new(),
    );
    record(&Arc::new(access));
    fs::read_to_string(file.path()).unwrap()
}

fn request(uri: &str) -> request::Parts {
    let request = http::Request::get(uri)
        .header("authorization", "Basic dXNlcjpwYXNz")
        .header("referer", "https://a.example/\"x\"")
        .header(
            "user-agent",
            HeaderValue::from_bytes(b"evil\xff\x80\\").unwrap(),
        )
        .header("x-one", "first")
        .body(());
    request.unwrap().into_parts().0
}

fn answered(access: &Arc<AccessLog>, uri: &str, status: u16) {
    let meta = RequestMeta {
        id: RequestId::new(Some(b"7f")),
        trace: Trace::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        force_debug: false,
    };
    let peer = "127.0.0.1:1234".parse().unwrap();
    let mut record = access.begin(&request(uri), peer, &RequestLog::new(meta));
    record.set_app("shop", 3);
    record.set_response(
        &Response::builder()
            .status(status)
            .header("x-two", "second")
            .body("hello world!".to_owned())
            .unwrap(),
    );
    record.add_bytes_sent(12);
    record.set_outcome(RequestOutcome::Answered);
}

#[test]
fn the_request_line_is_the_same_over_http_2() {
    let line = line("common", |access| {
        let mut head = request("http://shop.example/a?b");
        head.version = Version::HTTP_2;
        let meta = RequestMeta {
            id: RequestId::new(None),
            trace: None,
            force_debug: false,
        };
        let peer = "127.0.0.1:1234".parse().unwrap();
        drop(access.begin(&head, peer, &RequestLog::new(meta)));
    });
    assert!(line.contains(r#""GET /a?b HTTP/2.0""#), "{line}");
}

#[test]
fn every_atom_is_written() {
    let table = [
        ("%(h)s", "127.0.0.1"),
        ("%(l)s", "-"),
        ("%(u)s", "user"),
        ("%(r)s", "GET /cart?a=1 HTTP/1.1"),
        ("%(m)s", "GET"),
        ("%(U)s", "/cart"),
        ("%(q)s", "a=1"),
        ("%(H)s", "HTTP/1.1"),
        ("%(s)s", "200"),
        ("%(B)s", "12"),
        ("%(b)s", "12"),
        ("%(f)s", r#"https://a.example/\"x\""#),
        ("%(a)s", r"evil\xff\x80\\"),
        ("%(T)s", "0"),
        ("%({x-one}i)s %({X-Two}o)s %({none}i)s", "first second -"),
        ("%({content-length}o)s", "12"),
        (
            "%({plugin}e)s %({generation}e)s %({outcome}e)s",
            "shop 3 answered",
        ),
        ("%({request_id}e)s", "7f"),
        ("%({trace_id}e)s", "0af7651916cd43dd8448eb211c80319c"),
        ("%({span_id}e)s", "b7ad6b7169203331"),
        (
            "%({REMOTE_PORT}e)s %({REQUEST_METHOD}e)s %({PATH_INFO}e)s",
            "1234 GET /cart",
        ),
        ("100 %% of %(s)s", "100 % of 200"),
    ];
    for (format, expected) in table {
        let line = line(format, |access| answered(access, "/cart?a=1", 200));
        assert_eq!(line, format!("{expected}\n"), "{format}");
    }
    let bodiless = line("%({content-length}o)s", |access| answered(access, "/", 204));
    assert_eq!(bodiless, "-\n", "the server adds none");
    let process = line("%(p)s", |access| answered(access, "/", 200));
    assert_eq!(process, format!("<{}>\n", std::process::id()));
    let times = line("%(M)s %(D)s %(L)s %(t)s", |access| {
        answered(access, "/", 200)
    });
    let times: Vec<_> = times.trim().splitn(4, ' ').collect();
    assert!(
        times[0].parse::<u32>().is_ok() && times[1].parse::<u32>().is_ok(),
        "{times:?}"
    );
    assert!(
        times[2].starts_with("0.0") && times[2].len() == 8,
        "{times:?}"
    );
    assert!(
        times[3].starts_with('[') && times[3].ends_with(" +0000]") && times[3].len() == 28,
        "{times:?}"
    );
}

#[test]
fn common_and_combined_begin_as_in_other_servers() {
    let common = line("common", |access| answered(access, "/", 404));
    assert!(common.starts_with("127.0.0.1 - user ["), "{common}");
    assert!(
        common.contains(r#"] "GET / HTTP/1.1" 404 12 shop#3 7f answered "#),
        "{common}"
    );
    let combined = line("combined", |access| answered(access, "/", 200));
    assert!(
        combined
            .contains(r#"200 12 "https://a.example/\"x\"" "evil\xff\x80\\" shop#3 7f answered "#),
        "{combined}"
    );
}

#[test]
fn json_is_an_object_with_every_key() {
    let text = line("json", |access| answered(access, "/cart?a=1", 200));
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["path"], "/cart");
    assert_eq!(object["query"], "a=1");
    assert_eq!(object["status"], 200);
    assert_eq!(object["plugin"], "shop");
    assert_eq!(object["generation"], 3);
    assert_eq!(object["request_id"], "7f");
    assert_eq!(object["outcome"], "answered");
    assert_eq!(object["user_agent"], "evil\u{fffd}\u{fffd}\\");
}

#[test]
fn successes_are_skipped_and_failures_are_not() {
    assert_eq!(
        line("common", |access| answered(access, "/healthz?x", 200)),
        ""
    );
    assert_ne!(
        line("common", |access| answered(access, "/healthz", 503)),
        ""
    );
    assert_ne!(
        line("common", |access| answered(access, "/healthz/", 200)),
        ""
    );
}

#[test]
fn a_rejected_head_gets_a_line() {
    let peer = "[::1]:1".parse().unwrap();
    let none = |access: &Arc<AccessLog>| {
        access.record_rejected_head(peer, StatusCode::REQUEST_TIMEOUT, RequestOutcome::TimedOut);
    };
    let text = line("common", none);
    assert!(
        text.starts_with("::1 - - [") && text.contains(r#""-" 408 - -#- - timed_out "#),
        "{text}"
    );
    assert_eq!(line("%(m)s %(U)s %(q)s.", none), "- - .\n");
}

#[test]
fn the_error_of_a_format_names_what_was_expected() {
    for (format, start) in [
        ("short", "\"short\" is not a format"),
        ("", "\"\" is not a format"),
        ("%(x)s", "%(x)s is not an atom"),
        ("%({x}z)s", "%({x}z)s is not an atom"),
        ("%({HOME}e)s", "%({HOME}e)s is not an atom"),
        ("50%", "\"%\" is not an atom"),
        ("%h", "\"%h\" is not an atom"),
    ] {
        let error = format.parse::<AccessFormat>().unwrap_err().to_string();
        assert!(error.starts_with(start), "{format}: {error}");
    }
}
