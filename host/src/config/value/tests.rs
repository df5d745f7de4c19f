use std::time::Duration;

use plugin_api::level::Directives;

use super::{
    super::quantity::{body_size, boolean, duration, header_bytes, positive_duration},
    *,
};
use crate::fuzz::{Random, one_line};

#[test]
fn addresses_have_a_host_and_a_port() {
    for good in [
        "127.0.0.1:8000",
        "[::1]:0",
        "[::]:443",
        "localhost:8000",
        "my-host.example:1",
    ] {
        assert_eq!(good.parse::<BindAddress>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "8000",
        ":8000",
        "localhost",
        "127.0.0.1",
        "::1:8000",
        "a b:1",
        "localhost:65536",
        "http://a:1",
    ] {
        assert_eq!(
            bad.parse::<BindAddress>(),
            Err(ValueError::Address(bad.to_owned()))
        );
    }
    let resolved: Vec<_> = "127.0.0.1:8000"
        .parse::<BindAddress>()
        .unwrap()
        .to_socket_addrs()
        .unwrap()
        .collect();
    assert_eq!(resolved, [SocketAddr::from(([127, 0, 0, 1], 8000))]);
}

#[test]
fn control_sockets_are_unix_sockets() {
    for text in ["unix:/run/host.sock", "/run/host.sock", "/run/./host.sock"] {
        let socket: ControlSocket = text.parse().unwrap();
        assert_eq!(socket.path(), Path::new("/run/host.sock"));
        assert_eq!(socket.to_string(), "unix:/run/host.sock");
    }
    // Wherever the process goes, the socket stays.
    let here = std::env::current_dir().unwrap();
    for text in ["unix:host.sock", "./host.sock"] {
        let socket: ControlSocket = text.parse().unwrap();
        assert_eq!(socket.path(), here.join("host.sock"));
    }
    for bad in ["", "unix:", "127.0.0.1:9000", "9000"] {
        assert_eq!(
            bad.parse::<ControlSocket>(),
            Err(ValueError::ControlSocket(bad.to_owned()))
        );
    }
}

#[test]
fn a_debug_header_needs_the_whole_secret() {
    let header: DebugHeader = "X-Debug=long=secret".parse().unwrap();
    let carries = |value: &'static str| {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-debug"),
            HeaderValue::from_static(value),
        )]);
        header.is_in(&headers)
    };
    assert!(carries("long=secret"));
    assert!(!carries("long=secre") && !carries("long=secret2") && !carries(""));
    assert!(!header.is_in(&HeaderMap::new()));
    assert!(!format!("{header:?}").contains("secret"));
    for bad in [
        "",
        "X-Debug",
        "X-Debug=",
        "X-Debug=short",
        "X Debug=longsecret",
        "X-Debug=long\nsecret",
    ] {
        assert!(bad.parse::<DebugHeader>().is_err(), "{bad}");
    }
}

#[test]
fn mounts_have_a_path_and_a_plugin() {
    for (text, path, plugin) in [
        ("/=hello", "/", "hello"),
        ("/a/b=my-shop", "/a/b", "my-shop"),
        ("/a=b=c", "/a=b", "c"),
    ] {
        assert_eq!(
            text.parse(),
            Ok(Mount {
                path: path.to_owned(),
                plugin: plugin.to_owned()
            })
        );
    }
    for bad in [
        "",
        "/shop",
        "shop=/shop",
        "/shop/=shop",
        "/shop=",
        "=shop",
        "/shop=a b",
    ] {
        assert_eq!(bad.parse::<Mount>(), Err(ValueError::Mount(bad.to_owned())));
    }
}

/// Parses a value, and returns how it is written.
type Rewrite = fn(&str) -> Result<String, String>;

fn rewrite<T: FromStr<Err: ToString>>(
    text: &str,
    write: impl Fn(T) -> String,
) -> Result<String, String> {
    text.parse()
        .map(write)
        .map_err(|error: T::Err| error.to_string())
}

/// Every kind of value, with valid samples.
const KINDS: [(Rewrite, &[&str]); 11] = [
    (
        |text| rewrite(text, |address: BindAddress| address.to_string()),
        &["127.0.0.1:8000", "[::1]:0", "my-host.example:65535"],
    ),
    (
        |text| rewrite(text, |socket: ControlSocket| socket.to_string()),
        &["unix:/run/host.sock", "/run/host.sock", "unix:host.sock"],
    ),
    (
        |text| {
            rewrite(text, |mount: Mount| {
                format!("{}={}", mount.path, mount.plugin)
            })
        },
        &["/=hello", "/shop=shop", "/a=b/%2e=my-app"],
    ),
    (
        |text| {
            rewrite(text, |sink: LineSink| match sink {
                LineSink::Stdout => "-".to_owned(),
                LineSink::File(path) => path.display().to_string(),
            })
        },
        &["-", "/var/log/access", "access.log"],
    ),
    (
        |text| {
            rewrite(text, |header: DebugHeader| {
                let secret = String::from_utf8_lossy(&header.secret);
                assert!(secret.len() >= 8);
                format!("{}={secret}", header.name)
            })
        },
        &["x-debug=12345678", "X-Debug-Log=correct-horse"],
    ),
    (
        |text| rewrite(text, |levels: Directives| levels.to_string()),
        &[
            "info",
            "warning,shop=debug",
            "error,cart#=trace,hyper::proto=off",
        ],
    ),
    (
        |text| {
            let time = duration(text).map_err(|error| error.to_string())?;
            assert!(time <= Duration::from_secs(365 * 24 * 60 * 60));
            Ok(humantime::format_duration(time).to_string())
        },
        &["30", "500ms", "1m 30s", "0", "365days"],
    ),
    (
        |text| {
            let time = positive_duration(text).map_err(|error| error.to_string())?;
            assert!(!time.is_zero());
            Ok(humantime::format_duration(time).to_string())
        },
        &["30", "500ms", "1m 30s", "1ns"],
    ),
    (
        |text| match body_size(text).map_err(|error| error.to_string())? {
            0 => panic!("{text:?} is no size"),
            u64::MAX => Ok("none".to_owned()),
            bytes => Ok(bytes.to_string()),
        },
        &["16KiB", "1GB", "none", "2 mib", "1"],
    ),
    (
        |text| {
            let bytes = header_bytes(text).map_err(|error| error.to_string())?;
            assert!((8 << 10..=16 << 20).contains(&bytes));
            Ok(bytes.to_string())
        },
        &["16KiB", "8192", "16MiB"],
    ),
    (
        |text| {
            let is = boolean(text).map_err(|error| error.to_string())?;
            Ok(is.to_string())
        },
        &["true", "Yes", "on", "0", "OFF"],
    ),
];

#[test]
fn a_value_reads_as_it_is_written_or_is_an_error_of_one_line() {
    let mut random = Random::new(7);
    for (at, (rewrite, samples)) in KINDS.into_iter().enumerate() {
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..3_000 {
            let text = random.text(samples);
            match rewrite(&text) {
                Ok(written) => {
                    accepted += 1;
                    assert_eq!(rewrite(&written).as_ref(), Ok(&written), "{text:?}");
                }
                Err(error) => {
                    rejected += 1;
                    let error = one_line(error, &text);
                    assert!(error.contains("expected"), "{text:?}: {error}");
                }
            }
        }
        assert!(
            accepted > 100 && rejected > 100,
            "kind {at}: {accepted} {rejected}"
        );
    }
}
